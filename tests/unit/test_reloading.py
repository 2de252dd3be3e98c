"""What a reload changes in a worker, what it says of it, and when it changes nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tokenhub.access import AdminToken, digest_of
from tokenhub.config import Settings, rows
from tokenhub.errors import ConfigError
from tokenhub.reloading import APPLIED, Reloader
from tokenhub.telemetry import LogLevel


class Worker:
    """The parts of a worker that are told of new settings, and what they were told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.admins = SimpleNamespace(tokens={})
        self.environ: dict[str, str] = {}
        self.is_speaker = True
        anything: Any = self
        self.reloader = Reloader(
            settings=Settings.from_env({}),
            read=lambda: Settings.from_env(self.environ),
            catalog=anything,
            limiter=anything,
            credentials=anything,
            log_level=LogLevel("info"),
            is_speaker=lambda: self.is_speaker,
        )

    def reload(self, **environ: str) -> None:
        self.environ = {f"TOKENHUB_{name}": value for name, value in environ.items()}
        self.reloader.reload()

    def latest(self) -> Worker:
        return self

    def set_defaults(self, defaults: Any) -> None:
        self.told.append(defaults.mode)

    def configure(self, settings: Settings) -> None:
        self.told.append(settings.rate_limit_rps)

    def read_again(self) -> None:
        self.told.append("credentials")


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture(autouse=True)
def heard(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pytest.LogCaptureFixture]:
    """The log, which the product keeps to itself; afterwards it is as it was."""
    logger = logging.getLogger("tokenhub")
    level = logger.level
    monkeypatch.setattr(logger, "propagate", False)
    monkeypatch.setattr(logger, "handlers", [caplog.handler])
    logger.setLevel("INFO")
    yield caplog
    logger.setLevel(level)


def facts(heard: pytest.LogCaptureFixture, message: str) -> list[dict[str, Any]]:
    return [vars(each) for each in heard.records if each.getMessage() == message]


def test_only_settings_that_are_no_secret_change_while_a_worker_runs():
    assert set(rows()) >= APPLIED
    assert not any(rows()[name].secret for name in APPLIED)


def test_what_has_changed_is_applied_and_told_once(worker, heard):
    worker.reload(DEFAULT_MODE="cheap", RATE_LIMIT_RPS="7", LOG_LEVEL="error")
    assert worker.told == ["credentials", "cheap", 7.0]
    [told] = facts(heard, "settings changed")
    assert told["changed"] == {
        "TOKENHUB_DEFAULT_MODE": ["normal", "cheap"], "TOKENHUB_RATE_LIMIT_RPS": [60.0, 7.0],
        "TOKENHUB_LOG_LEVEL": ["info", "error"],
    }  # fmt: skip
    worker.reload(DEFAULT_MODE="cheap", RATE_LIMIT_RPS="7", LOG_LEVEL="error")
    assert len(facts(heard, "settings changed")) == 1
    assert logging.getLogger("tokenhub").level == logging.ERROR


def test_what_needs_a_restart_is_named_as_long_as_it_differs_and_never_shown(worker, heard):
    worker.reload(VAULT_PASSWORD="canary-1", ADMIN_TOKEN="canary-2", WORKERS="3")
    worker.reload(WORKERS="3")
    worker.reload()
    assert [each["settings"] for each in facts(heard, "settings need a restart")] == [
        ["TOKENHUB_WORKERS", "TOKENHUB_ADMIN_TOKEN", "TOKENHUB_VAULT_PASSWORD"],
        ["TOKENHUB_WORKERS"],
    ]
    assert "canary" not in str([vars(each) for each in heard.records])


def test_an_admin_token_that_was_rotated_needs_no_restart(worker, heard):
    root = AdminToken("root", "root", "owner", digest_of("rotated"), "rota")
    worker.admins.tokens[root.sha256] = root
    worker.reload(ADMIN_TOKEN="rotated")
    assert facts(heard, "settings need a restart") == []


def test_settings_that_are_wrong_change_nothing_and_are_all_named(worker, heard):
    worker.reload(DEFAULT_MODE="cheap")
    worker.told.clear()
    worker.reload(DEFAULT_MODE="nonsense", RATE_LIMIT_RPS="many")
    assert worker.told == ["credentials"], "a good file beside a bad one counts"
    [told] = facts(heard, "reload refused")
    assert "TOKENHUB_DEFAULT_MODE" in told["problems"]
    assert "TOKENHUB_RATE_LIMIT_RPS" in told["problems"]


def test_one_worker_speaks_for_all(worker, heard):
    worker.is_speaker = False
    worker.reload(DEFAULT_MODE="cheap", WORKERS="3")
    assert worker.told == ["credentials", "cheap", 60.0]
    assert [each for each in heard.records if each.name == "tokenhub.reloading"] == []


def test_a_file_that_cannot_be_read_is_a_problem_like_others(worker, heard):
    def fail() -> Settings:
        raise ConfigError("TOKENHUB_ENV_FILE: it is gone")

    cast(Any, worker.reloader)._read = fail
    worker.reloader.reload()
    assert [each["problems"] for each in facts(heard, "reload refused")] == [
        "TOKENHUB_ENV_FILE: it is gone"
    ]

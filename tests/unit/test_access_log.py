"""Which requests have a line in the access log, and what it says."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from tokenhub.config import Settings
from tokenhub.domain import ApiKey, Caller, Outcome
from tokenhub.web.access_log import CHARS_MAX, AccessLog
from tokenhub.web.guards import CALLER, CODE, OUTCOME, REQUEST_ID

CHAT = "/v1/chat/completions"


class Kept(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def lines() -> Iterator[list[logging.LogRecord]]:
    logger, kept = logging.getLogger("tokenhub.access"), Kept()
    before = logger.level, logger.propagate
    logger.addHandler(kept)
    logger.setLevel("INFO")
    logger.propagate = False
    yield kept.records
    logger.removeHandler(kept)
    logger.setLevel(before[0])
    logger.propagate = before[1]


def make(which: str, **more: str) -> AccessLog:
    variables = {f"TOKENHUB_{name}": value for name, value in more.items()}
    return AccessLog(Settings.from_env({"TOKENHUB_ACCESS_LOG": which, **variables}))


def environ(**more: Any) -> dict[str, Any]:
    return {"REQUEST_METHOD": "POST", "PATH_INFO": CHAT, "QUERY_STRING": "key=1",
            "REMOTE_ADDR": "10.0.0.9", **more}  # fmt: skip


def outcome(ending: Any = "answered") -> Outcome:
    return Outcome("req_1", "key_1", CHAT, "normal", False, 1, ending=ending, model_id="m",
                   provider_id="p", trace_id="t")  # fmt: skip


def test_a_line_says_who_asked_what_and_how_it_ended(lines):
    caller = Caller(ApiKey("key_1", "k", "tok", b"", ""), "10.0.0.9", "req_1")
    given = environ(
        HTTP_X_REQUEST_ID="mine", **{CALLER: caller, OUTCOME: outcome(), REQUEST_ID: "req_1"}
    )
    make("all")(given, 200, 812, 0.0123)
    [line] = lines
    expected = {
        "method": "POST", "path": CHAT, "status": 200, "bytes": 812, "duration_ms": 12.3,
        "request_id": "req_1", "client_request_id": "mine", "client_ip": "10.0.0.9",
        "api_key_id": "key_1", "endpoint": CHAT, "model": "m", "provider": "p",
        "outcome": "answered", "trace_id": "t", "code": "",
    }  # fmt: skip
    assert {name: vars(line)[name] for name in expected} == expected
    assert (line.getMessage(), line.levelname) == ("http request", "INFO")


@pytest.mark.parametrize(
    ("status", "ending", "level"),
    [
        (200, None, ""), (200, "answered", ""), (200, "rescued", ""), (304, None, ""),
        (200, "cut", "INFO"), (200, "client_closed", "INFO"), (0, "client_closed", "INFO"),
        (0, None, "INFO"), (401, None, "INFO"), (429, None, "INFO"), (400, "refused", "INFO"),
        (503, "failed", "ERROR"), (500, None, "ERROR"),
    ],
)  # fmt: skip
def test_what_came_to_nothing_has_a_line_by_default(lines, status, ending, level):
    found = {} if ending is None else {OUTCOME: outcome(ending)}
    AccessLog(Settings.from_env({}))(environ(**found), status, 0, 0.1)
    assert "".join(each.levelname for each in lines) == level


def test_a_refusal_says_why_and_believes_only_our_proxies(lines):
    given = environ(HTTP_X_FORWARDED_FOR="1.2.3.4", **{CODE: "missing_api_key"})
    make("errors", TRUSTED_PROXIES="10.0.0.0/8")(given, 401, 0, 0.1)
    make("errors")(given, 401, 0, 0.1)
    assert [vars(each)["client_ip"] for each in lines] == ["1.2.3.4", "10.0.0.9"]
    assert vars(lines[0])["code"] == "missing_api_key"


def test_what_was_no_http_has_a_line_as_well_and_no_line_is_long(lines):
    known = {"REMOTE_ADDR": "10.0.0.9", "REQUEST_METHOD": "x" * 999, "PATH_INFO": "y" * 999}
    make("errors")(known, 400, 0, 0.0)
    [line] = lines
    assert len(vars(line)["method"]) == len(vars(line)["path"]) == CHARS_MAX


def test_below_the_level_nothing_is_done_for_a_line(lines):
    logging.getLogger("tokenhub.access").setLevel("WARNING")
    make("all")(environ(), 200, 0, 0.1)
    make("all")(environ(), 502, 0, 0.1)
    assert [each.levelname for each in lines] == ["ERROR"]

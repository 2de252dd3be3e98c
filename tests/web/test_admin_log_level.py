"""How much is logged changes while the gateway runs, everywhere, and back."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.web.conftest import Admin

LOGGER = logging.getLogger("tokenhub")


@pytest.fixture(autouse=True)
def level() -> Iterator[None]:
    before = LOGGER.level
    yield
    LOGGER.setLevel(before)


def test_the_settings_decide_until_somebody_saves_a_level(make_app):
    admin = Admin(make_app(TOKENHUB_LOG_LEVEL="warn").test_client())
    assert admin.ok("GET", "log-level") == {"level": "warn", "saved": False}
    assert admin.ok("PUT", "log-level", {"level": "debug"}) == {"level": "debug", "saved": True}
    assert LOGGER.level == logging.DEBUG
    assert admin.ok("GET", "log-level") == {"level": "debug", "saved": True}
    assert admin.ok("PUT", "log-level", {"level": "settings"}) == {"level": "warn", "saved": False}
    assert LOGGER.level == logging.WARNING


def test_what_is_saved_holds_for_other_workers_and_after_a_restart(make_app):
    here, there = make_app(), make_app()
    Admin(here.test_client()).ok("PUT", "log-level", {"level": "error"})
    LOGGER.setLevel("INFO")  # as in the other worker, which has not heard of it yet
    there.services.catalog.current()
    assert LOGGER.level == logging.ERROR
    make_app(TOKENHUB_LOG_LEVEL="debug")
    assert LOGGER.level == logging.ERROR


def test_a_reload_changes_what_the_settings_say_and_not_what_was_saved(make_app):
    app = make_app()
    admin = Admin(app.test_client())
    admin.ok("PUT", "log-level", {"level": "error"})
    app.services.log_level.configure("debug")
    assert LOGGER.level == logging.ERROR
    assert admin.ok("PUT", "log-level", {"level": "settings"})["level"] == "debug"
    assert LOGGER.level == logging.DEBUG


def test_who_changed_it_is_in_the_audit(admin):
    admin.ok("PUT", "log-level", {"level": "debug"})
    [row] = [
        each for each in admin.ok("GET", "audit")["logs"] if each["action"] == "log-level.update"
    ]
    assert '"debug"' in str(row["detail"]).replace("'", '"')


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({}, "missing_field", "level"),
        ({"level": "loud"}, None, "level"),
        ({"level": 3}, None, "level"),
        ({"level": "info", "more": 1}, "unknown_field", "more"),
    ],
)
def test_what_is_no_level_is_refused_by_name(admin, body, code, param):
    status, told, named = admin.refused("PUT", "log-level", body)
    assert (status, named) == (400, param)
    assert code in (None, told)
    assert admin.ok("GET", "log-level")["saved"] is False

"""What operators read is complete, correct and machine-readable."""

from __future__ import annotations

import json
import logging
import sys

from hypothesis import given
from hypothesis import strategies as st

from tokenhub.telemetry import JsonFormatter, configure_logging


def logged(**extra: object) -> dict[str, object]:
    record = logging.makeLogRecord(
        {"name": "tokenhub.test", "levelname": "INFO", "msg": "it happened", **extra}
    )
    line = JsonFormatter().format(record)
    assert "\n" not in line
    found: dict[str, object] = json.loads(line)
    return found


def test_a_log_line_is_one_json_object_with_its_facts():
    found = logged(segment=3, path=object)
    assert found["message"] == "it happened"
    assert (found["level"], found["logger"], found["segment"]) == ("info", "tokenhub.test", 3)
    assert str(found["time"]).endswith("Z")
    assert set(found) == {"time", "level", "logger", "message", "segment", "path"}


@given(st.text(), st.text())
def test_no_text_breaks_the_line(message, fact):
    found = logged(msg=message, fact=fact)
    assert (found["message"], found["fact"]) == (message, fact)


def test_an_exception_is_one_field_of_the_line():
    try:
        raise ValueError("on\npurpose")
    except ValueError:
        found = logged(exc_info=sys.exc_info())
    assert "ValueError: on\npurpose" in str(found["exception"])


def test_logging_is_set_up_once_and_its_level_may_change_later():
    logger = logging.getLogger("tokenhub")
    before = (logger.handlers[:], logger.level, logger.propagate)
    try:
        for level in ("warn", "debug"):
            configure_logging(level)
        assert logger.level == logging.DEBUG
        ours = [each for each in logger.handlers if isinstance(each.formatter, JsonFormatter)]
        assert len(ours) == 1
    finally:
        logger.handlers[:], level_before, logger.propagate = before
        logger.setLevel(level_before)

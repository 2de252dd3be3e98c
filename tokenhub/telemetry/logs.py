"""Log lines: one JSON object for each event, without secrets. Knows nothing of who logs."""

from __future__ import annotations

import json
import logging
import sys
import time

from tokenhub.telemetry.redaction import is_suspect, redact, speaks_of_secret

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING,
          "error": logging.ERROR}  # fmt: skip
_SIMPLE = frozenset({str, int, float, bool, type(None)})
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, the constant message, and the facts."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in vars(record).items():
            if name not in _PLAIN:
                is_plain = type(value) in _SIMPLE and not speaks_of_secret(name)
                line[name] = value if is_plain else redact(value, name)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        text = json.dumps(line)
        # Nearly always nothing is there: one look at all of it says so.
        return json.dumps(redact(line)) if is_suspect(text) else text


class LogLevel:
    """How much one worker logs: what an administrator has saved, or else what the settings say.

    Args:
        configured: that of the settings (debug, info, warn, error).
    """

    def __init__(self, configured: str) -> None:
        self.configured = configured
        self._saved = ""
        self._apply()

    def configure(self, level: str) -> None:
        """The settings say another one."""
        self.configured = level
        self._apply()

    def save(self, level: str) -> None:
        """An administrator says another one; "" = leaves it to the settings."""
        self._saved = level
        self._apply()

    def _apply(self) -> None:
        configure_logging(self._saved or self.configured)


def configure_logging(level: str) -> None:
    """Log to standard error at `level` (debug, info, warn, error). May be called again."""
    logger = logging.getLogger("tokenhub")
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        formatter = JsonFormatter()
        formatter.converter = time.gmtime
        handler.setFormatter(formatter)
        logger.addHandler(handler)
        logger.propagate = False
    logger.setLevel(LEVELS[level])

"""The access log: a line for an HTTP request that has ended, whoever answered it.

Also for those that never came as far as a key (401, 413, 429, no HTTP at all), which have no row
anywhere. Written when the client has its answer, from what the request left in its environ.
"""

from __future__ import annotations

import logging

from tokenhub.config import Settings
from tokenhub.domain import Caller, Outcome
from tokenhub.web import guards
from tokenhub.web.guards import CALLER, CODE, OUTCOME, REQUEST_ID, Environ

CHARS_MAX = 200
"""Of a path, and of a method, which may be anything."""

SERVED = frozenset({"answered", "rescued"})

log = logging.getLogger("tokenhub.access")


class AccessLog:
    """Writes one worker's lines.

    Args:
        settings: whose addresses are believed, and whether requests that went well have a line.
    """

    def __init__(self, settings: Settings) -> None:
        self._has_all = settings.access_log == "all"
        self._trusted = settings.trusted_proxies

    def __call__(self, environ: Environ, status: int, sent_bytes: int, took_secs: float) -> None:
        """A request has ended.

        Args:
            environ: of what was no HTTP: its peer's address, and what was read of its first line.
            status: what the client was told; 0 = it left before.
            sent_bytes: of the body.
        """
        outcome: Outcome | None = environ.get(OUTCOME)
        went_well = 0 < status < 400 and (outcome is None or outcome.ending in SERVED)
        if went_well and not self._has_all:
            return
        level = logging.ERROR if status >= 500 else logging.INFO
        if not log.isEnabledFor(level):
            return
        caller: Caller | None = environ.get(CALLER)
        facts = {
            "method": environ.get("REQUEST_METHOD", "")[:CHARS_MAX],
            "path": environ.get("PATH_INFO", "")[:CHARS_MAX],
            "status": status,
            "bytes": sent_bytes,
            "duration_ms": round(took_secs * 1000, 1),
            "request_id": environ.get(REQUEST_ID, ""),
            "client_request_id": guards.client_request_id(environ),
            "client_ip": guards.client_ip(environ, self._trusted),
            "code": environ.get(CODE, ""),
        }
        if caller is not None:
            facts["api_key_id"] = caller.key.id
        if outcome is not None:
            facts |= _of_model(outcome)
        log.log(level, "http request", extra=facts)


def _of_model(outcome: Outcome) -> dict[str, object]:
    return {
        "endpoint": outcome.endpoint,
        "model": outcome.model_id,
        "provider": outcome.provider_id,
        "outcome": outcome.ending,
        "trace_id": outcome.trace_id,
    }

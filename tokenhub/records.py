"""What the journal's records hold, as the ingester reads them.

Written by this version, or refused: a record of another one is set aside. Knows no database.
"""

from __future__ import annotations

from typing import Any

import orjson

from tokenhub import journal, recorder, store
from tokenhub.budgets import Account
from tokenhub.domain import ESCALATED

UNREADABLE = (ValueError, TypeError, LookupError)
"""What is raised when a record was not written by this version."""

_ROW_WIDTH, _ATTEMPT_WIDTHS = len(store.LOG_COLUMNS), {len(store.ATTEMPT_COLUMNS)}

NOTES = {
    journal.EVENT: ((int,), (str,), (str,), (str,)),
    journal.FEEDBACK: ((int,), (str,), (str,), (str,), (int, float), (str,)),
}
"""Records that are no requests, and what their columns hold."""


def parse_request(payload: bytes) -> list[Any]:
    """The parts of a record that `recorder.payload_of` made: the row, its attempts, of an end
    whether it had been opened and of an opening what was set aside (in each account), and the
    accounts.

    Raises:
        ValueError, TypeError, LookupError: not written by this version.
    """
    columns, _, decision = payload.partition(b"\n")
    row, attempts, third, accounts = orjson.loads(columns)
    row.append(decision.decode())
    if len(row) != _ROW_WIDTH or set(map(len, attempts)) - _ATTEMPT_WIDTHS:
        raise ValueError("the columns of another version")
    if not decision.startswith(b"{"):
        raise ValueError("the decision of another version")
    return [row, attempts, third, [Account(*each) for each in accounts]]


def parse_note(kind: bytes, payload: bytes) -> tuple[Any, ...]:
    """The columns of an event or of feedback. Looked at here: SQLite takes any value into any.

    Raises:
        ValueError, TypeError: not written by this version.
    """
    row, kinds = orjson.loads(payload), NOTES[kind]
    if not isinstance(row, list):
        raise TypeError("not columns")
    if any(type(each) not in kind for each, kind in zip(row, kinds, strict=True)):
        raise TypeError("the columns of another version")
    return tuple(row)


def list_escalations(row: list[Any], attempts: list[list[Any]]) -> list[tuple[Any, ...]]:
    """An event (at, type, api_key_id, fields) for each attempt of a request that was made because
    it had been too long for another model."""
    return [
        (
            row[recorder.STARTED_AT] + attempt[recorder.STARTED_MS],
            "escalation",
            row[recorder.KEY_ID],
            orjson.dumps(
                {
                    "request_id": row[0],
                    "model_id": attempt[0],
                    "provider_id": attempt[1],
                    "reason": ESCALATED,
                }
            ).decode(),
        )
        for attempt in attempts
        if attempt[recorder.REASON_OF_ATTEMPT] == ESCALATED
    ]

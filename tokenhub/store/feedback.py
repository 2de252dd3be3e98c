"""What callers and administrators said of answers, and which of it counts.

Anybody may say something of any id: it is written down before anybody knows of the request, and
whether it counts is seen when both are here. It does if it comes from the key that made the
request, or from an administrator. Of what each of them said the last counts, and an
administrator's word goes before the key's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import orjson
from sqlalchemy import ColumnElement, Connection, and_, insert, or_, select, update
from sqlalchemy import text as sql

from tokenhub.db.traffic_tables import events, feedback, request_logs

TELL_WITHIN_MS = 3_600_000
"""How much later than what was said of it a request's row may come, and still make an event."""

TOLD_MAX = 1000
"""Events in one transaction; more come with the next."""

_UNTOLD = sql("feedback.told_at = 0")  # word for word, as the index has it


@dataclass(frozen=True, slots=True)
class Feedback:
    """What counts of what was said of a request.

    Args:
        score: 0 (bad) to 1 (good).
        label: a word, or "".
        at: when it was said.
        actor: who said it, as the audit names them.
        is_administrators: whether it is an administrator's word rather than the key's own.
    """

    score: float
    label: str
    at: int
    actor: str
    is_administrators: bool


def find_feedback(connection: Connection, request_ids: Sequence[str]) -> dict[str, Feedback]:
    """What counts, by request id; of the others nothing was said that does.

    Args:
        request_ids: a page of them: 10,000 at most.
    """
    said = feedback.c
    query = (
        select(
            said.request_id, said.score, said.label, said.at, said.actor,
            (said.api_key_id == "").label("is_administrators"),
        )
        .join(request_logs, _may_speak())
        .where(said.request_id.in_(request_ids))
        .order_by(said.at, said.id)
    )  # fmt: skip
    found: dict[str, Feedback] = {}
    for request_id, *rest in connection.execute(query):
        each, before = Feedback(*rest), found.get(request_id)
        if before is None or each.is_administrators or not before.is_administrators:
            found[request_id] = each
    return found


def tell_feedback(connection: Connection, host_id: str, newest_at: int) -> None:
    """Write an event for all that counts and has none yet; once for each, whoever asks.

    Args:
        host_id: whose events they become.
        newest_at: the time of the newest row that is there; what was said long before is left out.
    """
    said = feedback.c
    query = (
        select(
            said.id, said.at, said.request_id, said.score, said.label, said.api_key_id,
            request_logs.c.api_key_id.label("asked_by"),
        )
        .join(request_logs, _may_speak())
        .where(_UNTOLD, said.at >= newest_at - TELL_WITHIN_MS)
        .order_by(said.at.desc())
        .limit(TOLD_MAX)
        # What another host is just telling is left to it.
        .with_for_update(of=feedback, skip_locked=True)
    )  # fmt: skip
    found = connection.execute(query).all()[::-1]
    if not found:
        return
    ids = [row.id for row in found]
    connection.execute(update(feedback).where(said.id.in_(ids)).values(told_at=newest_at))
    rows = [
        {
            "host_id": host_id,
            "at": row.at,
            "type": "feedback",
            "api_key_id": row.asked_by,
            "fields": orjson.dumps(
                {
                    "request_id": row.request_id,
                    "score": row.score,
                    "label": row.label,
                    "by": "key" if row.api_key_id else "administrator",
                }
            ).decode(),
        }
        for row in found
    ]
    connection.execute(insert(events), rows)


def _may_speak() -> ColumnElement[bool]:
    """Joins what was said to the request that it is about, if whoever said it may."""
    owner = feedback.c.api_key_id == request_logs.c.api_key_id
    return and_(
        feedback.c.request_id == request_logs.c.request_id,
        or_(owner, feedback.c.api_key_id == ""),
    )

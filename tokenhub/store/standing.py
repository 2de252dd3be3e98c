"""How models and providers stand on each host, by the changes of their health that it has told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import orjson
from sqlalchemy import Connection, and_, or_, select

from tokenhub.db.traffic_tables import events

ROWS_MAX = 5000
"""Changes that are looked at, the newest. What lasts longer than so many others is forgotten."""

ILL = ("down", "degraded", "silent")


class Standing(NamedTuple):
    """A model or a provider that is not well on a host.

    Args:
        kind: model or provider.
        since_at: when it was last well, unix ms.
        until_at: when its rest is over; 0 = it does not rest.
    """

    host_id: str
    kind: str
    id: str
    state: str
    breaker: str
    reason: str
    since_at: int
    until_at: int


def list_ill(connection: Connection, started: Mapping[str, int]) -> list[Standing]:
    """Who is not well, on which host.

    Args:
        started: by host, when its run began, unix ms: a new run begins with everybody well.
    """
    if not started:
        return []
    row = events.c
    query = select(row.host_id, row.at, row.fields).where(
        row.type == "health_change",
        row.at >= min(started.values()),
        or_(*(and_(row.host_id == id_, row.at >= at) for id_, at in started.items())),
    )
    rows = connection.execute(query.order_by(row.at.desc(), row.id.desc()).limit(ROWS_MAX)).all()
    found: dict[tuple[str, str, str], Standing] = {}
    for host_id, at, text in reversed(rows):
        fields = orjson.loads(text)
        kind, state = fields.get("kind"), fields.get("new_state")
        if kind not in ("model", "provider"):
            continue
        id_ = fields.get(f"{kind}_id", "")
        before = found.pop((host_id, kind, id_), None)
        if state in ILL:
            since_at = at if before is None else before.since_at
            found[host_id, kind, id_] = Standing(
                host_id, kind, id_, state, fields.get("breaker", ""), fields.get("reason", ""),
                since_at, fields.get("until_at", 0),
            )  # fmt: skip
    return sorted(found.values())

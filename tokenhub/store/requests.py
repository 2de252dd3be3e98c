"""One request as it is looked up: its row, what was said of it, or that it is still running."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select

from tokenhub.db.traffic_tables import (
    feedback,
    hosts,
    idempotency_keys,
    openings,
    request_logs,
)
from tokenhub.store.logs import LogFilters, search_logs

FEEDBACK_MAX = 50
"""Newest ones that are shown of a request."""


def find_request(connection: Connection, request_id: str) -> dict[str, Any] | None:
    """A request's row, all columns, by our id or the client's: of several the newest, but first
    the one whose own id it is."""
    search = search_logs(LogFilters(request_id=request_id))
    is_ours = request_logs.c.request_id == request_id
    query = select(request_logs).where(*search.led).order_by(is_ours.desc(), *search.newest_first)
    row = connection.execute(query.limit(1)).mappings().first()
    return None if row is None else dict(row)


def find_opening(connection: Connection, request_id: str) -> tuple[str, bytes] | None:
    """A request that has begun and not ended: its host, and its record as the journal has it."""
    query = select(openings.c.host_id, openings.c.payload)
    row = connection.execute(query.where(openings.c.request_id == request_id)).first()
    return None if row is None else (row.host_id, row.payload)


def list_feedback(connection: Connection, request_id: str, api_key_id: str) -> list[dict[str, Any]]:
    """What was said of a request, the newest first, by those who may: its key, administrators."""
    columns = feedback.c
    query = (
        select(feedback)
        .where(columns.request_id == request_id, columns.api_key_id.in_(("", api_key_id)))
        .order_by(columns.at.desc(), columns.id.desc())
        .limit(FEEDBACK_MAX)
    )
    return [dict(row) for row in connection.execute(query).mappings()]


def find_kept_answer(connection: Connection, request_id: str) -> tuple[str, int] | None:
    """Of a request that may be sent twice: the state of what is kept of it, and until when that
    is, unix ms."""
    columns = idempotency_keys.c
    query = select(columns.state, columns.expires_at).where(columns.request_id == request_id)
    row = connection.execute(query.limit(1)).first()
    return None if row is None else (row.state, row.expires_at)


def find_host_name(connection: Connection, host_id: str) -> str | None:
    """What a host calls itself; None = it is not known any more."""
    name: str | None = connection.scalar(select(hosts.c.name).where(hosts.c.id == host_id))
    return name

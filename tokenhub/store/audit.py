"""Who changed what: rows that every change writes, and what people look up of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, Connection, insert

from tokenhub.db.catalog_tables import audit_logs
from tokenhub.store.searching import Found, IsLate, Part, Search, count, find


def insert_audit(
    connection: Connection,
    *,
    at: int,
    actor: str,
    client_ip: str,
    action: str,
    resource: str,
    detail: str,
    request_id: str,
) -> None:
    """Write down who did what, in the transaction that does it."""
    statement = insert(audit_logs).values(
        at=at,
        actor=actor,
        client_ip=client_ip,
        action=action,
        resource=resource,
        detail=detail,
        request_id=request_id,
    )
    connection.execute(statement)


@dataclass(frozen=True)
class AuditFilters:
    """Which changes.

    Args:
        from_at, to_at: when they were made, unix ms, the end not included.
        words: by column, the words of which one must be there.
    """

    from_at: int | None = None
    to_at: int | None = None
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def find_audit(
    connection: Connection, filters: AuditFilters, part: Part, *, is_late: IsLate
) -> Found:
    """A page of the audit, newest first, all columns."""
    return find(connection, _search(filters), [*audit_logs.c], part, is_late=is_late)


def count_audit(
    connection: Connection, filters: AuditFilters, *, most: int, is_late: IsLate
) -> tuple[int, bool]:
    """How many there are: see `searching.count`."""
    return count(connection, _search(filters), most=most, is_late=is_late)


def _search(filters: AuditFilters) -> Search:
    columns = audit_logs.c
    led: list[ColumnElement[bool]] = []
    if filters.from_at is not None:
        led.append(columns.at >= filters.from_at)
    if filters.to_at is not None:
        led.append(columns.at < filters.to_at)
    rest = [columns[name].in_(each) for name, each in filters.words.items()]
    return Search(audit_logs, columns.at, columns.id, tuple(led), tuple(rest))

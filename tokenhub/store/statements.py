"""The few shapes of statement that several stores need. Knows no table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, Table, func, select
from sqlalchemy.dialects import postgresql, sqlite

ONLY_ROW = 1
"""The id in tables of one row."""

Insert = postgresql.Insert | sqlite.Insert


def insert_into(connection: Connection, table: Table) -> Insert:
    """An INSERT that knows ON CONFLICT, which both databases spell alike."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


def insert_new(connection: Connection, table: Table, **values: Any) -> bool:
    """Insert a row; False, and nothing changed, if there is one with the same key."""
    statement = insert_into(connection, table).values(**values).on_conflict_do_nothing()
    # Not rowcount, which is only certain after UPDATE and DELETE.
    inserted = connection.execute(statement.returning(*table.primary_key))
    return inserted.one_or_none() is not None


def page_of(
    connection: Connection, query: Select[Any], limit: int, offset: int
) -> tuple[Sequence[RowMapping], int]:
    """One page of a query, and how many rows it has in all."""
    total = connection.scalar(select(func.count()).select_from(query.order_by(None).subquery()))
    rows = connection.execute(query.limit(limit).offset(offset)).mappings().all()
    return rows, int(total or 0)


def upsert(
    connection: Connection, table: Table, key: Mapping[str, Any], values: Mapping[str, Any]
) -> None:
    """Insert a row, or change the one that has this key."""
    statement = insert_into(connection, table).values(**key, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=[*key], set_=values))


def upsert_revised(connection: Connection, table: Table, values: dict[str, Any], at: int) -> int:
    """Create or replace a row by its key, keep the time of creation; returns its new revision."""
    statement = insert_into(connection, table).values(
        **values, revision=1, created_at=at, updated_at=at
    )
    changed = {**values, "revision": table.c.revision + 1, "updated_at": at}
    key = [*table.primary_key]
    upsert = statement.on_conflict_do_update(index_elements=key, set_=changed)
    revision: int = connection.execute(upsert.returning(table.c.revision)).scalar_one()
    return revision

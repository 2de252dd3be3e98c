"""The journal's way into the database: rows, sums and the read position in one transaction.

Every request pays for this, so rows come as tuples in the tables' order and go to the driver as
they are: building SQLAlchemy parameters costs twice what the insert itself does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Table, delete, select, update

from tokenhub.budgets import Account
from tokenhub.db.columns import metadata
from tokenhub.db.sums_tables import Family
from tokenhub.db.traffic_tables import (
    attempts,
    events,
    feedback,
    journal_offsets,
    openings,
    request_logs,
)
from tokenhub.store.feedback import tell_feedback
from tokenhub.store.ledgers import Charge, charge_ledgers
from tokenhub.store.logs import ATTEMPT_COLUMNS, IDENTITY, LOG_COLUMNS
from tokenhub.store.rollups import changed
from tokenhub.store.statements import insert_new
from tokenhub.store.turns import see_newest

_LOG = (*IDENTITY, *LOG_COLUMNS)
_STARTED_AT = _LOG.index("started_at")
_ATTEMPT = (*IDENTITY, "seq", "request_id", *ATTEMPT_COLUMNS)
_OPENING = ("request_id", "host_id", "writer", "segment", "position", "opened_at", "payload")
_EVENT = ("host_id", "at", "type", "api_key_id", "fields")
_FEEDBACK = ("at", "request_id", "api_key_id", "actor", "score", "label")

# Postgres's own names of the types in the tables that are copied into.
_PG_TYPES = {
    "VARCHAR": "text",
    "TEXT": "text",
    "BIGINT": "int8",
    "BOOLEAN": "bool",
    "BLOB": "bytea",
    "FLOAT": "float8",
}

Rows = Sequence[tuple[Any, ...]]


class LostRace(Exception):
    """Another ingester has read further meanwhile; nothing of the batch may be kept."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one step of an ingester has read.

    Args:
        positions: by segment, from where and to where it was read.
        logs: (host_id, segment, position, *LOG_COLUMNS).
        attempts: (host_id, segment, position, seq, request_id, *ATTEMPT_COLUMNS).
        openings_new: (request_id, host_id, writer, segment, position, opened_at, payload).
        openings_done: ids of requests that had been opened before and have ended.
        sums: by family, then by host, time and the family's key: what to add, as its `values`.
        charges: what it adds to the books of keys and teams.
        events: (host_id, at, type, api_key_id, fields).
        feedback: (at, request_id, api_key_id, actor, score, label).
    """

    host_id: str
    positions: dict[int, tuple[int, int]]
    logs: Rows
    attempts: Rows
    openings_new: Rows
    openings_done: Sequence[str]
    sums: Mapping[Family, Mapping[tuple[Any, ...], list[int]]]
    charges: dict[Account, Charge]
    events: Rows = ()
    feedback: Rows = ()


def ingest(connection: Connection, batch: Batch) -> None:
    """Write a batch.

    Raises:
        LostRace: the segments were not read up to where the batch begins.
    """
    see_newest(connection)
    for segment, (old, new) in batch.positions.items():
        if not _advance(connection, batch.host_id, segment, old=old, new=new):
            raise LostRace(f"segment {segment} is no longer at {old}")
    _insert(connection, request_logs, _LOG, batch.logs)
    _insert(connection, attempts, _ATTEMPT, batch.attempts)
    if batch.openings_done:  # first: one may have been opened anew
        done = openings.c.request_id.in_(batch.openings_done)
        connection.execute(delete(openings).where(done))
    _insert(connection, openings, _OPENING, batch.openings_new)
    for family, sums in batch.sums.items():
        _add_to_buckets(connection, family, sums)
    _insert(connection, events, _EVENT, batch.events)
    _insert(connection, feedback, _FEEDBACK, batch.feedback)
    if batch.logs or batch.feedback:
        tell_feedback(connection, batch.host_id, _newest_at(batch))
    charge_ledgers(connection, batch.host_id, batch.charges)


def load_positions(connection: Connection, host_id: str) -> dict[int, int]:
    """How far each segment of a host has been ingested."""
    query = select(journal_offsets.c.segment, journal_offsets.c.position)
    found = connection.execute(query.where(journal_offsets.c.host_id == host_id))
    return {row.segment: row.position for row in found}


def load_openings(connection: Connection, host_id: str) -> list[tuple[str, str, int, int, bytes]]:
    """A host's requests that have begun and not ended, as far as its journal was ingested.

    Returns: (request_id, writer, segment, position, payload).
    """
    query = select(
        openings.c.request_id,
        openings.c.writer,
        openings.c.segment,
        openings.c.position,
        openings.c.payload,
    )
    return [tuple(row) for row in connection.execute(query.where(openings.c.host_id == host_id))]


def forget_positions(connection: Connection, host_id: str, segments: Sequence[int]) -> None:
    """Drop the positions of segments that exist no more; their numbers are never used again."""
    gone = journal_offsets.c.segment.in_(segments)
    connection.execute(delete(journal_offsets).where(journal_offsets.c.host_id == host_id, gone))


def _newest_at(batch: Batch) -> int:
    """When the last of its requests began, or was spoken of."""
    began = (row[_STARTED_AT] for row in batch.logs)
    newest: int = max(*began, *(row[0] for row in batch.feedback), 0)
    return newest


def _advance(connection: Connection, host_id: str, segment: int, *, old: int, new: int) -> bool:
    """Move a read position, if it is where we think."""
    if old == 0:
        return insert_new(
            connection, journal_offsets, host_id=host_id, segment=segment, position=new
        )
    where = (
        journal_offsets.c.host_id == host_id,
        journal_offsets.c.segment == segment,
        journal_offsets.c.position == old,
    )
    moved = connection.execute(update(journal_offsets).where(*where).values(position=new))
    return moved.rowcount == 1


def _insert(connection: Connection, table: Table, columns: Sequence[str], rows: Rows) -> None:
    if not rows:
        return
    if connection.dialect.name == "postgresql":
        _copy(connection, table, columns, rows)
        return
    connection.exec_driver_sql(_insert_sql(connection, table, columns), list(rows))


def _insert_sql(connection: Connection, table: Table, columns: Sequence[str]) -> str:
    mark = "%s" if connection.dialect.name == "postgresql" else "?"
    names, marks = ", ".join(columns), ", ".join([mark] * len(columns))
    return f"INSERT INTO {table.name} ({names}) VALUES ({marks})"  # noqa: S608 - our own names


def _copy(connection: Connection, table: Table, columns: Sequence[str], rows: Rows) -> None:
    """COPY in the binary format: a fifth of the client's work that an INSERT is."""
    raw: Any = connection.connection.driver_connection
    names = ", ".join(columns)
    with (
        raw.cursor() as cursor,
        cursor.copy(f"COPY {table.name} ({names}) FROM STDIN (FORMAT BINARY)") as copy,
    ):
        copy.set_types([_PG_TYPES[str(table.c[name].type)] for name in columns])
        for row in rows:
            copy.write_row(row)


def _add_to_buckets(
    connection: Connection, family: Family, sums: Mapping[tuple[Any, ...], list[int]]
) -> None:
    if not sums:
        return
    table = metadata.tables[family.buckets]
    key = ("host_id", "start_at", *family.key)
    inserted = _insert_sql(connection, table, (*key, *family.values))
    # Never to one that was rolled up: its hour would not hear of it.
    same = ", ".join((*key, "rolled_at"))
    grown = changed(family, table.name)
    upsert = f"{inserted} ON CONFLICT ({same}) DO UPDATE SET {grown}"
    # In one order always, so that two ingesters can never wait for each other.
    rows = [(*each, *values) for each, values in sorted(sums.items())]
    connection.exec_driver_sql(upsert, rows)

"""What has happened, as it is followed and looked up: requests that ended, events, changes.

Three tables grow, each with numbers of its own; `store.cursors` says how a reader keeps its place
in them. Every query goes by an index and has an end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson
from sqlalchemy import ColumnElement, Connection, Select, func, insert, literal, or_, select

from tokenhub.db.catalog_tables import audit_logs, changes
from tokenhub.db.traffic_tables import events, request_logs
from tokenhub.store import searching
from tokenhub.store.cursors import Wanted
from tokenhub.store.searching import IsLate, Part, Search
from tokenhub.store.turns import take_turn

LOOK_BACK = 1000
"""Rows before the newest among which numbers that are missing now are waited for."""

_LOG_COLUMNS = (
    "request_id", "started_at", "api_key_id", "team_id", "endpoint", "mode", "stream", "ending",
    "status_code", "error_class", "requested_model", "alias_from", "model_id", "provider_id",
    "reason", "input_tokens", "output_tokens", "cost_nanousd", "latency_ms", "ttft_ms",
    "attempt_count", "trace_id",
)  # fmt: skip


class Source(NamedTuple):
    """One of the tables.

    Args:
        is_numbered_by_commit: see `cursors.Tail`. Each change of the catalog waits for the one
            before it.
    """

    rows: Select[Any]
    id: ColumnElement[int]
    host_id: ColumnElement[str]
    is_numbered_by_commit: bool = False


def _source(*columns: ColumnElement[Any], host_id: ColumnElement[str], id_: Any) -> Source:
    rows = select(id_.label("id"), host_id.label("host_id"), *columns)
    return Source(rows, id_, host_id, id_ is changes.c.version)


SOURCES: Mapping[str, Source] = {
    "logs": _source(
        *(request_logs.c[name] for name in _LOG_COLUMNS),
        host_id=request_logs.c.host_id,
        id_=request_logs.c.id,
    ),
    "events": _source(
        events.c.at,
        events.c.type,
        events.c.api_key_id,
        events.c.fields,
        host_id=events.c.host_id,
        id_=events.c.id,
    ),
    "changes": _source(
        changes.c.at,
        changes.c.kind,
        changes.c.entity_id,
        host_id=literal(""),
        id_=changes.c.version,
    ),
}


class Found(NamedTuple):
    """What is new in one table.

    Args:
        rows: in the order of their numbers.
        highest: the highest number there is; 0 = the table is empty.
        is_full: there may be more.
    """

    rows: list[dict[str, Any]]
    highest: int
    is_full: bool


def read_news(
    connection: Connection, wanted: Mapping[str, Wanted], rows_max: int
) -> dict[str, Found]:
    """What there is of what is wanted, by table.

    Args:
        rows_max: of each table.
    """
    found = {name: _read(connection, SOURCES[name], wanted[name], rows_max) for name in wanted}
    _add_authors(connection, found["changes"].rows if "changes" in found else [])
    return found


def read_newest(connection: Connection) -> dict[str, list[tuple[int, str]]]:
    """By table, the number and the host of its newest rows, in the order of their numbers."""
    found = {}
    for name, source in SOURCES.items():
        query = select(source.id.label("id"), source.host_id.label("host_id"))
        rows_max = 1 if source.is_numbered_by_commit else LOOK_BACK
        rows = connection.execute(query.order_by(source.id.desc()).limit(rows_max)).all()
        found[name] = [(row.id, row.host_id) for row in reversed(rows)]
    return found


def insert_event(
    connection: Connection, writer: str, *, at: int, type_: str, api_key_id: str, fields: str
) -> None:
    """Write down an event with what it is about, in the transaction that finds it out.

    Args:
        writer: stands in the host's place.
        fields: JSON.
    """
    take_turn(connection)  # so that a writer's events appear in their order, as a host's do
    values = {"at": at, "type": type_, "api_key_id": api_key_id, "fields": fields}
    connection.execute(insert(events).values(host_id=writer, **values))


class TransitionFilters(NamedTuple):
    """Changes of health of a time, of a provider (and its models) or of a model.

    Args:
        from_at, to_at: unix ms, the end not included.
    """

    from_at: int | None = None
    to_at: int | None = None
    provider_id: str | None = None
    model_id: str | None = None


def find_transitions(
    connection: Connection, filters: TransitionFilters, part: Part, *, is_late: IsLate
) -> searching.Found:
    """A page of them, newest first, as `record` of `web.admin.events` reads it."""
    columns = (events.c.id, events.c.host_id, events.c.at, events.c.fields)
    return searching.find(connection, _transitions(filters), columns, part, is_late=is_late)


def count_transitions(
    connection: Connection, filters: TransitionFilters, *, most: int, is_late: IsLate
) -> tuple[int, bool]:
    """How many there are: see `searching.count`."""
    return searching.count(connection, _transitions(filters), most=most, is_late=is_late)


def _transitions(filters: TransitionFilters) -> Search:
    row = events.c
    led = [row.type == "health_change"]
    if filters.from_at is not None:
        led.append(row.at >= filters.from_at)
    if filters.to_at is not None:
        led.append(row.at < filters.to_at)
    said = {"provider_id": filters.provider_id, "model_id": filters.model_id}
    rest = [_says(name, value) for name, value in said.items() if value is not None]
    return Search(events, row.at, row.id, tuple(led), tuple(rest))


def _says(name: str, value: str) -> ColumnElement[bool]:
    """Whether the fields' JSON text has this one. (LIKE would not mind upper and lower case.)"""
    piece = orjson.dumps({name: value}).decode()[1:-1]
    without: ColumnElement[str] = func.replace(events.c.fields, piece, "")
    return without != events.c.fields


def _read(connection: Connection, source: Source, wanted: Wanted, rows_max: int) -> Found:
    rows: list[dict[str, Any]] = []
    for first, last in wanted.ranges:
        if len(rows) == rows_max:
            break
        query = source.rows.where(source.id.between(first, last)).order_by(source.id)
        for host_id, mark in wanted.read.items():
            if mark >= first:
                query = query.where(or_(source.host_id != host_id, source.id > mark))
        found = connection.execute(query.limit(rows_max - len(rows))).mappings()
        rows += [dict(each) for each in found]
    highest = connection.execute(select(func.max(source.id))).scalar_one() or 0
    return Found(rows, highest, len(rows) == rows_max)


def _add_authors(connection: Connection, rows: list[dict[str, Any]]) -> None:
    """Who made each change, as the audit of the same moment has it."""
    if not rows:
        return
    row = audit_logs.c
    query = select(row.at, row.resource, row.action, row.actor, row.request_id)
    found = connection.execute(query.where(row.at.in_({each["at"] for each in rows})))
    authors = {(each.at, each.resource): each for each in found}
    for each in rows:
        author = authors.get((each["at"], each["entity_id"]))
        for name in ("action", "actor", "request_id"):
            each[name] = "" if author is None else getattr(author, name)

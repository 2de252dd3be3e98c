"""How many requests there were of which kind, over a time: from the sums if those know all that is
asked, else counted in the log as far back as the time for it goes. Knows no clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, Connection, Table, func, literal_column, select
from sqlalchemy import text as sql

from tokenhub.db.columns import metadata
from tokenhub.db.sums_tables import REQUESTS
from tokenhub.db.traffic_tables import request_logs
from tokenhub.store.logs import LogFilters, search_logs
from tokenhub.store.rollups import DAY_MS, HOUR_MS
from tokenhub.store.searching import IsLate, tally

UNROLLED = sql("rolled_at = 0")  # word for word, as the index has it


class Span(NamedTuple):
    """A time, cut into steps; begins and ends with one. Steps below an hour are whole buckets of
    10 seconds, those below a day whole hours, others whole days.

    Args:
        from_at, to_at: unix ms, the end not included.
    """

    from_at: int
    to_at: int
    step_ms: int


class Counted(NamedTuple):
    """Args:
    counts: by group.
    searched_to: back to when was looked, unix ms; None = all of it.
    """

    counts: Counter[tuple[Any, ...]]
    searched_to: int | None


def count_by_step(
    connection: Connection, filters: LogFilters, span: Span, *, is_late: IsLate
) -> Counted:
    """Requests by (number of the step since 1970, ending)."""
    step: ColumnElement[int] = literal_column(str(span.step_ms), BigInteger())

    def groups(table: Table, at: str) -> list[ColumnElement[Any]]:
        return [table.c[at] // step, table.c.ending]

    return _count(connection, filters, span, groups, is_late)


def count_by_word(
    connection: Connection, filters: LogFilters, span: Span, column: str, *, is_late: IsLate
) -> Counted:
    """Requests by (what they have in this column of the log,)."""

    def groups(table: Table, _: str) -> list[ColumnElement[Any]]:
        return [table.c[column]]

    is_summed = column in REQUESTS.key
    return _count(connection, filters, span, groups, is_late, is_summed=is_summed)


def _count(
    connection: Connection,
    filters: LogFilters,
    span: Span,
    groups: Any,
    is_late: IsLate,
    *,
    is_summed: bool = True,
) -> Counted:
    if filters.are_summed and is_summed:
        counts: Counter[tuple[Any, ...]] = Counter()
        for table, is_rest in _tables_of(span):
            found = groups(table, "start_at")
            counts.update(_sums(connection, table, filters, span, found, is_rest=is_rest))
        return Counted(counts, None)
    search = search_logs(replace(filters, from_at=span.from_at, to_at=span.to_at))
    return Counted(*tally(connection, search, groups(request_logs, "started_at"), is_late=is_late))


def _tables_of(span: Span) -> list[tuple[Table, bool]]:
    """Where its sums are; True: only those of its rows that were not rolled up."""
    buckets = metadata.tables[REQUESTS.buckets]
    if span.step_ms % HOUR_MS:
        return [(buckets, False)]
    name = REQUESTS.hours if span.step_ms % DAY_MS else REQUESTS.days
    return [(metadata.tables[name], False), (buckets, True)]


def _sums(
    connection: Connection,
    table: Table,
    filters: LogFilters,
    span: Span,
    groups: Sequence[ColumnElement[Any]],
    *,
    is_rest: bool,
) -> Counter[tuple[Any, ...]]:
    names = [f"group_{number}" for number in range(len(groups))]
    labelled = [each.label(name) for each, name in zip(groups, names, strict=True)]
    query = select(*labelled, func.sum(table.c.requests)).group_by(*names)
    query = query.where(table.c.start_at >= span.from_at, table.c.start_at < span.to_at)
    query = query.where(*(table.c[name].in_(words) for name, words in filters.words.items()))
    if is_rest:
        query = query.where(UNROLLED)
    rows = connection.execute(query)
    return Counter({tuple(row[:-1]): int(row[-1]) for row in rows})

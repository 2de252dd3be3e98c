"""What requests and attempts added up to in a time: the one reader of both families of sums.

Weeks and days hold everything for ever, hours for as long as they are kept, buckets of 10 seconds
for three days; what a bucket has that was not rolled up yet, none of the others has. So a time is
read from the coarsest tables that fit into it, the buckets of its ragged ends, and those that wait.

A range is exact to 10 seconds, both ends rounded outwards, where there are buckets; further back it
is widened to whole hours, and where the hours are gone to whole days, UTC. Give `read_series` a
transaction of its own: between two reads a bucket may become part of its hour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from operator import add
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Table,
    cast,
    func,
    literal_column,
    select,
)

from tokenhub.db.columns import metadata
from tokenhub.db.sums_tables import HISTOGRAM, Family
from tokenhub.store.rollups import DAY_MS, HOUR_MS, WEEK_MS

BUCKET_MS = 10_000

BUCKETS_DAYS = 3
"""How long buckets are kept."""
BUCKETS_MS = BUCKETS_DAYS * DAY_MS - HOUR_MS
"""How far back they are relied on: an hour less, as clocks may differ."""

SHORT_MS = 2 * HOUR_MS
"""Up to which length buckets alone are read."""
FINE_MS = 25 * HOUR_MS
"""Longest range whose steps may be shorter than an hour."""
HOURLY_MS = 15 * DAY_MS
"""Longest range whose steps may be shorter than a day."""

ROWS_MAX = 20_000


class TooManyRows(Exception):
    """More points than a query may have."""


@dataclass(frozen=True)
class Query:
    """What to add up.

    Args:
        from_at, to_at: unix ms, the end not included.
        step_ms: one point for each step, which begin at multiples of it since 1970; None = one
            for the whole range. `fit_step` says which it really is.
        group: columns of the family's key to keep apart.
        where: by column of the key: which words count.
        without: by column of the key: which words do not.
        values: which of the family's numbers are wanted; none named = all.
        rows_max: most points, over all groups.
    """

    family: Family
    from_at: int
    to_at: int
    step_ms: int | None
    group: tuple[str, ...]
    where: Mapping[str, Sequence[str]]
    without: Mapping[str, Sequence[str]] = field(default_factory=dict)
    values: tuple[str, ...] = ()
    rows_max: int = ROWS_MAX


class Point(NamedTuple):
    """What a group came to in a step.

    Args:
        group: the words of the query's `group`, in its order.
        start_at: unix ms; of the whole range if there are no steps.
        values: all sums, maxima and classes of histograms that were wanted, by name.
    """

    group: tuple[str, ...]
    start_at: int
    values: Mapping[str, int]


_Found = dict[tuple[int, tuple[str, ...]], Sequence[int]]
"""Numbers by time and group."""


class _Part(NamedTuple):
    """A stretch of one table."""

    table: str
    from_at: int
    to_at: int
    only_waiting: bool = False


def read_series(connection: Connection, query: Query, now: int) -> list[Point]:
    """The points that are not empty, by time and then by group.

    Args:
        now: unix ms.

    Raises:
        TooManyRows: there are more than the query allows.
    """
    query = fit_step(connection, query, now)
    found: _Found = {}
    names = query.values or query.family.values
    for part in _parts(connection, query, now):
        _read(connection, query, part, names, found)
        if len(found) > query.rows_max:
            raise TooManyRows
    return [
        Point(group, at, dict(zip(names, found[at, group], strict=True)))
        for at, group in sorted(found)
    ]


def fit_step(connection: Connection, query: Query, now: int) -> Query:
    """The query with the shortest step, not below its own, that can be read and read quickly.

    A whole number of buckets in a range of up to 25 hours that has buckets, else of hours in up to
    15 days that have hours, else of days.
    """
    if query.step_ms is None:
        return query
    unit = BUCKET_MS
    length = query.to_at - query.from_at
    if length > FINE_MS or query.from_at < now - BUCKETS_MS:
        unit = HOUR_MS
    if length > HOURLY_MS or (unit == HOUR_MS and _are_hours_gone(connection, query, now)):
        unit = DAY_MS
    return replace(query, step_ms=max(1, -(-query.step_ms // unit)) * unit)


def histogram_of(values: Mapping[str, int], letter: str) -> list[int]:
    """The classes of a histogram, out of a point's values."""
    return [values[name] for name in classes_of(letter)]


@cache
def classes_of(letter: str) -> tuple[str, ...]:
    """The names of a histogram's classes."""
    return tuple(f"{letter}{each}" for each in range(HISTOGRAM))


def _are_hours_gone(connection: Connection, query: Query, now: int) -> bool:
    if query.from_at >= now - BUCKETS_MS:
        return False
    return query.from_at < _hours_since(connection, query.family)


def _hours_since(connection: Connection, family: Family) -> int:
    """From when on the hours have everything; 0 = they have all that the days have."""
    hours, days = (
        connection.scalar(select(func.min(metadata.tables[name].c.start_at)))
        for name in (family.hours, family.days)
    )
    if days is None or (hours is not None and days >= _floor(hours, DAY_MS)):
        return 0
    # Hours are let go of oldest first: of the oldest one that is left, part may be gone.
    newest = connection.scalar(select(func.max(metadata.tables[family.days].c.start_at)))
    return int(newest or 0) + DAY_MS if hours is None else int(hours) + HOUR_MS


def _parts(connection: Connection, query: Query, now: int) -> list[_Part]:
    """Which stretches of which tables together are the range, each moment once."""
    family = query.family
    start, end = _floor(query.from_at, BUCKET_MS), _ceil(query.to_at, BUCKET_MS)
    if start >= end:
        return []
    has_buckets = start >= now - BUCKETS_MS
    step = query.step_ms
    is_fine = step is not None and step % HOUR_MS != 0
    if is_fine or (has_buckets and end - start <= SHORT_MS):
        return [_Part(family.buckets, start, end)]
    parts = []
    low, high = _ceil(start, HOUR_MS), _floor(end, HOUR_MS)
    if start < low:
        if has_buckets:
            parts.append(_Part(family.buckets, start, low))
        else:
            low -= HOUR_MS
    if high < end:
        # Nothing is later than now, so an hour that is not over needs not be cut.
        if high >= now - BUCKETS_MS and end < now:
            parts.append(_Part(family.buckets, high, end))
        else:
            high += HOUR_MS
    return parts + _whole_hours(connection, query, (low, high), now)


def _whole_hours(
    connection: Connection, query: Query, hours: tuple[int, int], now: int
) -> list[_Part]:
    """A range of whole hours: its days if the steps are no shorter, the rest of it as hours."""
    family, (low, high) = query.family, hours
    from_at, to_at = low, high
    parts = []
    if query.step_ms is None or query.step_ms % DAY_MS == 0:
        first, last = _ceil(low, DAY_MS), _until(query, high, DAY_MS, now)
        since = 0 if low >= now - BUCKETS_MS else _hours_since(connection, family)
        if low < min(first, since):
            first -= DAY_MS
            from_at = first
        if max(last, low) < min(high, since):
            last += DAY_MS
            to_at = last
        if first < last:
            parts += _whole_days(query, (first, last), now)
            parts.append(_Part(family.hours, from_at, first))
            parts.append(_Part(family.hours, last, to_at))
        else:
            parts.append(_Part(family.hours, from_at, to_at))
    else:
        parts.append(_Part(family.hours, from_at, to_at))
    parts.append(_Part(family.buckets, from_at, to_at, only_waiting=True))
    return [each for each in parts if each.from_at < each.to_at]


def _whole_days(query: Query, days: tuple[int, int], now: int) -> list[_Part]:
    """A range of whole days: its weeks if the steps are no shorter, the rest of it as days."""
    family, (low, high) = query.family, days
    first, last = _ceil(low, WEEK_MS), _until(query, high, WEEK_MS, now)
    if first >= last or (query.step_ms is not None and query.step_ms % WEEK_MS):
        return [_Part(family.days, low, high)]
    return [
        _Part(family.weeks, first, last),
        _Part(family.days, low, first),
        _Part(family.days, last, high),
    ]


def _until(query: Query, end: int, span_ms: int, now: int) -> int:
    """Where the last span ends that is read as a whole: nothing is later than now, so one that is
    not over yet needs not be cut."""
    return _ceil(end, span_ms) if query.to_at >= now else _floor(end, span_ms)


def _read(
    connection: Connection, query: Query, part: _Part, names: Sequence[str], found: _Found
) -> None:
    """Add a part to what was found."""
    width = len(query.group)
    maxima = [at for at, name in enumerate(names) if name in query.family.maxima]
    for row in connection.execute(_select(query, part, names)):
        if row[-1] is None:  # the sum of nothing
            continue
        key = (query.from_at if query.step_ms is None else row[width], tuple(row[:width]))
        numbers = row[width + 1 :]
        old = found.get(key)
        if old is None:
            found[key] = numbers
            continue
        both = list(map(add, old, numbers))
        for at in maxima:
            both[at] = max(old[at], numbers[at])
        found[key] = both


def _select(query: Query, part: _Part, names: Sequence[str]) -> Any:
    table = metadata.tables[part.table]
    group: list[ColumnElement[Any]] = [table.c[name] for name in query.group]
    if query.step_ms is None:
        at: ColumnElement[Any] = literal_column("0")
    else:
        at = _step_of(table, query.family, query.step_ms)
        group.insert(0, at)  # SQLite sorts rows that it finds by time, and they are nearly in order
    columns = [table.c[name] for name in query.group]
    read = [
        func.max(table.c[name]) if name in query.family.maxima else _sum_of(table.c[name])
        for name in names
    ]
    found = select(*columns, at, *read).where(*_conditions(table, query, part))
    return found.group_by(*group).limit(query.rows_max + 1)


def _step_of(table: Table, family: Family, step_ms: int) -> ColumnElement[int]:
    """When a row's step began."""
    units = {
        family.buckets: BUCKET_MS,
        family.hours: HOUR_MS,
        family.days: DAY_MS,
        family.weeks: WEEK_MS,
    }
    if units[table.name] == step_ms:  # the column itself: an index has its order, none is sorted
        return table.c.start_at
    return literal_column(f"start_at / {step_ms:d} * {step_ms:d}", BigInteger())


def _sum_of(column: ColumnElement[int]) -> ColumnElement[int]:
    """A sum as an integer: Postgres' own is a decimal, which takes ten times as long to read."""
    return cast(func.sum(column), BigInteger)


def _conditions(table: Table, query: Query, part: _Part) -> list[ColumnElement[bool]]:
    conditions = [table.c.start_at >= part.from_at, table.c.start_at < part.to_at]
    if part.only_waiting:  # word for word, as the index has it: a parameter would not use it
        conditions.append(literal_column("rolled_at = 0"))
    conditions += [table.c[name].in_(list(words)) for name, words in query.where.items()]
    conditions += [table.c[name].not_in(list(words)) for name, words in query.without.items()]
    return conditions


def _floor(at: int, span_ms: int) -> int:
    return at // span_ms * span_ms


def _ceil(at: int, span_ms: int) -> int:
    return -(-at // span_ms) * span_ms

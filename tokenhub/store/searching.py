"""Finds rows newest first, whatever is asked of them, without ever reading a large table through.

Some conditions an index leads through in the order of the answer; the rest must be looked at row by
row. Where there are such, rows are read a stretch at a time, and between two stretches the caller
may say that it is late: then what was found comes with the place where the search got to. Knows no
clock, and of a table only what a Search says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, FromClause, Select, func, literal, or_, select

STRETCH = 200
"""Rows of the leading index that are looked at between two looks at the clock: far apart in the
table, and not in memory, they may take 20 ms."""

ROOM = 1000
"""Ids of a row's parts: part `seq` of row `id` has the id `id * ROOM + seq`. No request makes as
many attempts."""

IsLate = Callable[[], bool]
Condition = ColumnElement[bool]


class Place(NamedTuple):
    """Where something stands in a list that is newest first; after it comes what is older."""

    at: int
    id: int


@dataclass(frozen=True)
class Search:
    """What is looked for.

    Args:
        source: the table, or the join, that rows are read from.
        at: when a row was; `id` breaks ties.
        led: conditions that an index leads through, newest first.
        rest: the others.
        seq: numbers the parts of a row, if they are what is listed; the last one comes first.
    """

    source: FromClause
    at: ColumnElement[int]
    id: ColumnElement[int]
    led: tuple[Condition, ...] = ()
    rest: tuple[Condition, ...] = ()
    seq: ColumnElement[int] | None = None

    @property
    def row_id(self) -> ColumnElement[int]:
        """The id of what is listed."""
        return self.id if self.seq is None else self.id * ROOM + self.seq

    @property
    def newest_first(self) -> tuple[ColumnElement[Any], ...]:
        """The order of the list."""
        order = (self.at.desc(), self.id.desc())
        return order if self.seq is None else (*order, self.seq.desc())


class Found(NamedTuple):
    """A page.

    Args:
        next: where it ends; None = there is nothing more.
        searched_to: how far back was looked, when time was up before the page was full.
    """

    rows: list[dict[str, Any]]
    next: Place | None = None
    searched_to: int | None = None


@dataclass(frozen=True)
class Part:
    """Which part of what is found.

    Args:
        after: begin after this.
        offset: and pass over so many.
    """

    limit: int
    offset: int = 0
    after: Place | None = None


class _Stretch(NamedTuple):
    where: tuple[Condition, ...]
    end: Place | None  # None = there is nothing after it


def find(
    connection: Connection,
    search: Search,
    columns: Sequence[ColumnElement[Any]],
    part: Part,
    *,
    is_late: IsLate,
) -> Found:
    """A page of these columns. It may come short when it got late: `next` says where to go on."""
    rows: list[dict[str, Any]] = []
    offset = part.offset
    for stretch in _stretches(connection, search, part.after):
        left = _pass_over(connection, search, stretch, offset)
        if left is None:
            query = _rows_of(search, columns, stretch).limit(part.limit + 1 - len(rows))
            found = connection.execute(query.offset(offset)).mappings()
            rows += [dict(each) for each in found]
        offset = left or 0
        if len(rows) > part.limit:
            del rows[part.limit :]
            return Found(_cleared(rows), _place_of(rows[-1]))
        if stretch.end is not None and is_late():
            return Found(_cleared(rows), stretch.end, stretch.end.at)
    return Found(_cleared(rows))


def count(
    connection: Connection, search: Search, *, most: int, is_late: IsLate
) -> tuple[int, bool]:
    """How many there are, and whether that is all: False when there are more than `most`, or when
    it got late."""
    total = 0
    for stretch in _stretches(connection, search, None):
        total += _count(connection, search, stretch, most + 1 - total)
        if total > most:
            return most, False
        if stretch.end is not None and is_late():
            return total, False
    return total, True


def tally(
    connection: Connection,
    search: Search,
    groups: Sequence[ColumnElement[Any]],
    *,
    is_late: IsLate,
) -> tuple[Counter[tuple[Any, ...]], int | None]:
    """How many there are of each group, and back to when was looked, if not at all of them."""
    found: Counter[tuple[Any, ...]] = Counter()
    names = [f"group_{number}" for number in range(len(groups))]
    labelled = [each.label(name) for each, name in zip(groups, names, strict=True)]
    for stretch in _stretches(connection, search, None, is_always=True):
        query = select(*labelled, func.count()).select_from(search.source).where(*stretch.where)
        for row in connection.execute(query.group_by(*names)):
            found[tuple(row[:-1])] += row[-1]
        if stretch.end is not None and is_late():
            return found, stretch.end.at
    return found, None


def _stretches(
    connection: Connection, search: Search, after: Place | None, *, is_always: bool = False
) -> Iterator[_Stretch]:
    """All there is, in one piece if an index leads to every row of it, else bit by bit."""
    while True:
        end = None
        if search.rest or is_always:
            end = _find_end(connection, search, after)
        where = [*search.led, *search.rest]
        if after is not None:
            where.append(search.at <= after.at)  # said apart: any index on the time can use it
            where.append(or_(search.at < after.at, search.row_id < after.id))
        if end is not None:
            where.append(search.at >= end.at)
            where.append(or_(search.at > end.at, search.row_id >= end.id))
        yield _Stretch(tuple(where), end)
        if end is None:
            return
        after = end


def _find_end(connection: Connection, search: Search, after: Place | None) -> Place | None:
    """The last row of the next stretch, whole rows counted."""
    room = 1 if search.seq is None else ROOM
    where = [*search.led]
    if after is not None:
        where.append(search.at <= after.at)
        where.append(or_(search.at < after.at, search.id * room < after.id))
    query = select(search.at, search.id).where(*where)
    newest_first = (search.at.desc(), search.id.desc())
    last = connection.execute(query.order_by(*newest_first).limit(1).offset(STRETCH - 1)).first()
    return None if last is None else Place(last[0], last[1] * room)


def _pass_over(
    connection: Connection, search: Search, stretch: _Stretch, offset: int
) -> int | None:
    """How many rows are to be passed over after this stretch; None = the offset ends in it."""
    if not offset or stretch.end is None:
        return None
    there = _count(connection, search, stretch, offset + 1)
    return offset - there if there <= offset else None


def _count(connection: Connection, search: Search, stretch: _Stretch, most: int) -> int:
    each = select(literal(1)).select_from(search.source).where(*stretch.where)
    # In the list's order, so that the same index leads; any other might find them far apart.
    each = each.order_by(*search.newest_first).limit(most)
    return int(connection.scalar(select(func.count()).select_from(each.subquery())) or 0)


def _rows_of(
    search: Search, columns: Sequence[ColumnElement[Any]], stretch: _Stretch
) -> Select[Any]:
    place = (search.at.label("place_at"), search.row_id.label("place_id"))
    query = select(*columns, *place).select_from(search.source).where(*stretch.where)
    return query.order_by(*search.newest_first)


def _place_of(row: dict[str, Any]) -> Place:
    return Place(row["place_at"], row["place_id"])


def _cleared(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without what only the search needs."""
    return [
        {name: each for name, each in row.items() if not name.startswith("place_")} for row in rows
    ]

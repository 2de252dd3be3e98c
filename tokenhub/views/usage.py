"""What was used and what it cost, by whom and when: from the sums, to the nano-dollar.

A request belongs to the hour, day and month in which it came, UTC, as in the books of budgets: so a
key's days here are its days there, and all exports add up to the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection

from tokenhub import store
from tokenhub.budgets import period_end, period_start
from tokenhub.db.sums_tables import REQUESTS
from tokenhub.forecast import DAY_MS, Forecast
from tokenhub.pricing import usd
from tokenhub.store.rollups import HOUR_MS
from tokenhub.store.series import HOURLY_MS, Point, Query, fit_step, read_series
from tokenhub.views.facts import BudgetFact, read_budgets, read_total
from tokenhub.views.overview import Span, change

Step = Literal["hour", "day", "month"]
STEPS: tuple[Step, ...] = ("hour", "day", "month")

TOKENS = (
    "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens",
)  # fmt: skip
VALUES = ("requests", *TOKENS, "cost_nanousd", "unpriced")

ROWS_MAX = 100_000

Numbers = tuple[int, ...]
"""In the order of `VALUES`."""
NOTHING: Numbers = (0,) * len(VALUES)


HOURS_MS = 3 * DAY_MS
"""Longest time that is told by the hour at once; exports may take longer."""


class NoHours(Exception):
    """There are no sums by the hour for that time, or there would be too many."""


@dataclass(frozen=True)
class Ask:
    """What is asked for.

    Args:
        span: whole steps of it are told.
        column: of the sums, to keep apart by.
        where: by column, which words count.
        is_by_tag: the column is the key, and its tags are told instead: what a key used counts for
            each of its tags, and for "" if it has none, or is gone.
    """

    span: Span
    step: Step
    column: str
    where: Mapping[str, tuple[str, ...]]
    is_by_tag: bool = False

    @property
    def whole(self) -> Span:
        """The time, rounded outwards to whole steps."""
        if self.step == "month":
            start = period_start("month", self.span.from_at)
            end = period_start("month", self.span.to_at)
            if end < self.span.to_at or end == start:
                end = period_end("month", self.span.to_at) or end
            return Span(start, end)
        unit = HOUR_MS if self.step == "hour" else DAY_MS
        start = self.span.from_at // unit * unit
        return Span(start, max(start + unit, -(-self.span.to_at // unit) * unit))


class Row(NamedTuple):
    """What a group came to in a step."""

    start_at: int
    word: str
    numbers: Numbers


@dataclass(frozen=True)
class Usage:
    """What was found.

    Args:
        rows: by time, then by group; those without anything are left out.
        total: of all requests: a key may be of several groups, if they are tags.
        before, total_before: what each group, and all requests, came to in the time before, which
            was `earlier`.
        names: of keys, and of teams.
        month_nanousd, month_ahead: what all have spent this month, and will have.
    """

    span: Span
    rows: list[Row]
    total: Numbers
    earlier: Span
    before: Mapping[str, Numbers]
    total_before: Numbers
    names: Mapping[str, str]
    budgets: list[BudgetFact]
    month_nanousd: int = 0
    month_ahead: Forecast | None = None

    def by_group(self) -> dict[str, Numbers]:
        """The sum of each group's rows; those that cost most first."""
        found: dict[str, Numbers] = {}
        for row in self.rows:
            found[row.word] = added(found.get(row.word, NOTHING), row.numbers)
        cost = VALUES.index("cost_nanousd")
        ranked = sorted(found.items(), key=lambda each: (-each[1][cost], -each[1][0], each[0]))
        return dict(ranked)


def read(connection: Connection, ask: Ask, now: int) -> Usage:
    """Everything, in one transaction.

    Args:
        now: unix ms.

    Raises:
        NoHours, TooManyRows.
    """
    usage = read_rows(connection, ask, now, hours_ms=HOURS_MS)
    # As long as what has passed of the time, and as exact as there are sums.
    earlier = usage.span.before(-(-now // HOUR_MS) * HOUR_MS)
    query = Query(REQUESTS, *earlier, None, (ask.column,), ask.where, {}, VALUES, ROWS_MAX)
    rows = [Row(0, each.group[0], _numbers(each)) for each in read_series(connection, query, now)]
    before = list(_by_tag(connection, rows)) if ask.is_by_tag else rows
    spent, ahead = read_total(connection, now)
    return replace(
        usage,
        earlier=earlier,
        before={row.word: row.numbers for row in before},
        total_before=_total(rows),
        budgets=read_budgets(connection, now),
        month_nanousd=spent,
        month_ahead=ahead,
    )


def read_rows(connection: Connection, ask: Ask, now: int, *, hours_ms: int = HOURLY_MS) -> Usage:
    """The rows alone, as exports have them.

    Args:
        hours_ms: longest time that is told by the hour.

    Raises:
        NoHours, TooManyRows.
    """
    span = ask.whole
    step_ms = HOUR_MS if ask.step == "hour" else DAY_MS
    query = Query(REQUESTS, *span, step_ms, (ask.column,), ask.where, {}, VALUES, ROWS_MAX)
    is_long = ask.step == "hour" and span.to_at - span.from_at > hours_ms + HOUR_MS
    if is_long or fit_step(connection, query, now).step_ms != step_ms:
        raise NoHours
    points = read_series(connection, query, now)
    rows = [Row(each.start_at, each.group[0], _numbers(each)) for each in points]
    total = _total(rows)
    rows = list(_by_tag(connection, rows)) if ask.is_by_tag else rows
    rows = list(_by_month(rows)) if ask.step == "month" else rows
    words = {row.word for row in rows}
    names = {} if ask.is_by_tag else _names(connection, ask.column, words)
    return Usage(span, rows, total, span, {}, NOTHING, names, [])


def added(one: Numbers, other: Numbers) -> Numbers:
    """Both together."""
    return tuple(a + b for a, b in zip(one, other, strict=True))


def show(numbers: Numbers) -> dict[str, Any]:
    """Numbers as they are shown."""
    value = dict(zip(VALUES, numbers, strict=True))
    return {
        "requests": value["requests"],
        **{name: value[name] for name in TOKENS},
        "cost_usd": usd(value["cost_nanousd"]),
        "unpriced_requests": value["unpriced"],
    }


def show_group(numbers: Numbers, total: Numbers, before: Numbers) -> dict[str, Any]:
    """Numbers of the whole time, beside all others' and beside what they were before."""
    cost = VALUES.index("cost_nanousd")
    priced = numbers[0] - numbers[VALUES.index("unpriced")]
    return {
        **show(numbers),
        "cost_per_1k_requests_usd": usd(round(numbers[cost] * 1000 / priced)) if priced else None,
        "share": round(numbers[cost] / total[cost], 6) if total[cost] else None,
        "previous_requests": before[0],
        "previous_cost_usd": usd(before[cost]),
        "change": change(numbers[cost], before[cost]),
    }


def _numbers(point: Point) -> Numbers:
    return tuple(point.values[name] for name in VALUES)


def _total(rows: Iterable[Row]) -> Numbers:
    return reduce(added, (row.numbers for row in rows), NOTHING)


def _by_tag(connection: Connection, rows: Iterable[Row]) -> Iterator[Row]:
    tags = store.find_key_tags(connection)
    found: dict[tuple[int, str], Numbers] = {}
    for at, key_id, numbers in rows:
        for tag in tags.get(key_id, ("",)):
            found[at, tag] = added(found.get((at, tag), NOTHING), numbers)
    for (at, tag), numbers in sorted(found.items()):
        yield Row(at, tag, numbers)


def _by_month(rows: Iterable[Row]) -> Iterator[Row]:
    found: dict[tuple[int, str], Numbers] = {}
    months: dict[int, int] = {}
    for at, word, numbers in rows:
        if at not in months:
            months[at] = period_start("month", at)
        key = (months[at], word)
        found[key] = added(found.get(key, NOTHING), numbers)
    for (at, word), numbers in sorted(found.items()):
        yield Row(at, word, numbers)


def _names(connection: Connection, column: str, words: set[str]) -> dict[str, str]:
    if column == "api_key_id":
        return store.find_key_names(connection, words)
    if column == "team_id":
        return {id_: team.name for id_, team in store.load_teams(connection).items()}
    return {}

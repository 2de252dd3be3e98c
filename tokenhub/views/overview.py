"""The first page's tiles: how much, with what outcome, how slow, at what cost, what was refused.

One transaction has all of it, and the place in the event feed that it stands for: whoever adds up
the events after that place counts each request once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection

from tokenhub.board.counters import LATENCY_EDGES_MS
from tokenhub.budgets import period_end
from tokenhub.db.sums_tables import REQUESTS
from tokenhub.domain import ENDINGS
from tokenhub.events import Reader
from tokenhub.events.shapes import moment
from tokenhub.forecast import DAY_MS
from tokenhub.histograms import merge, quantile
from tokenhub.pricing import usd
from tokenhub.store import events as feed
from tokenhub.store.rollups import HOUR_MS
from tokenhub.store.series import (
    BUCKET_MS,
    Point,
    Query,
    classes_of,
    fit_step,
    histogram_of,
    read_series,
)
from tokenhub.views.facts import read_total
from tokenhub.views.running_out import show_forecast

MINUTE_MS = 60_000
STEPS_MS = (
    (10 * MINUTE_MS, BUCKET_MS), (HOUR_MS, MINUTE_MS), (6 * HOUR_MS, 5 * MINUTE_MS),
    (2 * DAY_MS, HOUR_MS), (7 * DAY_MS, 6 * HOUR_MS),
)  # fmt: skip
"""Up to how long a time a step of the small charts is how long; beyond, a day."""

SERVED = ("answered", "rescued")
OURS = (*SERVED, "failed", "cut", "interrupted")
"""Endings that say how well we served: who was refused by a limit, or left, is not among them."""

VALUES = (
    "requests", "cost_nanousd", "unpriced", *classes_of("h"), *classes_of("t"), "latency_ms_max",
    "ttft_ms_max",
)  # fmt: skip
VALUES_DRAWN = ("requests", "cost_nanousd")
ROWS_MAX = 100_000
VALUES_BEFORE = ("requests", "cost_nanousd", *classes_of("h"), "latency_ms_max")

REFUSED = {
    "budget": frozenset(
        {"insufficient_quota", "budget_in_flight", "budget_unavailable", "over_budget",
         "price_unknown"}
    ),
    "rate": frozenset({"rate_limited", "rate_limit_exceeded", "overloaded"}),
    "key": frozenset({"model_not_allowed", "team_disabled", "insufficient_permissions"}),
}  # fmt: skip
"""Why requests are refused, by error class; whatever else there is lies in the request itself."""


class Span(NamedTuple):
    """A time; unix ms, the end not included."""

    from_at: int
    to_at: int

    def before(self, now: int) -> Span:
        """As long a time before it as has passed of it."""
        length_ms = min(self.to_at, now) - self.from_at
        return Span(max(0, self.from_at - length_ms), self.from_at)


def read(connection: Connection, span: Span, now: int, *, compare: bool) -> dict[str, Any]:
    """The tiles of a time.

    Args:
        now: unix ms.
        compare: also with the time before.
    """
    place = Reader.beginning_at(feed.read_newest(connection), str).place
    points, steps, step_ms = _read_steps(connection, span, now)
    before = span.before(now)
    earlier = _totals(_read(connection, before, now, VALUES_BEFORE)) if compare else None
    said = _tiles(_totals(points), earlier, span, now)
    said["refused"]["by_kind"] = _refused(points)
    spent, ahead = read_total(connection, now)
    said["spend"]["month"] = {
        "spent_usd": usd(spent),
        "resets_at": moment(period_end("month", now) or now),
        "forecast": None if ahead is None else show_forecast(ahead),
    }
    return {
        "event_id": place,
        "previous": dict(zip(("from", "to"), map(moment, before), strict=True)),
        **said,
        "sparkline": {"step_secs": step_ms // 1000, "points": _sparks(steps)},
    }


class _Totals(NamedTuple):
    endings: Mapping[str, int]
    sums: Mapping[str, int]

    @property
    def requests(self) -> int:
        return sum(self.endings.values())

    def count(self, endings: Iterable[str]) -> int:
        return sum(self.endings.get(each, 0) for each in endings)

    @property
    def answered_share(self) -> float | None:
        return _share(self.count(SERVED), self.count(OURS))

    def quantile_ms(self, letter: str, share: float) -> float | None:
        largest = self.sums["latency_ms_max" if letter == "h" else "ttft_ms_max"]
        counts = merge([histogram_of(self.sums, letter)])
        found = quantile(LATENCY_EDGES_MS, counts, share, largest)
        return None if found is None else round(found, 1)


def _tiles(
    found: _Totals, earlier: _Totals | None, span: Span, now: int
) -> dict[str, dict[str, Any]]:
    secs = max(1, min(span.to_at, now) - span.from_at) / 1000
    cost = found.sums["cost_nanousd"]
    spend = {"usd": usd(cost), "per_day_usd": round(cost / secs * 86_400) / 10**9}
    tiles: dict[str, dict[str, Any]] = {
        "requests": {"total": found.requests, "per_second": round(found.requests / secs, 6)},
        "answered": {
            "share": found.answered_share,
            "of": found.count(OURS),
            **{each: found.endings.get(each, 0) for each in ENDINGS if each != "refused"},
        },
        "latency": {
            "p50_ms": found.quantile_ms("h", 0.5),
            "p95_ms": found.quantile_ms("h", 0.95),
            "p50_ttft_ms": found.quantile_ms("t", 0.5),
            "p95_ttft_ms": found.quantile_ms("t", 0.95),
        },
        "spend": {**spend, "unpriced_requests": found.sums["unpriced"]},
        "refused": {"total": found.count(["refused"])},
    }
    if earlier is not None:
        _compare(tiles, found, earlier)
    return tiles


def _compare(tiles: dict[str, dict[str, Any]], found: _Totals, earlier: _Totals) -> None:
    """Add what each was before, and by what share of that it has changed; null = from nothing."""
    p95 = found.quantile_ms("h", 0.95), earlier.quantile_ms("h", 0.95)
    costs = found.sums["cost_nanousd"], earlier.sums["cost_nanousd"]
    refused = found.count(["refused"]), earlier.count(["refused"])
    tiles["requests"] |= _change(found.requests, earlier.requests)
    tiles["answered"]["previous"] = earlier.answered_share
    tiles["latency"] |= {"previous_p95_ms": p95[1], "change": change(*p95)}
    tiles["spend"] |= {"previous_usd": usd(costs[1]), "change": change(*costs)}
    tiles["refused"] |= _change(*refused)


def _change(now: int, before: int) -> dict[str, Any]:
    return {"previous": before, "change": change(now, before)}


def change(now: float | None, before: float | None) -> float | None:
    """By what share of what it was something has changed; None = there was nothing."""
    return None if now is None or not before else round((now - before) / before, 6)


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None


def _read(
    connection: Connection,
    span: Span,
    now: int,
    values: tuple[str, ...],
    step_ms: int | None = None,
) -> list[Point]:
    return read_series(connection, _query(span, step_ms, values), now)


def _query(span: Span, step_ms: int | None, values: tuple[str, ...]) -> Query:
    group = ("ending", "error_class")
    return Query(REQUESTS, *span, step_ms, group, {}, {}, values, ROWS_MAX)


def _read_steps(
    connection: Connection, span: Span, now: int
) -> tuple[list[Point], list[Point], int]:
    """What the tiles add up, what is drawn small, and how long the steps of that are."""
    fitted = fit_step(connection, _query(span, _step_for(span), VALUES_DRAWN), now)
    step_ms = fitted.step_ms or DAY_MS
    if step_ms % DAY_MS == 0:  # the whole time is read out of the same rows
        points = _read(connection, span, now, VALUES, step_ms)
        return points, points, step_ms
    steps = _read(connection, span, now, VALUES_DRAWN, step_ms)
    return _read(connection, span, now, VALUES), steps, step_ms


def _totals(points: Iterable[Point]) -> _Totals:
    """Everything by how it ended; the quantiles are of all requests, whatever became of them."""
    endings: dict[str, int] = {}
    sums = dict.fromkeys(VALUES, 0)
    for (ending, _), _, values in points:
        endings[ending] = endings.get(ending, 0) + values["requests"]
        for name, value in values.items():
            is_largest = name in REQUESTS.maxima
            sums[name] = max(sums[name], value) if is_largest else sums[name] + value
    return _Totals(endings, sums)


def _refused(points: Iterable[Point]) -> dict[str, int]:
    found = dict.fromkeys((*REFUSED, "request"), 0)
    for (ending, word), _, values in points:
        if ending == "refused":
            kind = next((kind for kind, words in REFUSED.items() if word in words), "request")
            found[kind] += values["requests"]
    return found


def _sparks(points: Iterable[Point]) -> list[dict[str, Any]]:
    """What is drawn small: a point for each step in which there was anything."""
    found: dict[int, tuple[Counter[str], list[int]]] = {}
    for (ending, _), at, values in points:
        endings, costs = found.setdefault(at, (Counter(), []))
        endings[ending] += values["requests"]
        costs.append(values["cost_nanousd"])
    return [_spark(at, endings, sum(costs)) for at, (endings, costs) in sorted(found.items())]


def _spark(at: int, endings: Counter[str], cost_nanousd: int) -> dict[str, Any]:
    return {
        "t": moment(at),
        "requests": endings.total(),
        "rescued": endings["rescued"],
        "failed": endings["failed"] + endings["cut"] + endings["interrupted"],
        "refused": endings["refused"],
        "cost_usd": usd(cost_nanousd),
    }


def _step_for(span: Span) -> int:
    length_ms = span.to_at - span.from_at
    return next((step for longest, step in STEPS_MS if length_ms <= longest), DAY_MS)

"""Time series: what requests and calls came to in each step of a time.

Nothing is written for them: they are the sums that the journal's rows were added to, so the
youngest points are there within a second and no point is ever lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from flask import Blueprint, Response
from sqlalchemy import Connection

from tokenhub import retention, store
from tokenhub.board.board import unix_ms
from tokenhub.board.counters import LATENCY_EDGES_MS, OK_ENDINGS
from tokenhub.db import DatabaseAway
from tokenhub.db.sums_tables import ATTEMPTS, HISTOGRAM, REQUESTS, Family
from tokenhub.errors import InvalidRequest, Unavailable
from tokenhub.histograms import quantile
from tokenhub.store.series import (
    BUCKET_MS,
    Point,
    Query,
    classes_of,
    fit_step,
    histogram_of,
    read_series,
)
from tokenhub.tally import OVERHEAD_EDGES_US
from tokenhub.web import changes, forms, guards
from tokenhub.web.admin import asking, dimensions
from tokenhub.web.answers import answer, rfc3339

routes = Blueprint("tsdb", __name__)

DAY_MS = 86_400_000
POINTS_MAX = 10_000
"""Most points of one answer."""
ROWS_MAX = 5 * POINTS_MAX
"""Most that are read for it: what is not among the `top` is added up."""
POINTS_AIM = 240
"""How many steps a series has at most where no step is asked for."""
STEPS_MS = (
    BUCKET_MS, 30_000, 60_000, 120_000, 300_000, 600_000, 1_800_000, 3_600_000, 10_800_000,
    21_600_000, 43_200_000, DAY_MS,
)  # fmt: skip

SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
TIMED = ("avg", "count", "max", *SHARES)
OTHER = "other"
RETENTION_FIELDS: dict[str, forms.Reader] = {"days": forms.integer(1, 3650)}


@dataclass(frozen=True)
class Metric:
    """A series that can be asked for.

    Args:
        unit: of what it shows.
        total: the columns whose sum it is.
        count: the column that says of how many.
        per_unit: how many of the columns' units one of its own is.
        largest, histogram, edges: where it has them.
        without: what does not count, by column.
    """

    unit: str
    total: tuple[str, ...]
    count: str = "requests"
    aggs: tuple[str, ...] = ("sum", "avg", "count")
    default: str = "sum"
    per_unit: int = 1
    largest: str = ""
    histogram: str = ""
    edges: tuple[int, ...] = LATENCY_EDGES_MS
    family: Family = REQUESTS
    without: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def values(self, agg: str) -> tuple[str, ...]:
        """The columns that an aggregate is made of."""
        if agg in SHARES:
            return (*classes_of(self.histogram), *([self.largest] if self.largest else []))
        if agg == "max":
            return (self.largest, self.count)
        return tuple(dict.fromkeys((*self.total, self.count)))

    def value(self, agg: str, values: Mapping[str, int]) -> float | int | None:
        """What a step came to; None = nothing happened that it could be of."""
        if agg in SHARES:
            counts = histogram_of(values, self.histogram)
            found = quantile(self.edges, counts, SHARES[agg], values.get(self.largest))
            return None if found is None else round(found / self.per_unit, 3)
        count = values[self.count]
        if agg == "count":
            return count
        if agg == "max":
            return self._in_units(values[self.largest]) if count else None
        total = sum(values[name] for name in self.total)
        if agg == "sum":
            return self._in_units(total)
        return round(total / count / self.per_unit, 9) if count else None

    def _in_units(self, value: int) -> float | int:
        return value if self.per_unit == 1 else value / self.per_unit


_COUNTED = ("sum",)

METRICS = {
    "requests": Metric("requests", ("requests",), aggs=_COUNTED),
    "errors": Metric(
        "requests", ("requests",), aggs=_COUNTED, without={"ending": tuple(sorted(OK_ENDINGS))}
    ),
    "latency": Metric(
        "ms", ("latency_ms_sum",), aggs=TIMED, default="avg", largest="latency_ms_max",
        histogram="h",
    ),
    "ttft": Metric(
        "ms", ("ttft_ms_sum",), count="ttft_count", aggs=TIMED, default="avg",
        largest="ttft_ms_max", histogram="t",
    ),
    "overhead": Metric(
        "ms", ("overhead_us_sum",), aggs=TIMED, default="avg", per_unit=1000,
        largest="overhead_us_max", histogram="o", edges=OVERHEAD_EDGES_US,
    ),
    "tokens": Metric("tokens", ("input_tokens", "output_tokens")),
    "cost": Metric("usd", ("cost_nanousd",), per_unit=10**9),
    "attempts": Metric("attempts", ("attempts",), "attempts", _COUNTED, family=ATTEMPTS),
    "attempt_errors": Metric(
        "attempts", ("attempts",), "attempts", _COUNTED, family=ATTEMPTS,
        without={"error_class": ("",)},
    ),
}  # fmt: skip
"""By name. Bytes of streams are not among them: they are in the log, but in no sum."""

FILLS = ("none", "zero", "null")
AGGS = ("sum", *TIMED)

ASKS: dict[str, asking.Ask] = {
    **dimensions.FILTERS,
    "metric": asking.one(forms.one_of(*METRICS)),
    "start": asking.one(asking.moment),
    "end": asking.one(asking.moment),
    "step": asking.one(asking.integer(1, 366 * DAY_MS)),
    "agg": asking.one(forms.one_of(*AGGS)),
    "fill": asking.one(forms.one_of(*FILLS)),
    "group": dimensions.group_by,
    "top": asking.one(asking.integer(1, 1000)),
    "other": asking.one(forms.one_of("0", "1")),
}


@routes.get("/tsdb/metrics")
def metrics() -> Response:
    """What series there are."""
    asking.read_query({})
    kinds = [
        {"name": name, "unit": each.unit, "aggs": list(each.aggs), "default_agg": each.default}
        for name, each in METRICS.items()
    ]
    return answer({"metrics": list(METRICS), "kinds": kinds})


@routes.get("/tsdb/query")
def query() -> Response:
    """A metric in the steps of a time, one series for each group."""
    asked = asking.read_query(ASKS)
    if "metric" not in asked:
        raise InvalidRequest("metric is required", code="missing_field", param="metric")
    metric, now = METRICS[asked["metric"]], unix_ms()
    agg = asked.get("agg", metric.default)
    if agg not in metric.aggs:
        known = ", ".join(metric.aggs)
        raise InvalidRequest(f"agg of {asked['metric']} must be one of: {known}", param="agg")
    wanted = _query_of(asked, metric, metric.values(agg), now)

    def work(connection: Connection) -> tuple[Query, list[Point], dict[str, str]]:
        fitted = fit_step(connection, wanted, now)
        points = read_series(connection, fitted, now)
        groups = {each.group for each in points}
        return fitted, points, dimensions.key_names_of(connection, fitted.group, groups)

    fitted, points, names = dimensions.read(guards.services(), work)
    series = _series(points, fitted, asked)
    steps = _steps(fitted, now) if asked.get("fill", "none") != "none" else None
    length = len(steps) * len(series) if steps else sum(map(len, series.values()))
    if length > POINTS_MAX:
        raise _too_many()
    empty = 0 if asked.get("fill") == "zero" and agg in ("sum", "count") else None
    return answer(
        {
            "as_of": rfc3339(now),
            "from": rfc3339(fitted.from_at),
            "to": rfc3339(fitted.to_at),
            "step": fitted.step_ms,
            "agg": agg,
            "unit": metric.unit if agg != "count" else "requests",
            "series": [
                {
                    "metric": asked["metric"],
                    **dimensions.show(fitted.group, group, names),
                    "points": _points(metric, agg, values, steps, empty),
                }
                for group, values in series.items()
            ],
        }
    )


@routes.post("/tsdb/prune")
def prune() -> Response:
    """Let go now of what is older than it is kept; the sums of days stay."""
    hub = guards.services()
    forms.read_fields(hub, {}, may_be_empty=True)
    try:
        deleted = retention.prune_series(hub.database)
    except DatabaseAway as error:  # what was deleted until then stays so
        raise Unavailable("the database is away", code="database_away") from error
    change = changes.change_of(hub, "secret", "tsdb", action="tsdb.prune",
                               detail={"before": None, "after": {"deleted": deleted}})  # fmt: skip
    hub.catalog.apply(change, lambda connection: None)
    return answer({"deleted": deleted})


@routes.put("/tsdb/retention")
def set_retention() -> Response:
    """How many days the sums of hours are kept, on all hosts; those of days stay for ever."""
    hub = guards.services()
    fields = forms.read_fields(hub, RETENTION_FIELDS, required=("days",))
    subject = changes.Subject[int](
        kind="secret",  # no worker keeps it: the job that prunes reads it each time
        id=store.TSDB_RETENTION_DAYS,
        find=retention.load_series_days,
        show=lambda each: {"days": each},
    )
    stored = changes.save(
        hub,
        subject,
        "tsdb.retention",
        alter=lambda before: int(fields["days"]),
        write=lambda connection, after: store.save_option(
            connection, store.TSDB_RETENTION_DAYS, str(after), unix_ms()
        ),
    )
    return answer({"ok": True, "retention_days": stored})


def _query_of(asked: Mapping[str, Any], metric: Metric, values: tuple[str, ...], now: int) -> Query:
    end = asked.get("end", now)
    start = asked.get("start", min(end, now) - DAY_MS)
    if end < start:
        raise InvalidRequest("end must not be before start", param="end")
    group = asked.get("group", ("model_id", "provider_id"))
    where = dimensions.conditions_of(asked)
    dimensions.check_known(metric.family, (*group, *where), asked["metric"])
    return Query(
        family=metric.family,
        from_at=start,
        to_at=end,
        step_ms=asked.get("step") or _step_for(end - start),
        group=group,
        where=where,
        without=metric.without,
        values=values,
        rows_max=ROWS_MAX,
    )


def _step_for(length_ms: int) -> int:
    """The shortest round step that makes no more points than a chart shows."""
    fitting = (each for each in STEPS_MS if length_ms <= each * POINTS_AIM)
    return next(fitting, -(-length_ms // POINTS_AIM))


Values = dict[int, Mapping[str, int]]


def _series(
    points: Iterable[Point], query: Query, asked: Mapping[str, Any]
) -> dict[tuple[str, ...], Values]:
    """By group, then by time; the largest `top` groups alone, the others as one if asked."""
    found: dict[tuple[str, ...], Values] = {}
    for group, at, values in points:
        found.setdefault(group, {})[at] = values
    top = asked.get("top", len(found))
    if top >= len(found):
        return dict(sorted(found.items()))
    # What is first is the sum itself; of quantiles they are the classes, which count how many.
    names = query.values[:HISTOGRAM] if asked.get("agg") in SHARES else query.values[:1]

    def size(group: tuple[str, ...]) -> int:
        return sum(values[name] for values in found[group].values() for name in names)

    ranked = sorted(found, key=lambda group: (-size(group), group))
    kept = {group: found[group] for group in ranked[:top]}
    if asked.get("other") == "1" and query.group:
        kept[(OTHER,) * len(query.group)] = _merged((found[each] for each in ranked[top:]), query)
    return kept


def _merged(series: Iterable[Values], query: Query) -> Values:
    found: Values = {}
    maxima = query.family.maxima
    for each in series:
        for at, values in each.items():
            old = found.get(at)
            found[at] = values if old is None else {
                name: max(old[name], values[name]) if name in maxima else old[name] + values[name]
                for name in values
            }  # fmt: skip
    return found


def _steps(query: Query, now: int) -> list[int]:
    """The beginnings of all steps until now, which all series have when they are filled."""
    step = query.step_ms or BUCKET_MS
    first, end = query.from_at // step * step, min(query.to_at, now)
    if (end - first) // step > POINTS_MAX:
        raise _too_many()
    return list(range(first, end, step))


def _points(
    metric: Metric, agg: str, values: Values, steps: list[int] | None, empty: int | None
) -> list[dict[str, Any]]:
    """What can be said of each step; of those without anything only if all are wanted."""
    if steps is None:
        said = ((at, metric.value(agg, values[at])) for at in sorted(values))
        return [{"t": _moment(at), "v": value} for at, value in said if value is not None]
    return [
        {"t": _moment(at), "v": metric.value(agg, values[at]) if at in values else empty}
        for at in steps
    ]


# All series of an answer have the same times.
_moment = lru_cache(maxsize=POINTS_MAX)(rfc3339)


def _too_many() -> InvalidRequest:
    return InvalidRequest(
        f"more than {POINTS_MAX} points: ask for a longer step, or the `top` few groups",
        code="too_many_points",
    )

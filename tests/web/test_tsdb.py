"""Time series: sums where there are sums, means where there are means, nothing made up."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import pytest

from tests.store.test_ingest import bucket_key, make_batch
from tests.web.test_admin_views import record
from tokenhub import retention, store
from tokenhub.db.sums_tables import REQUESTS
from tokenhub.domain import Attempt, Usage
from tokenhub.store import hosts, rollups

DAY_MS = 86_400_000
MINUTE_MS = 60_000


def write(app, at: int, **fields: Any) -> None:
    usage = Usage(input_tokens=10, output_tokens=fields.pop("output", 5))
    cost = fields.pop("cost", 10**9)
    error = "" if fields.get("ending", "answered") == "answered" else "timeout"
    tries = [Attempt(fields.get("model_id", "small"), "acme", 0, 40, 12, 200, error, usage, cost)]
    record(app, started_at=at, attempts=tries, error_class=error, **fields)


@pytest.fixture
def minute(app, admin) -> int:
    """Two requests in one minute and, two minutes later, one that failed; its beginning."""
    at = int(time.time() * 1000) // MINUTE_MS * MINUTE_MS - 10 * MINUTE_MS
    write(app, at, request_id="a", latency_ms=100, ttft_ms=15)
    write(app, at + 30_000, request_id="b", latency_ms=300, ttft_ms=None, output=25, cost=None)
    write(app, at + 2 * MINUTE_MS, request_id="c", latency_ms=50, ttft_ms=None, ending="failed",
          model_id="big")  # fmt: skip
    return at


def points(said) -> list[list[Any]]:
    return [[each["v"] for each in series["points"]] for series in said["series"]]


def ask(admin, at: int, query: str, minutes: int = 4):
    times = f"start={at}&end={at + minutes * MINUTE_MS}&step=60000"
    return admin.ok("GET", f"tsdb/query?{times}&{query}")


def test_the_metrics_are_listed_with_what_they_can_be_asked_for(admin):
    said = admin.ok("GET", "tsdb/metrics")
    assert {"latency", "cost", "tokens", "errors"} < set(said["metrics"])
    assert [each["name"] for each in said["kinds"]] == said["metrics"]
    for each in said["kinds"]:
        assert each["default_agg"] in each["aggs"]
        for agg in each["aggs"]:
            admin.ok("GET", f"tsdb/query?metric={each['name']}&agg={agg}")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("metric=requests", [[2, 1]]),
        ("metric=errors", [[1]]),
        ("metric=tokens", [[50, 15]]),
        ("metric=tokens&agg=avg", [[25, 15]]),
        ("metric=cost", [[1.0, 1.0]]),
        ("metric=latency", [[200, 50]]),
        ("metric=latency&agg=sum", None),
        ("metric=latency&agg=max", [[300, 50]]),
        ("metric=latency&agg=count", [[2, 1]]),
        ("metric=latency&agg=p50", [[100, 35]]),
        ("metric=ttft", [[15]]),
        ("metric=ttft&agg=p95", [[14.75]]),
        ("metric=attempts", [[2, 1]]),
        ("metric=attempt_errors", [[1]]),
        ("metric=requests&fill=zero", [[2, 0, 1, 0]]),
        ("metric=requests&fill=null", [[2, None, 1, None]]),
        ("metric=latency&fill=zero", [[200, None, 50, None]]),
        ("metric=ttft&fill=null", [[15, None, None, None]]),
        ("metric=requests&outcome=answered", [[2]]),
        ("metric=requests&model=big&key=key_1&mode=cheap", [[1]]),
        ("metric=requests&provider=nobody", []),
    ],
)
def test_points_are_what_happened_in_their_step(admin, minute, query, expected):
    if expected is None:
        assert admin.refused("GET", f"tsdb/query?{query}")[2] == "agg"
        return
    said = ask(admin, minute, f"group=&{query}")
    assert points(said) == expected
    assert said["step"] == MINUTE_MS


def test_series_are_by_model_and_provider_unless_asked_for_otherwise(admin, minute):
    said = ask(admin, minute, "metric=requests")["series"]
    assert [(each["metric"], each["model_id"], each["provider_id"]) for each in said] == [
        ("requests", "big", "acme"), ("requests", "small", "acme"),
    ]  # fmt: skip
    assert said[0]["points"][0]["t"].endswith("00.000Z")
    said = ask(admin, minute, "metric=requests&group=outcome,key")["series"]
    assert [(each["outcome"], each["api_key_name"]) for each in said] == [
        ("answered", "key_1"), ("failed", "key_1"),
    ]  # fmt: skip
    said = ask(admin, minute, "metric=tokens&group=model&top=1&other=1")
    assert [(each["model_id"]) for each in said["series"]] == ["small", "other"]
    assert points(said) == [[50], [15]]
    assert points(ask(admin, minute, "metric=latency&agg=p95&group=model&top=1")) == [[290.0]]


def test_the_youngest_points_are_there_and_the_step_says_how_fine_it_is(app, admin):
    now = int(time.time() * 1000)
    write(app, now - 1000, request_id="young")
    said = admin.ok("GET", "tsdb/query?metric=requests&step=1")
    assert (points(said), said["step"]) == ([[1]], 10_000)
    said = admin.ok("GET", "tsdb/query?metric=requests")
    assert (points(said), said["step"]) == ([[1]], 600_000)
    said = admin.ok("GET", f"tsdb/query?metric=requests&start={now - 90 * DAY_MS}&step=60000")
    assert (points(said), said["step"]) == ([[1]], DAY_MS)


@pytest.mark.parametrize(
    ("query", "code", "param"),
    [
        ("", "missing_field", "metric"),
        ("metric=stream_bytes", None, "metric"),
        ("metric=cost&start=soon", None, "start"),
        ("metric=cost&end=2026-13-01T00:00:00Z", None, "end"),
        ("metric=cost&start=2026-01-02T00:00:00Z&end=2026-01-01T00:00:00Z", None, "end"),
        ("metric=cost&step=0", None, "step"),
        ("metric=cost&step=a", None, "step"),
        ("metric=cost&agg=p95", None, "agg"),
        ("metric=cost&agg=median", None, "agg"),
        ("metric=cost&fill=1", None, "fill"),
        ("metric=cost&group=colour", None, "group"),
        ("metric=attempts&group=key", None, "key"),
        ("metric=attempts&mode=cheap", None, "mode"),
        ("metric=cost&colour=red", "unknown_field", "colour"),
        ("metric=cost&metric=tokens", None, "metric"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(admin, query, code, param):
    status, said, named = admin.refused("GET", f"tsdb/query?{query}")
    assert (status, named) == (400, param)
    assert code is None or said == code


def test_an_answer_has_so_many_points_at_most(admin, app, monkeypatch, minute):
    monkeypatch.setattr("tokenhub.web.admin.tsdb.POINTS_MAX", 3)
    times = f"tsdb/query?metric=requests&step=60000&start={minute}"
    assert len(points(admin.ok("GET", times))) == 2
    assert admin.refused("GET", f"{times}&fill=zero")[:2] == (400, "too_many_points")
    monkeypatch.setattr("tokenhub.web.admin.tsdb.ROWS_MAX", 1)
    assert admin.refused("GET", times)[:2] == (400, "too_many_points")


def old_hours(app, *days: int) -> None:
    """A request so many days ago each, rolled up."""
    database = app.services.database
    now = database.read(hosts.now_ms)
    keys = [bucket_key((now - each * DAY_MS) // 10_000 * 10_000) for each in days]
    batch = make_batch(sums={REQUESTS: {key: [1] * len(REQUESTS.values) for key in keys}})
    database.write(partial(store.ingest, batch=batch))
    roll = partial(rollups.roll_up, settled_at=now - MINUTE_MS, now=now, rows_max=99)
    database.write(roll)


def test_hours_are_kept_as_long_as_was_set_and_days_for_ever(app, admin):
    old_hours(app, 20, 10, 9)
    assert admin.ok("POST", "tsdb/prune") == {"deleted": 0}
    said = admin.ok("PUT", "tsdb/retention", {"days": 15})
    assert said == {"ok": True, "retention_days": 15}
    assert app.services.database.read(retention.load_series_days) == 15
    assert admin.ok("POST", "tsdb/prune") == {"deleted": 1}
    assert admin.ok("POST", "tsdb/prune") == {"deleted": 0}
    admin.ok("PUT", "tsdb/retention", {"days": 7})
    gone = retention.prune(app.services.database, retention.rules_of(90))
    assert gone["rollup_hours"] == 2
    start = int(time.time() * 1000) - 30 * DAY_MS
    said = admin.ok("GET", f"tsdb/query?metric=requests&group=&start={start}")
    assert points(said) == [[1, 1, 1]]
    assert said["step"] == DAY_MS, "as there are no hours any more"
    actions = [each["action"] for each in admin.ok("GET", "audit")["logs"]]
    assert actions.count("tsdb.retention") == 2
    assert actions.count("tsdb.prune") == 3


@pytest.mark.parametrize("days", [0, -1, 3651, 1.5, "7", None, True])
def test_a_retention_is_a_whole_number_of_days(admin, days):
    assert admin.refused("PUT", "tsdb/retention", {"days": days})[2] == "days"

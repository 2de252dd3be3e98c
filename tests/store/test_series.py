"""Whatever was rolled up and whatever has gone, a time adds up to what happened in it."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import pytest

from tests.store.test_ingest import make_batch
from tokenhub import store
from tokenhub.db import Database
from tokenhub.db.sums_tables import ATTEMPTS, REQUESTS
from tokenhub.store import retention, rollups
from tokenhub.store.rollups import DAY_MS, HOUR_MS, WEEK_MS
from tokenhub.store.series import (
    BUCKET_MS,
    BUCKETS_MS,
    Point,
    Query,
    TooManyRows,
    fit_step,
    histogram_of,
    read_series,
)

NOW = 1_700_000_000_000 // DAY_MS * DAY_MS + 15 * HOUR_MS + 1_234_000
"""A quarter past three in the afternoon, UTC."""

Bucket = tuple[str, int, dict[str, str], dict[str, int]]


class World:
    """Buckets that were ingested, and what a query must find in them."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.made: list[Bucket] = []

    def add(self, start_at: int, host: str = "host-1", requests: int = 1, **words: str) -> None:
        start_at = start_at // BUCKET_MS * BUCKET_MS
        words = {"model_id": "m", "ending": "answered", **words}
        values = {"requests": requests, "latency_ms_max": requests, "h3": requests}
        self.made.append((host, start_at, words, values))

    def store(self) -> None:
        """Ingest what was added."""
        sums: dict[tuple[Any, ...], list[int]] = {}
        for host, start_at, words, values in self.made:
            key = (host, start_at, *(words.get(name, "") for name in REQUESTS.key))
            numbers = [values.get(name, 0) for name in REQUESTS.values]
            old = sums.get(key, [0] * len(numbers))
            sums[key] = [
                max(a, b) if name in REQUESTS.maxima else a + b
                for name, a, b in zip(REQUESTS.values, old, numbers, strict=True)
            ]
        batch = make_batch(sums={REQUESTS: sums})
        self.database.write(partial(store.ingest, batch=batch))

    def roll(self, until: int) -> None:
        work = partial(rollups.roll_up, settled_at=until, now=until, rows_max=10**6)
        self.database.write(work)

    def prune(self, work: retention.Prune, before: int) -> None:
        self.database.write(lambda connection: work(connection, before, 10**6))

    def read(self, from_at: int, to_at: int, **more: Any) -> list[Point]:
        fields = {"family": REQUESTS, "step_ms": None, "group": (), "where": {}, **more}
        query = Query(from_at=from_at, to_at=to_at, **fields)
        return self.database.read(lambda each: read_series(each, query, NOW))

    def requests(self, from_at: int, to_at: int, **more: Any) -> int:
        return sum(each.values["requests"] for each in self.read(from_at, to_at, **more))

    def expected(self, from_at: int, to_at: int) -> int:
        return sum(
            values["requests"] for _, at, _, values in self.made if from_at <= at < to_at
        )  # fmt: skip


@pytest.fixture
def world(database) -> World:
    return World(database)


def scatter(world: World, rng: random.Random, days: float = 9, count: int = 150) -> None:
    for _ in range(count):
        ago = int(rng.random() ** 2 * days * DAY_MS)
        world.add(
            NOW - ago,
            host=rng.choice(["host-1", "host-2"]),
            requests=rng.randrange(1, 50),
            model_id=rng.choice(["m", "m2"]),
            ending=rng.choice(["answered", "failed"]),
        )
    world.store()


@pytest.mark.parametrize("seed", range(3))
def test_a_range_of_three_days_is_exact_to_ten_seconds(world, seed):
    rng = random.Random(seed)
    scatter(world, rng, days=2.9)
    for rolled in (NOW - 2 * DAY_MS, NOW - 7_200_000, NOW - 120_000):
        world.roll(rolled)
        for _ in range(15):
            from_at, to_at = sorted(
                (NOW - rng.randrange(BUCKETS_MS)) // BUCKET_MS * BUCKET_MS for _ in range(2)
            )
            expected = world.expected(from_at, to_at)
            assert world.requests(from_at, to_at) == expected
            assert world.requests(from_at + 1, to_at - 1) == expected, "rounded outwards"
            for step in (60_000, HOUR_MS, DAY_MS):
                assert world.requests(from_at, to_at, step_ms=step) == expected


@pytest.mark.parametrize("seed", range(3))
def test_months_add_up_to_whole_days_and_to_now(world, seed):
    rng = random.Random(seed)
    scatter(world, rng, days=60)
    world.roll(NOW - 120_000)
    world.prune(retention.prune_buckets, NOW - 3 * DAY_MS)
    midnight = NOW // DAY_MS * DAY_MS
    for _ in range(15):
        days = sorted(rng.sample(range(60), 2))
        from_at, to_at = midnight - days[1] * DAY_MS, midnight - days[0] * DAY_MS
        for step in (None, DAY_MS, WEEK_MS, 2 * WEEK_MS):
            found = world.requests(from_at, to_at, step_ms=step)
            assert found == world.expected(from_at, to_at)
            assert world.requests(from_at, NOW, step_ms=step) == world.expected(from_at, NOW)


def test_ranges_further_back_are_widened_to_hours_and_then_to_days(world):
    scatter(world, random.Random(5))
    world.roll(NOW - 120_000)
    world.prune(retention.prune_buckets, NOW - 3 * DAY_MS)
    hour = (NOW - 6 * DAY_MS) // HOUR_MS * HOUR_MS
    for end in (NOW, NOW - 5 * DAY_MS + 77_000):
        widened = end if end == NOW else -(-end // HOUR_MS) * HOUR_MS
        assert world.requests(hour + 1_000_000, end) == world.expected(hour, widened)
    world.prune(retention.prune_hours, NOW - 5 * DAY_MS)
    midnight = (NOW - 6 * DAY_MS) // DAY_MS * DAY_MS
    assert world.requests(hour, NOW) == world.expected(midnight, NOW)
    assert world.requests(hour, hour + HOUR_MS) == world.expected(midnight, midnight + DAY_MS)
    after = midnight + DAY_MS * 3 + HOUR_MS
    assert world.requests(after, NOW) == world.expected(after, NOW), "its hours are still there"
    world.prune(retention.prune_hours, NOW + DAY_MS)
    assert world.requests(midnight, NOW) == world.expected(midnight, NOW)


@pytest.mark.parametrize("step", [HOUR_MS, 3 * HOUR_MS, DAY_MS])
def test_steps_are_cut_at_their_multiples_whatever_was_rolled_up(world, step):
    scatter(world, random.Random(7))
    from_at = (NOW - 8 * DAY_MS) // DAY_MS * DAY_MS
    expected: dict[int, int] = {}
    for _, at, _, values in world.made:
        if at >= from_at:
            expected[at // step * step] = expected.get(at // step * step, 0) + values["requests"]
    for until in (NOW - 2 * DAY_MS, NOW - 120_000):
        world.roll(until)
        points = world.read(from_at, NOW, step_ms=step)
        found = {each.start_at: each.values["requests"] for each in points}
        if until > NOW - DAY_MS:
            world.prune(retention.prune_buckets, NOW - 3 * DAY_MS)
        assert found == expected
        assert [each.start_at for each in points] == sorted(expected)


def test_groups_filters_maxima_and_histograms(world):
    for model, ending, requests in (("a", "answered", 5), ("a", "failed", 3), ("b", "failed", 2)):
        world.add(NOW - 30_000, model_id=model, ending=ending, requests=requests)
        world.add(NOW - 9 * HOUR_MS, model_id=model, ending=ending, requests=1)
    world.store()
    world.roll(NOW - 120_000)
    day = (NOW - DAY_MS, NOW)
    by_model = {each.group: each.values for each in world.read(*day, group=("model_id",))}
    assert {key: each["requests"] for key, each in by_model.items()} == {("a",): 10, ("b",): 3}
    assert by_model["a",]["latency_ms_max"] == 5
    assert histogram_of(by_model["a",], "h") == [0, 0, 0, 10] + [0] * 12
    assert set(by_model["a",]) == set(REQUESTS.values)
    assert world.requests(*day, where={"model_id": ["a"], "ending": ["failed"]}) == 4
    assert world.requests(*day, without={"ending": ["failed"]}) == 6
    assert world.requests(*day, where={"model_id": []}) == 0
    [point] = world.read(*day, values=("requests",))
    assert point == Point((), NOW - DAY_MS, {"requests": 13})
    pairs = world.read(*day, group=("ending", "model_id"))
    assert [each.group for each in pairs] == [("answered", "a"), ("failed", "a"), ("failed", "b")]


def test_attempts_are_read_likewise(database, world):
    for at in (NOW - 20_000, NOW - 30 * HOUR_MS):
        key = ("host-1", at // BUCKET_MS * BUCKET_MS, "m", "p", "timeout")
        batch = make_batch(sums={ATTEMPTS: {key: [1] * len(ATTEMPTS.values)}})
        database.write(partial(store.ingest, batch=batch))
    world.roll(NOW - 120_000)
    [point] = world.read(NOW - 2 * DAY_MS, NOW, family=ATTEMPTS, group=("provider_id",))
    assert (point.group, point.values["attempts"], point.values["duration_ms_max"]) == (
        ("p",), 2, 1,
    )  # fmt: skip


def test_empty_ranges_and_times_without_requests_have_no_points(world):
    assert world.read(0, NOW) == []
    assert world.read(0, NOW, step_ms=HOUR_MS, group=("model_id",)) == []
    world.add(NOW - 60_000)
    world.store()
    assert world.read(NOW, NOW) == []
    assert world.read(NOW - 50_000, NOW - 60_000) == []
    assert world.requests(0, NOW) == 1
    assert world.requests(0, NOW + DAY_MS) == 1, "what will be is not yet"


def test_more_points_than_allowed_are_refused(world):
    for number in range(6):
        world.add(NOW - 60_000, model_id=f"m{number}")
    world.store()
    assert len(world.read(NOW - HOUR_MS, NOW, group=("model_id",), rows_max=6)) == 6
    with pytest.raises(TooManyRows):
        world.read(NOW - HOUR_MS, NOW, group=("model_id",), rows_max=5)


@pytest.mark.parametrize(
    ("ago_ms", "step", "expected"),
    [
        (HOUR_MS, 1, BUCKET_MS),
        (HOUR_MS, 15_000, 20_000),
        (24 * HOUR_MS, 600_000, 600_000),
        (30 * HOUR_MS, 600_000, HOUR_MS),
        (10 * DAY_MS, HOUR_MS + 1, 2 * HOUR_MS),
        (90 * DAY_MS, HOUR_MS, DAY_MS),
        (90 * DAY_MS, DAY_MS + 1, 2 * DAY_MS),
        (90 * DAY_MS, None, None),
    ],
)
def test_a_step_is_as_short_as_can_be_read_quickly(database, ago_ms, step, expected):
    query = Query(REQUESTS, NOW - ago_ms, NOW, step, (), {})
    assert database.read(lambda each: fit_step(each, query, NOW)).step_ms == expected


def test_steps_are_days_where_the_hours_are_gone(world):
    world.add(NOW - 13 * DAY_MS)
    world.add(NOW - 2 * DAY_MS)
    world.store()
    world.roll(NOW)
    query = Query(REQUESTS, NOW - 14 * DAY_MS, NOW, HOUR_MS, (), {})
    assert world.database.read(lambda each: fit_step(each, query, NOW)).step_ms == HOUR_MS
    world.prune(retention.prune_hours, NOW - 7 * DAY_MS)
    assert world.database.read(lambda each: fit_step(each, query, NOW)).step_ms == DAY_MS
    assert world.requests(query.from_at, NOW, step_ms=HOUR_MS) == 2

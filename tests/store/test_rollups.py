"""Buckets, hours, days and weeks always say the same, whenever what was ingested."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import gevent
import pytest
from sqlalchemy import select, text

from tests.store.test_ingest import BUCKET_KEY, WIDTH, bucket_key, make_batch, sums_of
from tokenhub import retention, store
from tokenhub.db import Database
from tokenhub.db.sums_tables import (
    ATTEMPTS,
    REQUESTS,
    attempt_days,
    attempt_hours,
    attempt_weeks,
    buckets,
    rollup_days,
    rollup_hours,
    rollup_weeks,
)
from tokenhub.store.retention import prune_buckets
from tokenhub.store.rollups import DAY_MS, HOUR_MS, WEEK_MS, find_oldest_unrolled, roll_up

START = 1_700_000_000_000 // DAY_MS * DAY_MS
"""A midnight, UTC."""

Sums = dict[tuple[Any, ...], list[int]]


def key_of(**changes) -> tuple[Any, ...]:
    return tuple({**dict(zip(BUCKET_KEY, bucket_key(START), strict=True)), **changes}.values())


def ingest(database: Database, *keys: tuple[Any, ...], sums: list[int] | None = None) -> None:
    """Add to the buckets of these keys."""
    batch = make_batch(sums=sums_of(keys, sums))
    database.write(lambda connection: store.ingest(connection, batch))


def roll(database: Database, settled_at: int = START + 1000 * DAY_MS, *, now: int, rows_max=100):
    work = partial(roll_up, settled_at=settled_at, now=now, rows_max=rows_max)
    return database.write(work)


def read_sums(database: Database, table, where=None) -> Sums:
    """By start and the family's key."""
    query = select(table) if where is None else select(table).where(where)
    found: Sums = {}
    for row in database.read(lambda connection: connection.execute(query).mappings().all()):
        key = (row["start_at"], *(row[name] for name in REQUESTS.key))
        grow(found, key, [row[name] for name in REQUESTS.values])
    return found


def grow(sums: Sums, key: tuple[Any, ...], numbers: list[int]) -> None:
    """As a row of sums grows by another: maxima stay maxima."""
    old = sums.get(key, [0] * WIDTH)
    sums[key] = [
        max(a, b) if name in REQUESTS.maxima else a + b
        for name, a, b in zip(REQUESTS.values, old, numbers, strict=True)
    ]


def by(sums: Sums, span_ms: int) -> Sums:
    found: Sums = {}
    for (start, *rest), numbers in sums.items():
        grow(found, (start // span_ms * span_ms, *rest), numbers)
    return found


def add(*all_: Sums) -> Sums:
    found: Sums = {}
    for sums in all_:
        for key, numbers in sums.items():
            grow(found, key, numbers)
    return found


def test_hours_days_and_weeks_add_up_over_hosts(database):
    ingest(
        database,
        key_of(),
        key_of(host_id="host-2", start_at=START + 10_000),
        key_of(start_at=START + HOUR_MS - 10_000),
        key_of(start_at=START + HOUR_MS),
        key_of(start_at=START + DAY_MS, model_id="m2"),
        sums=list(range(WIDTH)),
    )
    assert roll(database, now=1) == 5
    tail = bucket_key()[2:]
    hours = read_sums(database, rollup_hours)
    assert {key: numbers[3] for key, numbers in hours.items()} == {
        (START, *tail): 9, (START + HOUR_MS, *tail): 3, (START + DAY_MS, "m2", *tail[1:]): 3,
    }  # fmt: skip
    days = read_sums(database, rollup_days)
    assert days[START, *tail] == [
        number if name in REQUESTS.maxima else 4 * number
        for number, name in enumerate(REQUESTS.values)
    ]
    assert days == by(hours, DAY_MS)
    assert read_sums(database, rollup_weeks) == by(days, WEEK_MS)


def test_attempts_are_rolled_up_as_requests_are(database):
    keys = [("host-1", START + at, "m", "p", "timeout") for at in (0, 10_000, HOUR_MS)]
    batch = make_batch(sums={ATTEMPTS: {key: [2] * len(ATTEMPTS.values) for key in keys}})
    database.write(lambda connection: store.ingest(connection, batch))
    assert roll(database, now=1) == 3
    for table, counts in ((attempt_hours, [4, 2]), (attempt_days, [6]), (attempt_weeks, [6])):
        query = select(table).order_by(table.c.start_at)
        rows = database.read(lambda each, query=query: each.execute(query).mappings().all())
        assert [row["attempts"] for row in rows] == counts
        assert {row["duration_ms_max"] for row in rows} == {2}


def test_what_has_not_settled_waits(database):
    ingest(database, key_of(), key_of(start_at=START + 10_000))
    assert roll(database, START + 10_000, now=1) == 1
    assert database.read(find_oldest_unrolled) == START + 10_000
    assert roll(database, now=2) == 1
    assert database.read(find_oldest_unrolled) is None


def test_doing_it_again_changes_nothing(database):
    ingest(database, key_of())
    roll(database, now=1)
    before = read_sums(database, rollup_hours)
    assert roll(database, now=2) == 0
    assert read_sums(database, rollup_hours) == before


def test_what_comes_late_is_added_even_when_its_buckets_are_gone(database):
    ingest(database, key_of())
    roll(database, now=1)
    ingest(database, key_of())  # to the same ten seconds
    roll(database, now=2)
    database.write(lambda connection: prune_buckets(connection, START + DAY_MS, 100))
    assert read_sums(database, buckets) == {}
    ingest(database, key_of())
    roll(database, now=3)
    (hour,) = read_sums(database, rollup_hours).values()
    (day,) = read_sums(database, rollup_days).values()
    assert (hour[0], day[0]) == (3, 3)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_in_whatever_order_nothing_is_lost_or_counted_twice(database, seed):
    rng = random.Random(seed)
    ingested: Sums = {}
    for now in range(1, 60):
        choice = rng.random()
        if choice < 0.6:
            keys = {
                key_of(
                    host_id=rng.choice(["host-1", "host-2"]),
                    start_at=START + rng.randrange(40) * rng.choice([10_000, HOUR_MS]),
                    model_id=rng.choice(["m", "m2"]),
                    endpoint=rng.choice(["chat", "messages"]),
                    ending=rng.choice(["answered", "failed"]),
                    team_id=rng.choice(["", "team-1"]),
                    error_class=rng.choice(["", "timeout"]),
                )
                for _ in range(rng.randrange(1, 8))
            }
            sums = [rng.randrange(2**40) for _ in range(WIDTH)]
            ingest(database, *keys, sums=sums)
            for key in keys:
                grow(ingested, key[1:], sums)
        elif choice < 0.85:
            settled_at = START + rng.randrange(48) * HOUR_MS
            roll(database, settled_at, now=now, rows_max=rng.randrange(1, 20))
        else:
            before = START + rng.randrange(48) * HOUR_MS
            database.write(partial(prune_buckets, before=before, rows_max=5))
        hours, days = read_sums(database, rollup_hours), read_sums(database, rollup_days)
        waiting = read_sums(database, buckets, buckets.c.rolled_at == 0)
        assert days == by(hours, DAY_MS)
        assert read_sums(database, rollup_weeks) == by(days, WEEK_MS)
        assert add(hours, by(waiting, HOUR_MS)) == by(ingested, HOUR_MS)


def test_hosts_may_ingest_while_buckets_are_rolled_up(database):
    """Nothing is lost in the races, whoever of the two has to begin again."""

    def keep_ingesting(host: str) -> None:
        for number in range(30):
            ingest(database, key_of(host_id=host, start_at=START + number % 3 * 10_000))
            gevent.sleep(0)

    def keep_rolling() -> None:
        for now in range(1, 30):
            roll(database, now=now)
            gevent.sleep(0)

    workers = [gevent.spawn(keep_ingesting, host) for host in ("host-1", "host-2")]
    gevent.joinall([*workers, gevent.spawn(keep_rolling)], raise_error=True)
    roll(database, now=99)
    (hour,) = read_sums(database, rollup_hours).values()
    assert hour == [1 if name in REQUESTS.maxima else 60 for name in REQUESTS.values]


def test_the_job_rolls_up_what_has_settled(database):
    ingest(database, *(key_of(model_id=f"m{number}") for number in range(300)))
    assert retention.roll_up(database) == {"buckets": 300}
    assert retention.roll_up(database) == {"buckets": 0}
    count = text("SELECT SUM(requests) FROM rollup_days")
    assert database.read(lambda connection: connection.scalar(count)) == 300

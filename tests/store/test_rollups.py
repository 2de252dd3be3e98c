"""Buckets, hours and days always say the same, whenever what was ingested."""

from __future__ import annotations

import random
from collections import Counter
from functools import partial
from typing import Any

import gevent
import pytest
from sqlalchemy import select, text

from tests.store.test_ingest import bucket_key, make_batch
from tokenhub import retention, store
from tokenhub.db import Database
from tokenhub.db.traffic_tables import buckets, rollup_days, rollup_hours
from tokenhub.store.ingest import BUCKET_KEY
from tokenhub.store.retention import prune_buckets
from tokenhub.store.rollups import DAY_MS, HOUR_MS, find_oldest_unrolled, roll_up

START = 1_700_000_000_000 // DAY_MS * DAY_MS
"""A midnight, UTC."""

Sums = dict[tuple[Any, ...], Counter[int]]


def key_of(**changes) -> tuple[Any, ...]:
    return tuple({**dict(zip(BUCKET_KEY, bucket_key(START), strict=True)), **changes}.values())


def ingest(database: Database, *keys: tuple[Any, ...], sums: list[int] | None = None) -> None:
    """Add to the buckets of these keys."""
    batch = make_batch(buckets={key: sums or [1] * 24 for key in keys})
    database.write(lambda connection: store.ingest(connection, batch))


def roll(database: Database, settled_at: int = START + 1000 * DAY_MS, *, now: int, rows_max=100):
    work = partial(roll_up, settled_at=settled_at, now=now, rows_max=rows_max)
    return database.write(work)


def read_sums(database: Database, table, where=None) -> Sums:
    """By start, model, provider, key, mode, ending and team."""
    query = select(table) if where is None else select(table).where(where)
    found: Sums = {}
    for row in database.read(lambda connection: connection.execute(query).mappings().all()):
        key = (row["start_at"], row["model_id"], row["provider_id"], row["api_key_id"],
               row["mode"], row["ending"], row["team_id"])  # fmt: skip
        numbers = list(row.values())[-24:]
        found.setdefault(key, Counter()).update(dict(enumerate(numbers)))
    return found


def by(sums: Sums, span_ms: int) -> Sums:
    found: Sums = {}
    for (start, *rest), numbers in sums.items():
        found.setdefault((start // span_ms * span_ms, *rest), Counter()).update(numbers)
    return found


def add(*all_: Sums) -> Sums:
    found: Sums = {}
    for sums in all_:
        for key, numbers in sums.items():
            found.setdefault(key, Counter()).update(numbers)
    return found


def test_hours_and_days_add_up_over_hosts_and_endpoints(database):
    ingest(
        database,
        key_of(),
        key_of(host_id="host-2", start_at=START + 10_000),
        key_of(endpoint="messages", start_at=START + HOUR_MS - 10_000),
        key_of(start_at=START + HOUR_MS),
        key_of(start_at=START + DAY_MS, model_id="m2"),
        sums=list(range(24)),
    )
    assert roll(database, now=1) == 5
    tail = ("m", "p", "key_1", "normal", "answered", "")
    hours = read_sums(database, rollup_hours)
    assert {key: numbers[3] for key, numbers in hours.items()} == {
        (START, *tail): 9, (START + HOUR_MS, *tail): 3, (START + DAY_MS, "m2", *tail[1:]): 3,
    }  # fmt: skip
    days = read_sums(database, rollup_days)
    assert days[START, *tail] == Counter({number: 4 * number for number in range(24)})
    assert days == by(hours, DAY_MS)


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
                )
                for _ in range(rng.randrange(1, 8))
            }
            sums = [rng.randrange(2**40) for _ in range(24)]
            ingest(database, *keys, sums=sums)
            for _, start, model, provider, key, mode, _, ending, team in keys:
                whole = (start, model, provider, key, mode, ending, team)
                ingested.setdefault(whole, Counter()).update(dict(enumerate(sums)))
        elif choice < 0.85:
            settled_at = START + rng.randrange(48) * HOUR_MS
            roll(database, settled_at, now=now, rows_max=rng.randrange(1, 20))
        else:
            before = START + rng.randrange(48) * HOUR_MS
            database.write(partial(prune_buckets, before=before, rows_max=5))
        hours, days = read_sums(database, rollup_hours), read_sums(database, rollup_days)
        waiting = read_sums(database, buckets, buckets.c.rolled_at == 0)
        assert days == by(hours, DAY_MS)
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
    assert hour == Counter(dict.fromkeys(range(24), 60))


def test_the_job_rolls_up_what_has_settled(database):
    ingest(database, *(key_of(model_id=f"m{number}") for number in range(300)))
    assert retention.roll_up(database) == {"buckets": 300}
    assert retention.roll_up(database) == {"buckets": 0}
    count = text("SELECT SUM(requests) FROM rollup_days")
    assert database.read(lambda connection: connection.scalar(count)) == 300

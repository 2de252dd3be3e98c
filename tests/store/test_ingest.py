"""The journal's rows arrive as they were, once, with their sums."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from tests.newest import list_logs
from tokenhub import store
from tokenhub.db.columns import metadata
from tokenhub.db.sums_tables import ATTEMPTS, FAMILIES, REQUESTS, Family, attempt_buckets, buckets
from tokenhub.db.traffic_tables import attempts, events, feedback, request_logs
from tokenhub.store.logs import ATTEMPT_COLUMNS, IDENTITY, LOG_COLUMNS

HOST = "host-1"
NASTY = "tab\there, line\nbreak, back\\slash, \\N, 'quote', ☃, 😀"


def log_row(position: int, **changes) -> tuple[Any, ...]:
    row = {
        "request_id": f"req_{position}", "started_at": 1_700_000_000_000 + position,
        "api_key_id": "key_1", "endpoint": "chat.completions", "mode": "normal", "stream": True,
        "ending": "answered", "status_code": 200, "error_class": "", "requested_model": NASTY,
        "alias_from": "", "model_id": "m", "provider_id": "p", "reason": "cheapest",
        "snapshot_version": 3, "input_tokens": 10, "output_tokens": 2**40, "cache_read_tokens": 0,
        "cache_write_tokens": 0, "reasoning_tokens": 0, "usage_is_estimate": False,
        "cost_nanousd": None, "price_version": 1, "latency_ms": 812, "ttft_ms": None,
        "overhead_us": 300, "estimated_input_tokens": 12, "response_bytes": 99,
        "attempt_count": 2, "client_ip": "::1", "client_request_id": "", "skips": '{"a":"b"}',
        "team_id": "", "latency_budget_ms": 0, "trace_id": "", "decision": "{}",
    }  # fmt: skip
    return (HOST, 5, position, *{**row, **changes}.values())


def attempt_row(position: int, seq: int) -> tuple[Any, ...]:
    return (
        HOST, 5, position, seq, f"req_{position}", "m", "p", 1, 800, None, 429, "rate_limited",
        10, 20, 0, 0, 0, True, 7, 1, "cheapest", "failover", 99,
    )  # fmt: skip


BUCKET_KEY = ("host_id", "start_at", *REQUESTS.key)
WIDTH = len(REQUESTS.values)


def bucket_key(start_at: int = 1_700_000_000_000) -> tuple[Any, ...]:
    rest = ("m", "p", "key_1", "", "normal", "chat.completions", "answered", "", "")
    return (HOST, start_at, *rest)


def sums_of(
    keys: Iterable[tuple[Any, ...]], sums: list[int] | None = None
) -> dict[Family, dict[tuple[Any, ...], list[int]]]:
    """The same numbers, 1 by default, for each of these buckets of requests."""
    return {REQUESTS: {key: sums or [1] * WIDTH for key in keys}}


def make_batch(**changes) -> store.Batch:
    nothing: dict[str, Any] = {
        "positions": {}, "logs": [], "attempts": [], "openings_new": [], "openings_done": [],
        "sums": {}, "charges": {},
    }  # fmt: skip
    return store.Batch(HOST, **{**nothing, **changes})


@pytest.fixture
def ingest(database):
    """Ingests a batch made of what is given."""
    return lambda **parts: database.write(
        lambda connection: store.ingest(connection, make_batch(**parts))
    )


@pytest.fixture
def read(database):
    """Calls a function of the store in a transaction that only reads."""
    return lambda function, *args: database.read(lambda connection: function(connection, *args))


def test_the_tables_have_the_columns_of_the_journal_in_its_order():
    assert tuple(request_logs.c.keys()) == ("id", *IDENTITY, *LOG_COLUMNS)
    assert tuple(attempts.c.keys()) == (*IDENTITY, "seq", "request_id", *ATTEMPT_COLUMNS)
    for family in FAMILIES:
        rows = metadata.tables[family.buckets].c.keys()
        assert rows == ["host_id", "start_at", *family.key, "rolled_at", *family.values]
        for name in (family.hours, family.days, family.weeks):
            assert metadata.tables[name].c.keys() == ["start_at", *family.key, *family.values]


def test_rows_arrive_as_they_were(ingest, read):
    rows = [log_row(1), log_row(2, cost_nanousd=0, stream=False), log_row(3)]
    ingest(
        positions={5: (0, 300)},
        logs=rows,
        attempts=[attempt_row(2, 1), attempt_row(2, 0), attempt_row(3, 0)],
    )
    found = read(list_logs, 2, 0)
    names = ("host_id", "segment", "position", *LOG_COLUMNS)
    assert [tuple(row[name] for name in names) for row in found] == [rows[2], rows[1]]
    assert read(list_logs, 9, 2)[0]["cost_nanousd"] is None
    assert found[0]["id"] > found[1]["id"]
    assert [tuple(row.values()) for row in read(store.list_attempts, "req_2")] == [
        attempt_row(2, 0), attempt_row(2, 1)
    ]  # fmt: skip
    assert read(store.list_attempts, "req_1") == []


def test_requests_of_the_same_moment_are_listed_last_ingested_first(ingest, read):
    ingest(logs=[log_row(each, started_at=7) for each in (1, 3, 2)])
    assert [row["position"] for row in read(list_logs, 5, 0)] == [2, 3, 1]


def test_positions_move_with_the_rows_and_are_forgotten_with_their_segment(ingest, read, database):
    ingest(positions={5: (0, 300), 6: (0, 100)})
    ingest(positions={5: (300, 450)})
    assert read(store.load_positions, HOST) == {5: 450, 6: 100}
    assert read(store.load_positions, "other") == {}
    database.write(lambda connection: store.forget_positions(connection, HOST, [5, 77]))
    assert read(store.load_positions, HOST) == {6: 100}


@pytest.mark.parametrize("positions", [{5: (0, 400)}, {5: (200, 400)}, {5: (300, 400), 8: (9, 10)}])
def test_who_reads_from_somewhere_else_has_lost_and_leaves_nothing(ingest, read, positions):
    ingest(positions={5: (0, 300)})
    with pytest.raises(store.LostRace):
        ingest(positions=positions, logs=[log_row(1)], sums=sums_of([bucket_key()]))
    assert read(list_logs, 5, 0) == []
    assert read(store.load_positions, HOST) == {5: 300}


def test_the_same_record_cannot_arrive_twice(ingest, read):
    ingest(logs=[log_row(1)], attempts=[attempt_row(1, 0)])
    with pytest.raises(IntegrityError):
        ingest(logs=[log_row(2), log_row(1)])
    with pytest.raises(IntegrityError):
        ingest(attempts=[attempt_row(1, 0)])
    assert len(read(list_logs, 5, 0)) == 1


def test_openings_stay_until_their_request_has_ended(ingest, read):
    opening = ("req_1", HOST, "worker-1", 5, 64, 1_700_000_000_000, b"\x00\x01payload")
    ingest(openings_new=[opening, ("req_2", *opening[1:])])
    ingest(openings_done=["req_2", "req_unknown"])
    assert read(store.load_openings, HOST) == [("req_1", "worker-1", 5, 64, b"\x00\x01payload")]
    assert read(store.load_openings, "other") == []


def test_buckets_add_up(ingest, database):
    sums = list(range(WIDTH))
    ingest(sums=sums_of([bucket_key()], sums))
    both = {bucket_key(): sums, bucket_key(1_700_000_010_000): [2**50] * WIDTH}
    ingest(sums={REQUESTS: both})
    query = select(buckets).order_by(buckets.c.start_at)
    rows = database.read(lambda connection: connection.execute(query).all())
    names = zip(REQUESTS.values, sums, strict=True)
    doubled = [each if name in REQUESTS.maxima else 2 * each for name, each in names]
    assert [tuple(row) for row in rows] == [
        (*bucket_key(), 0, *doubled),
        (*bucket_key(1_700_000_010_000), 0, *[2**50] * WIDTH),
    ]


def test_buckets_of_attempts_are_apart_from_those_of_requests(ingest, database):
    key = (HOST, 1_700_000_000_000, "m", "p", "timeout")
    for number in (5, 3):
        ingest(sums={ATTEMPTS: {key: [number] * len(ATTEMPTS.values)}})
    row = database.read(lambda each: each.execute(select(attempt_buckets)).mappings().one())
    assert (row["attempts"], row["h15"], row["duration_ms_max"]) == (8, 8, 5)
    assert database.read(lambda each: each.execute(select(buckets)).all()) == []


def test_events_and_feedback_are_kept_in_the_order_in_which_they_came(ingest, database):
    ingest(
        events=[(HOST, 9, "health", "", '{"a":"\u2603"}'), (HOST, 8, "route", "key_1", "{}")],
        feedback=[(7, "req_1", "key_1", "key:key_1", 0.25, "bad")],
    )
    rows = database.read(lambda each: each.execute(select(events).order_by(events.c.id)).all())
    assert [tuple(row)[1:] for row in rows] == [
        (HOST, 9, "health", "", '{"a":"\u2603"}'),
        (HOST, 8, "route", "key_1", "{}"),
    ]
    [said] = database.read(lambda each: each.execute(select(feedback)).all())
    assert tuple(said)[1:7] == (7, "req_1", "key_1", "key:key_1", 0.25, "bad")

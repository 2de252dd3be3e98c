"""What is old goes, a little at a time; what is young, or still needed, stays."""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import closing
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, func, insert, make_url, select, text

from tests.newest import list_logs
from tests.store.test_ingest import attempt_row, bucket_key, log_row, make_batch, sums_of
from tokenhub import retention, store
from tokenhub.db import Database, metadata
from tokenhub.db.catalog_tables import changes
from tokenhub.db.sums_tables import FAMILIES
from tokenhub.db.traffic_tables import attempts, job_runs, request_logs
from tokenhub.domain import Model, Price, Provider
from tokenhub.store import hosts
from tokenhub.store import retention as prunes

DAY_MS = retention.DAY_MS


def fill(database: Database, *started: int, with_buckets: bool = False) -> None:
    """One request with two attempts at each of these times."""
    known = count(database, request_logs)
    rows = [log_row(known + number, started_at=at) for number, at in enumerate(started)]
    batch = make_batch(
        logs=rows,
        attempts=[attempt_row(row[2], seq) for row in rows for seq in (0, 1)],
        sums=sums_of(bucket_key(at // 10_000 * 10_000) for at in started if with_buckets),
    )
    database.write(lambda connection: store.ingest(connection, batch), timeout_secs=60)


def count(database: Database, table) -> int:
    query = select(func.count()).select_from(table)
    return int(database.read(lambda connection: connection.scalar(query)) or 0)


def prune(database: Database, work: prunes.Prune, before: int, rows_max: int = 100) -> int:
    return database.write(lambda connection: work(connection, before, rows_max))


MADE_BY_HAND = {
    "admin_tokens", "api_keys", "budget_credits", "budgets", "credentials_file", "model_aliases",
    "models", "options", "providers", "routing_config", "snoozes", "teams", "vault",
    "vault_entries",
}  # fmt: skip
"""Tables that grow only as somebody fills them."""

FEW = {"generation", "key_uses", "leases"}
"""Tables with a row for each of what there are few of."""

FOR_EVER = {name for family in FAMILIES for name in (family.days, family.weeks)}

WITH_OTHERS = {"attempts", "attempt_buckets"}
"""Tables whose rows go with their request, or as those of requests do."""


def test_every_table_has_a_time_after_which_its_rows_go_or_a_reason_why_they_stay():
    pruned = {rule.name for rule in retention.rules_of(90)} | WITH_OTHERS
    assert set(metadata.tables) - pruned == MADE_BY_HAND | FEW | FOR_EVER


def test_requests_go_with_their_attempts_the_oldest_first_and_no_more_than_allowed(database):
    fill(database, 50, 10, 30, 20, 40)
    assert prune(database, prunes.prune_requests, 40, rows_max=2) == 2
    left = [row["started_at"] for row in database.read(lambda c: list_logs(c, 9, 0))]
    assert left == [50, 40, 30]
    assert count(database, attempts) == 6
    assert prune(database, prunes.prune_requests, 40, rows_max=2) == 1
    assert prune(database, prunes.prune_requests, 40, rows_max=2) == 0
    assert count(database, attempts) == 4


def test_a_request_stays_until_its_sums_were_rolled_up(database):
    fill(database, 5_000, 25_000, 45_000, with_buckets=True)
    assert prune(database, prunes.prune_requests, 90_000) == 0
    roll = partial(store.rollups.roll_up, settled_at=40_000, now=1, rows_max=9)
    assert database.write(roll) == 2
    assert prune(database, prunes.prune_requests, 90_000) == 2
    assert prune(database, prunes.prune_buckets, 90_000) == 2
    assert count(database, request_logs) == 1


def test_the_job_keeps_each_thing_as_long_as_it_should(database):
    now = database.read(hosts.now_ms)
    fill(database, now - 91 * DAY_MS, now - 89 * DAY_MS)
    database.write(partial(add_rows, at=now - 91 * DAY_MS))
    database.write(partial(add_rows, at=now - 1 * DAY_MS))
    gone = retention.prune(database, retention.rules_of(90))
    assert gone == {
        "request_logs": 1, "audit_logs": 1, "feedback": 1, "events": 1, "changes": 1, "job_runs": 1,
        "hosts": 1, "admin_sessions": 2, "idempotency_keys": 2,
    }  # fmt: skip
    assert retention.prune(database, retention.rules_of(90)) == {}
    assert count(database, request_logs) == 1
    assert retention.prune(database, retention.rules_of(30)) == {"request_logs": 1}


def add_rows(connection: Connection, at: int) -> None:
    """A row of each kind that is kept for less than 90 days, and some that are not."""
    rows: dict[str, dict[str, Any]] = {
        "audit_logs": {"at": at, "actor": "a", "client_ip": "", "action": "x", "resource": "",
                       "detail": "", "request_id": ""},
        "feedback": {"at": at, "request_id": "", "api_key_id": "", "actor": "", "score": 0.5,
                     "label": ""},
        "events": {"host_id": "h", "at": at, "type": "x", "api_key_id": "", "fields": "{}"},
        "changes": {"version": at, "at": at, "kind": "model", "entity_id": "m"},
        "job_runs": {"job": "x", "slot": at, "host_id": "h", "started_at": at},
        "hosts": {"id": f"host-{at}", "name": "", "version": "", "started_at": at, "seen_at": at},
        "admin_sessions": {"id": f"s{at}", "token_id": "t", "sha256": b"%032d" % at,
                           "binding": b"", "client_ip": "", "user_agent": "", "created_at": at,
                           "expires_at": at},
        "idempotency_keys": {"name": f"n{at}", "state": "done", "owner": "", "request_id": "",
                             "digest": b"", "expires_at": at, "size": 0, "answer": b""},
    }  # fmt: skip
    tables = changes.metadata.tables
    for name, values in rows.items():
        connection.execute(insert(tables[name]).values(**values))


def test_a_host_stays_while_something_of_it_may_still_come(database):
    opening = ("req_1", "host-1", "w", 5, 64, 1, b"payload")
    batch = make_batch(openings_new=[opening], positions={5: (0, 300)})
    database.write(lambda connection: store.ingest(connection, batch))
    database.write(partial(add_host, host_id="host-1", at=1000))
    assert prune(database, prunes.prune_hosts, 2000) == 0
    assert prune(database, prunes.prune_openings, 1000) == 0
    assert prune(database, prunes.prune_openings, 2000) == 1
    assert prune(database, prunes.prune_hosts, 2000) == 0
    assert prune(database, prunes.prune_positions, 2000) == 1
    assert prune(database, prunes.prune_hosts, 2000) == 1


def add_host(connection: Connection, host_id: str, at: int) -> None:
    statement = text(
        "INSERT INTO hosts (id, name, version, started_at, seen_at) VALUES (:id, '', '', 0, :at)"
    )
    connection.execute(statement, {"id": host_id, "at": at})


def test_prices_go_when_they_were_replaced_before_the_oldest_request(database):
    def save(connection: Connection) -> None:
        store.save_provider(connection, Provider("p", "openai", "http://127.0.0.1"), 0)
        for at, nanos in ((100, 1), (200, 2), (300, 3)):
            for name in ("a", "b"):
                model = Model(name, "p", name, price=Price(nanos, nanos))
                store.save_model(connection, model, at)

    database.write(save)
    assert prune(database, prunes.prune_prices, 300) == 2  # the first of each
    assert prune(database, prunes.prune_prices, 9999, rows_max=1) == 1
    assert prune(database, prunes.prune_prices, 9999) == 1
    assert prune(database, prunes.prune_prices, 9999) == 0


def test_runs_of_jobs_are_forgotten_but_for_the_last_and_those_that_failed_later(database):
    def add(connection: Connection) -> None:
        for slot, error in ((1, None), (2, "away"), (3, None), (4, None)):
            values = {"job": "x", "slot": slot, "host_id": "h", "started_at": slot,
                      "finished_at": slot, "error": error}  # fmt: skip
            connection.execute(insert(job_runs).values(**values))

    database.write(add)
    assert prune(database, prunes.prune_good_runs, 3) == 1
    assert prune(database, prunes.prune_good_runs, 99) == 1
    assert prune(database, prunes.prune_job_runs, 2) == 0
    assert prune(database, prunes.prune_job_runs, 99) == 1
    assert count(database, job_runs) == 1, "the last says that its slot is done"


@pytest.mark.parametrize(
    ("rows", "took_secs", "expected"),
    [
        (200, 0.02, 200),  # as long as it should take
        (200, 0.2, 20),
        (200, 5.0, retention.ROWS_MIN),
        (200, 0.001, 400),  # no more than twice as many
        (900, 0.0, retention.ROWS_MAX),
    ],
)
def test_a_transaction_is_as_large_as_takes_a_moment(rows, took_secs, expected):
    assert retention._next_size(rows, took_secs) == expected


def test_what_is_not_done_in_its_time_is_the_next_times(database, monkeypatch):
    fill(database, *range(300))
    monkeypatch.setattr(retention, "RULE_SECS", 0.001)
    rules = retention.rules_of(90)[:1]
    counts = []
    while count(database, request_logs):
        counts.append(retention.prune(database, rules).get("request_logs", 0))
    assert len(counts) > 1
    assert sum(counts) == 300


def test_whoever_writes_waits_but_a_moment_while_many_rows_go(database, database_dsn):
    if database.dialect != "sqlite":
        pytest.skip("SQLite only: Postgres keeps nobody waiting")
    fill(database, *range(20_000))
    waits: list[float] = []
    is_over = threading.Event()

    def keep_writing() -> None:
        path = make_url(database_dsn).database or ""
        with closing(sqlite3.connect(path, timeout=5, isolation_level=None)) as connection:
            while not is_over.is_set():
                began_at = time.monotonic()
                connection.execute("BEGIN IMMEDIATE")
                waits.append(time.monotonic() - began_at)
                connection.execute("COMMIT")
                time.sleep(0.005)

    writer = threading.Thread(target=keep_writing)
    writer.start()
    retention.prune(database, retention.rules_of(90)[:1])
    is_over.set()
    writer.join()
    assert count(database, request_logs) == 0
    waits.sort()
    assert waits[len(waits) * 9 // 10] < 0.1  # measured: a few milliseconds, but machines are busy

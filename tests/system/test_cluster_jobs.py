"""Two gateways on one Postgres: each job once, and by the other when its host is gone."""

from __future__ import annotations

import os
import signal

import psycopg
import pytest

from tests.system.harness import Gateway, kill, running, wait_until
from tokenhub.cluster import TERM_SECS, WAIT_SECS
from tokenhub.store.rollups import HOUR_MS

pytestmark = [pytest.mark.system, pytest.mark.postgres]

LATE_SECS = 5.0
"""What a busy machine may need besides."""


def ask(dsn: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn.replace("+psycopg", "")) as connection:
        return connection.execute(query.encode()).fetchall()


def leader_of(dsn: str) -> str:
    found = ask(dsn, "SELECT holder FROM leases WHERE name = 'cluster'")
    return str(found[0][0]) if found else ""


def kill_host(gateway: Gateway) -> None:
    """As if somebody had pulled the plug: the arbiter first, so that it starts no other worker."""
    assert gateway.process is not None
    pids = gateway.worker_pids()
    kill(gateway.process.popen.pid)
    for pid in pids:
        kill(pid)
    gateway.process.popen.wait()


def make_old(dsn: str) -> None:
    """Give the one request an age of 100 days, and have what is due be due again."""
    age = 100 * 24 * HOUR_MS
    with psycopg.connect(dsn.replace("+psycopg", "")) as connection:
        connection.execute(f"UPDATE request_logs SET started_at = started_at - {age}".encode())
        connection.execute(f"UPDATE buckets SET start_at = start_at - {age}".encode())
        connection.execute(b"UPDATE job_runs SET slot = slot - 86400000")


def test_when_the_leading_host_is_killed_the_other_does_its_jobs_and_none_is_done_twice(
    tmp_path, postgres_server
):
    dsn = postgres_server.create_database()
    (tmp_path / "one").mkdir()
    with running(tmp_path / "one", dsn) as one:
        other = Gateway(one.directory.parent / "other", dsn, key=one.key)
        other.directory.mkdir()
        try:
            wait_until(lambda: leader_of(dsn), what="a leader")
            wait_until(
                lambda: ask(dsn, "SELECT 1 FROM job_runs WHERE finished_at > 0"), what="runs"
            )
            first = leader_of(dsn)
            other.start()
            one.chat()
            wait_until(lambda: ask(dsn, "SELECT 1 FROM request_logs"), what="the row")
            kill_host(one)
            make_old(dsn)
            secs = TERM_SECS["postgresql"] + WAIT_SECS + LATE_SECS
            wait_until(lambda: leader_of(dsn) != first, secs, "another leader")
            # Rolled up, then pruned: by the next slot of the job, or by the one that is due now.
            wait_until(lambda: ask(dsn, "SELECT 1 FROM rollup_days"), secs, "the day's sums")
            assert ask(dsn, "SELECT SUM(requests) FROM rollup_hours") == [(1,)]
            runs = ask(dsn, "SELECT job, slot, tries, error FROM job_runs")
            assert {(tries, error) for _, _, tries, error in runs} == {(1, None)}
            assert other.process is not None
            os.kill(other.process.popen.pid, signal.SIGTERM)
            other.process.popen.wait(20)
            assert ask(dsn, "SELECT expires_at FROM leases WHERE name = 'cluster'") == [(0,)]
        finally:
            other.stop()

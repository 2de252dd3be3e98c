"""The database held, full, damaged or closed to us: what goes on, what is refused, what is told."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.system.harness import ADMIN_TOKEN, Gateway, kill, running, wait_until
from tests.system.load import Load, rows_by_id
from tests.system.test_outages import fill, small_disk

pytestmark = pytest.mark.system

RESTORE = "python -m tokenhub restore"


@pytest.fixture
def stopped(tmp_path):
    """Gateways that are ended after the test, whatever became of them."""
    made: list[Gateway] = []

    def make(dsn: str, **extra: str) -> Gateway:
        made.append(Gateway(tmp_path, dsn, extra=extra))
        return made[-1]

    yield make
    for each in made:
        each.stop()


def refusal(gateway: Gateway, *command: str) -> str:
    """What is said by a start that must fail."""
    done = subprocess.run(
        command or (sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "app:app"),
        cwd=Path(__file__).parents[2], env=gateway.env, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode != 0, said
    assert "Traceback" not in said
    return said


def change_key_name(gateway: Gateway, name: str) -> tuple[int, str]:
    """Try an admin write; status and code."""
    reply = gateway.ask("PATCH", f"/admin/v1/apikeys/{gateway.key_id}", {"name": name},
                        token=ADMIN_TOKEN)  # fmt: skip
    return reply.status, "" if reply.status == 200 else reply.json["error"]["code"]


def spoil(path: Path) -> None:
    """Overwrite the file as it lies there, write-ahead log and all."""
    for each in (path, path.with_name(path.name + "-wal")):
        if each.exists():
            with each.open("r+b") as file:
                file.write(b"\xa5" * each.stat().st_size)


@contextmanager
def held(path: Path):
    """Another process, which is ours, writes and does not come to an end."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


def test_a_file_that_another_process_holds_for_ten_seconds_costs_no_request_and_no_row(tmp_path):
    path = tmp_path / "hub.sqlite"
    with running(tmp_path, f"sqlite:///{path}") as gateway:
        gateway.add_model("stream-8-10")
        with Load(gateway, clients=2) as tally:
            with held(path):
                began = time.monotonic()
                assert change_key_name(gateway, "held") == (503, "database_away")
                assert time.monotonic() - began < 8
                assert gateway.ask("GET", "/readyz").status == 200, "it can still be read"
                assert gateway.admin("GET", "apikeys")["keys"][0]["name"] == "tests"
                time.sleep(max(0.0, began + 10 - time.monotonic()))
                answered = set(tally.answered)
            assert answered
            wait_until(lambda: change_key_name(gateway, "free")[0] == 200, 10, "writes again")
        assert not tally.refused, tally.refused[:3]
        wait_until(lambda: tally.answered <= set(rows_by_id(gateway)), 20, "all rows")
        assert all(len(rows) == 1 for rows in rows_by_id(gateway).values())


def test_a_full_disk_under_the_database_costs_no_request_and_no_row(tmp_path):
    """The journal is elsewhere, or has its room already; what changes is refused meanwhile."""
    with (
        small_disk(tmp_path / "disk", 8),
        running(tmp_path, f"sqlite:///{tmp_path / 'disk' / 'hub.sqlite'}") as gateway,
    ):
        fill(tmp_path / "disk" / "filler")
        answered = [gateway.chat() for _ in range(40)]

        def is_refused() -> bool:
            return change_key_name(gateway, "x" * 100) == (503, "database_away")

        wait_until(is_refused, 20, "no room for a change")
        answered += [gateway.chat() for _ in range(20)]
        assert {reply.status for reply in answered} == {200}
        time.sleep(3)
        told = [line for line in gateway.log_text().splitlines() if "database is away" in line]
        assert 1 <= len(told) <= 6, "once for each process and way, and not every second"
        (tmp_path / "disk" / "filler").unlink()
        ids = {reply.headers["x-request-id"] for reply in answered}
        wait_until(lambda: ids <= set(rows_by_id(gateway)), 20, "all rows")
        assert change_key_name(gateway, "room")[0] == 200


def test_a_damaged_file_stops_every_start_with_the_command_that_helps(stopped, tmp_path):
    path = tmp_path / "hub.sqlite"
    gateway = stopped(f"sqlite:///{path}")
    gateway.migrate()
    spoil(path)
    said = refusal(gateway)
    assert "tokenhub cannot start: " in said
    assert RESTORE in said
    assert RESTORE in refusal(gateway, sys.executable, "-m", "tokenhub", "run")


def test_a_file_that_is_damaged_under_a_running_gateway_costs_no_request(tmp_path):
    path = tmp_path / "hub.sqlite"
    with running(tmp_path, f"sqlite:///{path}", extra={"TOKENHUB_MAX_STALE_SECS": "3"}) as gateway:
        time.sleep(1)  # both workers have caught up
        spoil(path)
        wait_until(lambda: gateway.ask("GET", "/readyz").status == 503, 15, "not ready")
        assert change_key_name(gateway, "gone") == (503, "database_away")
        read = gateway.ask("GET", "/admin/v1/logs", token=ADMIN_TOKEN)
        assert (read.status, read.json["error"]["code"]) == (503, "database_away")
        assert {gateway.chat().status for _ in range(20)} == {200}
        told = [line for line in gateway.log_text().splitlines() if "is unusable" in line]
        assert 1 <= len(told) <= 2, "once for each worker"
        assert all(RESTORE in line for line in told)
        # A worker that is lost now does not come back, and takes nobody along.
        [victim, other] = gateway.worker_pids()
        kill(victim)
        wait_until(lambda: gateway.log_text().count("trying again") >= 2, 20, "some tries")
        assert gateway.chat().status == 200
        assert other in gateway.worker_pids()
        assert "Traceback" not in gateway.log_text()
        kept = list((tmp_path / "data" / "journal").iterdir())
        assert kept, "what was answered waits for the restored database"


@pytest.mark.postgres
def test_more_connections_than_the_server_has_are_refused_before_the_first_worker(
    stopped, postgres_server
):
    gateway = stopped(postgres_server.create_database(), TOKENHUB_DB_POOL_SIZE="60")
    gateway.migrate()
    said = refusal(gateway)
    assert "2 workers × TOKENHUB_DB_POOL_SIZE 60 + 1 = 121 connections" in said
    assert "97" in said


@pytest.mark.postgres
def test_connections_that_may_run_out_are_a_warning_and_the_pool_has_its_size(
    stopped, postgres_server
):
    gateway = stopped(postgres_server.create_database(), TOKENHUB_DB_POOL_SIZE="48")
    gateway.migrate()
    with psycopg.connect(gateway.dsn.replace("+psycopg", "")):  # somebody else is there as well
        gateway.start()
    assert "2 workers × TOKENHUB_DB_POOL_SIZE 48 + 1 = 97 connections" in gateway.log_text()


@pytest.mark.postgres
def test_a_server_that_does_not_know_us_ends_the_start(stopped, postgres_server):
    dsn = postgres_server.create_database().replace("tokenhub@", "stranger:canary@")
    said = refusal(stopped(dsn))
    assert "tokenhub cannot start: the database server refuses us" in said
    assert "TOKENHUB_DB_DSN" in said
    assert "canary" not in said

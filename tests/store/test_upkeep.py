"""An SQLite file gives back what it does not need, and its log does not grow under a reader."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import gevent
import pytest
from gevent import monkey
from sqlalchemy import text

from tests.conftest import migrated
from tokenhub.db import Database, upkeep
from tokenhub.db.sqlite import WAL_KEPT_BYTES
from tokenhub.errors import ConfigError

MB = 1 << 20


@pytest.fixture
def path(tmp_path: Path, sqlite_template: Path) -> Path:
    """A file at head."""
    found = tmp_path / "hub.sqlite"
    found.write_bytes(sqlite_template.read_bytes())
    return found


@pytest.fixture
def hub(path):
    with closing(Database(f"sqlite:///{path}")) as found:
        yield found


def fill(hub: Database, megabytes: int) -> None:
    """Rows of this size in all, a kilobyte each."""
    add = text(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 1000) "
        "INSERT INTO vault_entries SELECT hex(randomblob(8)), zeroblob(1000), 0 FROM n"
    )
    for _ in range(megabytes):
        hub.write(lambda connection: connection.execute(add))


def empty(hub: Database) -> None:
    hub.write(lambda connection: connection.execute(text("DELETE FROM vault_entries")))


def size(path: Path) -> int:
    return path.stat().st_size


def tidy(hub: Database) -> None:
    while upkeep.tidy(hub).get("pages"):
        pass
    hub.checkpoint(1000)


def test_a_file_shrinks_when_much_of_it_is_free_and_keeps_a_little(path, hub, monkeypatch):
    monkeypatch.setattr(upkeep, "SPARE_PAGES", 100)
    fill(hub, 12)
    tidy(hub)
    full = size(path)
    assert full > 12 * MB
    empty(hub)
    tidy(hub)
    assert size(path) < full / 4
    small = size(path)
    fill(hub, 1)
    empty(hub)
    tidy(hub)
    assert size(path) <= small + MB


def test_a_database_of_any_age_is_made_so_by_its_first_migration(path, tmp_path):
    other = tmp_path / "opened first.sqlite"
    with closing(Database(f"sqlite:///{other}")):  # before there is a table
        pass
    migrated(f"sqlite:///{other}")
    for each in (path, other):
        with closing(sqlite3.connect(each)) as connection:
            assert connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)


def test_an_old_file_is_left_alone_until_it_is_written_anew(path):
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA auto_vacuum=NONE")
        connection.execute("VACUUM")
    dsn = f"sqlite:///{path}"
    with closing(Database(dsn)) as hub:
        fill(hub, 12)
        empty(hub)
        assert upkeep.tidy(hub) == {"pages": 0}
        upkeep.rebuild(dsn)
        hub.checkpoint(1000)
        assert size(path) < 2 * MB
        fill(hub, 12)
        empty(hub)
        assert upkeep.tidy(hub)["pages"] > 100


def test_a_file_that_is_in_use_is_not_written_anew(path, hub, monkeypatch):
    monkeypatch.setattr(upkeep, "BUSY_MS", 50)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ConfigError, match="locked"):
            upkeep.rebuild(f"sqlite:///{path}")
    with pytest.raises(ConfigError, match="Postgres"):
        upkeep.rebuild("postgresql+psycopg://127.0.0.1/x")


READER = """
import sqlite3, sys, time
connections = [sqlite3.connect(sys.argv[1], isolation_level=None) for _ in range(2)]
print("ready", flush=True)
for number in range(10**9):
    one = connections[number % 2]
    one.execute("BEGIN")
    one.execute("SELECT count(*) FROM hosts").fetchall()
    time.sleep(0.02)
    other = connections[(number + 1) % 2]
    if other.in_transaction:
        other.execute("COMMIT")
"""
"""Reads without a gap: the next transaction begins before the last one ends."""


def test_the_log_stays_small_under_somebody_who_always_reads(path, hub, monkeypatch):
    monkeypatch.setattr(upkeep, "WAL_LARGE_BYTES", 2 * WAL_KEPT_BYTES)
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, str(path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
        sizes = []
        for _ in range(12):
            fill(hub, 3)
            empty(hub)
            upkeep.tidy(hub)
            sizes.append(hub.wal_bytes)
        assert max(sizes) < 5 * WAL_KEPT_BYTES
        assert min(sizes[4:]) <= WAL_KEPT_BYTES
    finally:
        reader.kill()
        reader.communicate()


def test_a_reader_who_does_not_go_keeps_writers_waiting_for_a_moment_only(path, hub, monkeypatch):
    monkeypatch.setattr(upkeep, "WAIT_MS", 50)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM hosts").fetchall()
        fill(hub, 10)
        assert hub.wal_bytes > WAL_KEPT_BYTES
        began_at = time.monotonic()
        upkeep.tidy(hub)
        assert time.monotonic() - began_at < 2
        assert hub.wal_bytes > WAL_KEPT_BYTES
        assert not hub.checkpoint(10)
    assert hub.checkpoint(1000)
    assert hub.wal_bytes == 0


@pytest.mark.skipif(not monkey.is_module_patched("threading"), reason="plain process")
def test_nothing_runs_on_the_hub(hub):
    fill(hub, 10)
    empty(hub)
    tidier = gevent.spawn(upkeep.tidy, hub)
    longest, last = 0.0, time.monotonic()
    while not tidier.ready():
        gevent.sleep(0.001)
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
    tidier.get()
    assert longest < 0.2


@pytest.mark.postgres
def test_postgres_is_left_to_itself(postgres_server):
    with closing(Database(postgres_server.create_database())) as database:
        assert upkeep.tidy(database) == {}
        assert (database.wal_bytes, database.checkpoint(1)) == (0, True)

"""Copies put back, on both databases and from one to the other: all of it or nothing."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Connection, insert

from tests.conftest import BOTH, ROOT, migrated
from tests.newest import list_audit
from tests.postgres import PostgresServer
from tests.store.backup_kit import contents, copied, fill, restored, settings_of
from tokenhub import data_dir, host, store
from tokenhub.backup import Archive, BadArchive, carry_over
from tokenhub.budgets import Account
from tokenhub.cli import main
from tokenhub.db import Database, DatabaseAway, check_head
from tokenhub.db.catalog_tables import audit_logs
from tokenhub.domain import Provider
from tokenhub.errors import ConfigError

CHANGED = {"admin_sessions", "idempotency_keys", "generation", "audit_logs"}
"""Tables in which a restore leaves a trace of its own."""


@pytest.fixture(params=BOTH)
def other_dsn(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Another database, without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'other' / 'other.sqlite'}"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.create_database()


def invoke(directory: Path, dsn: str, *arguments: str, answer: str = "") -> Result:
    cleared = dict.fromkeys(name for name in os.environ if name.startswith("TOKENHUB_"))
    environ = {"TOKENHUB_DATA_DIR": str(directory), "TOKENHUB_DB_DSN": dsn}
    return CliRunner(env={**cleared, **environ}).invoke(main, arguments, input=answer)


def opened(dsn: str) -> closing[Database]:
    return closing(Database(dsn))


def note(database: Database, word: str) -> None:
    """One more row, numbered by the database."""

    def work(connection: Connection) -> None:
        row = dict.fromkeys(("actor", "client_ip", "resource", "detail", "request_id"), "")
        connection.execute(insert(audit_logs).values(at=1, action=word, **row))

    database.write(work)


def audited(database: Database) -> list[str]:
    rows = database.read(lambda connection: list_audit(connection, 100, 0))
    return [str(row["action"]) for row in rows]


def test_what_was_copied_is_there_again_on_either_database(database_dsn, other_dsn, tmp_path):
    with opened(database_dsn) as database:
        fill(database)
        before = contents(database, without=CHANGED)
        generation = database.read(store.load_generation)
    assert restored(copied(database_dsn, tmp_path / "copy.zip"), other_dsn, tmp_path) is None
    with opened(other_dsn) as database:
        check_head(database)
        assert contents(database, without=CHANGED) == before
        assert database.read(store.load_generation) == generation + 1
        note(database, "numbered.on")
        assert {"numbered.on", "database.restore"} < set(audited(database))


def test_what_was_there_is_replaced_and_kept(database_dsn, tmp_path):
    with opened(database_dsn) as database:
        note(database, "in.the.copy")
        archive = copied(database_dsn, tmp_path / "copy.zip")
        note(database, "after.it")
        for _ in range(5):
            database.write(lambda connection: store.record_change(connection, "model", "m", 1))
    kept = restored(archive, database_dsn, tmp_path)
    assert kept is not None
    with opened(database_dsn) as database:
        assert sorted(audited(database)) == ["database.restore", "in.the.copy"]
        assert database.read(store.load_generation) > 5 or database.dialect == "sqlite"
    kept_dsn = f"sqlite:///{kept}"
    if kept.suffix == ".zip":
        kept_dsn = f"sqlite:///{tmp_path / 'kept.sqlite'}"
        restored(Archive(kept), kept_dsn, tmp_path)
    with opened(kept_dsn) as database:
        assert {"in.the.copy", "after.it"} <= set(audited(database))


def test_a_second_restore_leaves_what_the_first_has_kept(tmp_path):
    dsn = migrated(f"sqlite:///{tmp_path / 'hub.sqlite'}")
    with opened(dsn) as database:
        note(database, "first")
    archive = copied(dsn, tmp_path / "copy.zip")
    assert [restored(archive, dsn, tmp_path), restored(archive, dsn, tmp_path)] == [
        tmp_path / "hub.sqlite.before-restore", tmp_path / "hub.sqlite.before-restore.2"
    ]  # fmt: skip
    assert not list(tmp_path.glob("*.restoring*"))


def test_a_damaged_file_is_replaced_and_kept_with_what_is_beside_it(tmp_path):
    dsn = migrated(f"sqlite:///{tmp_path / 'hub.sqlite'}")
    with opened(dsn) as database:
        note(database, "first")
    archive = copied(dsn, tmp_path / "copy.zip")
    (tmp_path / "hub.sqlite").write_bytes(b"damaged" * 1000)
    (tmp_path / "hub.sqlite-wal").write_bytes(b"no log" * 1000)
    kept = restored(archive, dsn, tmp_path)
    assert kept is not None and kept.read_bytes().startswith(b"damaged")
    assert Path(f"{kept}-wal").read_bytes().startswith(b"no log")
    with opened(dsn) as database:
        assert "first" in audited(database)


def test_what_cannot_be_restored_leaves_all_as_it_was(database_dsn, tmp_path):
    with opened(database_dsn) as database:
        fill(database)
        archive = copied(database_dsn, tmp_path / "copy.zip")
        add_providers(database, "later", 1)
        before = contents(database)
    data = (tmp_path / "copy.zip").read_bytes()
    at = data.index(b"tables/request_logs.jsonl") + 100
    (tmp_path / "copy.zip").write_bytes(data[:at] + b"damaged" + data[at + 7 :])
    with pytest.raises(BadArchive):
        restored(archive, database_dsn, tmp_path)
    with opened(database_dsn) as database:
        assert contents(database) == before
    assert not list(tmp_path.glob("*.restoring*"))


def test_nothing_is_restored_while_a_gateway_has_the_directory_or_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(data_dir, "LOCK_SECS", 0.1)
    dsn = migrated(f"sqlite:///{tmp_path / 'hub.sqlite'}")
    copied(dsn, tmp_path / "copy.zip")
    before = (tmp_path / "hub.sqlite").read_bytes()
    # Another data directory, the same file.
    for fd in host.lock(settings_of(tmp_path / "elsewhere", dsn)):
        done = invoke(tmp_path / "data", dsn, "restore", str(tmp_path / "copy.zip"), "--yes")
        assert done.exit_code == 1
        assert "another gateway is using" in done.output
        os.close(fd)
        break
    assert (tmp_path / "hub.sqlite").read_bytes() == before


@pytest.mark.postgres
def test_nothing_is_restored_while_a_host_of_the_cluster_lives(postgres_server, tmp_path):
    dsn = migrated(postgres_server.create_database())
    archive = copied(dsn, tmp_path / "copy.zip")
    with opened(dsn) as database:
        database.write(lambda connection: store.beat_host(
            connection, "h", name="far-away", version="1", workers=2, started_at=1))  # fmt: skip
        with pytest.raises(ConfigError, match="on far-away: stop them"):
            restored(archive, dsn, tmp_path)
        database.write(lambda connection: store.end_host(connection, "h"))
    restored(archive, dsn, tmp_path)


def test_the_command_asks_before_it_replaces_anything(database_dsn, tmp_path):
    with opened(database_dsn) as database:
        note(database, "first")
    done = invoke(tmp_path, database_dsn, "backup")
    assert done.exit_code == 0, done.output
    path = done.output.partition(": ")[0]
    assert Path(path).parent == tmp_path / "backups"
    with opened(database_dsn) as database:
        note(database, "second")
    assert invoke(tmp_path, database_dsn, "restore", path, answer="n\n").exit_code == 1
    with opened(database_dsn) as database:
        assert "second" in audited(database)
    done = invoke(tmp_path, database_dsn, "restore", path, answer="y\n")
    assert (done.exit_code, "what was there is in" in done.output) == (0, True), done.output
    with opened(database_dsn) as database:
        assert "second" not in audited(database)


def test_the_commands_say_in_a_line_what_is_wrong(tmp_path):
    dsn = f"sqlite:///{tmp_path / 'hub.sqlite'}"
    done = invoke(tmp_path, dsn, "backup")
    assert (done.exit_code, "there is no database at" in done.output) == (1, True)
    assert not (tmp_path / "hub.sqlite").exists()
    (tmp_path / "bad.zip").write_text("no backup")
    for command in ("verify", "restore"):
        done = invoke(tmp_path, dsn, command, str(tmp_path / "bad.zip"))
        assert (done.exit_code, "or no backup" in done.output) == (1, True)
        assert "Traceback" not in done.output


@pytest.mark.parametrize(
    "dsn",
    ["postgresql://u:canary@127.0.0.1:canary/d", "postgresql://u:canary@127.0.0.1/d?canary=1"],
)
def test_a_bad_address_is_refused_and_not_repeated(tmp_path, dsn):
    good = migrated(f"sqlite:///{tmp_path / 'hub.sqlite'}")
    copied(good, tmp_path / "copy.zip")
    for arguments in (["backup"], ["restore", str(tmp_path / "copy.zip"), "--yes"]):
        done = invoke(tmp_path, dsn, *arguments)
        assert done.exit_code == 1
        assert "TOKENHUB_DB_DSN" in done.output
        assert "canary" not in done.output
        assert isinstance(done.exception, SystemExit)


TOTAL, MONTH = Account("key", "k", "total", 0), Account("key", "k", "month", 0)


def test_money_that_this_host_held_goes_back_and_that_of_others_counts_as_spent(
    database_dsn, tmp_path
):
    settings = settings_of(tmp_path, database_dsn)
    host.journal_directory(settings).mkdir()
    us = data_dir.host_id(tmp_path)

    with opened(database_dsn) as database:
        for host_id, amount in ((us, 5), ("away", 7)):
            database.write(partial(
                store.lease_money, host_id=host_id, wants={TOTAL: 0, MONTH: 0}, amounts=[amount]
            ))  # fmt: skip
        assert carry_over(settings) == 0
        books = database.read(partial(store.find_ledgers, accounts=[TOTAL, MONTH]))
        assert [each.leased_nanousd for each in books.values()] == [7, 7]
        assert database.read(partial(store.list_holders, account=TOTAL)) == {"away": 7}


def add_providers(database: Database, word: str, count: int) -> None:
    def work(connection: Connection) -> None:
        for number in range(count):
            store.save_provider(connection, Provider(f"{word}-{number}", "openai", "http://p"), 1)

    database.write(work, timeout_secs=60)


def words_in(database: Database) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in database.read(store.load_providers):
        word = name.partition("-")[0]
        counts[word] = counts.get(word, 0) + 1
    return counts


RESTORE = """
import sys
from pathlib import Path
from tests.store.backup_kit import restored
from tokenhub.backup import Archive
directory, dsn = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
restored(Archive(directory / "copy.zip"), dsn, directory)
"""


def test_a_restore_that_is_killed_leaves_the_old_or_the_new(database_dsn, tmp_path):
    with opened(database_dsn) as database:
        add_providers(database, "new", 3000)
        copied(database_dsn, tmp_path / "copy.zip")
        database.write(lambda connection: connection.exec_driver_sql("DELETE FROM providers"))
        add_providers(database, "old", 50)
    rng = random.Random(3)
    for _ in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", RESTORE, str(tmp_path), database_dsn],
            cwd=ROOT, stdout=subprocess.PIPE, env={"PATH": os.environ["PATH"]},
        ) as process:  # fmt: skip
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            with suppress(subprocess.TimeoutExpired):
                process.wait(rng.uniform(0, 0.5))
            process.kill()
        assert state_of(database_dsn) in ({"old": 50}, {"new": 3000})
    restored(Archive(tmp_path / "copy.zip"), database_dsn, tmp_path)
    assert state_of(database_dsn) == {"new": 3000}
    assert not list(tmp_path.glob("*.restoring*"))


def state_of(dsn: str) -> dict[str, int]:
    """What is in the database; a server may still be rolling back what was killed."""
    deadline = time.monotonic() + 20
    while True:
        try:
            with opened(dsn) as database:
                if database.dialect == "sqlite":
                    check_file(dsn)
                return words_in(database)
        except DatabaseAway:
            assert time.monotonic() < deadline


def check_file(dsn: str) -> None:
    with closing(sqlite3.connect(dsn.removeprefix("sqlite:///"))) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)

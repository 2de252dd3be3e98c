"""Transactions: what is kept, what is not, and what a caller is told when time is up."""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import closing
from itertools import pairwise

import gevent
import pytest
from gevent import monkey
from sqlalchemy import event, make_url, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from tokenhub.db import Database, DatabaseAway

IS_PATCHED = monkey.is_module_patched("threading")
patched_only = pytest.mark.skipif(not IS_PATCHED, reason="plain process")

SLOW = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT max(i) FROM n",
    "postgresql": "SELECT pg_sleep(20)",
}


def add_host(connection, host_id: str) -> None:
    statement = text(
        "INSERT INTO hosts (id, name, version, started_at, seen_at) VALUES (:id, '', '', 0, 0)"
    )
    connection.execute(statement, {"id": host_id})


def host_ids(database: Database) -> set[str]:
    query = text("SELECT id FROM hosts")
    return set(database.read(lambda connection: connection.scalars(query).all()))


def add_slowly(database: Database):
    """Work that writes, then takes far too long."""

    def work(connection):
        add_host(connection, "slow")
        connection.execute(text(SLOW[database.dialect])).all()

    return work


def test_a_write_is_there_when_it_returns(database):
    assert database.write(lambda connection: add_host(connection, "a")) is None
    assert host_ids(database) == {"a"}


def test_nothing_of_a_failed_write_is_kept(database):
    def work(connection):
        add_host(connection, "a")
        raise KeyError("on purpose")

    with pytest.raises(KeyError):
        database.write(work)
    assert host_ids(database) == set()
    database.write(lambda connection: add_host(connection, "b"))
    assert host_ids(database) == {"b"}


def test_a_broken_constraint_is_not_taken_for_an_outage(database):
    database.write(lambda connection: add_host(connection, "a"))
    with pytest.raises(IntegrityError):
        database.write(lambda connection: add_host(connection, "a"))
    assert host_ids(database) == {"a"}


def test_wrong_sql_is_not_taken_for_an_outage(database):
    with pytest.raises(Exception, match="no_such_table") as caught:
        database.read(lambda connection: connection.execute(text("SELECT * FROM no_such_table")))
    assert not isinstance(caught.value, DatabaseAway)


def test_a_read_cannot_write(database):
    with pytest.raises((DatabaseAway, DBAPIError)):
        database.read(lambda connection: add_host(connection, "a"))
    assert host_ids(database) == set()


def test_all_statements_of_a_read_see_one_moment(database, database_dsn, open_database):
    other = open_database(database_dsn)
    seen = []

    def count(connection):
        seen.append(connection.scalar(text("SELECT count(*) FROM hosts")))

    def work(connection):
        count(connection)
        hand_over.set()
        assert written.wait(5)
        count(connection)

    hand_over, written = threading.Event(), threading.Event()

    def write():
        assert hand_over.wait(5)
        other.write(lambda connection: add_host(connection, "late"))
        written.set()

    if IS_PATCHED and database.dialect == "sqlite":
        pytest.skip("work in a thread may not wait for a greenlet")
    writer = threading.Thread(target=write)
    writer.start()
    database.read(work)
    writer.join()
    assert seen == [0, 0]


def test_of_two_that_change_what_both_have_read_none_is_lost(database, database_dsn, open_database):
    """Read, alter, write: twenty times from four sides, as of four processes."""
    database.write(lambda connection: add_host(connection, "counter"))

    def increment(connection):
        value = connection.scalar(text("SELECT seen_at FROM hosts"))
        connection.execute(text("UPDATE hosts SET seen_at = :value"), {"value": value + 1})

    def increments(side):
        for _ in range(5):
            side.write(increment)

    sides = [open_database(database_dsn) for _ in range(4)]
    threads = [threading.Thread(target=increments, args=(side,)) for side in sides]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    query = text("SELECT seen_at FROM hosts")
    assert database.read(lambda connection: connection.scalar(query)) == 20


def test_a_read_that_takes_too_long_is_given_up(database):
    started = time.monotonic()
    with pytest.raises(DatabaseAway):
        database.read(
            lambda connection: connection.execute(text(SLOW[database.dialect])).all(),
            timeout_secs=0.3,
        )
    assert time.monotonic() - started < 2
    assert host_ids(database) == set()


def test_a_write_that_takes_too_long_has_not_happened_and_never_will(database):
    with pytest.raises(DatabaseAway) as caught:
        database.write(add_slowly(database), timeout_secs=0.3)
    assert not caught.value.is_outcome_unknown
    database.write(lambda connection: add_host(connection, "next"))
    assert host_ids(database) == {"next"}


def test_a_write_whose_time_ran_out_before_its_commit_is_not_committed(database):
    def work(connection):
        add_host(connection, "slow")
        monkey.get_original("time", "sleep")(0.4)

    with pytest.raises(DatabaseAway) as caught:
        database.write(work, timeout_secs=0.2)
    assert not caught.value.is_outcome_unknown
    database.write(lambda connection: add_host(connection, "next"))
    assert host_ids(database) == {"next"}


def test_who_waits_in_vain_for_another_writer_is_told_so(database, database_dsn, open_database):
    """As another process would hold the lock."""
    other = open_database(database_dsn)
    taken, done = threading.Event(), threading.Event()

    def hold():
        engine = other._backend._writer if other.dialect == "sqlite" else other._backend._engine
        with engine.connect() as connection, connection.begin():
            connection.execute(text("UPDATE generation SET value = 7"))
            taken.set()
            done.wait(5)

    holder = threading.Thread(target=hold)
    holder.start()
    assert taken.wait(5)
    started = time.monotonic()
    with pytest.raises(DatabaseAway) as caught:
        database.write(
            lambda connection: connection.execute(text("UPDATE generation SET value = 8")),
            timeout_secs=0.3,
        )
    assert time.monotonic() - started < 2
    assert not caught.value.is_outcome_unknown
    done.set()
    holder.join()
    query = text("SELECT value FROM generation")
    assert database.read(lambda connection: connection.scalar(query)) == 7


def test_what_the_driver_says_is_logged_once_and_not_told(tmp_path, caplog):
    (tmp_path / "hub.sqlite").write_bytes(b"this is not a database, whatever its name says" * 100)
    with pytest.raises(DatabaseAway) as caught:
        Database(f"sqlite:///{tmp_path / 'hub.sqlite'}")
    assert "file is not a database" not in str(caught.value)
    assert [record.reason for record in caplog.records] == ["file is not a database"]


def test_a_sqlite_file_and_its_directory_are_the_owners_alone(tmp_path):
    path = tmp_path / "deep" / "hub.sqlite"
    with closing(Database(f"sqlite:///{path}")) as database:
        database.write(lambda connection: connection.execute(text("CREATE TABLE t (i INTEGER)")))
        modes = {each.name: each.stat().st_mode & 0o777 for each in path.parent.iterdir()}
    assert set(modes.values()) == {0o600}
    assert "hub.sqlite-wal" in modes
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_every_sqlite_connection_is_set_up(database):
    if database.dialect != "sqlite":
        pytest.skip("SQLite only")

    def pragmas(connection):
        names = ("journal_mode", "foreign_keys", "synchronous")
        return [connection.scalar(text(f"PRAGMA {name}")) for name in names]

    assert database.write(pragmas) == ["wal", 1, 2]
    for _ in range(3):
        assert database.read(pragmas)[:2] == ["wal", 1]


def test_a_full_disk_is_an_outage_and_passes(database):
    if database.dialect != "sqlite":
        pytest.skip("SQLite only")
    fill = text("INSERT INTO vault_entries VALUES ('big', zeroblob(10000000), 0)")

    def limited(connection):
        pages = connection.scalar(text("PRAGMA page_count"))
        connection.execute(text(f"PRAGMA max_page_count={pages}"))
        connection.execute(fill)

    with pytest.raises(DatabaseAway):
        database.write(limited)
    database.write(lambda connection: connection.execute(text("PRAGMA max_page_count=1000000")))
    database.write(lambda connection: connection.execute(fill))


@pytest.mark.postgres
def test_a_restart_of_postgres_costs_no_read_and_no_write(postgres_server, open_database):
    database = open_database(postgres_server.create_database())
    one = text("SELECT 1")
    postgres_server.stop()
    postgres_server.start()
    assert database.read(lambda connection: connection.scalar(one)) == 1
    for attempt in (database.read, database.write):
        postgres_server.stop()
        postgres_server.start()
        assert attempt(lambda connection: connection.scalar(one)) == 1


@pytest.mark.postgres
def test_without_postgres_everything_is_an_outage_until_it_is_back(
    postgres_server, open_database, caplog
):
    database = open_database(postgres_server.create_database())
    one = text("SELECT 1")
    database.read(lambda connection: connection.scalar(one))
    postgres_server.stop()
    try:
        for attempt in (database.read, database.write, database.read):
            with pytest.raises(DatabaseAway) as caught:
                attempt(lambda connection: connection.scalar(one))
            assert not caught.value.is_outcome_unknown
            assert str(postgres_server.port) not in str(caught.value)
    finally:
        postgres_server.start()
    warnings = [record for record in caplog.records if record.name == "tokenhub.db"]
    assert [record.__dict__["is_write"] for record in warnings] == [False, True]
    assert database.write(lambda connection: connection.scalar(one)) == 1


@pytest.mark.postgres
def test_a_write_is_not_repeated_when_the_connection_dies_in_its_midst(
    postgres_server, open_database
):
    database = open_database(postgres_server.create_database())
    calls = []

    def work(connection):
        calls.append(1)
        connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    with pytest.raises(DatabaseAway):
        database.write(work)
    assert len(calls) == 1


@pytest.mark.postgres
def test_a_connection_lost_while_committing_leaves_the_outcome_unknown(
    postgres_server, open_database
):
    database = open_database(postgres_server.create_database())

    def break_commit(connection):
        connection.connection.driver_connection.close()

    event.listen(database._backend._engine, "commit", break_commit)
    with pytest.raises(DatabaseAway) as caught:
        database.write(lambda connection: connection.scalar(text("SELECT 1")))
    assert caught.value.is_outcome_unknown


@patched_only
def test_no_timeout_leaves_another_ones_answer_in_a_connection(database):
    slow = text(SLOW[database.dialect])
    for number in range(12):
        with pytest.raises(DatabaseAway):
            database.read(lambda connection: connection.execute(slow).all(), timeout_secs=0.05)
        query = text(f"SELECT {number}")
        assert database.read(lambda connection, q=query: connection.scalar(q)) == number


@patched_only
@pytest.mark.postgres
def test_nor_does_one_that_strikes_while_work_speaks_to_the_driver_itself(
    postgres_server, open_database
):
    database = open_database(postgres_server.create_database())

    def sleep(connection):
        connection.execute(text("CREATE TEMPORARY TABLE t (i int)"))
        with connection.connection.driver_connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(20)")

    for number in range(7):
        with pytest.raises(DatabaseAway):
            database.write(sleep, timeout_secs=0.1)
        query = text(f"SELECT {number}")
        assert database.write(lambda connection, q=query: connection.scalar(q)) == number


@patched_only
def test_a_caller_who_leaves_takes_its_write_along(database):
    leaver = gevent.spawn(database.write, add_slowly(database), timeout_secs=20)
    gevent.sleep(0.2)
    leaver.kill()
    database.write(lambda connection: add_host(connection, "next"))
    assert host_ids(database) == {"next"}


@patched_only
def test_other_greenlets_run_while_the_database_works(database):
    ticks = []

    def tick():
        while True:
            ticks.append(time.monotonic())
            gevent.sleep(0.01)

    ticker = gevent.spawn(tick)
    with pytest.raises(DatabaseAway):
        database.write(add_slowly(database), timeout_secs=0.5)
    ticker.kill()
    assert max(after - before for before, after in pairwise(ticks)) < 0.2


@patched_only
def test_a_write_that_never_got_its_turn_does_not_take_it_later(database, database_dsn):
    if database.dialect != "sqlite":
        pytest.skip("SQLite only")
    with closing(sqlite3.connect(make_url(database_dsn).database or "")) as blocker:
        blocker.isolation_level = None
        blocker.execute("BEGIN IMMEDIATE")
        writes = [
            gevent.spawn(database.write, lambda c, n=n: add_host(c, f"h{n}"), timeout_secs=0.2)
            for n in range(5)
        ]
        gevent.joinall(writes)
        assert all(isinstance(write.exception, DatabaseAway) for write in writes)
        blocker.execute("ROLLBACK")
    gevent.sleep(0.3)
    assert host_ids(database) == set()


@patched_only
def test_many_greenlets_read_and_write_at_once(database):
    def both(number):
        database.write(lambda connection: add_host(connection, f"h{number}"))
        return f"h{number}" in host_ids(database)

    jobs = [gevent.spawn(both, number) for number in range(60)]
    gevent.joinall(jobs, raise_error=True)
    assert all(job.value for job in jobs)

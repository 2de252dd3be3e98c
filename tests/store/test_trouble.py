"""What waiting does not mend is said with the remedy; at a start it is refused."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url, text

from tests.postgres import USER
from tokenhub.db import (
    Database,
    DatabaseAway,
    DatabaseUnusable,
    Room,
    check_room,
    find_room,
    look_for_damage,
    open_at_head,
)
from tokenhub.errors import ConfigError

ONE = text("SELECT 1")


@pytest.fixture
def sqlite_file(tmp_path, sqlite_template) -> Path:
    """A database at head with a few hundred rows."""
    path: Path = tmp_path / "hub.sqlite"
    path.write_bytes(sqlite_template.read_bytes())
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(
            "INSERT INTO vault_entries VALUES (?, zeroblob(500), 0)",
            [(str(number),) for number in range(400)],
        )
    return path


def spoil(path: Path, *, start: float, end: float) -> None:
    """Overwrite a part of a file, from and to these shares of its length."""
    data = bytearray(path.read_bytes())
    first, last = int(len(data) * start), int(len(data) * end)
    data[first:last] = b"\xa5" * (last - first)
    path.write_bytes(data)


def test_a_file_that_is_no_database_is_refused_with_the_command_that_helps(sqlite_file, caplog):
    spoil(sqlite_file, start=0, end=1)
    with pytest.raises(DatabaseUnusable, match="`python -m tokenhub restore`"):
        Database(f"sqlite:///{sqlite_file}")
    [record] = caplog.records
    assert (record.levelname, record.message) == ("ERROR", "database is unusable")
    assert "python -m tokenhub restore" in record.__dict__["remedy"]


def test_damage_in_the_midst_of_a_file_is_found_before_a_start(sqlite_file, open_database):
    dsn = f"sqlite:///{sqlite_file}"
    look_for_damage(open_database(dsn))
    spoil(sqlite_file, start=0.9, end=0.95)
    database = open_database(dsn)
    with pytest.raises(DatabaseUnusable, match="restore"):
        look_for_damage(database)


def test_the_look_for_damage_ends_when_its_time_is_over(sqlite_file, open_database, monkeypatch):
    monkeypatch.setattr("tokenhub.db.start.LOOK_SECS", 0.0)
    spoil(sqlite_file, start=0.9, end=0.95)
    look_for_damage(open_database(f"sqlite:///{sqlite_file}"))


def test_however_large_a_file_is_it_is_looked_at_for_no_longer_than_that(
    sqlite_file, open_database, monkeypatch
):
    with closing(sqlite3.connect(sqlite_file)) as connection, connection:
        connection.execute(
            "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers"
            " WHERE n < 30000) INSERT INTO vault_entries"
            " SELECT 'large-' || n, zeroblob(3000), 0 FROM numbers"
        )
    database = open_database(f"sqlite:///{sqlite_file}")

    def look(secs: float) -> float:
        monkeypatch.setattr("tokenhub.db.start.LOOK_SECS", secs)
        began = time.monotonic()
        look_for_damage(database)
        return time.monotonic() - began

    whole = min(look(60) for _ in range(3))
    assert min(look(whole / 10) for _ in range(5)) < whole / 2


def test_a_file_that_is_damaged_while_we_use_it_is_an_outage_told_of_once(
    sqlite_file, open_database, caplog
):
    database = open_database(f"sqlite:///{sqlite_file}")
    database.write(lambda connection: connection.execute(text("DELETE FROM audit_logs")))
    with closing(sqlite3.connect(sqlite_file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    spoil(sqlite_file, start=0, end=1)
    for _ in range(3):
        with pytest.raises(DatabaseAway):
            database.read(lambda connection: connection.execute(text("SELECT * FROM hosts")).all())
        with pytest.raises(DatabaseAway):
            database.write(lambda connection: connection.execute(text("DELETE FROM vault_entries")))
    told = [each for each in caplog.records if each.levelname == "ERROR"]
    assert len(told) == 1
    assert len([each for each in caplog.records if each.levelname == "WARNING"]) <= 1


def test_a_file_that_another_process_holds_is_an_outage_for_who_writes_alone(
    sqlite_file, open_database
):
    """Another process holds the file; who only reads does not notice."""
    database = open_database(f"sqlite:///{sqlite_file}")
    with closing(sqlite3.connect(sqlite_file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseAway):
            database.write(lambda connection: connection.execute(ONE), timeout_secs=0.3)
        assert database.read(lambda connection: connection.scalar(ONE)) == 1
        other.execute("ROLLBACK")
    assert database.write(lambda connection: connection.scalar(ONE)) == 1


# Postgres


pg = pytest.mark.postgres


@pytest.fixture(scope="session")
def guarded(postgres_server):
    """The server, with a user who needs a password and one who may do nothing."""
    with admin_of(postgres_server) as connection:
        connection.execute("CREATE ROLE needs_password LOGIN PASSWORD 'right-canary'")
        connection.execute("CREATE ROLE no_rights LOGIN")
        connection.execute("CREATE ROLE at_most_three LOGIN CONNECTION LIMIT 3")
        row = connection.execute("SHOW hba_file").fetchone()
        assert row is not None
        rules = Path(row[0])
        rules.write_text(f"host all needs_password 127.0.0.1/32 md5\n{rules.read_text()}")
        connection.execute("SELECT pg_reload_conf()")
    return postgres_server


def admin_of(server, name: str = "postgres"):
    return psycopg.connect(
        host="127.0.0.1", port=server.port, user=USER, dbname=name, autocommit=True
    )


def as_user(dsn: str, user: str, password: str | None = None) -> str:
    url = make_url(dsn).set(username=user, password=password)
    return url.render_as_string(hide_password=False)


@pg
@pytest.mark.parametrize(
    ("user", "password", "name"),
    [
        ("needs_password", "wrong-canary", None),
        ("needs_password", None, None),
        ("nobody-canary", None, None),
        (USER, None, "canary"),
    ],
    ids=["wrong password", "no password", "unknown user", "unknown database"],
)
def test_a_server_that_does_not_let_us_in_is_refused_and_nothing_is_repeated(
    guarded, postgres_template, user, password, name
):
    dsn = as_user(guarded.create_database(template=postgres_template), user, password)
    if name is not None:
        dsn = make_url(dsn).set(database=name).render_as_string(hide_password=False)
    with pytest.raises(DatabaseUnusable, match="TOKENHUB_DB_DSN") as caught:
        open_at_head(dsn)
    assert "canary" not in str(caught.value)


@pg
def test_the_right_password_is_let_in(guarded, postgres_template):
    dsn = guarded.create_database(template=postgres_template)
    with admin_of(guarded, make_url(dsn).database or "") as connection:
        connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO needs_password")
    open_at_head(as_user(dsn, "needs_password", "right-canary")).close()


@pg
def test_a_user_without_rights_is_refused_at_a_start_and_an_outage_later(
    guarded, postgres_template, open_database
):
    dsn = as_user(guarded.create_database(template=postgres_template), "no_rights")
    with pytest.raises(DatabaseUnusable, match="rights"):
        open_at_head(dsn)
    database = open_database(dsn)
    with pytest.raises(DatabaseAway):
        database.write(lambda connection: connection.execute(text("DELETE FROM hosts")))


@pg
def test_a_database_that_we_may_not_enter_is_refused(guarded):
    dsn = guarded.create_database()
    with admin_of(guarded) as connection:
        name = sql.Identifier(make_url(dsn).database or "")
        connection.execute(sql.SQL("REVOKE CONNECT ON DATABASE {} FROM public").format(name))
    with pytest.raises(DatabaseUnusable):
        open_at_head(as_user(dsn, "no_rights"))


@pg
def test_the_servers_room_is_what_it_has_for_such_as_us(guarded, open_database):
    dsn = guarded.create_database()
    room = find_room(open_database(dsn))
    assert room is not None
    assert room.most == 97  # of 100, three are for superusers
    with admin_of(guarded):
        more = find_room(open_database(dsn))
        assert more is not None
        assert more.in_use > room.in_use
    limited = find_room(open_database(as_user(dsn, "at_most_three")))
    assert limited is not None
    assert limited.most == 3


def test_a_file_has_room_for_all(sqlite_file, open_database):
    assert find_room(open_database(f"sqlite:///{sqlite_file}")) is None


@pytest.mark.parametrize(("workers", "pool_size"), [(4, 5), (1, 20), (20, 1)])
def test_what_fits_beside_all_others_is_no_word_worth(workers, pool_size):
    assert check_room(Room(most=97, in_use=76), workers=workers, pool_size=pool_size) is None


def test_what_fits_only_when_others_leave_is_a_warning_with_the_numbers():
    warning = check_room(Room(most=97, in_use=77), workers=4, pool_size=5)
    assert warning is not None
    for number in ("4 workers", "TOKENHUB_DB_POOL_SIZE 5", "= 21", "97", "77"):
        assert number in warning


def test_what_can_never_fit_is_refused_with_the_numbers_and_the_ways_out():
    with pytest.raises(ConfigError) as caught:
        check_room(Room(most=97, in_use=0), workers=4, pool_size=25)
    for word in ("= 101", "97", "TOKENHUB_DB_POOL_SIZE", "TOKENHUB_WORKERS", "max_connections"):
        assert word in str(caught.value)

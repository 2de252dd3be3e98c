"""What a database is asked before a gateway starts on it: is it whole, and is there room for us?"""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass
from threading import Timer
from typing import cast

from sqlalchemy import Connection, text

from tokenhub.db.database import Database
from tokenhub.db.sqlite import DAMAGED
from tokenhub.db.work import DatabaseAway, DatabaseUnusable
from tokenhub.errors import ConfigError

LOOK_SECS = 2.0
"""How long we look for damage; of a large file only a part has been read by then."""

LISTENERS = 1
"""Connections of a host beside its workers' pools."""

# Everybody may see these; of other users' sessions pg_stat_activity shows too little to count them.
# https://www.postgresql.org/docs/current/runtime-config-connection.html
_ROOM = """
SELECT current_setting('max_connections')::int
         - current_setting('superuser_reserved_connections')::int
         - coalesce(current_setting('reserved_connections', true), '0')::int,
       (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user),
       (SELECT datconnlimit FROM pg_database WHERE datname = current_database()),
       (SELECT sum(numbackends)::int - 1 FROM pg_stat_database)
"""


@dataclass(frozen=True)
class Room:
    """How many connections a Postgres server has for us.

    Args:
        most: that it gives to one user on one database, when nobody else is there.
        in_use: of all users and databases, now, without the one that asked.
    """

    most: int
    in_use: int


def check_file(dsn: str) -> None:
    """Look for damage before a migration meets it; only an SQLite file is looked at.

    Raises:
        DatabaseUnusable: it is damaged.
        DatabaseAway: it cannot be opened.
    """
    if dsn.startswith("sqlite:///"):
        with closing(Database(dsn)) as database:
            look_for_damage(database)


def look_for_damage(database: Database) -> None:
    """Refuse an SQLite file that is seen to be damaged.

    Raises:
        DatabaseUnusable: it is.
    """
    if database.dialect != "sqlite":
        return

    look = _Look()
    # SQLite looks at the clock between two steps of a statement, and to read a whole table is one.
    timer = Timer(LOOK_SECS, look.stop)
    timer.start()
    try:
        found = database.read(look.work, timeout_secs=LOOK_SECS)
    except DatabaseUnusable:
        raise
    except DatabaseAway:  # too large to be read in the time
        return
    finally:
        timer.cancel()
    if found != "ok" and not look.is_stopped:
        raise DatabaseUnusable(DAMAGED)


class _Look:
    """One look at a file, that another thread can stop."""

    def __init__(self) -> None:
        self.is_stopped = False
        self._running: list[sqlite3.Connection] = []

    def work(self, connection: Connection) -> str:
        """What is wrong, or `ok`; anything at all once it was stopped."""
        raw = cast(sqlite3.Connection, connection.connection.driver_connection)
        self._running.append(raw)
        try:
            if self.is_stopped:
                return ""
            return str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one())
        finally:
            self._running.clear()

    def stop(self) -> None:
        """Have it end at the next page."""
        self.is_stopped = True
        with suppress(sqlite3.ProgrammingError):  # it has just ended by itself
            for raw in self._running:
                raw.interrupt()


def find_room(database: Database) -> Room | None:
    """How many connections the server has; None on SQLite, which has no such limit.

    Raises:
        DatabaseAway: it could not be asked.
    """
    if database.dialect != "postgresql":
        return None
    most, of_role, of_database, in_use = database.read(
        lambda connection: connection.execute(text(_ROOM)).one()
    )
    limits = [each for each in (of_role, of_database) if each >= 0]  # -1: no limit of its own
    return Room(min([most, *limits]), in_use)


def check_room(room: Room, *, workers: int, pool_size: int) -> str | None:
    """Compare what this host may open with what the server has.

    Returns: a warning if it is tight, else None.

    Raises:
        ConfigError: it can never fit, with the numbers.
    """
    wanted = workers * pool_size + LISTENERS
    sum_ = f"{workers} workers × TOKENHUB_DB_POOL_SIZE {pool_size} + {LISTENERS} = {wanted}"
    if wanted > room.most:
        raise ConfigError(
            f"this host may open {sum_} connections, and the Postgres server has {room.most} for "
            "us: set TOKENHUB_DB_POOL_SIZE or TOKENHUB_WORKERS lower, or the server's "
            "max_connections higher"
        )
    if wanted > room.most - room.in_use:
        return (
            f"this host may open {sum_} connections, and of the Postgres server's {room.most} "
            f"{room.in_use} are in use: when they run out, what needs the database has to wait"
        )
    return None

"""Keeps an SQLite file from growing without end: room that is free goes back to the disk.

A file that our migrations have made gives its free pages back in small steps. One of before that
can only be written anew as a whole. Postgres does all this by itself.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from functools import partial
from typing import Any

from sqlalchemy import Connection, make_url

from tokenhub.db.database import Database
from tokenhub.db.sqlite import BUSY_MS, INCREMENTAL, WAL_KEPT_BYTES
from tokenhub.errors import ConfigError

WAL_LARGE_BYTES = 64 << 20
WAIT_MS, WAIT_LARGE_MS = 20, 500
"""How long writers may be kept waiting to empty the log, and when it has become large."""

SPARE_PAGES = 1000
SPARE_SHARE = 10
"""Free pages that are kept for the next rows: so many, and one in so many of the file's."""

PAGES_FIRST, PAGES_MIN, PAGES_MAX = 100, 10, 2000
TURN_SECS = 0.02
PAUSE_SECS = 0.03
TIDY_SECS = 5.0


def tidy(database: Database) -> dict[str, int]:
    """Empty the write-ahead log and give free pages back, a little at a time.

    Returns: how many pages were given back.

    Raises:
        DatabaseAway: something is left for the next time.
    """
    if database.dialect != "sqlite":
        return {}
    if database.wal_bytes > WAL_KEPT_BYTES:
        is_large = database.wal_bytes > WAL_LARGE_BYTES
        database.checkpoint(WAIT_LARGE_MS if is_large else WAIT_MS)
    return {"pages": _give_back(database)}


def rebuild(dsn: str) -> None:
    """Write an SQLite file anew, without its gaps and so that it can shrink from now on.

    Needs twice the room while it lasts, and nobody can write meanwhile.

    Raises:
        ConfigError: it is no SQLite file, or somebody else is at work on it.
    """
    url = make_url(dsn)
    if url.get_backend_name() != "sqlite":
        raise ConfigError("only an SQLite file can be written anew: Postgres does so by itself")
    try:
        with closing(
            sqlite3.connect(url.database or "", timeout=BUSY_MS / 1000, isolation_level=None)
        ) as connection:
            connection.execute(f"PRAGMA {INCREMENTAL}")
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as error:
        raise ConfigError(f"the file was not written anew: {error}") from error


def _give_back(database: Database) -> int:
    excess = database.read(_find_excess)
    given, pages = 0, PAGES_FIRST
    ends_at = time.monotonic() + TIDY_SECS
    while given < excess and time.monotonic() < ends_at:
        began_at = time.monotonic()
        pages = min(pages, excess - given)
        database.write(partial(_vacuum, pages=pages), timeout_secs=30)
        took_secs = time.monotonic() - began_at
        given += pages
        fitting = int(pages * TURN_SECS / max(took_secs, 1e-6))
        pages = max(PAGES_MIN, min(PAGES_MAX, 2 * pages, fitting))
        time.sleep(max(PAUSE_SECS, took_secs))
    return given


def _find_excess(connection: Connection) -> int:
    """How many pages are free beyond what is kept."""
    names = ("auto_vacuum", "freelist_count", "page_count")
    mode, free, all_ = (
        int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()) for name in names
    )
    if mode != 2:  # of before: its pages cannot be given back
        return 0
    return max(0, free - max(SPARE_PAGES, all_ // SPARE_SHARE))


def _vacuum(connection: Connection, pages: int) -> None:
    # SQLite gives one back a step, and the driver takes but one step of what returns no columns.
    raw: Any = connection.connection.driver_connection
    for _ in range(pages):
        raw.execute("PRAGMA incremental_vacuum(1)")

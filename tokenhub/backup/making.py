"""Copies of the database, made while it is in use: all of one moment, and nobody has to wait.

What is secret in the database is sealed or a digest there, and so it is in the copy.
"""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, make_url

from tokenhub import __version__
from tokenhub.backup.archive import Manifest, Writer, new_file
from tokenhub.board.board import unix_ms
from tokenhub.db import Database, expected_head, find_version
from tokenhub.db.copying import has_rows, list_layouts, read_rows
from tokenhub.errors import ConfigError

LEFT_OUT = frozenset({"admin_sessions", "idempotency_keys"})
"""Tables that are not copied: who has logged out meanwhile must not be logged in again, and answers
are for whoever asks again at once."""

LONGEST_SECS = 86_400.0

BEFORE_MIGRATION = "before-migration"
KEPT = 5


def back_up(database: Database, path: Path) -> Manifest:
    """Copy a database into a new file, which is 0600 and there as a whole or not at all.

    Returns: what was copied.

    Raises:
        ConfigError: there is such a file, or no TokenHub in the database.
        DatabaseAway: it cannot be read.
        OSError: the file cannot be written.
    """
    with new_file(path) as file:

        def work(connection: Connection) -> Manifest:
            schema = find_version(connection)
            if schema is None:
                raise ConfigError("the database is empty: there is nothing to back up")
            with Writer(file) as writer:
                for layout in list_layouts(connection):
                    if layout.name not in LEFT_OUT:
                        writer.add(layout.name, layout.columns, read_rows(connection, layout))
                return writer.finish(
                    version=__version__,
                    schema=schema,
                    dialect=database.dialect,
                    created_at=unix_ms(),
                )

        return database.read(work, timeout_secs=LONGEST_SECS)


def back_up_before_migration(dsn: str, directory: Path) -> Path | None:
    """Copy an SQLite file that is about to be migrated, and keep the last few such copies.

    Returns: the copy; None if nothing would be migrated, or nothing is in it.

    Raises:
        ConfigError, DatabaseAway, OSError: it should be copied and cannot.
    """
    url = make_url(dsn)
    if url.get_backend_name() != "sqlite" or not _has_content(Path(url.database or "")):
        return None

    def work(connection: Connection) -> bool:
        version = find_version(connection)
        return version not in (None, expected_head()) and has_rows(connection)

    with closing(Database(dsn)) as database:
        if not database.read(work):
            return None
        made = find_free_name(directory, BEFORE_MIGRATION)
        back_up(database, made)
    for old in sorted(directory.glob(f"{BEFORE_MIGRATION}-*.zip"))[:-KEPT]:
        old.unlink()
    return made


def find_free_name(directory: Path, prefix: str) -> Path:
    """A name for a copy that is made now, by UTC; the directory is made if need be."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    while True:
        path = directory / f"{prefix}-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}.zip"
        if not path.exists():
            return path


def _has_content(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0

"""Copies put back: in place of what is there, wholly or not at all.

An SQLite file is made anew beside the old one and takes its name at the end. On Postgres everything
happens in one transaction. Either way a copy of an older schema is restored at that schema, and
then migrated.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import orjson
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from tokenhub import host, store
from tokenhub.backup.archive import Archive, BadArchive, Manifest, sync_directory
from tokenhub.backup.making import LEFT_OUT, back_up, find_free_name
from tokenhub.board.board import unix_ms
from tokenhub.config import Settings
from tokenhub.db import Database, DatabaseAway, expected_head, find_version, open_for_migration
from tokenhub.db.copying import (
    clear,
    drop,
    find_faults,
    has_rows,
    list_layouts,
    set_sequences,
    write_rows,
)
from tokenhub.db.migrating import is_known, upgrade
from tokenhub.errors import ConfigError

BEFORE_RESTORE = "before-restore"
BESIDE = ("-wal", "-journal", "-shm")
"""SQLite's own files beside the database; all but the last have content."""


MAGIC = b"SQLite format 3\0"  # https://sqlite.org/fileformat.html


class Target(Protocol):
    """A database that a copy can be put into. No gateway may run on it."""

    def is_empty(self) -> bool:
        """Whether nothing would be lost."""

    def restore(self, archive: Archive) -> Path | None:
        """Put a copy in the place of what is there.

        Returns: where what was there is kept; None if it was empty.

        Raises:
            ConfigError: it was not done, and why; all is as it was.
            DatabaseAway, OSError: likewise.
        """


def open_target(settings: Settings, backups: Path) -> Target:
    """The database of the settings.

    Args:
        backups: where a copy of what was there is put, if it is not kept beside.
    """
    file = host.sqlite_file(settings)
    return _Server(settings.db_dsn, backups) if file is None else _File(file)


def verify(path: Path) -> Manifest:
    """Try a copy out: read all of it, and restore it into a file that is thrown away.

    Raises:
        BadArchive: it could not be restored.
        OSError: there is no room to try.
    """
    archive = Archive(path)
    with tempfile.TemporaryDirectory(prefix="tokenhub-verify-") as directory:
        _build(Path(directory) / "tried.sqlite", archive)
    return archive.manifest


class _File:
    """An SQLite file.

    Args:
        path: its own name, not that of a link to it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def is_empty(self) -> bool:
        """See `Target`."""
        if not self._path.exists() or not self._path.stat().st_size:
            return True
        try:
            if self._is_sqlite():
                with closing(Database(f"sqlite:///{self._path}")) as database:
                    return not database.read(has_rows)
        except DatabaseAway:  # damaged perhaps: not ours to throw away
            pass
        return False

    def restore(self, archive: Archive) -> Path | None:
        """See `Target`."""
        path, fresh = self._path, self._path.with_name(f"{self._path.name}.restoring")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _remove(fresh)  # left by one that was killed
        try:
            _build(fresh, archive)
            _own_like(fresh, path if path.exists() else path.parent)
            kept = None if self.is_empty() else self._keep()
            for suffix in BESIDE:
                _beside(path, suffix).unlink(missing_ok=True)
            fresh.replace(path)
            sync_directory(path.parent)
        finally:
            _remove(fresh)
        return kept

    def _keep(self) -> Path:
        """Give the old file a second name; what is beside it too, if it could not be carried in."""
        # Damaged, if this fails. Otherwise the file is whole without anything beside it.
        if self._is_sqlite():
            with suppress(sqlite3.Error), closing(sqlite3.connect(self._path)) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                connection.execute("PRAGMA journal_mode=DELETE")
        kept, number = _beside(self._path, f".{BEFORE_RESTORE}"), 1
        while kept.exists() and not kept.samefile(self._path):
            number += 1
            kept = _beside(self._path, f".{BEFORE_RESTORE}.{number}")
        for suffix in ("", *BESIDE[:-1]):
            if _beside(self._path, suffix).exists() and not _beside(kept, suffix).exists():
                os.link(_beside(self._path, suffix), _beside(kept, suffix))
        return kept

    def _is_sqlite(self) -> bool:
        """Whether it looks like one: of anything else SQLite would remove the log beside it."""
        with self._path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC


class _Server:
    """A database on a Postgres server."""

    def __init__(self, dsn: str, backups: Path) -> None:
        self._dsn = dsn
        self._backups = backups

    def is_empty(self) -> bool:
        """See `Target`."""
        with closing(Database(self._dsn)) as database:
            return not database.read(has_rows)

    def restore(self, archive: Archive) -> Path | None:
        """See `Target`."""
        with closing(Database(self._dsn)) as database:
            database.read(_refuse_while_in_use)
            kept = None
            if database.read(has_rows):
                kept = find_free_name(self._backups, BEFORE_RESTORE)
                back_up(database, kept)
        with _transaction(self._dsn) as connection:
            _refuse_while_in_use(connection)
            past = _find_generation(connection)
            drop(connection)
            _fill(connection, archive, past)
        return kept


def _build(path: Path, archive: Archive) -> None:
    """Make an SQLite file from a copy."""
    dsn = f"sqlite:///{path}"
    with _transaction(dsn) as connection:
        _fill(connection, archive)
    with _transaction(dsn) as connection:
        faults = find_faults(connection)
    if faults:
        raise BadArchive(f"{archive.path} makes no sound database: {'; '.join(faults)}")


def _fill(connection: Connection, archive: Archive, past: int = 0) -> None:
    """Make the tables of a copy, put its rows into them, and migrate them.

    Args:
        past: the generation that gateways may have seen here: they must not take what is here from
            now on for what they know.
    """
    manifest = archive.manifest
    if not is_known(manifest.schema):
        raise BadArchive(
            f"{archive.path} has the schema {manifest.schema} of TokenHub {manifest.version}, "
            "which this version does not know: use that version, or a later one"
        )
    upgrade(connection, manifest.schema)
    layouts = {each.name: each for each in list_layouts(connection)}
    expected = {table.name: set(table.columns) for table in manifest.tables}
    found = {name: set(each.columns) for name, each in layouts.items() if name not in LEFT_OUT}
    if expected != found:
        raise BadArchive(f"{archive.path} does not have the tables of the schema that it names")
    clear(connection, list(layouts.values()))
    for table in sorted(manifest.tables, key=lambda each: list(layouts).index(each.name)):
        layout = replace(layouts[table.name], columns=table.columns)
        write_rows(connection, layout, archive.rows(table))
    set_sequences(connection)
    upgrade(connection)
    _note(connection, archive, past)


def _note(connection: Connection, archive: Archive, past: int) -> None:
    """Write down that this was restored, and have whoever knows the catalog load it anew."""
    store.skip_generation(connection, past)
    manifest = archive.manifest
    detail = {"created_at": manifest.created_at, "version": manifest.version, "rows": manifest.rows}
    store.insert_audit(
        connection,
        at=unix_ms(),
        actor="cli",
        client_ip="",
        action="database.restore",
        resource=archive.path.name,
        detail=orjson.dumps(detail).decode(),
        request_id="",
    )


def _find_generation(connection: Connection) -> int:
    return 0 if find_version(connection) is None else store.load_generation(connection)


def _refuse_while_in_use(connection: Connection) -> None:
    """Raises ConfigError if a gateway lives. One of another version is not known to."""
    if find_version(connection) != expected_head():
        return
    rows, _ = store.list_hosts(connection, 1000, 0)
    living = [row["name"] for row in rows if row["is_live"]]
    if living:
        raise ConfigError(
            f"gateways are using the database, on {', '.join(living)}: stop them; one that was "
            f"killed counts for {store.LIVE_SECS} s"
        )


@contextmanager
def _transaction(dsn: str) -> Iterator[Connection]:
    """One that no migration runs beside, and without foreign keys on SQLite.

    Raises:
        ConfigError: the database would not have it.
    """
    engine = open_for_migration(dsn)
    try:
        with engine.begin() as connection:
            yield connection
    except DBAPIError as error:
        reason = str(error.orig).partition("\n")[0]  # what follows may quote rows
        raise ConfigError(f"the database was not restored: {reason}") from error
    finally:
        engine.dispose()


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _remove(path: Path) -> None:
    for suffix in ("", *BESIDE):
        _beside(path, suffix).unlink(missing_ok=True)


def _own_like(path: Path, other: Path) -> None:
    """Whoever restores as root does so for the gateway's user."""
    if os.geteuid() == 0:
        found = other.stat()
        os.chown(path, found.st_uid, found.st_gid)

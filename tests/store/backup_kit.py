"""What the tests of backups share: databases with rows in every table, and what is in them."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import Boolean, Connection, Float, Integer, LargeBinary, Table, insert, select

from tokenhub.backup import Archive, back_up, open_target
from tokenhub.config import Settings
from tokenhub.db import Database, metadata

ROWS = 3
LEFT_OUT = {"admin_sessions", "idempotency_keys"}

# Text that a careless format would not bring back.
TEXTS = ("plain", 'quotes " and \\ and {"b64": "AAAA"}', "tabs\t, lines\n, ü, 😀, \\N")


def settings_of(directory: Path, dsn: str) -> Settings:
    return Settings.from_env({"TOKENHUB_DATA_DIR": str(directory), "TOKENHUB_DB_DSN": dsn})


def fill(database: Database) -> None:
    """Rows in every table that there is, with every kind of value."""

    def work(connection: Connection) -> None:
        for table in metadata.sorted_tables:
            for number in range(1, ROWS + 1):
                if _is_single(table) and (number > 1 or table.name == "generation"):
                    continue
                connection.execute(insert(table).values(_row_of(table, number)))

    database.write(work)


def contents(database: Database, *, without: set[str] = LEFT_OUT) -> dict[str, list[Any]]:
    """Every row of every table, in an order of its own."""

    def work(connection: Connection) -> dict[str, list[Any]]:
        return {
            table.name: sorted(map(tuple, connection.execute(select(table))), key=repr)
            for table in metadata.sorted_tables
            if table.name not in without
        }

    return database.read(work)


def copied(dsn: str, path: Path) -> Archive:
    """A copy of a database."""
    with closing(Database(dsn)) as database:
        back_up(database, path)
    return Archive(path)


def restored(archive: Archive, dsn: str, directory: Path) -> Path | None:
    """Put a copy into a database."""
    return open_target(settings_of(directory, dsn), directory / "backups").restore(archive)


def _is_single(table: Table) -> bool:
    """Whether it may have one row only."""
    return any("id = 1" in str(getattr(each, "sqltext", "")) for each in table.constraints)


def _row_of(table: Table, number: int) -> dict[str, Any]:
    return {column.name: _value_of(column, number) for column in table.c}


def _value_of(column: Any, number: int) -> Any:
    if column.foreign_keys:
        [key] = column.foreign_keys
        return _value_of(key.column, number)
    kind = column.type
    if isinstance(kind, Boolean):
        return number % 2 == 1
    if isinstance(kind, LargeBinary):
        return bytes([number, 0, 255, 10]) * 8
    if isinstance(kind, Float):
        return number / 7
    if isinstance(kind, Integer):
        if column.nullable and number == 2:
            return None
        is_small = column.primary_key or column.name.endswith("_at")  # long ago: no host lives
        return number if is_small else 2**53 + number
    return f"{column.name} {number}: {TEXTS[number % len(TEXTS)]}"

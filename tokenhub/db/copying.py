"""Whole tables as plain rows, out of one database and into another, whichever of the two it is.

What tables there are is asked of the database, not taken from this version's metadata: a backup is
also made before a migration, and restored at the schema that it was made at. A row is a sequence of
None, numbers, text and bytes; what is true or false may be 1 or 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import Boolean, Connection, Inspector, inspect, text
from sqlalchemy.exc import DBAPIError

from tokenhub.db.columns import metadata

VERSION_TABLE = "alembic_version"

FILLED_BY_MIGRATIONS = frozenset({"generation"})
"""Tables that have rows although nobody has used the database."""

FORMER = frozenset({"reward_logs", "tsdb_points"})
"""Tables of earlier schemas, which their backups have."""

BATCH_ROWS = 1000
FAULTS_SHOWN = 3

Row = Sequence[Any]


@dataclass(frozen=True)
class Layout:
    """A table as it is in a database.

    Args:
        booleans: which of its columns are true or false.
    """

    name: str
    columns: tuple[str, ...]
    booleans: frozenset[str] = frozenset()


def list_layouts(connection: Connection) -> list[Layout]:
    """Our tables, parents before children."""
    inspector = inspect(connection)
    names = set(inspector.get_table_names()) - {VERSION_TABLE}
    if connection.dialect.name == "postgresql":  # where there may be others', too
        names &= metadata.tables.keys() | FORMER
    ordered = (name for name, _ in inspector.get_sorted_table_and_fkc_names())
    return [_layout_of(inspector, name) for name in ordered if name in names]


def read_rows(connection: Connection, layout: Layout) -> Iterator[Row]:
    """All rows of a table, in any order; few of them in memory at a time."""
    columns = _names(connection, layout.columns)
    found = connection.exec_driver_sql(
        f"SELECT {columns} FROM {layout.name}",  # noqa: S608 - the database's own names
        execution_options={"stream_results": True, "max_row_buffer": BATCH_ROWS},
    )
    for part in found.partitions(BATCH_ROWS):
        yield from part


def write_rows(connection: Connection, layout: Layout, rows: Iterable[Row]) -> None:
    """Put rows into a table, as they are.

    Raises:
        sqlalchemy.exc.DBAPIError: they do not fit into it.
    """
    if connection.dialect.name == "postgresql":
        _copy(connection, layout, rows)
        return
    columns, marks = _names(connection, layout.columns), ", ".join("?" * len(layout.columns))
    statement = f"INSERT INTO {layout.name} ({columns}) VALUES ({marks})"  # noqa: S608 - likewise
    left = iter(rows)
    while part := [tuple(row) for row in islice(left, BATCH_ROWS)]:
        connection.exec_driver_sql(statement, part)


def has_rows(connection: Connection) -> bool:
    """Whether anybody has used this database."""
    return any(
        connection.scalar(text(f"SELECT 1 FROM {layout.name} LIMIT 1"))  # noqa: S608 - likewise
        for layout in list_layouts(connection)
        if layout.name not in FILLED_BY_MIGRATIONS
    )


def clear(connection: Connection, layouts: Sequence[Layout]) -> None:
    """Delete what is in these tables.

    Args:
        layouts: parents before children.
    """
    for layout in reversed(layouts):
        connection.exec_driver_sql(f"DELETE FROM {layout.name}")  # noqa: S608 - likewise


def drop(connection: Connection) -> None:
    """Drop our tables, and nobody else's."""
    found = {*inspect(connection).get_table_names()} & {*metadata.tables, *FORMER, VERSION_TABLE}
    if found:
        connection.exec_driver_sql(f"DROP TABLE {', '.join(sorted(found))}")


def set_sequences(connection: Connection) -> None:
    """Let Postgres number rows on from the highest; SQLite does so by itself."""
    if connection.dialect.name != "postgresql":
        return
    inspector = inspect(connection)
    for layout in list_layouts(connection):
        key = inspector.get_pk_constraint(layout.name)["constrained_columns"]
        if len(key) != 1:
            continue
        find = text("SELECT pg_get_serial_sequence(:table, :column)")
        sequence = connection.scalar(find, {"table": layout.name, "column": key[0]})
        if sequence is not None:
            highest = f"SELECT coalesce(max({key[0]}), 0) + 1 FROM {layout.name}"  # noqa: S608
            connection.execute(
                text(f"SELECT setval(:sequence, ({highest}), false)"), {"sequence": sequence}
            )


def find_faults(connection: Connection) -> list[str]:
    """What is wrong with an SQLite file as a whole; Postgres sees to it by itself."""
    if connection.dialect.name != "sqlite":
        return []
    found = connection.exec_driver_sql(f"PRAGMA integrity_check({FAULTS_SHOWN})").scalars()
    faults = [str(each) for each in found if each != "ok"]
    orphans = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchmany(FAULTS_SHOWN)
    return faults + [f"a row of {row[0]} belongs to no row of {row[2]}" for row in orphans]


def _layout_of(inspector: Inspector, name: str | None) -> Layout:
    columns = inspector.get_columns(str(name))
    return Layout(
        str(name),
        tuple(each["name"] for each in columns),
        frozenset(each["name"] for each in columns if isinstance(each["type"], Boolean)),
    )


def _names(connection: Connection, columns: Iterable[str]) -> str:
    """Names of columns, quoted where one is a word of SQL."""
    return ", ".join(map(connection.dialect.identifier_preparer.quote, columns))


def _copy(connection: Connection, layout: Layout, rows: Iterable[Row]) -> None:
    raw: Any = connection.connection.driver_connection
    driver_error: Any = connection.dialect.loaded_dbapi.Error
    statement = f"COPY {layout.name} ({_names(connection, layout.columns)}) FROM STDIN"
    booleans = [at for at, name in enumerate(layout.columns) if name in layout.booleans]
    try:
        with raw.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(_with_booleans(row, booleans))
    except driver_error as error:
        raise DBAPIError.instance(None, None, error, driver_error) from error


def _with_booleans(row: Row, booleans: Sequence[int]) -> Row:
    if not booleans:
        return row
    values = list(row)
    for at in booleans:
        values[at] = None if values[at] is None else bool(values[at])
    return values

"""Which schema this version needs, and how migrations reach the database.

Knows where `migrations/` is, beside the package, but not what is in them.
"""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack
from pathlib import Path

from sqlalchemy import Connection, Engine, NullPool, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import SQLAlchemyError

from tokenhub.db.database import POOL_SIZE, Database
from tokenhub.db.sqlite import INCREMENTAL, make_file
from tokenhub.errors import ConfigError

HEAD_FILE = Path(__file__).resolve().parents[2] / "migrations" / "HEAD"

MIGRATION_LOCK = 0x746F6B656E687562
"""Names our advisory lock on a Postgres server: "tokenhub" in ASCII."""

LOCK_WAIT_MS = 60_000
"""How long a migration waits for another one to finish."""


class SchemaBehind(ConfigError):
    """The database's schema is not the one that this version was written for."""


def expected_head() -> str:
    """The migration that this version needs."""
    return HEAD_FILE.read_text().strip()


def check_head(database: Database) -> None:
    """Refuse a database that is not exactly at our head.

    Raises:
        SchemaBehind: naming the command that helps.
        DatabaseAway: it could not be asked.
    """
    expected = expected_head()
    found = database.read(find_version)
    if found != expected:
        raise SchemaBehind(
            f"the database's schema is at {found or 'nothing'}, this version needs {expected}: "
            "run `alembic upgrade head` with this version's code"
        )


def open_at_head(dsn: str, *, pool_size: int = POOL_SIZE) -> Database:
    """Open the database that the settings name, if a gateway can work on it.

    Args:
        pool_size: see `Database`.

    Raises:
        ConfigError: its schema is not at our head, or this is no database that we can use.
        DatabaseAway: it cannot be reached now.
        DatabaseUnusable: likewise, and waiting will not help.
    """
    try:
        database = Database(dsn, pool_size=pool_size)
        with ExitStack() as on_failure:
            on_failure.callback(database.close)
            check_head(database)
            on_failure.pop_all()
    except (SQLAlchemyError, ValueError) as error:
        # Not what it says: that may repeat the address, password included.
        raise ConfigError(f"TOKENHUB_DB_DSN cannot be used: {type(error).__name__}") from None
    return database


def open_for_migration(dsn: str) -> Engine:
    """An engine whose transactions exclude each other, across processes.

    Foreign keys are not enforced on SQLite: changing a table there means to copy and drop it, and
    the drop would cascade into its children.
    """
    url = make_url(dsn)
    if url.get_backend_name() == "sqlite":
        make_file(url)
        engine = create_engine(url, poolclass=NullPool, connect_args={"isolation_level": None})
        event.listen(engine, "connect", _set_up)
        event.listen(engine, "begin", _begin_exclusive)
        return engine
    engine = create_engine(url, poolclass=NullPool)
    event.listen(engine, "begin", _lock_advisory)
    return engine


def find_version(connection: Connection) -> str | None:
    """The migration that a database is at; None = it has none of our tables."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


def _set_up(connection: sqlite3.Connection, _: object) -> None:
    connection.execute(f"PRAGMA busy_timeout={LOCK_WAIT_MS}")
    connection.execute(f"PRAGMA {INCREMENTAL}")  # of a new file, which has no table yet


def _begin_exclusive(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN EXCLUSIVE")


def _lock_advisory(connection: Connection) -> None:
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")

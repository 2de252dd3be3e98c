"""What Alembic runs to reach the database: one transaction, one migrator at a time.

The database is the one of the test or program that set `config.attributes["connection"]` or
`["dsn"]`, else of `-x dsn=…`, else of the settings.
"""

from __future__ import annotations

import os

from alembic import context
from sqlalchemy import Connection, make_url

from tokenhub.config import Settings
from tokenhub.db import metadata, open_for_migration


def find_dsn() -> str:
    """The database to migrate."""
    given = context.config.attributes.get("dsn") or context.get_x_argument(as_dictionary=True).get(
        "dsn"
    )
    return str(given or Settings.from_env(os.environ).db_dsn)


def migrate(connection: Connection | None, dialect: str) -> None:
    """Run the migrations, or print their SQL when there is no connection."""
    context.configure(
        connection=connection,
        dialect_name=dialect,
        target_metadata=metadata,
        compare_type=True,
        compare_server_default=True,
        # SQLite cannot alter a table: Alembic copies it.
        render_as_batch=dialect == "sqlite",
        # SQLite can roll a table back too, once the driver no longer commits behind our back.
        transactional_ddl=True,
        literal_binds=connection is None,
    )
    with context.begin_transaction():
        context.run_migrations()


def main() -> None:
    """Migrate."""
    given = context.config.attributes.get("connection")
    if given is not None:  # in a transaction of somebody's who holds the lock
        migrate(given, given.dialect.name)
        return
    dsn = find_dsn()
    dialect = make_url(dsn).get_backend_name()
    if context.is_offline_mode():
        migrate(None, dialect)
        return
    engine = open_for_migration(dsn)
    # Begun here, so that the lock is held before Alembic asks where the schema is.
    with engine.begin() as connection:
        migrate(connection, dialect)
    engine.dispose()


main()

"""What an administrator has set at run time and is no part of the catalog: words by name."""

from __future__ import annotations

from sqlalchemy import Connection, delete, select

from tokenhub.db.admin_tables import options
from tokenhub.store.statements import upsert

LOG_LEVEL = "log_level"
TSDB_RETENTION_DAYS = "tsdb_retention_days"
"""How many days sums by the hour are kept."""


def find_option(connection: Connection, name: str) -> str | None:
    """What was set; None = nothing was."""
    found: str | None = connection.scalar(select(options.c.value).where(options.c.name == name))
    return found


def save_option(connection: Connection, name: str, value: str | None, at: int) -> None:
    """Set it; None = as if it had never been set."""
    if value is None:
        connection.execute(delete(options).where(options.c.name == name))
    else:
        upsert(connection, options, {"name": name}, {"value": value, "updated_at": at})

"""Engine and tables. Only this package and `store` know SQL."""

from __future__ import annotations

from tokenhub.db import catalog_tables, traffic_tables
from tokenhub.db.columns import metadata
from tokenhub.db.database import Database
from tokenhub.db.head import (
    SchemaBehind,
    check_head,
    expected_head,
    open_at_head,
    open_for_migration,
)
from tokenhub.db.work import DatabaseAway

__all__ = [
    "Database",
    "DatabaseAway",
    "SchemaBehind",
    "catalog_tables",
    "check_head",
    "expected_head",
    "metadata",
    "open_at_head",
    "open_for_migration",
    "traffic_tables",
]

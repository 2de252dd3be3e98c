"""Engine and tables. Only this package and `store` know SQL."""

from __future__ import annotations

from tokenhub.db import (
    admin_tables,
    budget_tables,
    catalog_tables,
    sums_tables,
    traffic_tables,
)
from tokenhub.db.columns import metadata
from tokenhub.db.database import Database
from tokenhub.db.head import (
    SchemaBehind,
    check_head,
    expected_head,
    find_version,
    open_at_head,
    open_for_migration,
)
from tokenhub.db.start import Room, check_file, check_room, find_room, look_for_damage
from tokenhub.db.work import DatabaseAway, DatabaseUnusable

__all__ = [
    "Database",
    "DatabaseAway",
    "DatabaseUnusable",
    "Room",
    "SchemaBehind",
    "admin_tables",
    "budget_tables",
    "catalog_tables",
    "check_file",
    "check_head",
    "check_room",
    "expected_head",
    "find_room",
    "find_version",
    "look_for_damage",
    "metadata",
    "open_at_head",
    "open_for_migration",
    "sums_tables",
    "traffic_tables",
]

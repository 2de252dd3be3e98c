"""The newest requests and changes of all, as their rows are: what tests of many parts look at."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from tokenhub import store
from tokenhub.store.audit import AuditFilters
from tokenhub.store.logs import LogFilters
from tokenhub.store.searching import Part

Row = dict[str, Any]


def list_logs(connection: Connection, limit: int, offset: int) -> list[Row]:
    """The newest requests."""
    part = Part(limit, offset)
    return store.find_logs(connection, LogFilters(), part, is_late=lambda: False).rows


def list_audit(connection: Connection, limit: int, offset: int) -> list[Row]:
    """The newest changes."""
    part = Part(limit, offset)
    return store.find_audit(connection, AuditFilters(), part, is_late=lambda: False).rows

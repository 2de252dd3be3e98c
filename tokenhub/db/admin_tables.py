"""Tables of those who administer: their tokens, and the browsers that have shown one.

`migrations/` makes them and a test compares the two. Runs no statement.
"""

from __future__ import annotations

from sqlalchemy import Column, LargeBinary, String, Table

from tokenhub.db.columns import binary, integer, metadata, text

admin_tokens = Table(
    "admin_tokens",
    metadata,
    text("id", primary_key=True),  # `root`: what the root token was rotated to
    Column("name", String, nullable=False, unique=True),
    text("role"),
    Column("sha256", LargeBinary(32), nullable=False, unique=True),
    text("prefix"),
    integer("created_at"),
    integer("expires_at", nullable=True),
    integer("last_used_at", nullable=True),
    text("created_by"),
)

admin_sessions = Table(
    "admin_sessions",
    metadata,
    text("id", primary_key=True),
    Column("token_id", String, nullable=False, index=True),  # the root token may have no row
    Column("sha256", LargeBinary(32), nullable=False, unique=True),
    binary("binding"),
    text("client_ip"),
    text("user_agent"),
    integer("created_at"),
    integer("expires_at"),
    integer("last_used_at", nullable=True),
)

options = Table(
    "options",
    metadata,
    text("name", primary_key=True),
    text("value"),
    integer("updated_at"),
)
"""What an administrator has set at run time that is no part of the catalog."""

snoozes = Table(
    "snoozes",
    metadata,
    text("subject", primary_key=True),
    integer("until_at"),
    text("actor"),
)
"""What needs nobody's attention for a while."""

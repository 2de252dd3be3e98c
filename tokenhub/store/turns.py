"""Administrative changes take turns, so that what one has read is still true when it writes."""

from __future__ import annotations

from sqlalchemy import Connection, select

from tokenhub.db.catalog_tables import generation


def take_turn(connection: Connection) -> None:
    """Wait until no other change of the catalog is under way, and keep others out until we commit.

    The row that `record_change` moves is locked now instead of at the end. On SQLite writers take
    turns anyway, and FOR UPDATE is left out.
    """
    connection.execute(select(generation.c.value).with_for_update()).one()

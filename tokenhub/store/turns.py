"""Who writes at the same time as others either takes turns or adds to whatever they leave."""

from __future__ import annotations

from sqlalchemy import Connection, select

from tokenhub.db.catalog_tables import generation


def take_turn(connection: Connection) -> None:
    """Wait until no other change of the catalog is under way, and keep others out until we commit.

    The row that `record_change` moves is locked now instead of at the end. On SQLite writers take
    turns anyway, and FOR UPDATE is left out.
    """
    connection.execute(select(generation.c.value).with_for_update()).one()


def see_newest(connection: Connection) -> None:
    """See what others commit while this transaction runs. First of all in it.

    For those that only add to what is there, or lock it before they look: on rows that several
    hosts change all the time, a transaction that must see one moment would be run again and again.
    On SQLite there are no others while one writes.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")

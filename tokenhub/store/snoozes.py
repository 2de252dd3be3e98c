"""What needs nobody's attention for a while: items by their ids, until when, and who said so."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, delete, select

from tokenhub.db.admin_tables import snoozes
from tokenhub.store.statements import upsert


class Snooze(NamedTuple):
    """An item of attention that rests.

    Args:
        until_at: unix ms.
    """

    subject: str
    until_at: int
    actor: str


def load_snoozes(connection: Connection, now: int) -> dict[str, Snooze]:
    """Those that are not over, by the ids of their items.

    Args:
        now: unix ms.
    """
    rows = connection.execute(select(snoozes).where(snoozes.c.until_at > now))
    return {row.subject: Snooze(row.subject, row.until_at, row.actor) for row in rows}


def find_snooze(connection: Connection, subject: str) -> Snooze | None:
    """An item's, over or not."""
    row = connection.execute(select(snoozes).where(snoozes.c.subject == subject)).one_or_none()
    return None if row is None else Snooze(row.subject, row.until_at, row.actor)


def save_snooze(connection: Connection, snooze: Snooze, now: int) -> None:
    """Let an item rest; those that are over go."""
    connection.execute(delete(snoozes).where(snoozes.c.until_at <= now))
    values = {"until_at": snooze.until_at, "actor": snooze.actor}
    upsert(connection, snoozes, {"subject": snooze.subject}, values)


def delete_snooze(connection: Connection, subject: str) -> None:
    """Let an item be seen again."""
    connection.execute(delete(snoozes).where(snoozes.c.subject == subject))

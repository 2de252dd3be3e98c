"""Tells, once, when a key should have been rotated and is closed until it is.

That it is closed needs nobody's doing: it is worked out from the clock. This only says so. Knows no
request.
"""

from __future__ import annotations

import logging

from sqlalchemy import Connection

from tokenhub import store
from tokenhub.board.board import unix_ms
from tokenhub.db import Database
from tokenhub.events import fields_text

WRITER = "rotation_alerts"
LATE_MS = 86_400_000
"""What came to its end longer ago is not news."""

log = logging.getLogger("tokenhub.keys")


def tell(database: Database) -> None:
    """Look at all keys, and tell of those whose time has come since the last look.

    Raises:
        DatabaseAway: try again later.
    """
    now = unix_ms()

    def find(connection: Connection) -> list[tuple[str, str]]:
        return store.list_overdue_keys(connection, now - LATE_MS, now)

    def work(connection: Connection) -> list[tuple[str, str]]:
        found = find(connection)
        for key_id, name in found:
            fields = fields_text({"reason": "rotation overdue", "api_key_name": name})
            store.insert_event(
                connection,
                WRITER,
                at=now,
                type_="key_rotation_expired",
                api_key_id=key_id,
                fields=fields,
            )
        return found

    if database.read(find):  # mostly there is none, and nobody need wait
        for key_id, _ in database.write(work):
            log.warning("key is closed until it is rotated", extra={"api_key_id": key_id})

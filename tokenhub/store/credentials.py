"""What was last applied of the credentials file, and which models were registered for it.

Never a secret: of a key only that there was one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection, RowMapping, delete, select

from tokenhub.db.catalog_tables import credentials_file
from tokenhub.store.statements import upsert


@dataclass(frozen=True)
class FileEntry:
    """One entry of the file as it was last applied, or one model that was registered for it.

    Args:
        kind: provider, model, or autoloaded for a model that a listed provider lists.
        values: the file's values; of an autoloaded model its `provider_id`.
        problem: why something of it could not be done; "" when nothing went wrong.
        is_listed: whether the file, or the provider, still has it.
    """

    kind: str
    id: str
    values: Mapping[str, Any]
    problem: str = ""
    is_listed: bool = True
    applied_at: int = 0


def list_file_entries(connection: Connection) -> list[FileEntry]:
    """All of them, by kind and id."""
    query = select(credentials_file).order_by(credentials_file.c.kind, credentials_file.c.entity_id)
    return [_entry_from(row) for row in connection.execute(query).mappings()]


def find_file_entry(connection: Connection, kind: str, entity_id: str) -> FileEntry | None:
    """One of them."""
    query = select(credentials_file).where(
        credentials_file.c.kind == kind, credentials_file.c.entity_id == entity_id
    )
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else _entry_from(row)


def save_file_entry(connection: Connection, entry: FileEntry) -> None:
    """Remember an entry, or what is new about it."""
    values = {
        "fields": orjson.dumps({"values": entry.values, "problem": entry.problem}).decode(),
        "is_listed": entry.is_listed,
        "applied_at": entry.applied_at,
    }
    upsert(connection, credentials_file, {"kind": entry.kind, "entity_id": entry.id}, values)


def forget_file_entry(connection: Connection, kind: str, entity_id: str) -> None:
    """Forget an entry, as if it had never been applied."""
    connection.execute(
        delete(credentials_file).where(
            credentials_file.c.kind == kind, credentials_file.c.entity_id == entity_id
        )
    )


def _entry_from(row: RowMapping) -> FileEntry:
    fields = orjson.loads(row["fields"])
    return FileEntry(
        kind=row["kind"],
        id=row["entity_id"],
        values=fields["values"],
        problem=fields["problem"],
        is_listed=row["is_listed"],
        applied_at=row["applied_at"],
    )

"""API keys as rows: what the Snapshot needs of them, and what only administrators see."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection, RowMapping, delete, insert, select, update

from tokenhub.db.catalog_tables import api_keys
from tokenhub.domain import ApiKey
from tokenhub.store.statements import page_of


@dataclass(frozen=True, slots=True)
class KeyRow:
    """An API key with its administration."""

    key: ApiKey
    created_at: int
    rotated_at: int | None = None
    last_used_at: int | None = None
    rotation_days: int = 0
    monthly_budget_nanousd: int = 0
    budget_reset_at: int | None = None
    rate_limit_rps: int = 0


def find_key(connection: Connection, key_id: str) -> ApiKey | None:
    """A key as the Snapshot knows it; None also for one that has no digest."""
    query = select(api_keys).where(api_keys.c.id == key_id, api_keys.c.sha256.is_not(None))
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else api_key_from(row)


def find_key_row(connection: Connection, key_id: str) -> KeyRow | None:
    """A key with its administration."""
    query = select(api_keys).where(api_keys.c.id == key_id)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else _key_row_from(row)


def list_keys(connection: Connection, limit: int, offset: int) -> tuple[list[KeyRow], int]:
    """A page of the keys, newest first, and how many there are."""
    query = select(api_keys).order_by(api_keys.c.created_at.desc(), api_keys.c.id.desc())
    rows, total = page_of(connection, query, limit, offset)
    return [_key_row_from(row) for row in rows], total


def insert_key(
    connection: Connection,
    key: ApiKey,
    at: int,
    *,
    rotation_days: int = 0,
    monthly_budget_nanousd: int = 0,
    rate_limit_rps: int = 0,
) -> None:
    """Store a new key.

    Raises:
        sqlalchemy.exc.IntegrityError: its id or its digest exists.
    """
    statement = insert(api_keys).values(
        id=key.id,
        name=key.name,
        key_prefix=key.prefix,
        sha256=key.sha256 or None,
        bcrypt_hash=key.bcrypt_hash,
        scopes=_scopes_text(key.scopes),
        enabled=key.enabled,
        expires_at=key.expires_at,
        created_at=at,
        rotation_days=rotation_days,
        monthly_budget_nanousd=monthly_budget_nanousd,
        rate_limit_rps=rate_limit_rps,
        revision=1,
    )
    connection.execute(statement)


def update_key(connection: Connection, key_id: str, **changes: Any) -> bool:
    """Change columns of a key, and its revision; False if there is no such key.

    Args:
        changes: by column, as in the table `api_keys`; `scopes` as words.

    Raises:
        sqlalchemy.exc.CompileError: there is no such column.
    """
    if "scopes" in changes:
        changes["scopes"] = _scopes_text(changes["scopes"])
    statement = update(api_keys).where(api_keys.c.id == key_id)
    done = connection.execute(statement.values(**changes, revision=api_keys.c.revision + 1))
    return done.rowcount > 0


def delete_key(connection: Connection, key_id: str) -> bool:
    """Delete a key; False if there was none."""
    return connection.execute(delete(api_keys).where(api_keys.c.id == key_id)).rowcount > 0


def api_key_from(row: RowMapping) -> ApiKey:
    """A key from its row."""
    return ApiKey(
        id=row["id"],
        name=row["name"],
        prefix=row["key_prefix"],
        sha256=row["sha256"] or b"",
        bcrypt_hash=row["bcrypt_hash"],
        scopes=frozenset(orjson.loads(row["scopes"])),
        enabled=row["enabled"],
        expires_at=row["expires_at"],
        revision=row["revision"],
    )


def _key_row_from(row: RowMapping) -> KeyRow:
    return KeyRow(
        key=api_key_from(row),
        created_at=row["created_at"],
        rotated_at=row["rotated_at"],
        last_used_at=row["last_used_at"],
        rotation_days=row["rotation_days"],
        monthly_budget_nanousd=row["monthly_budget_nanousd"],
        budget_reset_at=row["budget_reset_at"],
        rate_limit_rps=row["rate_limit_rps"],
    )


def _scopes_text(scopes: Iterable[str]) -> str:
    return orjson.dumps(sorted(scopes)).decode()

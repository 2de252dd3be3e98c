"""Aliases as rows. That their models exist is nobody's promise."""

from __future__ import annotations

from dataclasses import replace

import orjson
from sqlalchemy import Connection, RowMapping, delete, select

from tokenhub.db.catalog_tables import model_aliases
from tokenhub.domain import Alias, Variant
from tokenhub.store.statements import page_of, upsert_revised


def find_alias(connection: Connection, name: str) -> Alias | None:
    """An alias by name."""
    query = select(model_aliases).where(model_aliases.c.name == name)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else _alias_from(row)


def list_aliases(connection: Connection, limit: int, offset: int) -> tuple[list[Alias], int]:
    """A page of the aliases by name, and how many there are."""
    query = select(model_aliases).order_by(model_aliases.c.name)
    rows, total = page_of(connection, query, limit, offset)
    return [_alias_from(row) for row in rows], total


def load_aliases(connection: Connection) -> dict[str, Alias]:
    """All aliases by name."""
    rows = connection.execute(select(model_aliases)).mappings()
    return {row["name"]: _alias_from(row) for row in rows}


def save_alias(connection: Connection, alias: Alias, at: int) -> Alias:
    """Create or replace an alias; returns it with its new revision and times."""
    values = {
        "name": alias.name,
        "variants": orjson.dumps([each._asdict() for each in alias.variants]).decode(),
        "enabled": alias.enabled,
        "sticky_by": alias.sticky_by,
    }
    stored = find_alias(connection, alias.name)
    revision = upsert_revised(connection, model_aliases, values, at)
    created_at = at if stored is None else stored.created_at
    return replace(alias, created_at=created_at, updated_at=at, revision=revision)


def delete_alias(connection: Connection, name: str) -> bool:
    """Delete an alias; False if there was none."""
    found = connection.execute(delete(model_aliases).where(model_aliases.c.name == name))
    return found.rowcount > 0


def _alias_from(row: RowMapping) -> Alias:
    return Alias(
        name=row["name"],
        variants=tuple(Variant(**each) for each in orjson.loads(row["variants"])),
        enabled=row["enabled"],
        sticky_by=row["sticky_by"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        revision=row["revision"],
    )

"""How workers follow the catalog: its generation, what changed since, and all of it at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, insert, select, update

from tokenhub.db.catalog_tables import (
    api_keys,
    changes,
    generation,
    vault_entries,
)
from tokenhub.domain import ApiKey, Model, Provider, RoutingDefaults
from tokenhub.store.catalog import find_routing, load_models, load_providers
from tokenhub.store.keys import api_key_from


class Change(NamedTuple):
    """One change: what must be loaded again.

    Args:
        kind: provider, model, key, routing, vault, alias or health.
    """

    version: int
    kind: str
    entity_id: str


@dataclass(frozen=True)
class Loaded:
    """The whole catalog at one generation.

    Args:
        keys: by digest; keys that have none, because only their bcrypt hash was imported, are not
            among them.
        sealed: the vault's entries by name, still encrypted.
    """

    generation: int
    providers: dict[str, Provider]
    models: dict[str, Model]
    keys: dict[bytes, ApiKey]
    routing: RoutingDefaults | None
    sealed: dict[str, bytes]


def load_all(connection: Connection) -> Loaded:
    """Load everything; all of it of one moment, as the transaction is."""
    all_keys = connection.execute(select(api_keys).where(api_keys.c.sha256.is_not(None)))
    sealed = connection.execute(select(vault_entries.c.name, vault_entries.c.sealed))
    return Loaded(
        generation=load_generation(connection),
        providers=load_providers(connection),
        models=load_models(connection),
        keys={row["sha256"]: api_key_from(row) for row in all_keys.mappings()},
        routing=find_routing(connection),
        sealed={row.name: row.sealed for row in sealed},
    )


def load_generation(connection: Connection) -> int:
    """The catalog's generation: how many changes there have ever been."""
    found: int = connection.execute(select(generation.c.value)).scalar_one()
    return found


def changes_since(connection: Connection, version: int) -> list[Change]:
    """The changes after a version, oldest first."""
    query = (
        select(changes.c.version, changes.c.kind, changes.c.entity_id)
        .where(changes.c.version > version)
        .order_by(changes.c.version)
    )
    return [Change(*row) for row in connection.execute(query)]


def record_change(connection: Connection, kind: str, entity_id: str, at: int) -> int:
    """Write down that something changed, in the transaction that changes it.

    Returns: the new generation, which is the change's version.
    """
    # The row stays locked until we commit, so whoever gets the next number commits after us. A
    # sequence would hand out numbers that become visible in another order, and a reader that has
    # seen the later one would never ask for the earlier one.
    next_value = update(generation).values(value=generation.c.value + 1)
    version: int = connection.execute(next_value.returning(generation.c.value)).scalar_one()
    connection.execute(
        insert(changes).values(version=version, at=at, kind=kind, entity_id=entity_id)
    )
    return version

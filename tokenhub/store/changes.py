"""How workers follow the catalog: its generation, what changed since, and all of it at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from sqlalchemy import Connection, case, func, insert, select, update

from tokenhub.access import Admins
from tokenhub.budgets import Budget, Subject
from tokenhub.db.catalog_tables import changes, generation
from tokenhub.domain import Alias, ApiKey, Drain, Model, Provider, RoutingDefaults, Team, VaultRow
from tokenhub.store.admin import load_admins
from tokenhub.store.aliases import load_aliases
from tokenhub.store.budgets import load_budgets
from tokenhub.store.catalog import find_routing, load_models, load_providers
from tokenhub.store.drains import load_drains
from tokenhub.store.keys import load_keys
from tokenhub.store.options import LOG_LEVEL, find_option
from tokenhub.store.teams import load_teams
from tokenhub.store.vault import find_vault, load_provider_entries

CHANNEL = "tokenhub_changes"
"""Where Postgres announces that the generation has moved; what it is now must be read."""


class Change(NamedTuple):
    """One change: what must be loaded again.

    Args:
        kind: see `catalog.Change`.
    """

    version: int
    kind: str
    entity_id: str


@dataclass(frozen=True)
class Loaded:
    """The whole catalog at one generation.

    Args:
        keys: by digest, twice while the secret before the last is kept.
        sealed: the vault's entries of providers by name, still encrypted.
        vault: None = it was never set up.
        log_level: "" = that of the settings.
        drains: by kind and id, those that are over too.
    """

    generation: int
    providers: dict[str, Provider]
    models: dict[str, Model]
    keys: dict[bytes, ApiKey]
    routing: RoutingDefaults | None
    sealed: dict[str, bytes]
    admins: Admins = field(default_factory=Admins)
    vault: VaultRow | None = None
    teams: dict[str, Team] = field(default_factory=dict)
    budgets: dict[Subject, tuple[Budget, ...]] = field(default_factory=dict)
    aliases: dict[str, Alias] = field(default_factory=dict)
    log_level: str = ""
    drains: dict[tuple[str, str], Drain] = field(default_factory=dict)


def load_all(connection: Connection) -> Loaded:
    """Load everything; all of it of one moment, as the transaction is."""
    return Loaded(
        generation=load_generation(connection),
        providers=load_providers(connection),
        models=load_models(connection),
        aliases=load_aliases(connection),
        keys=load_keys(connection),
        teams=load_teams(connection),
        budgets=load_budgets(connection),
        routing=find_routing(connection),
        vault=find_vault(connection),
        sealed=load_provider_entries(connection),
        admins=load_admins(connection),
        log_level=find_option(connection, LOG_LEVEL) or "",
        drains=load_drains(connection),
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


def skip_generation(connection: Connection, past: int) -> None:
    """Move the generation beyond `past` without a change that says why: whoever has seen that one
    or an earlier one can only load everything anew."""
    highest = case((generation.c.value > past, generation.c.value), else_=past)
    connection.execute(update(generation).values(value=highest + 1))


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
    if connection.dialect.name == "postgresql":
        # Sent when we commit; not at all if we do not.
        connection.execute(select(func.pg_notify(CHANNEL, "")))
    return version

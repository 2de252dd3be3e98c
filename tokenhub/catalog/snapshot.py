"""The Snapshot: what one worker knows of the catalog at one version, and how it is put together.

Immutable once made; a newer one takes its place as a whole. Secrets are never in it. Knows nothing
of when it is refreshed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeVar

from sqlalchemy import Connection

from tokenhub import store
from tokenhub.access import Admins
from tokenhub.aliases import WILDCARD
from tokenhub.budgets import Budget, Subject
from tokenhub.domain import (
    Alias,
    ApiKey,
    Drain,
    Model,
    Provider,
    RoutingDefaults,
    Team,
    Variant,
    VaultRow,
)

K = TypeVar("K")
T = TypeVar("T")


@dataclass(frozen=True)
class Snapshot:
    """The catalog at one version, with what every request would otherwise compute again.

    Args:
        version: the generation it shows.
        keys: by digest, twice while the secret before the last is kept.
        routable: enabled models of usable providers, by id; sorted.
        usable: ids of enabled providers that we have an adapter for.
        sealed: the vault's entries of providers as they are stored, useless without its key.
        vault: the vault itself, likewise; None = it was never set up.
        saved_defaults: those saved through the API, if any; then `defaults` are the same.
        aliases: by name, disabled ones too; in a key's view with the variants that it may use.
        pool: what a request for `*`, or for nothing in particular, is spread over, likewise;
            None = everything.
        log_level: what workers shall log; "" = what the settings say.
        drains: what operators keep out of use, by kind (provider or model) and id; those that are
            over too.
        allowed: of the models, the ids of those that may be asked for, and then `routable` has no
            others; None = all. See `seen_by`.
    """

    version: int
    providers: Mapping[str, Provider]
    models: Mapping[str, Model]
    keys: Mapping[bytes, ApiKey]
    defaults: RoutingDefaults
    routable: tuple[Model, ...] = ()
    usable: frozenset[str] = frozenset()
    sealed: Mapping[str, bytes] = field(default_factory=dict)
    saved_defaults: RoutingDefaults | None = None
    vault: VaultRow | None = None
    admins: Admins = field(default_factory=Admins)
    teams: Mapping[str, Team] = field(default_factory=dict)
    budgets: Mapping[Subject, tuple[Budget, ...]] = field(default_factory=dict)
    aliases: Mapping[str, Alias] = field(default_factory=dict)
    pool: Alias | None = None
    log_level: str = ""
    drains: Mapping[tuple[str, str], Drain] = field(default_factory=dict)
    allowed: frozenset[str] | None = None
    _views: dict[str, Snapshot] = field(default_factory=dict, init=False, repr=False, compare=False)

    def seen_by(self, key: ApiKey) -> Snapshot:
        """The catalog as a key may use it: with the models that it and its team are allowed.

        An alias that a list has by its name is allowed with all its models; of any other, those
        of its models that are allowed themselves. A list's `*` stands for models only.

        Worked out at the key's first request; itself for one that is allowed all.
        """
        team = self.teams.get(key.team_id) if key.team_id else None
        if not key.models and (team is None or not team.models):
            return self
        found = self._views.get(key.id)
        if found is None:
            lists = [each for each in (key.models, team.models if team else ()) if each]
            found = self._views[key.id] = self._narrowed(lists)
        return found

    def _narrowed(self, lists: Sequence[tuple[str, ...]]) -> Snapshot:
        allowed = frozenset(
            id_ for id_ in self.models if all(_is_listed(id_, each) for each in lists)
        )
        routable = tuple(model for model in self.routable if model.id in allowed)
        aliases = {name: _narrowed(alias, lists) for name, alias in self.aliases.items()}
        pool = None if self.pool is None else _narrowed(self.pool, lists)
        return replace(self, routable=routable, allowed=allowed, aliases=aliases, pool=pool)

    def can_route(self, model_id: str) -> bool:
        """Whether there is such a model, enabled and at a usable provider, whoever asks."""
        model = self.models.get(model_id)
        return model is not None and model.enabled and model.provider_id in self.usable

    def offered_aliases(self) -> list[Alias]:
        """The aliases that can be asked for, by name."""
        return [
            alias
            for name, alias in sorted(self.aliases.items())
            if alias.enabled
            and name != WILDCARD
            and any(self.can_route(variant.model_id) for variant in alias.variants)
        ]


@dataclass
class Parts:
    """The mutable makings of a Snapshot."""

    providers: dict[str, Provider]
    models: dict[str, Model]
    keys: dict[bytes, ApiKey]
    routing: RoutingDefaults | None
    sealed: dict[str, bytes]
    keys_by_id: dict[str, ApiKey] = field(default_factory=dict)
    vault: VaultRow | None = None
    admins: Admins = field(default_factory=Admins)
    teams: dict[str, Team] = field(default_factory=dict)
    budgets: dict[Subject, tuple[Budget, ...]] = field(default_factory=dict)
    aliases: dict[str, Alias] = field(default_factory=dict)
    log_level: str = ""
    drains: dict[tuple[str, str], Drain] = field(default_factory=dict)

    @classmethod
    def of(cls, snapshot: Snapshot) -> Parts:
        """A Snapshot's makings, to be changed; its routing config is read anew each time."""
        parts = cls(
            dict(snapshot.providers),
            dict(snapshot.models),
            dict(snapshot.keys),
            None,
            dict(snapshot.sealed),
            vault=snapshot.vault,
            admins=snapshot.admins,
            teams=dict(snapshot.teams),
            budgets=dict(snapshot.budgets),
            aliases=dict(snapshot.aliases),
            log_level=snapshot.log_level,
            drains=dict(snapshot.drains),
        )
        parts.keys_by_id = {key.id: key for key in snapshot.keys.values()}
        return parts

    @classmethod
    def loaded(cls, loaded: store.Loaded) -> Parts:
        """The makings of a whole catalog as it was read."""
        return cls(
            loaded.providers,
            loaded.models,
            loaded.keys,
            loaded.routing,
            loaded.sealed,
            vault=loaded.vault,
            admins=loaded.admins,
            teams=loaded.teams,
            budgets=loaded.budgets,
            aliases=loaded.aliases,
            log_level=loaded.log_level,
            drains=loaded.drains,
        )


def assemble(
    version: int,
    parts: Parts,
    *,
    defaults: RoutingDefaults,
    adapter_types: Collection[str],
    with_demo: bool,
    wildcard: Sequence[str] = (),
) -> Snapshot:
    """Put a Snapshot together.

    Args:
        defaults: those of the settings, where none are saved.
        adapter_types, with_demo, wildcard: see `Catalog`.
    """
    # Demo providers are gone as soon as a real one exists.
    demo = with_demo and all(each.demo for each in parts.providers.values())
    usable = frozenset(
        provider.id
        for provider in parts.providers.values()
        if provider.enabled and provider.type in adapter_types and (demo or not provider.demo)
    )
    routable = sorted(
        (model for model in parts.models.values() if model.enabled and model.provider_id in usable),
        key=lambda model: model.id,
    )
    return Snapshot(
        version=version,
        providers=MappingProxyType(parts.providers),
        models=MappingProxyType(parts.models),
        keys=MappingProxyType(parts.keys),
        defaults=parts.routing or defaults,
        routable=tuple(routable),
        usable=usable,
        sealed=MappingProxyType(parts.sealed),
        saved_defaults=parts.routing,
        vault=parts.vault,
        admins=parts.admins,
        teams=MappingProxyType(parts.teams),
        budgets=MappingProxyType(parts.budgets),
        aliases=MappingProxyType(parts.aliases),
        pool=_pool(parts.aliases, routable, wildcard),
        log_level=parts.log_level,
        drains=MappingProxyType(parts.drains),
    )


def reload(connection: Connection, kind: str, entity_id: str, parts: Parts) -> None:
    """Replace one entity in `parts` by what the database has now; gone means gone."""
    if kind in _RELOAD:
        _RELOAD[kind](connection, entity_id, parts)


def _reload_provider(connection: Connection, provider_id: str, parts: Parts) -> None:
    _put(parts.providers, provider_id, store.find_provider(connection, provider_id))
    _reload_drains(connection, "", parts)
    # Its models go with a provider, also when it has been made anew since.
    for model_id in [m.id for m in parts.models.values() if m.provider_id == provider_id]:
        _reload_model(connection, model_id, parts)


def _reload_model(connection: Connection, model_id: str, parts: Parts) -> None:
    _put(parts.models, model_id, store.find_model(connection, model_id))
    if ("model", model_id) in parts.drains and model_id not in parts.models:
        _reload_drains(connection, "", parts)


def _reload_key(connection: Connection, key_id: str, parts: Parts) -> None:
    old = parts.keys_by_id.get(key_id)
    if old is not None:
        for digest in old.digests:
            del parts.keys[digest]
    key = store.find_key(connection, key_id)
    if key is not None:
        parts.keys.update(dict.fromkeys(key.digests, key))


def _reload_team(connection: Connection, team_id: str, parts: Parts) -> None:
    _put(parts.teams, team_id, store.find_team(connection, team_id))


def _reload_alias(connection: Connection, name: str, parts: Parts) -> None:
    _put(parts.aliases, name, store.find_alias(connection, name))


def _reload_budgets(connection: Connection, subject: str, parts: Parts) -> None:
    kind, _, id_ = subject.partition(":")
    _put(parts.budgets, (kind, id_), store.find_budgets(connection, (kind, id_)) or None)


def _reload_admins(connection: Connection, _: str, parts: Parts) -> None:
    parts.admins = store.load_admins(connection)  # they are few


def _reload_log_level(connection: Connection, _: str, parts: Parts) -> None:
    parts.log_level = store.find_option(connection, store.LOG_LEVEL) or ""


def _reload_drains(connection: Connection, _: str, parts: Parts) -> None:
    parts.drains = store.load_drains(connection)  # they are few


def _reload_vault(connection: Connection, name: str, parts: Parts) -> None:
    if name:
        _put(parts.sealed, name, store.find_entry(connection, name))
    else:
        parts.vault = store.find_vault(connection)


_RELOAD: Mapping[str, Callable[[Connection, str, Parts], None]] = {
    "provider": _reload_provider,
    "model": _reload_model,
    "key": _reload_key,
    "team": _reload_team,
    "alias": _reload_alias,
    "budget": _reload_budgets,
    "admin": _reload_admins,
    "vault": _reload_vault,
    "log_level": _reload_log_level,
    "drain": _reload_drains,
}


def _is_listed(model_id: str, patterns: tuple[str, ...]) -> bool:
    """Whether a list allows a model: by its id, or by a beginning that `*` follows."""
    return any(
        model_id.startswith(each[:-1]) if each.endswith("*") else model_id == each
        for each in patterns
    )


def _narrowed(alias: Alias, lists: Sequence[tuple[str, ...]]) -> Alias:
    """An alias with those of its variants that all lists allow, by its name or by theirs."""
    variants = tuple(
        variant
        for variant in alias.variants
        if all(alias.name in each or _is_listed(variant.model_id, each) for each in lists)
    )
    return alias if variants == alias.variants else replace(alias, variants=variants)


def _pool(
    aliases: Mapping[str, Alias], routable: Sequence[Model], wildcard: Sequence[str]
) -> Alias | None:
    """The alias `*`, or what the settings put in its place: those of them that there are, in turn
    (reference §8.4)."""
    alias = aliases.get(WILDCARD)
    if alias is not None and alias.enabled:
        return alias
    found = (_find_by_name(name, routable) for name in wildcard)
    members = dict.fromkeys(model_id for model_id in found if model_id is not None)
    variants = tuple(Variant(model_id, 1) for model_id in members)
    return Alias(WILDCARD, variants, sticky_by="round_robin") if variants else None


def _find_by_name(name: str, routable: Sequence[Model]) -> str | None:
    """The model with this id, or else the first by id that has it behind a prefix."""
    ids = [model.id for model in routable]
    return name if name in ids else next((i for i in ids if i.endswith(f"/{name}")), None)


def _put(table: dict[K, T], name: K, value: T | None) -> None:
    if value is None:
        table.pop(name, None)
    else:
        table[name] = value


def is_gone(
    old: Mapping[str, Model] | Mapping[str, Provider],
    now: Mapping[str, Model] | Mapping[str, Provider],
    id_: str,
) -> bool:
    """Whether what was there has been deleted, and perhaps made anew: then its revisions begin
    again, which a change moves on."""
    if id_ not in old:
        return False
    return id_ not in now or now[id_].revision <= old[id_].revision

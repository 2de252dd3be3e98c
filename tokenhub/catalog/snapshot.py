"""The Snapshot: what one worker knows of the catalog at one version, and how it is put together.

Immutable once made; a newer one takes its place as a whole. Secrets are never in it. Knows nothing
of when it is refreshed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeVar

from sqlalchemy import Connection

from tokenhub import store
from tokenhub.domain import ApiKey, Model, Provider, RoutingDefaults

T = TypeVar("T")


@dataclass(frozen=True)
class Snapshot:
    """The catalog at one version, with what every request would otherwise compute again.

    Args:
        version: the generation it shows.
        routable: enabled models of usable providers, by id; sorted.
        usable: ids of enabled providers that we have an adapter for.
        sealed: the vault's entries as they are stored, useless without the vault's key.
        saved_defaults: those saved through the API, if any; then `defaults` are the same.
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


@dataclass
class Parts:
    """The mutable makings of a Snapshot."""

    providers: dict[str, Provider]
    models: dict[str, Model]
    keys: dict[bytes, ApiKey]
    routing: RoutingDefaults | None
    sealed: dict[str, bytes]
    key_ids: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, snapshot: Snapshot) -> Parts:
        """A Snapshot's makings, to be changed; its routing config is read anew each time."""
        parts = cls(
            dict(snapshot.providers),
            dict(snapshot.models),
            dict(snapshot.keys),
            None,
            dict(snapshot.sealed),
        )
        parts.key_ids = {key.id: digest for digest, key in snapshot.keys.items()}
        return parts

    @classmethod
    def loaded(cls, loaded: store.Loaded) -> Parts:
        """The makings of a whole catalog as it was read."""
        return cls(loaded.providers, loaded.models, loaded.keys, loaded.routing, loaded.sealed)


def assemble(
    version: int,
    parts: Parts,
    *,
    defaults: RoutingDefaults,
    adapter_types: Collection[str],
    with_demo: bool,
) -> Snapshot:
    """Put a Snapshot together.

    Args:
        defaults: those of the settings, where none are saved.
        adapter_types, with_demo: see `Catalog`.
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
    )


def reload(connection: Connection, kind: str, entity_id: str, parts: Parts) -> None:
    """Replace one entity in `parts` by what the database has now; gone means gone."""
    match kind:
        case "provider":
            provider = store.find_provider(connection, entity_id)
            _put(parts.providers, entity_id, provider)
            # Its models go with a provider, also when it has been made anew since.
            for model_id in [m.id for m in parts.models.values() if m.provider_id == entity_id]:
                _put(parts.models, model_id, store.find_model(connection, model_id))
        case "model":
            _put(parts.models, entity_id, store.find_model(connection, entity_id))
        case "key":
            _reload_key(connection, entity_id, parts)
        case "vault":
            _put(parts.sealed, entity_id, store.find_entry(connection, entity_id))


def _reload_key(connection: Connection, key_id: str, parts: Parts) -> None:
    old = parts.key_ids.get(key_id)
    if old is not None:
        del parts.keys[old]
    key = store.find_key(connection, key_id)
    if key is not None:
        parts.keys[key.sha256] = key


def _put(table: dict[str, T], name: str, value: T | None) -> None:
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

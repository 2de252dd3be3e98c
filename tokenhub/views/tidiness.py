"""Judges the catalog: keys that end, aliases that lead nowhere, providers without models."""

from __future__ import annotations

from collections.abc import Iterator

from tokenhub.aliases import WILDCARD
from tokenhub.domain import Alias, ApiKey
from tokenhub.events.shapes import moment
from tokenhub.views.facts import Facts
from tokenhub.views.items import Item, act, see

EXPIRING_MS = 7 * 86_400_000


def find_untidiness(facts: Facts) -> Iterator[Item]:
    """What will not work, or will soon not, as it is set up."""
    snapshot = facts.snapshot
    keys = {key.id: key for key in snapshot.keys.values() if key.enabled}
    for _, key in sorted(keys.items()):
        yield from _of_key(key, facts.now)
    for _, alias in sorted(snapshot.aliases.items()):
        if alias.enabled:
            yield from _of_alias(facts, alias)
    with_models = {each.provider_id for each in snapshot.models.values() if each.enabled}
    for id_, provider in sorted(snapshot.providers.items()):
        links = {"provider": act("PATCH", "providers", id_)}
        if provider.demo:
            yield Item("demo_provider", "info", "provider", id_, id_, None, {}, links)
        elif provider.enabled and id_ not in with_models:
            yield Item("provider_without_models", "info", "provider", id_, id_, None, {}, links)


def _of_key(key: ApiKey, now: int) -> Iterator[Item]:
    """A key that ends by itself, or that is refused until its secret is a new one."""
    links = {"key": act("PATCH", "apikeys", key.id), "requests": see("logs", key=key.id)}
    subject = ("key", key.id, key.name)
    due_at = key.rotation_due_at
    if due_at is not None and due_at <= now:
        overdue = {"rotation_due_at": moment(due_at)}
        yield Item("key_rotation_overdue", "warning", *subject, due_at, overdue, links)
    elif key.expires_at is not None and now < key.expires_at <= now + EXPIRING_MS:
        ends = {
            "expires_at": moment(key.expires_at),
            "rotation_due_at": None if due_at is None else moment(due_at),
        }
        yield Item("key_expiring", "warning", *subject, None, ends, links)


def _of_alias(facts: Facts, alias: Alias) -> Iterator[Item]:
    ids = [each.model_id for each in alias.variants if each.weight]
    broken = [each for each in ids if not facts.snapshot.can_route(each)]
    if broken:
        name = "any model" if alias.name == WILDCARD else alias.name
        yield Item(
            "alias_cannot_serve", "critical" if len(broken) == len(ids) else "warning",
            "alias", alias.name, name, None,
            {"models": broken, "variants": len(ids)}, {"alias": see("aliases", alias.name)},
        )  # fmt: skip

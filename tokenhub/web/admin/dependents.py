"""Who would miss a thing that is to be removed: what goes with it, and what names it.

Looked up in the database, in one transaction, and nothing is changed. That names lead nowhere is
allowed; that nobody is surprised by it is what this is for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import NamedTuple, TypeVar

from flask import Response
from sqlalchemy import Connection

from tokenhub import store
from tokenhub.domain import Alias, ApiKey
from tokenhub.services import Services
from tokenhub.vault import provider_entry
from tokenhub.web import changes
from tokenhub.web.answers import answer, read

SHOWN_MAX = 1000
"""Dependents that an answer lists; it has how many there are."""
PAGE_ROWS = 1000

REMOVED = "removed"
"""It goes as well."""
NAMES_IT = "names_it"
"""It stays, with a name in it that leads nowhere."""
CANNOT_SERVE = "cannot_serve"
"""It stays, and nothing that it names is left."""
PREVENTS = "prevents"
"""As long as it is there nothing can be removed."""

T = TypeVar("T")


class Dependent(NamedTuple):
    """One thing that depends on another.

    Args:
        effect: what would become of it.
    """

    kind: str
    id: str
    effect: str


Find = Callable[[Connection, str], Iterable[Dependent]]


def foresee(hub: Services, subject: changes.Subject[T], find: Find) -> Response:
    """Answer a dry run of a deletion."""

    def work(connection: Connection) -> tuple[T | None, list[Dependent]]:
        there_is = subject.find(connection)
        return there_is, [] if there_is is None else list(find(connection, subject.id))

    there_is, found = read(hub, work)
    if there_is is not None:
        changes.check_revision(subject, there_is)
    return answer(
        {
            "ok": True,
            "dry_run": True,
            "exists": there_is is not None,
            "would_be_refused": any(each.effect == PREVENTS for each in found),
            "dependents": [each._asdict() for each in found[:SHOWN_MAX]],
            "total": len(found),
        }
    )


def of_provider(connection: Connection, provider_id: str) -> Iterator[Dependent]:
    """Its models, its key, and who names its models."""
    models = [m.id for m in store.load_models(connection).values() if m.provider_id == provider_id]
    yield from (Dependent("model", each, REMOVED) for each in models)
    entry = provider_entry(provider_id)
    if store.find_entry(connection, entry) is not None:
        yield Dependent("credential", provider_id, REMOVED)
    yield from _who_names(connection, models)


def of_model(connection: Connection, model_id: str) -> Iterator[Dependent]:
    """Who names it: aliases, fallbacks of other models, keys and teams."""
    return _who_names(connection, [model_id])


def of_alias(connection: Connection, name: str) -> Iterator[Dependent]:
    """Keys and teams that name it, and models that fall back on it."""
    yield from _fallbacks(connection, [name])
    yield from _lists(connection, [name])


def of_key(connection: Connection, key_id: str) -> Iterator[Dependent]:
    """Its budgets. What it has spent stays in the books and the logs."""
    for each in store.find_budgets(connection, ("key", key_id)):
        yield Dependent("budget", f"key/{key_id}/{each.period}", REMOVED)


def of_team(connection: Connection, team_id: str) -> Iterator[Dependent]:
    """Its keys, which keep it from being removed, and its budgets."""
    for key in _each_key(connection):
        if key.team_id == team_id:
            yield Dependent("key", key.id, PREVENTS)
    for each in store.find_budgets(connection, ("team", team_id)):
        yield Dependent("budget", f"team/{team_id}/{each.period}", REMOVED)


def _who_names(connection: Connection, models: Collection[str]) -> Iterator[Dependent]:
    if not models:
        return
    there_are = store.load_models(connection).keys() - models
    for alias in sorted(store.load_aliases(connection).values(), key=lambda each: each.name):
        if any(variant.model_id in models for variant in alias.variants):
            yield Dependent("alias", alias.name, _effect(alias, there_are))
    yield from _fallbacks(connection, models)
    yield from _lists(connection, models)


def _effect(alias: Alias, there_are: Collection[str]) -> str:
    is_served = any(variant.model_id in there_are for variant in alias.variants)
    return NAMES_IT if is_served else CANNOT_SERVE


def _fallbacks(connection: Connection, names: Collection[str]) -> Iterator[Dependent]:
    for model in store.load_models(connection).values():
        if model.id not in names and not set(names).isdisjoint(model.fallbacks):
            yield Dependent("model", model.id, NAMES_IT)


def _lists(connection: Connection, names: Collection[str]) -> Iterator[Dependent]:
    """Keys and teams that list some of these; a pattern (`gpt-*`) names nobody."""
    gone = set(names)
    for key in _each_key(connection):
        if gone.isdisjoint([*key.models, *key.model_limits]):
            continue
        is_left = not key.models or set(key.models) - gone
        yield Dependent("key", key.id, NAMES_IT if is_left else CANNOT_SERVE)
    for team in sorted(store.load_teams(connection).values(), key=lambda each: each.name):
        if not gone.isdisjoint(team.models):
            is_left = set(team.models) - gone
            yield Dependent("team", team.id, NAMES_IT if is_left else CANNOT_SERVE)


def _each_key(connection: Connection) -> Iterator[ApiKey]:
    """All keys, newest first; those that have no digest too."""
    offset, total = 0, 1
    while offset < total:
        rows, total = store.list_keys(connection, PAGE_ROWS, offset)
        offset += PAGE_ROWS
        yield from (row.key for row in rows)

"""Aliases: names that callers use for one of several models. A change is in force with the next
request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from flask import Blueprint, Response
from sqlalchemy import Connection

from tokenhub import ids, store
from tokenhub.aliases import STICKY_BY, WILDCARD, check, check_variants
from tokenhub.board.board import unix_ms
from tokenhub.domain import Alias, Variant
from tokenhub.errors import Conflict, InvalidRequest, NotFound
from tokenhub.services import Services
from tokenhub.web import changes, forms, guards, revisions
from tokenhub.web.admin import dependents
from tokenhub.web.answers import answer, listing, read, rfc3339

routes = Blueprint("aliases", __name__)

Alter = Callable[[Alias | None], Alias]


@routes.get("/aliases")
def list_all() -> Response:
    """All aliases by name, in pages."""
    page = forms.read_page()
    rows, total = read(guards.services(), lambda connection: store.list_aliases(connection, *page))
    return answer(listing("items", [record(each) for each in rows], total, page))


@routes.get("/aliases/<path:name>")
def get(name: str) -> Response:
    """One alias; names may hold slashes."""
    name = forms.path_id(name)
    forms.check_query()
    found = read(guards.services(), lambda connection: store.find_alias(connection, name))
    alias = _required(found)
    return revisions.answer_of(record(alias), alias.revision)


@routes.put("/aliases/<path:name>")
def put(name: str) -> Response:
    """Create an alias, or replace it: what is not given is as for a new one."""
    hub = guards.services()
    name = forms.path_id(name)
    values = forms.read_fields(hub, FIELDS, required=("variants",))
    fault = None if name == WILDCARD else _find_fault(name)
    if fault is not None:
        raise InvalidRequest(f"name {fault}", param="name")
    fresh = Alias(name, (), created_at=unix_ms())
    return _save(
        hub,
        "alias.upsert",
        name,
        values=values,
        base=lambda before: replace(fresh, created_at=before.created_at) if before else fresh,
    )


@routes.patch("/aliases/<path:name>")
def patch(name: str) -> Response:
    """Change the fields that are given."""
    hub = guards.services()
    name = forms.path_id(name)
    values = forms.read_fields(hub, FIELDS)
    return _save(hub, "alias.patch", name, values=values, base=_required)


@routes.delete("/aliases/<path:name>")
def delete(name: str) -> Response:
    """Remove an alias; well even if there is none. A dry run says who would miss it."""
    hub = guards.services()
    name = forms.path_id(name)
    if forms.read_switch("dry_run"):
        return dependents.foresee(hub, _subject(name), dependents.of_alias)
    changes.delete(
        hub,
        _subject(name),
        "alias.delete",
        remove=lambda connection: store.delete_alias(connection, name),
    )
    return answer({"ok": True})


def record(alias: Alias) -> dict[str, Any]:
    """An alias as the API shows it."""
    return {**_shown(alias), "revision": alias.revision}


def _shown(alias: Alias) -> dict[str, Any]:
    """What an administrator sets of it, and when."""
    return {
        "name": alias.name,
        "variants": [variant._asdict() for variant in alias.variants],
        "enabled": alias.enabled,
        "sticky_by": alias.sticky_by,
        "created_at": rfc3339(alias.created_at),
        "updated_at": rfc3339(alias.updated_at),
    }


def _save(
    hub: Services, action: str, name: str, *, values: dict[str, Any], base: Alter
) -> Response:
    def alter(before: Alias | None) -> Alias:
        after = replace(base(before), **values, updated_at=unix_ms())
        check(after)
        return after

    def write(connection: Connection, after: Alias) -> None:
        if "variants" in values:
            _refuse_aliases(connection, after)
        is_new = store.find_alias(connection, name) is None
        if is_new and store.find_model(connection, name) is not None:
            raise Conflict("a model has this id", code="name_taken", param="name")
        store.save_alias(connection, after, after.updated_at)

    stored = changes.save(hub, _subject(name), action, alter=alter, write=write)
    return revisions.answer_of(record(stored), stored.revision)


def _refuse_aliases(connection: Connection, alias: Alias) -> None:
    """What is an alias already would be passed over as a model that there is not."""
    names = store.load_aliases(connection).keys()
    found = next((each.model_id for each in alias.variants if each.model_id in names), None)
    if found is not None:
        raise InvalidRequest(
            f"variants must be models, and {found!r} is an alias", param="variants"
        )


def _find_fault(name: str) -> str | None:
    return ids.find_fault(name, ids.MODEL_ID_BYTES_MAX, with_slashes=True)


def _required(alias: Alias | None) -> Alias:
    if alias is None:
        raise NotFound("there is no such alias", param="name")
    return alias


def _subject(name: str) -> changes.Subject[Alias]:
    return changes.Subject(
        kind="alias",
        id=name,
        find=lambda connection: store.find_alias(connection, name),
        show=_shown,
        revision=lambda alias: alias.revision,
    )


def _read_variants(name: str, value: Any) -> tuple[Variant, ...]:
    if not isinstance(value, list):
        raise InvalidRequest(f"{name} must be a list", param=name)
    variants = tuple(_read_variant(name, each) for each in value)
    check_variants(variants)
    return variants


def _read_variant(name: str, value: Any) -> Variant:
    if not isinstance(value, dict) or value.keys() != {"model_id", "weight"}:
        raise InvalidRequest(f"{name} must each have model_id and weight, no more", param=name)
    model_id, weight = value["model_id"], value["weight"]
    if not isinstance(model_id, str) or _find_fault(model_id) is not None:
        raise InvalidRequest(f"{name} must each have the id of a model", param=name)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or weight != int(weight):
        raise InvalidRequest(f"{name} must each have a whole number as weight", param=name)
    return Variant(model_id, int(weight))


def _read_sticky_by(name: str, value: Any) -> str:
    found: str = forms.one_of(*STICKY_BY, "")(name, value)
    return found or STICKY_BY[0]


FIELDS: dict[str, forms.Reader] = {
    "variants": _read_variants,
    "enabled": forms.flag,
    "sticky_by": _read_sticky_by,
}

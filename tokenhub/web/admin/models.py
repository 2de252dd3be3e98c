"""Models: one model at one provider, with its price, its context and its weight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from flask import Blueprint, Response
from sqlalchemy import Connection

from tokenhub import store
from tokenhub.board.board import unix_ms
from tokenhub.capabilities import new_model
from tokenhub.domain import CAPABILITIES, Model
from tokenhub.errors import Conflict, InvalidRequest, NotFound
from tokenhub.ids import MODEL_ID_BYTES_MAX
from tokenhub.pricing import PRICE_NAMES, shown_prices
from tokenhub.services import Services
from tokenhub.web import changes, forms, guards, revisions
from tokenhub.web.admin import dependents
from tokenhub.web.answers import answer, listing, read

routes = Blueprint("models", __name__)

TOKENS_MAX = 1_000_000_000
TOOL_NAMES_MAX = 1000
TAGS_MAX = 50
FALLBACKS_MAX = 20

Alter = Callable[[Model | None], Model]


@routes.post("/models")
def upsert() -> Response:
    """Create a model, or replace it: what is not given is as for a new one.

    What it can do, and its limits, are taken from what is known by its name.
    """
    hub = guards.services()
    values = forms.read_fields(hub, FIELDS, required=("id", "provider_id"))
    fresh = new_model(values.pop("id"), values["provider_id"], values.get("upstream_model", ""))
    stored = _save(hub, "model.upsert", fresh.id, values=values, base=lambda _: fresh)
    return revisions.answer_of({"ok": True, "revision": stored.revision}, stored.revision)


@routes.get("/models")
def list_all() -> Response:
    """All models, in pages."""
    page = forms.read_page()
    items, total = read(guards.services(), lambda connection: store.list_models(connection, *page))
    return answer(listing("items", [record(each) for each in items], total, page))


@routes.patch("/models/<path:model_id>")
def patch(model_id: str) -> Response:
    """Change the fields that are given; ids may hold slashes."""
    hub = guards.services()
    model_id = forms.path_id(model_id)
    values = forms.read_fields(hub, PATCHABLE)
    if not PRICE_NAMES.keys().isdisjoint(values):
        values.setdefault("pricing_source", "manual")
        values["pricing_origin"] = ""

    def base(before: Model | None) -> Model:
        if before is None:
            raise NotFound("there is no such model", param="id")
        return before

    stored = _save(hub, "model.patch", model_id, values=values, base=base)
    return revisions.answer_of({"ok": True, "model": record(stored)}, stored.revision)


@routes.delete("/models/<path:model_id>")
def delete(model_id: str) -> Response:
    """Remove a model; well even if there is none. A dry run says who would miss it."""
    hub = guards.services()
    model_id = forms.path_id(model_id)
    if forms.read_switch("dry_run"):
        return dependents.foresee(hub, _subject(model_id), dependents.of_model)
    changes.delete(
        hub,
        _subject(model_id),
        "model.delete",
        remove=lambda connection: store.delete_model(connection, model_id),
    )
    return answer({"ok": True})


def record(model: Model) -> dict[str, Any]:
    """A model as the API shows it."""
    return {**_shown(model), "revision": model.revision}


def _shown(model: Model) -> dict[str, Any]:
    """What an administrator sets of it."""
    return {
        "id": model.id,
        "provider_id": model.provider_id,
        "upstream_model": model.upstream_model,
        "weight": model.weight,
        "max_context_tokens": model.max_context_tokens,
        "max_output_tokens": model.max_output_tokens,
        **shown_prices(model.price),
        "enabled": model.enabled,
        "pricing_source": model.pricing_source,
        "pricing_origin": model.pricing_origin,
        "capabilities": list(model.capabilities),
        "tags": list(model.tags),
        "fallbacks": list(model.fallbacks),
        "tool_name_map": dict(model.tool_name_map),
        "gemma4_output": model.gemma4_output,
    }


def _save(
    hub: Services, action: str, model_id: str, *, values: dict[str, Any], base: Alter
) -> Model:
    prices = {ours: values.pop(name) for name, ours in PRICE_NAMES.items() if name in values}

    def alter(before: Model | None) -> Model:
        old = base(before)
        after = replace(old, price=replace(old.price, **prices), **values)
        return replace(after, upstream_model=after.upstream_model or model_id)

    def write(connection: Connection, after: Model) -> None:
        if store.find_provider(connection, after.provider_id) is None:
            raise InvalidRequest("there is no such provider", param="provider_id")
        is_new = store.find_model(connection, model_id) is None
        if is_new and store.find_alias(connection, model_id) is not None:
            raise Conflict("an alias has this name", code="name_taken", param="id")
        store.save_model(connection, after, unix_ms())

    return changes.save(hub, _subject(model_id), action, alter=alter, write=write)


def _subject(model_id: str) -> changes.Subject[Model]:
    return changes.Subject(
        kind="model",
        id=model_id,
        find=lambda connection: store.find_model(connection, model_id),
        show=_shown,
        revision=lambda model: model.revision,
    )


PATCHABLE: dict[str, forms.Reader] = {
    "provider_id": forms.text(),
    "upstream_model": forms.text(),
    "weight": forms.integer(0, 10),
    "max_context_tokens": forms.integer(0, TOKENS_MAX),
    "max_output_tokens": forms.integer(0, TOKENS_MAX),
    **dict.fromkeys(PRICE_NAMES, forms.price),
    "enabled": forms.flag,
    "pricing_source": forms.one_of("manual", "litellm", "provider"),
    "capabilities": forms.some_of(*CAPABILITIES),
    "tags": forms.word_list(TAGS_MAX),
    "fallbacks": forms.word_list(FALLBACKS_MAX),
    "tool_name_map": forms.word_map(TOOL_NAMES_MAX),
    "gemma4_output": forms.flag,
}
FIELDS: dict[str, forms.Reader] = {
    "id": forms.identifier(MODEL_ID_BYTES_MAX, with_slashes=True),
    **PATCHABLE,
}

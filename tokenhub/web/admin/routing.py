"""Routing defaults, and what routing would do with a request."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from flask import Blueprint, Response

from tokenhub import store
from tokenhub.access import needs
from tokenhub.board.board import unix_ms
from tokenhub.catalog import Snapshot
from tokenhub.directives import BUDGET_USD_MAX, LATENCY_MS_MAX
from tokenhub.domain import (
    MODES,
    Candidate,
    ChatRequest,
    Decision,
    Model,
    Policy,
    RoutingDefaults,
)
from tokenhub.errors import TokenHubError
from tokenhub.gateway import Gateway
from tokenhub.pricing import nanos_from_usd, usd, usd_per_1k
from tokenhub.web import changes, forms, guards
from tokenhub.web.answers import answer, read

routes = Blueprint("routing", __name__)

TOKEN_COUNT_DEFAULT = 500
NAMES_MAX = 50


@routes.get("/routing-config")
def get_config() -> Response:
    """What applies when the caller does not say, saved here or from the settings."""
    hub = guards.services()
    saved = read(hub, store.find_routing)
    shown = _record(saved or hub.catalog.current().defaults)
    return answer({**shown, "saved": saved is not None})


@routes.put("/routing-config")
def put_config() -> Response:
    """Save routing defaults; what is not given stays as it is in force now."""
    hub = guards.services()
    values = forms.read_fields(hub, CONFIG_FIELDS)
    given = {CONFIG_NAMES[name]: value for name, value in values.items() if value != ""}
    in_force = hub.catalog.current().defaults
    changes.save(
        hub,
        changes.Subject(kind="routing", id="", find=store.find_routing, show=_record),
        "routing-config.update",
        alter=lambda before: replace(before or in_force, **given),
        write=lambda connection, after: store.save_routing(connection, after, unix_ms()),
    )
    return answer({"ok": True})


@routes.post("/routing/simulate")
@needs("viewer")
def simulate() -> Response:
    """Which model a request would go to, and why not the others. Nothing is sent or counted.

    The ranking alone: exploration is left out, so that the same question has the same answer; of an
    alias the choice for a caller who brings no key of its own to be kept by, or whose turn is next.
    """
    hub = guards.services()
    values = forms.read_fields(hub, SIMULATE_FIELDS)
    snapshot = hub.catalog.current()
    gateway = replace(hub.gateway, temperature=0.0, rng=random.Random(0))
    chat = ChatRequest(
        body={},
        model=values.get("model_hint", ""),
        stream=False,
        input_tokens=values.get("token_count", TOKEN_COUNT_DEFAULT),
    )
    policy = _policy(values, snapshot.defaults)
    try:
        decision = gateway.decide(snapshot, chat, policy, is_trial=True)
    except TokenHubError as error:  # what the caller of such a request would be told
        skips = _unroutable(snapshot) | _skips_one_by_one(gateway, snapshot, chat, policy)
        told = {"error": error.message, "code": error.code, "status": error.status}
        return answer({**told, "eligible": [], "skips": skips, "total": 0})
    eligible = _eligible(decision)
    first = (*decision.candidates, *decision.last_resort)[0]
    chosen = {
        "model_id": first.model.id,
        "provider_id": first.model.provider_id,
        "estimated_cost_usd": usd(first.cost_nanousd),
        "reason": decision.reason,
        "alias_from": decision.alias_from,
    }
    skips = _unroutable(snapshot) | dict(decision.skips)
    return answer(
        {"decision": chosen, "eligible": eligible, "skips": skips, "total": len(eligible)}
    )


def _policy(values: dict[str, Any], defaults: RoutingDefaults) -> Policy:
    """As for a request: what the caller gives is hard, the defaults only rank."""
    budget = values.get("max_budget_usd", 0)
    return Policy(
        mode=values.get("mode") or defaults.mode,
        max_budget_nanousd=budget or defaults.max_budget_nanousd,
        budget_is_hard=budget > 0,
        max_latency_ms=values.get("max_latency_ms") or defaults.max_latency_ms,
        min_weight=values.get("min_weight", 0),
        tags=frozenset(values.get("tags", ())),
        fallbacks=values.get("fallbacks"),
        exclude=frozenset(values.get("exclude", ())),
    )


def _eligible(decision: Decision) -> list[dict[str, Any]]:
    """In the order in which they would be tried."""
    rows = [_row(each, is_last_resort=False) for each in decision.candidates]
    rows += [_row(each, is_last_resort=True) for each in decision.last_resort]
    rows[0]["selected"] = True
    return rows


def _row(candidate: Candidate, *, is_last_resort: bool) -> dict[str, Any]:
    model: Model = candidate.model
    return {
        "id": model.id,
        "provider_id": model.provider_id,
        "weight": model.weight,
        "max_context_tokens": model.max_context_tokens,
        "input_per_1k": usd_per_1k(model.price.input_per_mtok),
        "output_per_1k": usd_per_1k(model.price.output_per_mtok),
        "enabled": model.enabled,
        "selected": False,
        "score": None if is_last_resort else candidate.score,
        "estimated_cost_usd": usd(candidate.cost_nanousd),
        "last_resort": is_last_resort,
    }


def _unroutable(snapshot: Snapshot) -> dict[str, str]:
    """Why models are not even looked at, in the words of routing's own skips."""
    routable = {model.id for model in snapshot.routable}
    return {
        model.id: "no_adapter" if model.enabled and _is_on(snapshot, model) else "disabled"
        for model in snapshot.models.values()
        if model.id not in routable
    }


def _is_on(snapshot: Snapshot, model: Model) -> bool:
    provider = snapshot.providers.get(model.provider_id)
    return provider is not None and provider.enabled


def _skips_one_by_one(
    gateway: Gateway, snapshot: Snapshot, chat: ChatRequest, policy: Policy
) -> dict[str, str]:
    """Why nobody is left: a refusal counts reasons, so each model is asked about alone."""
    skips: dict[str, str] = {}
    for model in snapshot.routable:
        try:
            gateway.decide(replace(snapshot, routable=(model,)), chat, policy, is_trial=True)
        except TokenHubError as error:
            for reason in error.details.get("skips", ()):
                skips[model.id] = reason
    return skips


def _record(defaults: RoutingDefaults) -> dict[str, Any]:
    return {
        "default_mode": defaults.mode,
        "default_max_budget_usd": usd(defaults.max_budget_nanousd),
        "default_max_latency_ms": defaults.max_latency_ms,
    }


def _read_budget(name: str, value: Any) -> int:
    return nanos_from_usd(forms.number(0, BUDGET_USD_MAX)(name, value))


CONFIG_NAMES = {
    "default_mode": "mode",
    "default_max_budget_usd": "max_budget_nanousd",
    "default_max_latency_ms": "max_latency_ms",
}
CONFIG_FIELDS: dict[str, forms.Reader] = {
    "default_mode": forms.one_of(*MODES, ""),
    "default_max_budget_usd": _read_budget,
    "default_max_latency_ms": forms.integer(0, LATENCY_MS_MAX),
}
SIMULATE_FIELDS: dict[str, forms.Reader] = {
    "mode": forms.one_of(*MODES, ""),
    "max_budget_usd": _read_budget,
    "max_latency_ms": forms.integer(0, LATENCY_MS_MAX),
    "min_weight": forms.integer(0, 10),
    "tags": forms.word_list(NAMES_MAX),
    "fallbacks": forms.word_list(NAMES_MAX),
    "exclude": forms.word_list(NAMES_MAX),
    "token_count": forms.integer(0, 1_000_000_000),
    "model_hint": forms.text(),
}

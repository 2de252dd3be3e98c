"""What routing would do with a request, and why: as its decision record would say it.

Nothing is sent, counted or moved on, and the same question has the same answer: exploration is told
as the chance that each has, and of an alias it is the choice for a caller who brings nothing to be
kept by, or whose turn is next.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from flask import Blueprint, Response
from sqlalchemy import Connection

from tokenhub.access import needs
from tokenhub.board.board import unix_ms
from tokenhub.catalog import Snapshot
from tokenhub.directives import BUDGET_USD_MAX, LATENCY_MS_MAX, WEIGHT_MAX
from tokenhub.domain import MODES, ApiKey, Candidate, ChatRequest, Decision, Model, Policy
from tokenhub.errors import InvalidRequest, TokenHubError
from tokenhub.gateway import Gateway
from tokenhub.pricing import usd, usd_per_1k
from tokenhub.routing import parts_of, propensities_of
from tokenhub.web import forms, guards
from tokenhub.web.admin import allowances, budgets
from tokenhub.web.answers import answer, read
from tokenhub.web.policy import Said, rule

routes = Blueprint("simulating", __name__)

TOKEN_COUNT_DEFAULT = 500
TOKENS_MAX = 1_000_000_000
NAMES_MAX = 50
NEEDS = ("vision", "tools", "json")

NOBODY = ApiKey("", "", "", b"", "")
"""A key with no policy and no limits."""

Told = dict[str, Any]


@routes.post("/routing/simulate")
@needs("viewer")
def simulate() -> Response:
    """Which model a request would go to, and why not the others. Nothing is sent or counted."""
    hub = guards.services()
    values = forms.read_fields(hub, FIELDS)
    snapshot = hub.catalog.current()
    key = _key(snapshot, values)
    seen = snapshot.seen_by(key)
    policy, sources = rule(snapshot, key, Said(values, {}))
    chat = _request(snapshot, values)
    gateway = replace(hub.gateway, temperature=0.0, rng=random.Random(0))
    told: Told = {
        "policy": _policy(policy, sources),
        "snapshot_version": snapshot.version,
        "key": None if key is NOBODY else _shown_key(snapshot, key),
    }
    try:
        decision = gateway.decide(seen, chat, policy, key_id=key.id, is_trial=True)
    except TokenHubError as error:  # what the caller of such a request would be told
        skips = _left_out(seen, snapshot) | _skips_one_by_one(gateway, seen, chat, policy)
        refusal = {"error": error.message, "code": error.code, "status": error.status}
        return answer(
            {**refusal, "eligible": [], "candidates": [], "skips": skips, "total": 0, **told}
        )
    candidates = _candidates(gateway, seen, decision, hub.gateway.temperature)
    if key is not NOBODY:
        told["key"]["budgets"] = read(
            hub, lambda connection: _budgets(connection, snapshot, key, candidates[0])
        )
    return answer({**_decided(seen, snapshot, decision, candidates), **told})


def _key(snapshot: Snapshot, values: Told) -> ApiKey:
    """Whose request it is.

    Raises:
        InvalidRequest: there is no such key.
    """
    wanted = values.get("key", "")
    if not wanted:
        return NOBODY
    key = next((each for each in snapshot.keys.values() if each.id == wanted), None)
    if key is None:
        raise InvalidRequest("key: there is no such API key", param="key")
    return key


def _request(snapshot: Snapshot, values: Told) -> ChatRequest:
    """The request in question.

    Raises:
        InvalidRequest: a model and an alias are named, or there is no such alias.
    """
    alias = values.get("alias", "")
    if alias and values.get("model_hint"):
        raise InvalidRequest("give a model_hint or an alias, not both", param="alias")
    if alias and alias not in snapshot.aliases:
        raise InvalidRequest("alias: there is no such alias", param="alias")
    return ChatRequest(
        body={},
        model=alias or values.get("model_hint", ""),
        stream=False,
        input_tokens=values.get("token_count", TOKEN_COUNT_DEFAULT),
        output_tokens_max=values.get("max_tokens") or None,
        needs=frozenset(values.get("needs", ())),
    )


def _decided(
    seen: Snapshot, snapshot: Snapshot, decision: Decision, candidates: list[Told]
) -> Told:
    first = (*decision.candidates, *decision.last_resort)[0]
    chosen = {
        "model_id": first.model.id,
        "provider_id": first.model.provider_id,
        "estimated_cost_usd": usd(first.cost_nanousd),
        "reason": decision.reason,
        "alias_from": decision.alias_from,
    }
    eligible = [_row(each, is_last_resort=False) for each in decision.candidates]
    eligible += [_row(each, is_last_resort=True) for each in decision.last_resort]
    eligible[0]["selected"] = True
    return {
        "decision": chosen,
        "reason": decision.reason,
        "eligible": eligible,
        "candidates": candidates,
        "skips": _left_out(seen, snapshot) | dict(decision.skips),
        "total": len(eligible),
    }


def _candidates(
    gateway: Gateway, seen: Snapshot, decision: Decision, temperature: float
) -> list[Told]:
    """In the order in which they would be tried, the last resort at the end; scores and what they
    are made of are of those that are ranked."""
    ranked = decision.candidates
    health = gateway.health_of(seen)
    models, costs = [each.model for each in ranked], [each.cost_nanousd for each in ranked]
    # The parts are shares of the largest in the set: so they are worked out for all of them.
    parts = [each._asdict() for each in parts_of(models, costs, health, decision.mode)]
    chances = _chances(decision, temperature)
    rows = [
        _candidate(rank, each, propensity=chance, parts=part)
        for rank, (each, chance, part) in enumerate(zip(ranked, chances, parts, strict=True), 1)
    ]
    for rank, each in enumerate(decision.last_resort, len(rows) + 1):
        rows.append(_candidate(rank, each, propensity=0.0, parts=None))
    return rows


def _chances(decision: Decision, temperature: float) -> Sequence[float]:
    """How likely each is to go first: by exploration, where nobody is asked for by name."""
    is_by_rank = decision.reason.startswith("routed-weight")
    if decision.candidates and is_by_rank:
        return propensities_of(len(decision.candidates), temperature)
    return [each.propensity for each in decision.candidates]


def _candidate(rank: int, candidate: Candidate, *, propensity: float, parts: Told | None) -> Told:
    return {
        "rank": rank,
        "model_id": candidate.model.id,
        "provider_id": candidate.model.provider_id,
        "score": None if parts is None else candidate.score,
        "parts": parts,
        "propensity": propensity,
        "estimated_cost_usd": usd(candidate.cost_nanousd),
        "reason": candidate.reason,
        "last_resort": parts is None,
    }


def _row(candidate: Candidate, *, is_last_resort: bool) -> Told:
    """As the original shows those that may answer."""
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


def _policy(policy: Policy, sources: Any) -> Told:
    """As the decision record shows it; what `from` does not name is the default."""
    return {
        "mode": policy.mode,
        "max_budget_usd": usd(policy.max_budget_nanousd),
        "budget_is_hard": policy.budget_is_hard,
        "max_latency_ms": policy.max_latency_ms,
        "latency_is_hard": policy.latency_is_hard,
        "min_weight": policy.min_weight,
        "tags": sorted(policy.tags),
        "fallbacks": None if policy.fallbacks is None else list(policy.fallbacks),
        "exclude": sorted(policy.exclude),
        "from": dict(sources),
    }


def _shown_key(snapshot: Snapshot, key: ApiKey) -> Told:
    """What of a key bears on who may answer."""
    team = snapshot.teams.get(key.team_id)
    is_over = key.expires_at is not None and key.expires_at <= unix_ms()
    return {
        "id": key.id,
        "name": key.name,
        "usable": key.enabled and not is_over and (not key.team_id or bool(team and team.enabled)),
        "models": list(key.models),
        "team_models": list(team.models) if team else [],
        **allowances.shown_limits(key.limits),
        "model_limits": {
            name: allowances.shown_limits(each) for name, each in key.model_limits.items()
        },
        "budgets": [],
    }


def _budgets(connection: Connection, snapshot: Snapshot, key: ApiKey, first: Told) -> list[Told]:
    """The budgets that hold for the key, and whether they allow for the first candidate."""
    subjects = [("key", key.id), ("team", key.team_id)]
    found = [each for subject in subjects for each in snapshot.budgets.get(subject, ())]
    cost = first["estimated_cost_usd"] or 0
    return [
        {**row, "allows": not budget.refuses or row["remaining_usd"] >= cost}
        for budget, row in zip(found, budgets.shown(connection, found, unix_ms()), strict=True)
    ]


def _left_out(seen: Snapshot, snapshot: Snapshot) -> dict[str, str]:
    """Why models are not even looked at, in the words of routing's own skips, and `not_allowed`
    for those that the key may not use."""
    found = {
        model.id: "no_adapter" if model.enabled and _is_on(snapshot, model) else "disabled"
        for model in snapshot.models.values()
        if not snapshot.can_route(model.id)
    }
    if seen.allowed is not None:
        found |= dict.fromkeys(snapshot.models.keys() - seen.allowed, NOT_ALLOWED)
    return found


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


NOT_ALLOWED = "not_allowed"

FIELDS: dict[str, forms.Reader] = {
    "mode": forms.one_of(*MODES, ""),
    "max_budget_usd": forms.number(0, BUDGET_USD_MAX),
    "max_latency_ms": forms.integer(0, LATENCY_MS_MAX),
    "min_weight": forms.integer(0, WEIGHT_MAX),
    "tags": forms.word_list(NAMES_MAX),
    "fallbacks": forms.word_list(NAMES_MAX),
    "exclude": forms.word_list(NAMES_MAX),
    "token_count": forms.integer(0, TOKENS_MAX),
    "max_tokens": forms.integer(0, TOKENS_MAX),
    "model_hint": forms.text(),
    "alias": forms.text(),
    "key": forms.text(),
    "needs": forms.some_of(*NEEDS),
}

"""Choose which models may serve a request, and in what order.

Pure: everything it needs is an argument, and the same arguments give the same decision. Sending is
`gateway`'s business, remembering is the board's. Runs on every request: the rules are few plain
comparisons, and nothing is built for a model that is left out.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from math import exp, fsum
from typing import NamedTuple

from tokenhub.domain import (
    NANOS_PER_USD,
    Candidate,
    ChatRequest,
    Decision,
    Mode,
    Model,
    Policy,
)
from tokenhub.errors import InvalidRequest, NoEligibleModel, TokenHubError
from tokenhub.health import HealthView
from tokenhub.pricing import OUTPUT_TOKENS_DEFAULT, estimate_cost
from tokenhub.routing.scores import scores_of

SKIP_REASONS = (
    "excluded",
    "tag",
    "disabled",
    "weight_below_minimum",
    "context_overflow",
    "no_adapter",
    "capability",
    "output_limit",
    "cooldown",
    "budget_exceeded",
    "price_unknown",
)
"""Why a model was left out; the first that applies is the one that is told."""

RECOVERING = "recovering"
"""Why a candidate was passed over when its turn came: its breaker lets only some requests through,
and others were asked first. Added by the gateway."""

RATE_LIMITED = "rate_limited"
"""Why a candidate was passed over when its turn came: the key has asked it as often as it may.
Added by the gateway."""

CONTEXT_MARGIN = 1.15
"""The token estimate may be this much too low (reference §9)."""

ROUTED_AS_NAMED = "routed-hint-exact"
ROUTED_BY_ALIAS = "routed-alias"
"""It is the alias's choice for this request; whoever answers instead of it has another reason."""
ROUTED_AS_FALLBACK = "routed-fallback"
ROUTED_AS_LAST_RESORT = "last-resort-fallback"


Choose = Callable[[Collection[str]], str | None]
"""Says which of the models that may serve a request goes first; None = none of these."""


class _Terms(NamedTuple):
    """What this request asks of a model."""

    context_tokens: int
    input_tokens: int
    output_tokens: int
    output_tokens_asked: int  # 0 = the caller left it open
    needs: frozenset[str]  # empty = any chat
    dialect: str  # some are the name of a capability, too
    weight_min: int
    budget_nanousd: int  # 0 = none
    budget_is_hard: bool
    named: str | None
    listed: Container[str]
    adapters: Container[str]
    cooling: Container[str]
    cooling_providers: Container[str]


class _Sieved(NamedTuple):
    """The models of a Snapshot, sorted out."""

    models: list[Model]
    costs: list[int | None]  # estimate of each of `models`
    spare: list[tuple[Model, int | None]]  # left out for a preference only
    skips: dict[str, str]
    excluded: list[tuple[str, int | None]]  # hard reason and estimate


def decide(
    request: ChatRequest,
    policy: Policy,
    models: Sequence[Model],
    *,
    adapters: Container[str],
    health: HealthView,
    named: str | None,
    temperature: float,
    rng: random.Random,
    snapshot_version: int,
    listed: Sequence[str] = (),
    choose: Choose | None = None,
    alias_from: str = "",
) -> Decision:
    """Rank the models that may serve the request and say why the others may not.

    Args:
        request: gives the token estimates, and what a model must be able to do.
        policy: the caller's limits; a budget only excludes for good when it is hard.
        models: all that may be considered; ids are unique.
        adapters: ids of the providers that can be called.
        health: what rests, how fast and how reliable the models are.
        named: the model id the caller asked for: it goes first whatever its score, and only hard
            limits and a cooldown keep it out. What we believe that it cannot do does not: the
            caller may know better. The others follow in score order.
        temperature: above 0, and with no named model in front, the first candidate is drawn by a
            softmax over the ranks.
        rng: used for that draw only.
        snapshot_version: copied into the decision.
        listed: ids that go next, in this order and whatever their scores: fallbacks, and the other
            variants of an alias. What nobody knows that they cannot do, they can.
        choose: an alias's choice, for this request, among those of its models that may serve it;
            asked once, and not at all when nobody may.
        alias_from: that alias; copied into the decision.

    Raises:
        InvalidRequest: a hard budget is all that is in the way: `over_budget`, or
            `price_unknown` when no such model has a price.
        NoEligibleModel: no model is left, not even as a last resort.
    """
    terms = _terms_of(request, policy, health, adapters=adapters, named=named, listed=listed)
    sieved = _Sieved([], [], [], {}, [])
    if policy.tags or policy.exclude:
        models = _wanted(models, policy, sieved)
    _sieve(models, terms, sieved)
    chosen = choose([model.id for model in sieved.models]) if choose and sieved.models else None
    front = _front(named, chosen, listed) if named or listed else {}
    if sieved.models:
        candidates, reason = _rank(
            sieved, policy.mode, health, front=front, temperature=temperature, rng=rng
        )
    elif sieved.spare:
        candidates, reason = (), ROUTED_AS_LAST_RESORT
    else:
        raise _nobody(sieved)
    spare = tuple(_last_resort(sieved.spare, front)) if sieved.spare else ()
    return Decision(
        candidates, spare, sieved.skips, reason, policy.mode, snapshot_version, alias_from
    )


def _terms_of(
    request: ChatRequest,
    policy: Policy,
    health: HealthView,
    *,
    adapters: Container[str],
    named: str | None,
    listed: Container[str],
) -> _Terms:
    return _Terms(
        int(request.input_tokens * CONTEXT_MARGIN),
        request.input_tokens,
        (OUTPUT_TOKENS_DEFAULT if request.output_tokens_max is None else request.output_tokens_max)
        * request.choices,
        request.output_tokens_max or 0,
        _needs_of(request),
        request.dialect,
        policy.min_weight,
        policy.max_budget_nanousd,
        policy.budget_is_hard,
        named,
        listed,
        adapters,
        health.cooling,
        health.cooling_providers,
    )


def _needs_of(request: ChatRequest) -> frozenset[str]:
    """What a model must be known for; empty: it is enough that it is not known for other things."""
    if request.dialect == "embeddings":
        return request.needs | {"embeddings"}
    return request.needs and request.needs | {"chat"}


def _front(named: str | None, chosen: str | None, listed: Sequence[str]) -> dict[str, str]:
    """Who goes before all others, in order, and why."""
    front = dict.fromkeys(listed, ROUTED_AS_FALLBACK)
    if chosen is not None:
        front.pop(chosen, None)
        return {chosen: ROUTED_BY_ALIAS, **front}
    if named is not None:
        front.pop(named, None)
        return {named: ROUTED_AS_NAMED, **front}
    return front


def _wanted(models: Sequence[Model], policy: Policy, sieved: _Sieved) -> list[Model]:
    """Those that the caller's own words leave; the others are noted."""
    wanted = []
    for model in models:
        if model.id in policy.exclude or model.provider_id in policy.exclude:
            reason = "excluded"
        elif not policy.tags.issubset(model.tags):
            reason = "tag"
        else:
            wanted.append(model)
            continue
        sieved.skips[model.id] = reason
        sieved.excluded.append((reason, None))
    return wanted


def _sieve(models: Sequence[Model], terms: _Terms, sieved: _Sieved) -> None:
    for model in models:
        cost = estimate_cost(model.price, terms.input_tokens, terms.output_tokens)
        exclusion = _exclusion(model, cost, terms)
        preference = _preference(model, cost, terms)
        if not exclusion and not preference:
            sieved.models.append(model)
            sieved.costs.append(cost)
            continue
        sieved.skips[model.id] = min(filter(None, (exclusion, preference)), key=SKIP_REASONS.index)
        if exclusion:
            sieved.excluded.append((exclusion, cost))
        else:
            sieved.spare.append((model, cost))


def _exclusion(model: Model, cost: int | None, terms: _Terms) -> str:
    """The first hard limit the model breaks; such a model is never tried."""
    if not model.enabled:
        return "disabled"
    if 0 < model.max_context_tokens < terms.context_tokens:
        return "context_overflow"
    if model.provider_id not in terms.adapters:
        return "no_adapter"
    if model.id != terms.named and (inability := _inability(model, terms)):
        return inability
    if terms.budget_is_hard:
        if cost is None:
            return "price_unknown"
        if 0 < terms.budget_nanousd < cost:
            return "budget_exceeded"
    return ""


def _inability(model: Model, terms: _Terms) -> str:
    """What the model cannot do; one of which nothing is known can chat, and no more."""
    capabilities, needs = model.capabilities, terms.needs
    if needs:
        is_trusted = not capabilities and model.id in terms.listed
        if not is_trusted and not needs.issubset(capabilities):
            return "capability"
    elif capabilities and "chat" not in capabilities and terms.dialect not in capabilities:
        return "capability"
    if 0 < model.max_output_tokens < terms.output_tokens_asked:
        return "output_limit"
    return ""


def _preference(model: Model, cost: int | None, terms: _Terms) -> str:
    """The first preference the model does not meet; it may still be a last resort."""
    if model.weight < terms.weight_min and not _is_asked_for(model, terms):
        return "weight_below_minimum"
    if model.id in terms.cooling or model.provider_id in terms.cooling_providers:
        return "cooldown"
    if cost is not None and 0 < terms.budget_nanousd < cost and not _is_asked_for(model, terms):
        return "budget_exceeded"
    return ""


def _is_asked_for(model: Model, terms: _Terms) -> bool:
    return model.id == terms.named or model.id in terms.listed


_Ranked = tuple[float, str, Model, int | None]


def _rank(
    sieved: _Sieved,
    mode: Mode,
    health: HealthView,
    *,
    front: Mapping[str, str],
    temperature: float,
    rng: random.Random,
) -> tuple[tuple[Candidate, ...], str]:
    """The candidates in the order they are tried, and the reason for the first."""
    models, costs = sieved.models, sieved.costs
    ids = [model.id for model in models]
    scores = scores_of(models, costs, health, mode)
    # Ids are unique: what is behind them is never compared.
    ranked = sorted(zip(scores, ids, models, costs, strict=True))
    propensities = [0.0] * len(ids)
    if front and not front.keys().isdisjoint(ids):
        _move_up(ranked, front)
        propensities[0] = 1.0
    elif temperature > 0:
        first, propensities = _draw(len(ids), temperature, rng)
        ranked.insert(0, ranked.pop(first))
        propensities.insert(0, propensities.pop(first))
    else:
        propensities[0] = 1.0
    reasons = front if len(front) > 1 else {}
    candidates = tuple(
        [
            Candidate(model, score, propensity, cost, reasons.get(id_, ""))
            for (score, id_, model, cost), propensity in zip(ranked, propensities, strict=True)
        ]
    )
    return candidates, front.get(ranked[0][1]) or f"routed-weight-{ranked[0][2].weight}"


def _move_up(ranked: list[_Ranked], front: Mapping[str, str]) -> None:
    """Put those asked for before the others, which keep their order (the original swaps the named
    and the best: weak spot W66)."""
    if len(front) == 1:  # nearly always
        [first] = front
        at = [id_ for _, id_, _, _ in ranked].index(first)
        ranked.insert(0, ranked.pop(at))
        return
    place = {id_: number for number, id_ in enumerate(front)}
    ranked.sort(key=lambda row: place.get(row[1], len(place)))


def _draw(count: int, temperature: float, rng: random.Random) -> tuple[int, list[float]]:
    """Draw a rank by the softmax exp(-rank / temperature), and give every rank's chance."""
    propensities = propensities_of(count, temperature)
    return rng.choices(range(count), propensities)[0], propensities


def propensities_of(count: int, temperature: float) -> list[float]:
    """How likely each of `count` ranks, which are at least one, is to go first; see `decide`.

    Args:
        temperature: 0 takes the best.
    """
    if temperature <= 0:
        return [1.0] + [0.0] * (count - 1)
    weights = [exp(-rank / temperature) for rank in range(count)]
    total = fsum(weights)
    return [weight / total for weight in weights]


def _last_resort(
    spare: Iterable[tuple[Model, int | None]], front: Mapping[str, str]
) -> Iterable[Candidate]:
    """Those asked for first, in order, then the cheapest, unknown prices last, ties by id."""
    place = {id_: number for number, id_ in enumerate(front)}

    def rank(pair: tuple[Model, int | None]) -> tuple[int, bool, int, str]:
        model, cost = pair
        return place.get(model.id, len(place)), cost is None, cost or 0, model.id

    ranked = sorted(spare, key=rank)
    return (Candidate(model, 0.0, 0.0, cost) for model, cost in ranked)


def _nobody(sieved: _Sieved) -> TokenHubError:
    """Why there is nothing to try: the caller's budget, or our models."""
    details = {"skips": dict(Counter(sieved.skips.values()))}
    over = [cost for reason, cost in sieved.excluded if reason == "budget_exceeded" and cost]
    if over:
        dollars = min(over) / NANOS_PER_USD
        return InvalidRequest(
            f"the cheapest model would cost about ${dollars:.6f}, more than the request's budget",
            code="over_budget",
            details=details,
        )
    if any(reason == "price_unknown" for reason, _ in sieved.excluded):
        return InvalidRequest(
            "no model for this request has a known price, so its budget cannot be kept",
            code="price_unknown",
            details=details,
        )
    return NoEligibleModel("no model can serve this request", details=details)

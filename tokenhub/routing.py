"""Choose which models may serve a request, and in what order.

Pure: everything it needs is an argument, and the same arguments give the same decision. Sending is
`gateway`'s business, remembering is the board's. Runs on every request: the rules are few plain
comparisons, and nothing is built for a model that is left out.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from math import exp, fsum
from typing import NamedTuple

import numpy as np

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

SKIP_REASONS = (
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

CONTEXT_MARGIN = 1.15
"""The token estimate may be this much too low (reference §9)."""

NUMPY_ABOVE = 32
"""Larger sets are scored in one numpy pass; below, plain floats are faster."""

ROUTED_AS_NAMED = "routed-hint-exact"
ROUTED_AS_LAST_RESORT = "last-resort-fallback"


class Coefficients(NamedTuple):
    """What a mode cares about; they add up to 1."""

    cost: float
    latency: float
    failure: float
    weight: float


_EVEN = Coefficients(0.25, 0.25, 0.25, 0.25)
COEFFICIENTS: Mapping[Mode, Coefficients] = {
    "cheap": Coefficients(0.7, 0.1, 0.1, 0.1),
    "normal": _EVEN,
    "high_confidence": Coefficients(0.05, 0.1, 0.15, 0.7),
    "planning": Coefficients(0.1, 0.1, 0.2, 0.6),
    "adversarial": Coefficients(0.1, 0.1, 0.2, 0.6),
    "thompson": _EVEN,
}
"""Reference §10."""


_Column = tuple[float, Sequence[float | None]]
"""A coefficient and the value of each model; None = unknown."""


class _Terms(NamedTuple):
    """What this request asks of a model."""

    context_tokens: int
    input_tokens: int
    output_tokens: int
    output_tokens_asked: int  # 0 = the caller left it open
    needs: frozenset[str]
    weight_min: int
    budget_nanousd: int  # 0 = none
    budget_is_hard: bool
    named: str | None
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
) -> Decision:
    """Rank the models that may serve the request and say why the others may not.

    Args:
        request: gives the token estimates, and what a model must be able to do.
        policy: the caller's limits; a budget only excludes for good when it is hard.
        models: all models of the Snapshot; ids are unique.
        adapters: ids of the providers that can be called.
        health: what rests, how fast and how reliable the models are.
        named: the model id the caller asked for: it goes first whatever its score, and only hard
            limits and a cooldown keep it out. What we believe that it cannot do does not: the
            caller may know better. The others follow in score order.
        temperature: above 0, and with no named model in front, the first candidate is drawn by a
            softmax over the ranks.
        rng: used for that draw only.
        snapshot_version: copied into the decision.

    Raises:
        InvalidRequest: a hard budget is all that is in the way: `over_budget`, or
            `price_unknown` when no such model has a price.
        NoEligibleModel: no model is left, not even as a last resort.
    """
    terms = _Terms(
        int(request.input_tokens * CONTEXT_MARGIN),
        request.input_tokens,
        (request.output_tokens_max or OUTPUT_TOKENS_DEFAULT) * request.choices,
        request.output_tokens_max or 0,
        request.needs,
        policy.min_weight,
        policy.max_budget_nanousd,
        policy.budget_is_hard,
        named,
        adapters,
        health.cooling,
        health.cooling_providers,
    )
    sieved = _sieve(models, terms)
    if sieved.models:
        candidates, reason = _rank(
            sieved, policy.mode, health, named=named, temperature=temperature, rng=rng
        )
    elif sieved.spare:
        candidates, reason = (), ROUTED_AS_LAST_RESORT
    else:
        raise _nobody(sieved)
    spare = tuple(_last_resort(sieved.spare, named)) if sieved.spare else ()
    return Decision(candidates, spare, sieved.skips, reason, policy.mode, snapshot_version)


def resolve_name(name: str, models: Mapping[str, Model]) -> str | None:
    """Find the model that a caller's name means: an id, or `prefix/id`; None = unknown.

    The exact id wins. (The original strips the prefix even from a name that is itself an id, and
    so may go to another provider: weak spot W70.)
    """
    if name in models:
        return name
    prefix, _, rest = name.partition("/")
    return rest if prefix and rest in models else None


def _sieve(models: Sequence[Model], terms: _Terms) -> _Sieved:
    sieved = _Sieved([], [], [], {}, [])
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
    return sieved


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
        if "chat" not in capabilities or not needs.issubset(capabilities):
            return "capability"
    elif capabilities and "chat" not in capabilities:
        return "capability"
    if 0 < model.max_output_tokens < terms.output_tokens_asked:
        return "output_limit"
    return ""


def _preference(model: Model, cost: int | None, terms: _Terms) -> str:
    """The first preference the model does not meet; it may still be a last resort."""
    if model.weight < terms.weight_min and model.id != terms.named:
        return "weight_below_minimum"
    if model.id in terms.cooling or model.provider_id in terms.cooling_providers:
        return "cooldown"
    if cost is not None and 0 < terms.budget_nanousd < cost and model.id != terms.named:
        return "budget_exceeded"
    return ""


def _rank(
    sieved: _Sieved,
    mode: Mode,
    health: HealthView,
    *,
    named: str | None,
    temperature: float,
    rng: random.Random,
) -> tuple[tuple[Candidate, ...], str]:
    """The candidates in the order they are tried, and the reason for the first."""
    models, costs = sieved.models, sieved.costs
    ids = [model.id for model in models]
    scores = _scores(sieved, ids, health, COEFFICIENTS[mode])
    # Ids are unique: what is behind them is never compared.
    ranked = sorted(zip(scores, ids, models, costs, strict=True))
    first, propensities = 0, [0.0] * len(ids)
    if named in ids:
        first = [id_ for _, id_, _, _ in ranked].index(named)
        propensities[first] = 1.0
        reason = ROUTED_AS_NAMED
    elif temperature > 0:
        first, propensities = _draw(len(ids), temperature, rng)
        reason = f"routed-weight-{ranked[first][2].weight}"
    else:
        propensities[0] = 1.0
        reason = f"routed-weight-{ranked[0][2].weight}"
    if first:  # a rotation: the others keep their order (the original swaps: weak spot W66)
        ranked.insert(0, ranked.pop(first))
        propensities.insert(0, propensities.pop(first))
    return tuple(
        [
            Candidate(model, score, propensity, cost)
            for (score, _, model, cost), propensity in zip(ranked, propensities, strict=True)
        ]
    ), reason


def _draw(count: int, temperature: float, rng: random.Random) -> tuple[int, list[float]]:
    """Draw a rank by the softmax exp(-rank / temperature), and give every rank's chance."""
    weights = [exp(-rank / temperature) for rank in range(count)]
    total = fsum(weights)
    return rng.choices(range(count), weights)[0], [weight / total for weight in weights]


def _scores(
    sieved: _Sieved, ids: list[str], health: HealthView, coefficients: Coefficients
) -> list[float]:
    """Lower is better: cost + latency + failure - weight, each times its coefficient.

    Every value counts as a share of the largest in the set (reference §10); an unknown one counts
    as the mean of the known, and a column without a known value above 0 counts nothing.
    """
    columns: list[_Column] = [(coefficients.cost, sieved.costs)]
    if health.latency_ms:
        columns.append((coefficients.latency, [health.latency_ms.get(id_) for id_ in ids]))
    if health.failure_rate:
        columns.append((coefficients.failure, [health.failure_rate.get(id_) for id_ in ids]))
    columns.append((-coefficients.weight, [model.weight for model in sieved.models]))
    add = _add_plainly if len(ids) <= NUMPY_ABOVE else _add_with_numpy
    return add(columns)


def _add_plainly(columns: Sequence[_Column]) -> list[float]:
    totals = [0.0] * len(columns[0][1])
    for coefficient, values in columns:
        complete = _completed(values)
        top = max(complete)
        if top > 0:
            totals = [
                total + coefficient * (value / top)
                for total, value in zip(totals, complete, strict=True)
            ]
    return totals


def _completed(values: Sequence[float | None]) -> Sequence[float]:
    """The mean of the known in the place of the unknown; 0 when nothing is known."""
    known = [value for value in values if value is not None]
    if len(known) == len(values):
        return known
    mean = fsum(known) / len(known) if known else 0.0
    return [mean if value is None else value for value in values]


def _add_with_numpy(columns: Sequence[_Column]) -> list[float]:
    """The same operations in the same order as `_add_plainly`, so the same bits."""
    matrix = np.array([values for _, values in columns], dtype=np.float64)  # None becomes NaN
    is_unknown = np.isnan(matrix)
    if is_unknown.any():
        for row, gaps in zip(matrix, is_unknown, strict=True):
            known: list[float] = row[~gaps].tolist()
            row[gaps] = fsum(known) / len(known) if known else 0.0
    tops = matrix.max(axis=1, keepdims=True)
    tops[tops <= 0] = np.inf
    coefficients = np.array([[coefficient] for coefficient, _ in columns])
    scores: list[float] = (coefficients * (matrix / tops)).sum(axis=0).tolist()
    return scores


def _last_resort(
    spare: Iterable[tuple[Model, int | None]], named: str | None
) -> Iterable[Candidate]:
    """The named one first, then the cheapest, unknown prices last, ties by id."""

    def rank(pair: tuple[Model, int | None]) -> tuple[bool, bool, int, str]:
        model, cost = pair
        return model.id != named, cost is None, cost or 0, model.id

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

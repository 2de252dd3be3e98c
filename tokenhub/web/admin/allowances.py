"""What keys and teams are allowed, as the admin API takes and shows it: models, limits, addresses.

Readers only; who is allowed what is decided where requests come in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tokenhub.config import network
from tokenhub.directives import BUDGET_USD_MAX, LATENCY_MS_MAX
from tokenhub.domain import MODES, NO_LIMITS, Limits
from tokenhub.errors import InvalidRequest
from tokenhub.web import forms

MODELS_MAX = 200
NETWORKS_MAX = 100
WEIGHT_MAX = 10

LIMIT_NAMES = {"rate_limit_rps": "rps", "rpm": "rpm", "tpm": "tpm", "max_parallel": "parallel"}
"""The fields of `Limits` by their names in the API."""


def read_models(name: str, value: Any) -> tuple[str, ...]:
    """Ids of models; `*` at the end stands for any that begin so."""
    found: tuple[str, ...] = forms.word_list(MODELS_MAX)(name, value)
    if any("*" in each[:-1] for each in found):
        raise InvalidRequest(f"{name} may have * only at the end of an id", param=name)
    return found


def read_networks(name: str, value: Any) -> tuple[str, ...]:
    """Addresses and networks, all as networks."""
    texts: tuple[str, ...] = forms.word_list(NETWORKS_MAX)(name, value)
    try:
        found = [str(network(each)) for each in texts]
    except ValueError as error:
        raise InvalidRequest(
            f"{name} must hold addresses and networks, such as 192.0.2.7 or 10.0.0.0/8", param=name
        ) from error
    return tuple(dict.fromkeys(found))


def read_policy(name: str, value: Any) -> dict[str, Any]:
    """What applies when a request does not say; null = nothing of one's own."""
    value = {} if value is None else value
    if not isinstance(value, dict):
        raise InvalidRequest(f"{name} must be an object", param=name)
    for word in value:
        if word not in POLICY:
            known = ", ".join(POLICY)
            raise InvalidRequest(f"{name} may have only: {known}", param=name)
    return {word: POLICY[word](f"{name}.{word}", each) for word, each in value.items()}


def read_model_limits(name: str, value: Any) -> dict[str, Limits]:
    """Limits by the id of a model or the name of an alias; null = none. Those that limit nothing
    are as good as none."""
    value = {} if value is None else value
    if not isinstance(value, dict):
        raise InvalidRequest(f"{name} must be an object", param=name)
    names: tuple[str, ...] = forms.word_list(MODELS_MAX)(name, list(value))
    found = {each: _read_limits(f"{name}.{each}", value[each]) for each in names}
    return {each: limits for each, limits in found.items() if limits != NO_LIMITS}


def limit(high: int, low: int = 0) -> forms.Reader:
    """A whole number from `low` to `high`; null, 0 and less = no limit."""

    def read(name: str, value: Any) -> int:
        return 0 if value is None else max(0, forms.integer(low, high)(name, value))

    return read


def limits_from(values: Mapping[str, Any], before: Limits) -> Limits:
    """The limits with those that are given changed."""
    given = {word: values[name] for name, word in LIMIT_NAMES.items() if name in values}
    return replace(before, **given)


def shown_limits(limits: Limits) -> dict[str, Any]:
    """Limits as the API shows them."""
    return {name: getattr(limits, word) for name, word in LIMIT_NAMES.items()}


def _read_limits(name: str, value: Any) -> Limits:
    if not isinstance(value, dict) or not value.keys() <= LIMIT_NAMES.keys():
        known = ", ".join(LIMIT_NAMES)
        raise InvalidRequest(f"{name} must be an object of only: {known}", param=name)
    given = {word: FIELDS[word](f"{name}.{word}", each) for word, each in value.items()}
    return limits_from(given, NO_LIMITS)


POLICY: dict[str, forms.Reader] = {
    "mode": forms.one_of(*MODES),
    "max_budget_usd": forms.number(0, BUDGET_USD_MAX),
    "max_latency_ms": forms.integer(0, LATENCY_MS_MAX),
    "min_weight": forms.integer(0, WEIGHT_MAX),
}
FIELDS: dict[str, forms.Reader] = {
    "models": read_models,
    "rate_limit_rps": limit(1_000_000, -1),  # -1 as in the original
    "rpm": limit(100_000_000),
    "tpm": limit(100_000_000_000),
    "max_parallel": limit(1_000_000),
}
"""Those that keys and teams have alike."""

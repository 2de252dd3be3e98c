"""What the routing tests build their cases from: everything defaulted, changed by keyword."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from tokenhub.domain import Candidate, ChatRequest, Decision, Model, Policy, Price
from tokenhub.health import HEALTHY
from tokenhub.routing import decide


def make_model(model_id: str, weight: int = 5, **changes: Any) -> Model:
    defaults = {"provider_id": "p", "upstream_model": model_id, "price": Price(0, 0)}
    return Model(model_id, weight=weight, **{**defaults, **changes})


def make_request(**changes: Any) -> ChatRequest:
    return ChatRequest(**{"body": {}, "model": "", "stream": False, "input_tokens": 100, **changes})


def decided(models: Sequence[Model], **changes: Any) -> Decision:
    """Decide with everything defaulted; `policy` and `request` are given as changes to theirs."""
    policy = Policy(**changes.pop("policy", {}))
    request = make_request(**changes.pop("request", {}))
    facts: dict[str, Any] = {
        "adapters": {"p"},
        "health": HEALTHY,
        "named": None,
        "temperature": 0.0,
        "rng": random.Random(1),
        "snapshot_version": 7,
    }
    return decide(request, policy, models, **{**facts, **changes})


def ids(candidates: Sequence[Candidate]) -> list[str]:
    return [candidate.model.id for candidate in candidates]

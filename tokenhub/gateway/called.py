"""What one call of a request has come to. Knows nothing of how it came about."""

from __future__ import annotations

from typing import Any, NamedTuple

from tokenhub.domain import ChatRequest
from tokenhub.gateway.attempts import Attempts, Turn
from tokenhub.providers.base import Answer


class Called(NamedTuple):
    """What one call of a request has come to.

    Args:
        cost_nanousd: of all its attempts; None = a price is unknown.
        latency_ms: of the attempt that answered.
        reason: why it was this model, as in `X-TokenHub-Reason`.
        attempts: how many it took.
        output_tokens_max: the limit of the answer, where the caller's did not fit.
    """

    answer: Answer
    model_id: str
    provider_id: str
    cost_nanousd: int | None
    latency_ms: int
    reason: str
    attempts: int
    output_tokens_max: int | None


def called_of(
    answer: Answer, turn: Turn, request: ChatRequest, attempts: Attempts[Any], took_ms: int
) -> Called:
    """What a call has come to that this attempt answered."""
    model = turn.candidate.model
    return Called(
        answer,
        model.id,
        model.provider_id,
        attempts.cost_nanousd,
        took_ms,
        turn.step.reason,
        attempts.count,
        limit_of(turn, request),
    )


def limit_of(turn: Turn, request: ChatRequest) -> int | None:
    """What the answer was limited to, if that was our doing."""
    asked = turn.asked
    return None if asked is None or asked is request else asked.output_tokens_max

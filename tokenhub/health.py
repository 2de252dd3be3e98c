"""What health means for a choice: the view a decision reads, and how one model's state moves.

Pure: no clock, no storage. The board keeps one `HealthState` for each model and applies these
steps under its lock; `routing` reads a `HealthView` made from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

DEGRADED_FAILURES = 2
DOWN_FAILURES = 5
DOWN_COOLDOWN_SECONDS = 30.0
RATE_LIMIT_COOLDOWN_SECONDS = 5.0
"""How long a rate-limited model rests when the provider did not say."""
COOLDOWN_SECONDS_MAX = 300.0
"""No Retry-After, however long, may take a model away for more than this."""

StateName = Literal["healthy", "degraded", "down"]


@dataclass(frozen=True, slots=True)
class HealthView:
    """What is known about the models at one moment, by model id; an absent id is unknown.

    Args:
        cooling: seconds left (above 0) of the models that should not be tried now.
        latency_ms: mean latency.
        failure_rate: share of failed attempts, 0 to 1.
    """

    cooling: Mapping[str, float]
    latency_ms: Mapping[str, float]
    failure_rate: Mapping[str, float]


HEALTHY = HealthView({}, {}, {})
"""Nothing is known and nothing rests."""


class HealthState(NamedTuple):
    """One model's standing.

    Args:
        consecutive_failures: failures since the last success.
        cooldown_until: unix ms; 0 = never cooled down.
    """

    consecutive_failures: int = 0
    cooldown_until: int = 0


FRESH = HealthState()


def after_success(state: HealthState) -> HealthState:
    """One success heals: the failures and the cooldown are forgotten (reference §20.1)."""
    return state if state == FRESH else FRESH


def after_failure(
    state: HealthState, now_ms: int, *, cooldown_seconds: float | None
) -> HealthState:
    """Count a failure and let the model rest when it is due.

    The fifth failure in a row brings 30 s of rest, and so does every one after it until a success
    (reference §20.1). An explicit rest starts at the first failure. A rest that is already running
    is never shortened.

    Args:
        now_ms: unix ms.
        cooldown_seconds: the rest that the failure itself asks for (Retry-After, or
            `RATE_LIMIT_COOLDOWN_SECONDS`), at most `COOLDOWN_SECONDS_MAX`; None = an ordinary
            failure.
    """
    failures = state.consecutive_failures + 1
    if cooldown_seconds is None:
        cooldown_seconds = DOWN_COOLDOWN_SECONDS if failures >= DOWN_FAILURES else 0.0
    # The cap comes first in min(): it also wins against NaN.
    rest_ms = int(min(COOLDOWN_SECONDS_MAX, cooldown_seconds) * 1000)
    if rest_ms <= 0:
        return HealthState(failures, state.cooldown_until)
    return HealthState(failures, max(state.cooldown_until, now_ms + rest_ms))


def state_name(state: HealthState, now_ms: int) -> StateName:
    """down while it rests, degraded from two failures in a row, else healthy."""
    if now_ms < state.cooldown_until:
        return "down"
    return "degraded" if state.consecutive_failures >= DEGRADED_FAILURES else "healthy"

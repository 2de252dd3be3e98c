"""How one model or provider is doing, as it is shown. Knows nothing of how that is found out."""

from __future__ import annotations

from dataclasses import dataclass

from tokenhub import health
from tokenhub.board.transitions import Kind


@dataclass(frozen=True, slots=True)
class Probe:
    """What the latest probe of a provider found.

    Args:
        status: of the answer; None = there was none.
        at: unix ms.
    """

    is_alive: bool
    status: int | None
    latency_ms: int
    at: int


@dataclass(frozen=True, slots=True)
class Vital:
    """One model's or provider's health, for the admin API; times are unix ms, 0 = never.

    Args:
        successes, failures, latency_ms: of the last minute; a provider's are those of its models.
        failures_in_a_row, last_error, last_failure_at: of a provider: those that are its own.
        breaker: closed, open, half_open or ramping.
        share: of the requests that may try it, 0 to 1.
        openings: of the breaker since it was last closed.
        probe: None for models, and for providers that nobody has probed.
    """

    kind: Kind
    id: str
    state: health.StateName = "healthy"
    breaker: health.BreakerName = "closed"
    share: float = 1.0
    cooldown_until: int = 0
    cooldown_secs_left: float = 0.0
    openings: int = 0
    successes: int = 0
    failures: int = 0
    failures_in_a_row: int = 0
    latency_ms: float = 0.0
    last_error: str = ""
    last_failure_at: int = 0
    last_success_at: int = 0
    probe: Probe | None = None

"""What health means for a choice: the view a decision reads, and how one breaker moves.

Pure: no clock, no storage, no chance. The board keeps one `HealthState` for each model and each
provider and applies these steps under its lock; `routing` reads a `HealthView` made from them.

    closed ── failures ──▶ open ── time ──▶ half-open ── success ──▶ ramping ── time ──▶ closed
                            ▲                   │ failure                │ failures
                            └───────────────────┴────────────────────────┘

A success heals also while the breaker is open. A rest that came from rate limits alone is milder:
it counts as no opening and does not grow, and the success after it closes the breaker at once,
for the provider was never out of order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from tokenhub.domain import Drain

DEGRADED_FAILURES = 2
DOWN_FAILURES = 5
DOWN_COOLDOWN_SECONDS = 30.0
"""The first rest. An opening before the breaker has recovered doubles the rest before it."""
RATE_LIMIT_COOLDOWN_SECONDS = 5.0
"""How long a rate-limited model rests when the provider did not say."""
COOLDOWN_SECONDS_MAX = 300.0
"""No Retry-After and no doubling, however long, may take a model away for more than this."""

TRIAL_SECONDS = 30.0
"""How long the trial of a half-open breaker keeps others back if nobody hears how it ended."""
RAMP_SHARES = (0.1, 0.5)
"""What share of the requests a recovering model is offered, step by step; after the last: all."""
RAMP_STEP_SECONDS = 5.0
RAMP_FAILURES = 2
"""Failures in a row that open a ramping breaker again."""

RATE_LIMITED = "rate_limited"
"""The error class of a provider that works, and has had enough of us for now."""

StateName = Literal["healthy", "degraded", "down"]
BreakerName = Literal["closed", "open", "half_open", "ramping"]

_COOLDOWN_MS_MAX = int(COOLDOWN_SECONDS_MAX * 1000)
_TRIAL_MS = int(TRIAL_SECONDS * 1000)
_STEP_MS = int(RAMP_STEP_SECONDS * 1000)
_SLACK_MS = 10  # ages are rounded, and measured by another clock
_RAMP_MS = _STEP_MS * len(RAMP_SHARES)


@dataclass(frozen=True, slots=True)
class HealthView:
    """What is known about models and providers at one moment, by id; an absent id is unknown.

    Args:
        cooling: seconds left (above 0) of the models that should not be tried now.
        latency_ms: mean latency of models.
        failure_rate: share of failed attempts of models, 0 to 1.
        cooling_providers: as `cooling`, of providers: no model of theirs should be tried.
        guarded: models and providers that not every request may try: the board is asked before
            each attempt.
    """

    cooling: Mapping[str, float]
    latency_ms: Mapping[str, float]
    failure_rate: Mapping[str, float]
    cooling_providers: Mapping[str, float] = field(default_factory=dict)
    guarded: frozenset[str] = frozenset()


def drained(view: HealthView, drains: Mapping[tuple[str, str], Drain], now_ms: int) -> HealthView:
    """The view with what operators keep out of use counted as resting.

    Args:
        drains: by kind (provider or model) and id; those that are over count nothing.
        now_ms: unix ms.
    """
    left = {who: (each.until_at - now_ms) / 1000 for who, each in drains.items()}
    cooling = {id_: secs for (kind, id_), secs in left.items() if kind == "model" and secs > 0}
    providers = {id_: secs for (kind, id_), secs in left.items() if kind != "model" and secs > 0}
    if not cooling and not providers:
        return view
    return replace(
        view,
        cooling={**view.cooling, **cooling},
        cooling_providers={**view.cooling_providers, **providers},
    )


HEALTHY = HealthView({}, {}, {})
"""Nothing is known and nothing rests."""


class HealthState(NamedTuple):
    """The breaker of one model or provider; times are unix ms, 0 = none.

    Args:
        consecutive_failures: failures since the last success.
        cooldown_until: when the rest is over, or was: until a success the breaker is half-open.
        openings: how often the breaker has opened since it was last closed, but for rate limits.
        rest_ms: the rest that the latest of these openings brought.
        trial_until: how long the running trial of a half-open breaker counts.
        ramp_from: when the breaker began to let requests through again.
        failed_at: when the latest of the failures was seen.
    """

    consecutive_failures: int = 0
    cooldown_until: int = 0
    openings: int = 0
    rest_ms: int = 0
    trial_until: int = 0
    ramp_from: int = 0
    failed_at: int = 0


FRESH = HealthState()


def after_success(state: HealthState, now_ms: int, *, age_ms: int = 0) -> HealthState:
    """One success heals (reference §20.1), but a breaker that had opened lets requests in slowly.

    Args:
        now_ms: unix ms.
        age_ms: how long ago the question was asked: an answer to one that is older than the failure
            says nothing about the time since.
    """
    # (A failure that is yet to come was seen before the clock was set back.)
    if now_ms - age_ms < state.failed_at <= now_ms:
        return state
    state = settled(state, now_ms)
    if state.ramp_from:
        return state._replace(consecutive_failures=0, failed_at=0)
    if not state.openings:
        return FRESH
    return HealthState(openings=state.openings, rest_ms=state.rest_ms, ramp_from=now_ms)


def after_failure(
    state: HealthState,
    now_ms: int,
    *,
    cooldown_seconds: float | None,
    is_rate_limit: bool = False,
    age_ms: int = 0,
) -> HealthState:
    """Count a failure, and open the breaker when it is due.

    A closed breaker opens at the fifth failure in a row (reference §20.1), a half-open one at the
    first, a ramping one at the second; an explicit rest opens any at once. A rest that is already
    running is never shortened, and only an explicit one extends it.

    Args:
        now_ms: unix ms.
        cooldown_seconds: the rest that the failure itself asks for (Retry-After, or
            `RATE_LIMIT_COOLDOWN_SECONDS`), at most `COOLDOWN_SECONDS_MAX`; None, or nothing = an
            ordinary failure.
        is_rate_limit: the provider is in order: a rest that it asks for is taken as said.
        age_ms: how long ago the question was asked: an ordinary failure of one that is older than
            the recovery (it hung all the while) says nothing about the recovery.
    """
    state = settled(state, now_ms)
    # The cap comes first in min(): it also wins against NaN.
    asked_ms = max(0, int(min(COOLDOWN_SECONDS_MAX, cooldown_seconds or 0.0) * 1000))
    breaker = breaker_name(state, now_ms)
    if not asked_ms and _is_older(now_ms - age_ms, state, now_ms):
        return state
    state = state._replace(consecutive_failures=state.consecutive_failures + 1, failed_at=now_ms)
    if not asked_ms and not _is_due(breaker, state.consecutive_failures):
        return state
    if asked_ms and is_rate_limit:
        until = max(_rest_end(state, now_ms), now_ms + asked_ms)
        return state._replace(cooldown_until=until, trial_until=0, ramp_from=0)
    is_open = breaker == "open"
    rest_ms = asked_ms or int(DOWN_COOLDOWN_SECONDS * 1000)
    if state.rest_ms and not is_open:
        rest_ms = max(asked_ms, min(2 * state.rest_ms, _COOLDOWN_MS_MAX))
    return state._replace(
        cooldown_until=max(_rest_end(state, now_ms), now_ms + rest_ms),
        openings=max(1, state.openings) if is_open else state.openings + 1,
        rest_ms=max(rest_ms, state.rest_ms),
        trial_until=0,
        ramp_from=0,
    )


def breaker_name(state: HealthState, now_ms: int) -> BreakerName:
    """Whether requests may pass: all, none, one at a time, or a growing share of them."""
    if state.ramp_from:
        return "ramping" if _ramp_step(state, now_ms) < len(RAMP_SHARES) else "closed"
    if not state.cooldown_until:
        return "closed"
    return "open" if cooldown_ms_left(state, now_ms) else "half_open"


def settled(state: HealthState, now_ms: int) -> HealthState:
    """The state without what no longer counts: whoever has been through the ramp has recovered."""
    if state.ramp_from and _ramp_step(state, now_ms) >= len(RAMP_SHARES):
        return HealthState(state.consecutive_failures, failed_at=state.failed_at)
    return state


def state_name(state: HealthState, now_ms: int) -> StateName:
    """down while it rests; degraded while it recovers and from two failures in a row."""
    breaker = breaker_name(state, now_ms)
    if breaker == "open":
        return "down"
    is_shaky = state.consecutive_failures >= DEGRADED_FAILURES
    return "degraded" if is_shaky or breaker != "closed" else "healthy"


def share_of(state: HealthState, now_ms: int) -> float:
    """What share of the requests may try it; the trials of a half-open breaker are none."""
    match breaker_name(state, now_ms):
        case "closed":
            return 1.0
        case "ramping":
            return RAMP_SHARES[_ramp_step(state, now_ms)]
        case _:
            return 0.0


def cooldown_ms_left(state: HealthState, now_ms: int) -> int:
    """How long it still rests; 0 = it does not.

    More than any rest can be left only when the clock was set back: then the rest is over.
    """
    left_ms = state.cooldown_until - now_ms
    return left_ms if 0 < left_ms <= _COOLDOWN_MS_MAX else 0


def is_admitted(state: HealthState, now_ms: int, draw: float) -> bool:
    """Whether a request may try it now.

    Args:
        draw: evenly from 0 to 1, another one for each request.
    """
    if breaker_name(state, now_ms) == "half_open":
        return not 0 < state.trial_until - now_ms <= _TRIAL_MS
    return draw < share_of(state, now_ms)


def with_trial(state: HealthState, now_ms: int) -> HealthState:
    """The state while an admitted request is under way: nobody else tries a half-open one."""
    if breaker_name(state, now_ms) != "half_open":
        return state
    return state._replace(trial_until=now_ms + _TRIAL_MS)


def without_trial(state: HealthState) -> HealthState:
    """The trial has ended and said nothing: the next request may try."""
    return state._replace(trial_until=0)


def changes_at(state: HealthState, now_ms: int) -> int | None:
    """When the passing of time alone changes what requests may do; None = never. Unix ms."""
    match breaker_name(state, now_ms):
        case "open":
            return state.cooldown_until
        case "ramping":
            return state.ramp_from + _RAMP_MS
        case _:
            return None


def _is_due(breaker: BreakerName, failures: int) -> bool:
    match breaker:
        case "closed":
            return failures >= DOWN_FAILURES
        case "ramping":
            return failures >= RAMP_FAILURES
        case "half_open":
            return True
        case "open":
            return False


def _is_older(asked_at: int, state: HealthState, now_ms: int) -> bool:
    """Whether the question is from before the breaker became half-open or began to recover."""
    since = state.ramp_from or state.cooldown_until
    return asked_at + _SLACK_MS < since <= now_ms


def _rest_end(state: HealthState, now_ms: int) -> int:
    return now_ms + cooldown_ms_left(state, now_ms)


def _ramp_step(state: HealthState, now_ms: int) -> int:
    """Which of RAMP_SHARES applies, or their number when the ramp is over. A clock that was set
    back ends it: otherwise it would last for as long as that."""
    gone_ms = now_ms - state.ramp_from
    return gone_ms // _STEP_MS if 0 <= gone_ms < _RAMP_MS else len(RAMP_SHARES)

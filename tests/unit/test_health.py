"""How failures and successes move a model between healthy, degraded and down."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenhub.health import (
    COOLDOWN_SECONDS_MAX,
    FRESH,
    RATE_LIMIT_COOLDOWN_SECONDS,
    HealthState,
    after_failure,
    after_success,
    state_name,
)

NOW = 1_700_000_000_000


def failed(times: int, *, now_ms: int = NOW) -> HealthState:
    state = FRESH
    for _ in range(times):
        state = after_failure(state, now_ms, cooldown_seconds=None)
    return state


@pytest.mark.parametrize(
    ("failures", "name"),
    [(0, "healthy"), (1, "healthy"), (2, "degraded"), (4, "degraded"), (5, "down"), (9, "down")],
)
def test_failures_in_a_row_degrade_at_two_and_bring_down_at_five(failures: int, name: str) -> None:
    assert state_name(failed(failures), NOW) == name


def test_the_fifth_failure_rests_for_thirty_seconds() -> None:
    assert failed(4).cooldown_until == 0
    state = failed(5)
    assert state == HealthState(5, NOW + 30_000)
    assert state_name(state, NOW + 29_999) == "down"
    assert state_name(state, NOW + 30_000) == "degraded"


def test_one_more_failure_after_the_cooldown_starts_it_again() -> None:
    later = NOW + 60_000
    state = after_failure(failed(5), later, cooldown_seconds=None)
    assert state == HealthState(6, later + 30_000)


def test_one_success_heals() -> None:
    assert after_success(failed(7)) == FRESH
    assert after_success(HealthState(1, 0)) == FRESH
    assert after_success(FRESH) is FRESH
    assert state_name(after_success(failed(7)), NOW) == "healthy"


def test_an_explicit_cooldown_applies_at_the_first_failure() -> None:
    state = after_failure(FRESH, NOW, cooldown_seconds=RATE_LIMIT_COOLDOWN_SECONDS)
    assert state == HealthState(1, NOW + 5_000)
    assert state_name(state, NOW) == "down"


def test_an_explicit_cooldown_is_taken_as_said_at_the_fifth_failure_too() -> None:
    assert after_failure(failed(4), NOW, cooldown_seconds=1.5).cooldown_until == NOW + 1_500


@pytest.mark.parametrize("seconds", [301, 86_400, math.inf, math.nan])
def test_no_cooldown_is_longer_than_the_cap(seconds: float) -> None:
    state = after_failure(FRESH, NOW, cooldown_seconds=seconds)
    assert state.cooldown_until == NOW + COOLDOWN_SECONDS_MAX * 1000


@pytest.mark.parametrize("seconds", [0, -1, 0.0001])
def test_a_cooldown_of_nothing_only_counts_the_failure(seconds: float) -> None:
    assert after_failure(FRESH, NOW, cooldown_seconds=seconds) == HealthState(1, 0)


steps = st.lists(
    st.tuples(st.integers(0, 400_000), st.none() | st.just(math.nan) | st.floats(min_value=-10)),
    max_size=30,
)


@given(steps)
def test_failures_never_shorten_a_cooldown_and_never_pass_the_cap(
    steps: list[tuple[int, float | None]],
) -> None:
    state, now_ms = FRESH, NOW
    for pause_ms, seconds in steps:
        now_ms += pause_ms
        before = state
        state = after_failure(before, now_ms, cooldown_seconds=seconds)
        assert state.consecutive_failures == before.consecutive_failures + 1
        assert state.cooldown_until >= before.cooldown_until
        assert state.cooldown_until <= now_ms + COOLDOWN_SECONDS_MAX * 1000

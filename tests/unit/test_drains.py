"""What operators keep out of use counts as resting, until its time is over."""

from hypothesis import given
from hypothesis import strategies as st

from tokenhub.domain import Drain
from tokenhub.health import HEALTHY, HealthView, drained

NOW = 1_000_000


def drain(until_at: int) -> Drain:
    return Drain(until_at, "why", "admin")


def test_a_drain_adds_to_what_rests_and_changes_nothing_else():
    view = HealthView({"a": 1.0}, {"a": 5.0}, {"a": 0.5}, {"p": 2.0}, frozenset({"g"}))
    found = drained(
        view, {("model", "b"): drain(NOW + 3000), ("provider", "q"): drain(NOW + 500)}, NOW
    )
    assert found.cooling == {"a": 1.0, "b": 3.0}
    assert found.cooling_providers == {"p": 2.0, "q": 0.5}
    assert (found.latency_ms, found.failure_rate) == (view.latency_ms, view.failure_rate)
    assert found.guarded == view.guarded


@given(until_at=st.integers(0, NOW))
def test_a_drain_that_is_over_counts_nothing(until_at):
    over = {("model", "a"): drain(until_at), ("provider", "p"): drain(until_at)}
    assert drained(HEALTHY, over, NOW) is HEALTHY

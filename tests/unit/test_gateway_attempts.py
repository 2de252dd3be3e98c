"""What is written down of each attempt: why it was made, what its failure called for, how much of
an answer came."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
import pytest

from tests.unit.gateway_kit import (
    ANYTHING,
    DONE,
    STOP,
    USAGE,
    Hang,
    World,
    answer,
    delta,
    fault,
    make_request,
    rate_limited,
)
from tokenhub.domain import Trace
from tokenhub.errors import AllAttemptsFailed, UpstreamRefused

Make = Callable[..., World]


def told(world: World, *names: str) -> list[Any]:
    return [tuple(each[name] for name in names) for each in world.attempts]


def sized(error: Any, size: int) -> Any:
    error.response_bytes = size
    return error


def test_each_attempt_says_why_it_was_made_and_what_its_failure_called_for(make_world):
    world = make_world(a=[sized(rate_limited(), 120)], b=[answer()])
    world.serve(model="a")
    assert told(world, "model_id", "reason", "next_step", "response_bytes")[0] == (
        "a", "routed-hint-exact", "cooldown", 120,
    )  # fmt: skip
    [_, (model, reason, step)] = told(world, "model_id", "reason", "next_step")
    assert (model, reason, step) == ("b", "routed-weight-19", "")
    assert world.row["reason"] == "routed-weight-19"


@pytest.mark.parametrize("step", ["failover", "retry", "cooldown", "stop"])
def test_the_step_that_a_failure_called_for_is_the_errors_own_word(make_world, monkeypatch, step):
    monkeypatch.setattr("tokenhub.gateway.course.RETRY_SECS", 0.0)
    failures = [fault(next_step=step, status=400) for _ in range(5)]
    world = make_world(a=failures)
    with pytest.raises((AllAttemptsFailed, UpstreamRefused)):
        world.serve(model="a")
    assert {found for (found,) in told(world, "next_step")} == {step}


def test_a_retry_says_that_it_is_one(make_world, monkeypatch):
    monkeypatch.setattr("tokenhub.gateway.course.RETRY_SECS", 0.0)
    world = make_world(a=[fault(next_step="retry"), answer()])
    world.serve(model="a")
    assert [reason for (reason,) in told(world, "reason")] == [
        "routed-hint-exact", "retried-transient",
    ]  # fmt: skip


def test_of_a_stream_all_is_counted_that_came(make_world):
    pieces = [delta("one"), STOP, USAGE, DONE]
    world = make_world(a=[pieces])
    list(world.stream())
    assert told(world, "response_bytes", "next_step") == [(sum(map(len, pieces)), "")]


def test_of_a_stream_that_broke_what_came_is_counted_and_its_failure_named(make_world):
    pieces = [delta("one"), delta("two")]
    world = make_world(a=[[*pieces, fault("stream_cut", next_step="failover")]])
    list(world.stream())
    assert told(world, "error_class", "next_step", "response_bytes") == [
        ("stream_cut", "failover", sum(map(len, pieces)))
    ]


def test_of_a_stream_that_its_caller_left_what_came_is_counted(make_world):
    first = delta("one")
    world = make_world(a=[[first, delta("two"), STOP, DONE]])
    relay = world.stream()
    next(relay)
    relay.close()
    assert told(world, "response_bytes", "next_step") == [(len(first), "")]


def test_a_hedge_says_so_and_who_lost_was_not_at_fault(make_world):
    hanging = Hang()
    world = make_world(a=[hanging], b=[answer()])
    world.hedge()
    world.serve()
    gevent.sleep(0)
    assert told(world, "model_id", "reason", "error_class", "next_step") == [
        ("a", "routed-weight-20", "hedge_lost", ""), ("b", "hedged", "", ""),
    ]  # fmt: skip


def test_with_tracing_off_an_attempt_has_no_span_and_no_header(make_world):
    world = make_world(a=[answer()])
    world.serve()
    assert world.exchange is not None
    assert [each.span for each in world.exchange.outcome.attempts] == [None]


def test_each_attempt_has_a_span_of_its_own(make_world):
    world = make_world(a=[fault()], b=[answer()])
    with world.begin() as exchange:
        exchange.outcome.trace = Trace("1" * 32, "2" * 16)
        exchange.serve(make_request(), ANYTHING)
    spans = [each.span for each in exchange.outcome.attempts]
    assert all(spans)
    assert len({span.id for span in spans if span is not None}) == 2

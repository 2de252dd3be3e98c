"""What a key may ask of one model holds for each attempt, and each gives back what it had."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import gevent
import orjson
import pytest

from tests.unit.gateway_kit import (
    ANYTHING,
    DONE,
    PROMPT,
    STOP,
    USAGE,
    Hang,
    World,
    answer,
    delta,
    fault,
    make_request,
)
from tokenhub.board import Board
from tokenhub.config import Settings
from tokenhub.domain import ApiKey, Limits, Policy
from tokenhub.errors import ClientClosed, DeadlineExceeded, RateLimited
from tokenhub.gateway.attempts import NotNeeded
from tokenhub.limiter import Limiter, Ticket

HARD = Policy(max_latency_ms=20, latency_is_hard=True)


class Counter:
    """Lets one key ask models, and looks at what it has left."""

    def __init__(self, **allowed: Limits) -> None:
        self._limiter = Limiter(Board(slots=1), Settings.from_env({}))
        self._key = ApiKey("key_1", "k", "tok", b"", "", model_limits=allowed)

    @property
    def ticket(self) -> Ticket:
        found = self._limiter.admit(self._key, None)
        assert found is not None
        return found

    def use_up(self, name: str, times: int = 1) -> None:
        for _ in range(times):
            self.ticket.take_model((name,), 0)

    def tokens_left(self, name: str) -> int:
        ticket = self.ticket
        hold = ticket.take_model((name,), 0)
        assert hold is not None
        ticket.tell_of(hold)
        hold.release(0)
        return int(dict(ticket.headers())["x-ratelimit-remaining-tokens"])

    def is_free(self, name: str) -> bool:
        """For one at a time."""
        try:
            hold = self.ticket.take_model((name,), 0)
        except RateLimited:
            return False
        assert hold is not None
        hold.release(0)
        return True


def ask(world: World, counter: Counter, policy: Policy = ANYTHING, **fields: Any) -> None:
    with world.begin(counter.ticket) as exchange:
        exchange.serve(make_request(**fields), policy)


def skips_of(world: World) -> dict[str, str]:
    found: dict[str, str] = orjson.loads(world.row["skips"])
    return found


def test_a_model_of_which_the_key_has_had_enough_is_passed_over(make_world):
    world, counter = make_world(a=[answer()], b=[answer()]), Counter(a=Limits(rpm=1))
    counter.use_up("a")
    ask(world, counter)
    assert world.adapter.asked == ["b"]
    row = world.row
    assert (row["model_id"], row["ending"], row["attempt_count"]) == ("b", "answered", 1)
    assert skips_of(world) == {"a": "rate_limited"}


def test_who_names_a_model_is_refused_at_once(make_world):
    world, counter = make_world(a=[answer()], b=[answer()]), Counter(a=Limits(rpm=1))
    counter.use_up("a")
    with pytest.raises(RateLimited) as caught:
        ask(world, counter, model="a")
    assert caught.value.details["scope"] == "key and model"
    assert world.adapter.asked == []
    row = world.row
    assert (row["status_code"], row["ending"]) == (429, "refused")
    assert row["error_class"] == "rate_limit_exceeded"


@pytest.mark.parametrize("of", ["request", "model"])
def test_who_names_fallbacks_as_well_gets_one_of_them(make_world, of):
    world, counter = make_world(a=[answer()], b=[answer()], c=[]), Counter(a=Limits(rpm=1))
    counter.use_up("a")
    policy = Policy(fallbacks=("b",)) if of == "request" else ANYTHING
    if of == "model":
        world.models["a"] = replace(world.models["a"], fallbacks=("b",))
    ask(world, counter, policy, model="a")
    assert world.adapter.asked == ["b"]


def test_if_nobody_is_left_the_wait_is_that_for_the_first_to_be_there_again(make_world):
    counter = Counter(a=Limits(rpm=1), b=Limits(parallel=1))
    for name in ("a", "b"):
        counter.use_up(name)
    world = make_world(a=[], b=[])
    with pytest.raises(RateLimited) as caught:
        ask(world, counter)
    assert (caught.value.headers["Retry-After"], caught.value.details["model"]) == ("1", "b")
    assert skips_of(world) == {"a": "rate_limited", "b": "rate_limited"}


def test_each_attempt_counts_and_is_corrected_to_what_it_has_used(make_world):
    counter = Counter(a=Limits(tpm=1000), b=Limits(tpm=1000))
    world = make_world(a=[fault("first_byte_timeout", sent=True)], b=[answer(30, 12)])
    ask(world, counter)
    assert counter.tokens_left("a") == 1000 - PROMPT
    assert counter.tokens_left("b") == 1000 - 42


ENDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "answered": (answer(), {}),
    "streamed": ([delta("a"), STOP, USAGE + DONE], {"stream": True}),
    "cut": ([delta("a"), fault("stream_cut")], {"stream": True}),
    "failed": (fault("first_byte_timeout"), {}),
    "refused": (fault(next_step="stop", status=400), {}),
    "left": (ClientClosed(), {}),
    "a bug": (RuntimeError(), {}),
    "too late": (Hang(), {"policy": HARD}),
}


@pytest.mark.parametrize("end", ENDS)
def test_however_an_attempt_ends_its_place_is_free_again(make_world, end):
    counter = Counter(a=Limits(parallel=1))
    step, fields = ENDS[end]
    world = make_world(a=[step])
    policy = fields.get("policy", ANYTHING)
    with suppress(Exception, ClientClosed), world.begin(counter.ticket) as exchange:
        if fields.get("stream"):
            relay = exchange.stream(make_request(stream=True), policy)
            assert not counter.is_free("a")
            assert list(relay)
        else:
            exchange.serve(make_request(), policy)
    assert world.adapter.asked == ["a"]
    assert counter.is_free("a")


def test_a_deadline_is_no_reason_to_keep_a_place(make_world):
    counter = Counter(a=Limits(parallel=1, tpm=1000))
    world = make_world(a=[Hang()])
    with pytest.raises(DeadlineExceeded):
        ask(world, counter, HARD)
    assert counter.tokens_left("a") == 1000 - PROMPT  # as it is booked


def test_the_losers_of_a_race_give_back_their_places(make_world):
    counter = Counter(a=Limits(parallel=1), b=Limits(parallel=1))
    slow = Hang()
    world = make_world(a=[slow], b=[answer()])
    world.hedge()
    ask(world, counter)
    gevent.sleep(0)
    assert slow.has_ended
    assert counter.is_free("a") and counter.is_free("b")


def test_a_call_that_is_not_needed_any_more_gives_back_its_place(make_world):
    counter = Counter(a=Limits(parallel=1))
    world = make_world(a=[Hang()], b=[answer()])
    with world.begin(counter.ticket) as exchange:
        laggard = gevent.spawn(exchange.call, make_request(model="a"), ANYTHING)
        gevent.sleep(0)
        assert not counter.is_free("a")
        called = exchange.call(make_request(model="b"), ANYTHING)
        laggard.kill(NotNeeded)
        assert counter.is_free("a")
        exchange.finish(called)

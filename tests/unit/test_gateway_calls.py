"""Several calls in one request, and the caller's deadline over all that is done for it."""

from __future__ import annotations

import time
from collections.abc import Callable

import gevent
import pytest

from tests.unit.gateway_kit import (
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
from tokenhub import journal
from tokenhub.board import Board
from tokenhub.config import Settings
from tokenhub.domain import ApiKey, Limits, Policy
from tokenhub.errors import AllAttemptsFailed, DeadlineExceeded, RateLimited, Unavailable
from tokenhub.gateway import Called, NotNeeded
from tokenhub.limiter import Limiter

Make = Callable[..., World]
ANYTHING = Policy()
WHOLE = [delta("hello"), STOP, USAGE + DONE]


def within(milliseconds: int) -> Policy:
    return Policy(max_latency_ms=milliseconds, latency_is_hard=True)


def test_a_call_says_who_answered_why_and_at_what_cost(make_world):
    world = make_world(a=[fault(sent=True)], b=[answer(100, 50)])
    with world.begin() as exchange:
        called = exchange.call(make_request(), ANYTHING)
        exchange.finish(called)
    assert isinstance(called, Called)
    assert (called.model_id, called.provider_id, called.reason) == ("b", "p-b", "routed-weight-19")
    assert (called.cost_nanousd, called.attempts) == (PROMPT + 200, 2)
    assert called.answer.usage is not None
    assert called.latency_ms >= 0


def test_several_calls_are_one_request_with_all_their_attempts_and_costs(make_world):
    world = make_world(a=[answer(10, 5), answer(30, 5)], b=[fault(sent=True), answer(20, 5)])
    with world.begin() as exchange:
        first = exchange.call(make_request(model="a"), ANYTHING)
        second = exchange.call(make_request(model="b"), ANYTHING)
        exchange.finish(exchange.call(make_request(model="b"), ANYTHING))
    assert (first.cost_nanousd, second.cost_nanousd, second.model_id) == (20, PROMPT + 40, "a")
    row = world.row
    assert (row["ending"], row["model_id"], row["reason"]) == ("rescued", "b", "routed-hint-exact")
    assert (row["requested_model"], row["attempt_count"]) == ("a", 4)
    assert row["cost_nanousd"] == 20 + PROMPT + 40 + 30
    assert row["estimated_input_tokens"] == 3 * PROMPT
    assert len([kind for kind, _ in world.records if kind == journal.END]) == 1


def test_calls_made_at_once_are_written_down_in_the_order_in_which_they_began(make_world):
    slow, fast = Hang(answer(10, 5)), Hang(answer(20, 5))
    world = make_world(a=[slow], b=[fast])
    with world.begin() as exchange:
        one = gevent.spawn(exchange.call, make_request(model="a"), ANYTHING)
        gevent.sleep(0.005)
        two = gevent.spawn(exchange.call, make_request(model="b"), ANYTHING)
        gevent.spawn_later(0.005, fast.release)
        two.join()
        slow.release()
        exchange.finish(one.get())
    assert [each["model_id"] for each in world.attempts] == ["a", "b"]
    row = world.row
    assert (row["model_id"], row["ending"], row["cost_nanousd"]) == ("a", "answered", 20 + 30)
    assert row["overhead_us"] >= 0  # what ran at the same time counts once


def test_a_call_that_fails_is_booked_and_the_request_goes_on(make_world):
    world = make_world(a=[fault("first_byte_timeout", sent=True)], b=[answer()])
    with world.begin() as exchange:
        with pytest.raises(AllAttemptsFailed):
            exchange.call(make_request(model="a"), Policy(exclude=frozenset({"b"})))
        exchange.finish(exchange.call(make_request(model="b"), ANYTHING))
    assert (world.row["ending"], world.row["cost_nanousd"]) == ("rescued", PROMPT + 20)


def test_a_call_that_is_not_needed_any_more_is_stopped_booked_and_held_against_nobody(make_world):
    slow = Hang()
    world = make_world(a=[slow], b=[answer()])
    with world.begin() as exchange:
        laggard = gevent.spawn(exchange.call, make_request(model="a"), ANYTHING)
        gevent.sleep(0)
        called = exchange.call(make_request(model="b"), ANYTHING)
        laggard.kill(NotNeeded)
        exchange.finish(called)
    assert slow.has_ended
    assert [each["error_class"] for each in world.attempts] == ["not_needed", ""]
    assert (world.row["ending"], world.row["cost_nanousd"]) == ("answered", PROMPT + 20)
    assert world.failures == {"b": 0}


def test_each_further_call_has_room_in_the_journal_or_is_not_made(make_world, monkeypatch):
    world = make_world(a=[answer(), answer()])

    def refuse() -> None:
        raise Unavailable("full", code="journal_full")

    with world.begin() as exchange:
        called = exchange.call(make_request(), ANYTHING)
        exchange.call(make_request(), ANYTHING)
        assert world.journal._admitted == 2
        monkeypatch.setattr(world.journal, "admit", refuse)
        with pytest.raises(Unavailable):
            exchange.call(make_request(), ANYTHING)
        exchange.finish(called)
    assert world.row["attempt_count"] == 2  # and nothing is left admitted


def test_each_call_takes_its_tokens_once_and_all_are_corrected_at_the_end(make_world):
    world = make_world(a=[answer(10, 5), answer(10, 5)])
    key = ApiKey("key_1", "k", "tok", b"", "", limits=Limits(tpm=4 * PROMPT))
    limiter = Limiter(Board(slots=1), Settings.from_env({}))

    def left() -> int:
        found = limiter.admit(key, None)
        assert found is not None
        tokens = int(dict(found.headers())["x-ratelimit-remaining-tokens"])
        found.release(0)
        return tokens

    with world.begin(limiter.admit(key, None)) as exchange:
        exchange.call(make_request(), ANYTHING)
        assert left() == 3 * PROMPT
        called = exchange.call(make_request(), ANYTHING)
        assert left() == 2 * PROMPT
        with pytest.raises(RateLimited):
            exchange.call(make_request(input_tokens=3 * PROMPT), ANYTHING)
        exchange.finish(called)
    assert left() == 4 * PROMPT - 30


def test_a_deadline_ends_what_is_at_work_books_it_and_blames_nobody(make_world):
    silent = Hang()
    world = make_world(a=[silent], b=[answer()])
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded) as late:
        world.serve(within(20), model="a")
    assert 0.02 <= time.monotonic() - began < 0.3
    assert (late.value.status, late.value.code) == (504, "deadline_exceeded")
    assert late.value.headers == {"X-TokenHub-Attempts": "1"}
    assert silent.has_ended
    [attempt] = world.attempts
    assert (attempt["error_class"], attempt["status"]) == ("deadline", None)
    assert (attempt["input_tokens"], attempt["cost_nanousd"]) == (PROMPT, PROMPT)
    row = world.row
    assert (row["ending"], row["status_code"]) == ("failed", 504)
    assert row["error_class"] == "deadline_exceeded"
    assert world.failures == {}


def test_a_deadline_that_only_ranks_ends_nothing(make_world):
    slow = Hang()
    world = make_world(a=[slow])
    gevent.spawn_later(0.03, slow.release)
    world.serve(Policy(max_latency_ms=10))
    assert world.row["ending"] == "answered"


def test_no_adapter_can_swallow_a_deadline(make_world):
    def swallow() -> object:
        try:
            Hang()()
        except Exception:  # noqa: BLE001 - as broad as an adapter could be
            return answer()
        return answer()

    world = make_world(a=[swallow])
    with pytest.raises(DeadlineExceeded):
        world.serve(within(10))


def test_a_deadline_counts_from_when_the_request_came_and_over_all_its_calls(make_world):
    world = make_world(a=[answer(), Hang()])
    with pytest.raises(DeadlineExceeded), world.begin() as exchange:
        began = time.monotonic()
        exchange.call(make_request(), within(40))
        gevent.sleep(0.03)
        try:
            exchange.call(make_request(), within(40))
        finally:
            assert time.monotonic() - began < 0.06
    assert [each["error_class"] for each in world.attempts] == ["", "deadline"]


def test_who_comes_when_the_time_is_over_is_asked_nothing(make_world):
    world = make_world(a=[answer()])
    with pytest.raises(DeadlineExceeded) as late, world.begin() as exchange:
        gevent.sleep(0.005)
        exchange.serve(make_request(), within(1))
    assert late.value.headers == {}
    assert (world.adapter.asked, world.row["attempt_count"]) == ([], 0)


def test_a_pause_before_a_retry_is_covered_by_the_deadline(make_world, monkeypatch):
    monkeypatch.setattr("tokenhub.gateway.course.RETRY_SECS", 30.0)
    world = make_world(a=[fault("overloaded"), answer()])
    with pytest.raises(DeadlineExceeded):
        world.serve(within(20))
    assert [each["error_class"] for each in world.attempts] == ["overloaded"]
    assert world.failures == {"a": 1}


def test_a_streams_deadline_is_that_of_its_first_event(make_world):
    world = make_world(a=[Hang(WHOLE)])
    with pytest.raises(DeadlineExceeded):
        world.stream(within(10))
    assert (world.row["ending"], world.row["status_code"]) == ("failed", 504)


def test_a_stream_that_has_begun_may_take_longer_than_its_deadline(make_world):
    def later() -> bytes:
        gevent.sleep(0.03)
        return STOP + USAGE + DONE

    world = make_world(b=[[delta("hello"), later]])
    relay = world.stream(within(20))
    assert b"".join(relay).endswith(DONE)
    relay.close()
    assert world.row["ending"] == "answered"

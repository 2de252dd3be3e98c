"""Streams: failover until the first event and never after, one ending, and the bill for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import gevent
import orjson
import pytest

from tests.unit.gateway_kit import (
    DONE,
    PROMPT,
    STOP,
    USAGE,
    World,
    delta,
    event,
    fault,
    make_request,
)
from tokenhub import journal
from tokenhub.domain import Policy
from tokenhub.errors import AllAttemptsFailed, ClientClosed, UpstreamRefused
from tokenhub.gateway import Relay
from tokenhub.gateway.relay import Pass

Make = Callable[..., World]
WHOLE = [delta("hello wo"), delta("rld!"), STOP, USAGE + DONE]


def drain(relay: Relay) -> bytes:
    """All of it, as the worker does it: iterate, then close."""
    try:
        return b"".join(relay)
    finally:
        relay.close()


def last_event(text: bytes) -> bytes:
    return text.strip().split(b"\n\n")[-1]


def test_a_stream_passes_through_and_leaves_an_opening_and_one_complete_row(make_world):
    world = make_world(a=[WHOLE])
    text = drain(world.stream())
    assert text == delta("hello wo") + delta("rld!") + STOP + DONE
    assert [kind for kind, _ in world.records] == [journal.OPENING, journal.END]
    assert world.records[0][1][0][6] == "interrupted"
    assert world.records[1][1][2] is True
    row = world.row
    assert row["stream"] is True
    assert (row["ending"], row["status_code"], row["attempt_count"]) == ("answered", 200, 1)
    assert (row["input_tokens"], row["output_tokens"], row["cost_nanousd"]) == (10, 5, 20)
    assert row["response_bytes"] == len(text)
    assert row["ttft_ms"] is not None
    assert world.attempts[0]["ttft_ms"] is not None
    assert world.failures == {"a": 0}


def test_the_usage_is_shown_to_a_caller_that_asked_for_it(make_world):
    world = make_world(a=[WHOLE])
    assert drain(world.stream(wants_usage=True)) == b"".join(WHOLE)


def test_the_end_of_a_stream_is_given_only_after_it_was_recorded(make_world):
    world = make_world(a=[WHOLE])
    relay = world.stream()
    for block in relay:
        has_ended = any(kind == journal.END for kind, _ in world.records)
        assert has_ended == block.endswith(DONE)
    relay.close()
    assert world.row["ending"] == "answered"


def test_a_stream_fails_over_until_its_first_event(make_world):
    error_first = event(error={"message": "busy", "code": 503})
    world = make_world(a=[fault()], b=[[error_first, DONE]], c=[[b": hi\n\n", *WHOLE]])
    text = drain(world.stream())
    assert text.endswith(DONE)
    assert world.adapter.asked == ["a", "b", "c"]
    assert (world.row["ending"], world.row["model_id"]) == ("rescued", "c")
    assert world.adapter.sources[0].is_closed
    assert world.failures == {"a": 1, "b": 1, "c": 0}


def test_a_stream_that_nobody_begins_is_an_error_with_a_row(make_world):
    world = make_world(a=[fault("first_byte_timeout")])
    with pytest.raises(AllAttemptsFailed):
        world.stream()
    assert (world.row["ending"], world.row["status_code"]) == ("failed", 504)


def test_a_refused_stream_is_an_error_with_a_row(make_world):
    stop = fault("client_error", next_step="stop", status=400, body=b"{}")
    world = make_world(a=[stop], b=[WHOLE])
    with pytest.raises(UpstreamRefused):
        world.stream()
    assert (world.row["ending"], world.adapter.asked) == ("refused", ["a"])


def test_a_stream_that_breaks_ends_with_an_error_event_and_is_billed(make_world):
    world = make_world(a=[[delta("12345678"), fault("stream_cut")]], b=[WHOLE])
    text = drain(world.stream())
    assert DONE not in text
    error = orjson.loads(last_event(text).removeprefix(b"data: "))["error"]
    assert error["code"] == "stream_cut"
    assert world.adapter.asked == ["a"]
    row = world.row
    assert (row["ending"], row["error_class"], row["status_code"]) == ("cut", "stream_cut", 200)
    assert (row["input_tokens"], row["output_tokens"]) == (PROMPT, 2)
    assert (row["cost_nanousd"], row["usage_is_estimate"]) == (PROMPT + 4, True)
    assert row["response_bytes"] == len(text)
    assert world.failures == {"a": 1}
    assert world.adapter.sources[0].is_closed


def test_an_error_event_in_midstream_is_told_in_our_words_and_ends_the_stream_in_order(make_world):
    broken = delta("good") + event(error={"message": "sk-secret words", "type": "server_error"})
    world = make_world(a=[[broken, DONE]])
    relay = world.stream()
    text = b"".join(relay)  # raises nothing: the connection can go on
    relay.close()
    assert text.startswith(delta("good"))
    assert b"secret" not in text
    assert DONE not in text
    assert (world.row["ending"], world.failures) == ("cut", {"a": 1})


@pytest.mark.parametrize("word", ["content_filter", "invalid_request_error"])
def test_a_refusal_in_midstream_is_not_held_against_the_model(make_world, word):
    world = make_world(a=[[delta("good"), event(error={"message": "no", "type": word})]])
    drain(world.stream())
    assert world.row["ending"] == "cut"
    assert world.failures == {}


def test_a_stream_without_an_end_mark_gets_one_if_it_was_finished(make_world):
    world = make_world(a=[[delta("hi"), STOP]])
    text = drain(world.stream())
    assert text == delta("hi") + STOP + DONE
    assert (world.row["ending"], world.row["response_bytes"]) == ("answered", len(text))


def test_a_stream_that_just_stops_is_cut(make_world):
    world = make_world(a=[[delta("hi")]])
    text = drain(world.stream())
    assert DONE not in text
    assert (world.row["ending"], world.row["error_class"]) == ("cut", "stream_cut")


def test_what_breaks_after_the_end_mark_is_missed_by_nobody(make_world):
    world = make_world(a=[[delta("hi"), STOP + DONE, event(error={"message": "late"})]])
    assert drain(world.stream()) == delta("hi") + STOP + DONE
    assert (world.row["ending"], world.failures) == ("answered", {"a": 0})


@pytest.mark.parametrize("blocks", [0, 1, 2])
def test_a_caller_that_leaves_is_billed_for_what_was_produced(make_world, blocks):
    world = make_world(a=[[delta("12345678")] * 4])
    relay = world.stream()
    for _ in range(blocks):
        next(relay)
    relay.close()
    relay.close()
    row = world.row
    assert (row["ending"], row["status_code"]) == ("client_closed", 200)
    assert (row["output_tokens"], row["cost_nanousd"]) == (2 * blocks, PROMPT + 4 * blocks)
    assert world.adapter.sources[0].is_closed
    assert world.failures == {}


@pytest.mark.parametrize(
    ("thrown", "ending", "error_class"),
    [
        (ClientClosed(), "client_closed", ""),
        (gevent.GreenletExit(), "interrupted", ""),
        (ZeroDivisionError(), "cut", "internal_error"),
    ],
)
def test_what_is_thrown_into_a_waiting_stream_ends_it_once(make_world, thrown, ending, error_class):
    world = make_world(a=[[delta("1234"), thrown]])
    with pytest.raises(type(thrown)):
        drain(world.stream())
    row = world.row
    assert (row["ending"], row["error_class"]) == (ending, error_class)
    assert row["output_tokens"] == 1
    assert world.failures == {}


def test_a_caller_that_leaves_before_the_first_event_is_recorded_once(make_world):
    world = make_world(a=[[ClientClosed()]])
    with pytest.raises(ClientClosed):
        world.stream()
    row = world.row
    assert (row["ending"], row["status_code"], row["cost_nanousd"]) == (
        "client_closed", 499, PROMPT,
    )  # fmt: skip


def test_a_caller_that_leaves_after_the_end_was_served(make_world):
    world = make_world(a=[[*WHOLE, ClientClosed()]])
    relay = world.stream()
    with pytest.raises(ClientClosed):
        drain(relay)
    assert world.row["ending"] == "answered"


def test_the_wait_for_a_provider_that_breaks_off_is_not_our_overhead(make_world):
    def wait_and_break() -> bytes:
        gevent.sleep(0.1)
        raise fault("stream_idle")

    world = make_world(a=[[delta("1234"), wait_and_break]])
    drain(world.stream())
    assert world.row["latency_ms"] >= 90
    assert world.row["overhead_us"] < 80_000


def test_a_stream_that_breaks_under_a_slow_reader_is_not_held_against_the_model(
    make_world, monkeypatch
):
    monkeypatch.setattr("tokenhub.gateway.exchange.SLOW_CLIENT_SECS", 0.01)
    world = make_world(a=[[delta("1234"), fault("total_deadline")]])
    relay = world.stream()
    next(relay)
    gevent.sleep(0.03)
    drain(relay)
    assert (world.row["ending"], world.failures) == ("cut", {})


def test_a_stream_that_ends_well_does_not_wake_a_model_that_has_been_told_to_rest_since(make_world):
    world = make_world(a=[WHOLE])
    relay = world.stream()
    next(relay)
    gevent.sleep(0.01)
    world.board.vitals.fail(
        "a", "p-a", "rate_limited", 0, cooldown_seconds=60, is_provider_wide=False
    )
    gevent.sleep(0.01)
    drain(relay)
    assert world.row["ending"] == "answered"
    assert "a" in world.board.vitals.view().cooling


@pytest.mark.parametrize("blocks", [1, 9])
def test_a_stream_whose_end_cannot_be_written_down_is_not_ended(make_world, monkeypatch, blocks):
    world = make_world(a=[WHOLE])
    relay = world.stream()

    def fail(*_: object) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(world.journal, "append", fail)
    seen = b""
    with pytest.raises(OSError, match="disk"):
        try:
            for _, block in zip(range(blocks), relay, strict=False):
                seen += block
        finally:
            relay.close()
    relay.close()
    assert DONE not in seen
    assert world.adapter.sources[0].is_closed
    assert world.board.in_flight == 0
    assert world.journal._admitted == 0


def test_a_bug_while_billing_still_leaves_a_row(make_world, monkeypatch):
    world = make_world(a=[WHOLE])
    relay = world.stream()
    monkeypatch.setattr("tokenhub.gateway.ledger.cost_of", lambda *_: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        drain(relay)
    assert world.row["status_code"] == 200


def test_an_opened_stream_whose_answer_cannot_be_built_is_closed_and_recorded(make_world):
    world = make_world(a=[WHOLE])
    with pytest.raises(ZeroDivisionError), world.begin() as exchange:
        exchange.stream(make_request(stream=True), Policy())
        raise ZeroDivisionError
    assert (world.row["ending"], world.row["error_class"]) == ("failed", "internal_error")
    assert world.adapter.sources[0].is_closed


def test_a_stream_that_cannot_be_handed_on_is_closed_and_booked(make_world):
    world = make_world(a=[WHOLE])
    stages = cast(Sequence[Pass], (1 // 0 for _ in "1"))
    with pytest.raises(ZeroDivisionError), world.begin() as exchange:
        exchange.stream(make_request(stream=True), Policy(), stages)
    [source] = world.adapter.sources
    assert source.is_closed
    assert (world.row["ending"], world.row["error_class"]) == ("failed", "internal_error")
    assert [each["error_class"] for each in world.attempts] == ["internal_error"]

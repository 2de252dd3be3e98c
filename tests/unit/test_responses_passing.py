"""Responses that pass through: followed at little cost, and left as they came."""

from __future__ import annotations

from typing import Any

import openai
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.responses_kit import RESPONSES, USER, checked, chunk, client, ending, read
from tokenhub.dialects.openai import UNREAD_BYTES_MAX
from tokenhub.dialects.responses import passing
from tokenhub.dialects.sse import events
from tokenhub.errors import ProviderError

USED = {
    "input_tokens": 9, "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
    "output_tokens": 5, "output_tokens_details": {"reasoning_tokens": 3}, "total_tokens": 14,
}  # fmt: skip
RAW = RESPONSES.translator(read(stream=True)).feed(
    chunk({"content": 'he said "usage":1'}) + chunk({"content": "!" * 7}) + ending()
)


def event(kind: str, **fields: Any) -> bytes:
    told = orjson.dumps({"type": kind, "sequence_number": 0, **fields})
    return b"event: " + kind.encode() + b"\ndata: " + told + b"\n\n"


def followed(*blocks: bytes) -> passing.StreamMeter:
    meter = passing.StreamMeter(split=events)
    for block in blocks:
        assert meter.pass_on(block) is block
    assert meter.finish() == b""
    return meter


@given(st.integers(0, len(checked(RAW))))
def test_a_stream_is_followed_however_it_is_cut(at):
    each = [raw for raw, _ in events(RAW)]
    meter = followed(b"".join(each[:at]), b"".join(each[at:]))
    assert meter.usage is not None
    assert (meter.usage.input_tokens, meter.usage.cache_read_tokens) == (9, 4)
    assert meter.finish_reason == "stop"
    assert meter.output_tokens == 6  # 24 bytes


def test_a_stream_that_breaks_off_is_estimated():
    meter = followed(*[event("response.output_text.delta", delta="1234")] * 3)
    assert (meter.usage, meter.finish_reason, meter.output_tokens) == (None, None, 3)


def test_a_long_stream_is_not_kept():
    block = event("response.output_text.delta", delta="x" * 4000)
    meter = followed(*[block] * 20)
    assert meter._unread_bytes <= UNREAD_BYTES_MAX
    assert meter.output_tokens == 20000


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ({"status": "completed", "usage": None}, "stop"),
        ({"status": "incomplete", "usage": None,
          "incomplete_details": {"reason": "max_output_tokens"}}, "length"),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}},
         "content_filter"),
        ({"status": "incomplete", "incomplete_details": None}, "stop"),
    ],
)  # fmt: skip
def test_the_last_event_says_why_it_ended(response, reason):
    kind = f"response.{response['status']}"
    assert followed(event(kind, response=response)).finish_reason == reason
    padded = event(kind, response={**response, "usage": USED})
    assert followed(event("response.created", response={}) + padded).finish_reason == reason


def test_usage_is_said_in_our_words():
    usage = passing.usage_of({"usage": USED})
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.reasoning_tokens) == (9, 5, 3)
    assert (usage.cache_read_tokens, usage.cache_write_tokens) == (4, 2)
    for nothing in ({}, {"usage": None}, {"usage": 7}, {"usage": {"input_tokens": 0}}):
        assert passing.usage_of(nothing) is None


@pytest.mark.parametrize("kind", passing.ENDS)
def test_a_stream_ends_with_a_whole_response(kind):
    long = {"metadata": {"a": "x" * 99}}
    last = event(kind, response=long)
    assert passing.ends_stream((event("response.in_progress", response={}) + last).rstrip())
    assert passing.ends_stream(last.replace(b"\n", b"\r\n").rstrip())
    assert passing.ends_stream(last.partition(b"\n")[2].rstrip())
    assert not passing.ends_stream((last + event("response.other")).rstrip())
    assert not passing.ends_stream(event("response.output_text.delta", delta=kind).rstrip())


def test_what_only_opens_a_stream():
    told = checked(RAW)
    opening = [passing.opens_stream(orjson.dumps(each)) for each in told]
    assert opening == [True] * 4 + [False] * (len(told) - 4)
    assert not passing.opens_stream(b"[]")


@pytest.mark.parametrize(
    ("payload", "is_error"),
    [
        ({"output": [], "error": None}, False),
        ({"error": {"message": "x"}}, True),
        ({"object": "error", "message": "x"}, True),
        ({"type": "error", "message": "x"}, True),
        ({"type": "response.failed"}, True),
        ({"type": "response.created", "response": {"error": None}}, False),
    ],
)
def test_errors_are_told_from_answers(payload, is_error):
    assert passing.reports_error(payload) is is_error
    assert passing.is_answer(payload) is ("output" in payload)


def test_the_error_of_a_failed_response_is_found():
    error = {"code": "rate_limit_exceeded", "message": "slow down"}
    failed = orjson.dumps({"type": "response.failed", "response": {"error": error}})
    assert orjson.loads(passing.failure_in(failed)) == {"error": error}
    bare = orjson.dumps({"type": "response.failed", "response": {}})
    assert orjson.loads(passing.failure_in(bare))["error"]["message"]
    assert passing.failure_in(b'{"type":"error"}') == b'{"type":"error"}'


def test_thoughts_of_ours_are_not_sent_to_who_does_not_know_them():
    ours = RESPONSES.answer({"choices": [{"message": {"reasoning": "hm"}}]}, read())["output"]
    theirs = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"}
    seen = {"type": "reasoning", "id": "rs_2", "summary": [],
            "content": [{"type": "reasoning_text", "text": "hm"}]}  # fmt: skip
    kept, dropped = passing.without_unknown({"input": [theirs, *ours, seen]})
    assert kept == {"input": [theirs, seen]}
    assert dropped == ("input.reasoning",)
    for same in ({"input": "hi"}, {"input": [theirs]}):
        assert passing.without_unknown(same) == (same, ())


@pytest.mark.parametrize("empty", [
    {"id": "rs_1", "summary": []}, {"summary": [], "encrypted_content": None}, {"content": []},
])  # fmt: skip
def test_thoughts_that_are_only_named_are_not_sent_as_nothing_was_stored(empty):
    body = {"input": [{"type": "reasoning", **empty}, USER]}
    assert passing.without_unknown(body) == ({"input": [USER]}, ("input.reasoning",))


def test_a_broken_stream_ends_with_an_event_that_the_sdk_raises():
    raw = passing.StreamMeter(split=events).fail(ProviderError("x", error_class="stream_cut"))
    checked(raw)
    with pytest.raises(openai.APIError, match="broke off"):
        list(client(raw).responses.create(model="m", input="hi", stream=True))


@given(st.integers(0, len(checked(RAW))))
def test_the_event_that_ends_a_broken_stream_is_numbered_like_those_before_it(at):
    before = [raw for raw, _ in events(RAW)][:at]
    meter = followed(*before)
    meter.pass_on(b": ping\n\n")
    checked(b"".join(before) + meter.fail(ProviderError("x", error_class="stream_cut")))

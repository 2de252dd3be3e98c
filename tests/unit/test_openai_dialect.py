"""Requests are parsed once and refused by field; streams are metered on their way through."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenhub.dialects import openai as dialect
from tokenhub.errors import InvalidRequest

MESSAGES = [{"role": "user", "content": "hi"}]


def body(**fields) -> bytes:
    return orjson.dumps({"model": "m", "messages": MESSAGES, **fields})


def event(**chunk) -> tuple[bytes, bytes]:
    data = orjson.dumps(chunk)
    return b"data: " + data + b"\n\n", data


def delta(text: str, **choice) -> tuple[bytes, bytes]:
    return event(choices=[{"index": 0, "delta": {"content": text}, **choice}])


def test_unknown_fields_are_kept():
    request = dialect.read_request(body(seed=7, vendor_field={"deep": [1, None]}))
    assert request.body["vendor_field"] == {"deep": [1, None]}
    assert request.model == "m"


def test_the_newer_output_limit_wins():
    request = dialect.read_request(body(max_tokens=5, max_completion_tokens=9, n=2))
    assert (request.output_tokens_max, request.choices) == (9, 2)


@pytest.mark.parametrize(
    ("raw", "param"),
    [
        (b"", None),
        (b"[]", None),
        (b"{", None),
        (b'{"messages": []}', "messages"),
        (b'{"messages": "hi"}', "messages"),
        (b'{"messages": [1]}', "messages[0]"),
        (b'{"messages": [{"role": "boss", "content": ""}]}', "messages[0].role"),
        (b'{"messages": [{"role": "user", "content": 4}]}', "messages[0].content"),
        (body(model=4), "model"),
        (body(stream="yes"), "stream"),
        (body(stream_options=[]), "stream_options"),
        (body(max_tokens=0), "max_tokens"),
        (body(max_tokens=1.5), "max_tokens"),
        (body(max_tokens=True), "max_tokens"),
        (body(n=0), "n"),
    ],
)
def test_a_bad_request_is_refused_by_field(raw, param):
    with pytest.raises(InvalidRequest) as refused:
        dialect.read_request(raw)
    assert refused.value.param == param


@pytest.mark.parametrize(
    "raw",
    [
        b'{"model":"a","model":"b","messages":[{"role":"user","content":"x"}]}',
        b'{"model":"a","messages":[{"role":"user","content":"x","role":"system"}]}',
        b'{"model" :"a", "model": "b","messages":[{"role":"user","content":"x"}]}',
    ],
)
def test_a_key_that_appears_twice_is_refused(raw):
    with pytest.raises(InvalidRequest) as refused:
        dialect.read_request(raw)
    assert refused.value.code == "duplicate_key"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), json_values, max_size=5), st.booleans())
def test_any_object_without_duplicates_is_accepted_however_it_is_spaced(value, spaced):
    raw = orjson.dumps(value, option=orjson.OPT_INDENT_2 if spaced else 0)
    assert dialect.parse_object(raw) == value


def test_usage_is_counted_and_hidden_when_the_caller_did_not_ask():
    meter = dialect.StreamMeter(hide_usage=True)
    usage = event(choices=[], usage={"prompt_tokens": 3, "completion_tokens": 5})
    block = [
        delta("abcdefgh"),
        delta("", finish_reason="stop"),
        usage,
        (b"data: [DONE]\n\n", b"[DONE]"),
    ]
    assert meter.feed(block)
    assert meter.visible(block) == block[0][0] + block[1][0] + block[3][0]
    assert meter.is_done
    assert meter.finish_reason == "stop"
    found = dialect.usage_of(meter.usage_payload)
    assert (found.input_tokens, found.output_tokens) == (3, 5)


def test_usage_that_was_asked_for_passes():
    meter = dialect.StreamMeter(hide_usage=False)
    assert not meter.feed([event(choices=[], usage={"prompt_tokens": 3, "completion_tokens": 5})])


def test_what_was_produced_is_estimated_from_text_reasoning_and_tool_calls():
    meter = dialect.StreamMeter(hide_usage=True)
    call = {"index": 0, "function": {"name": "find", "arguments": '{"a":1}'}}
    meter.feed([
        delta("12345678"),
        event(choices=[{"index": 0, "delta": {"reasoning_content": "1234"}}]),
        event(choices=[{"index": 0, "delta": {"tool_calls": [call]}}]),
    ])  # fmt: skip
    assert meter.output_tokens() == -(-(8 + 4 + 4 + 7) // 4)


@given(st.lists(json_values))
def test_no_event_whatever_it_holds_breaks_the_meter(values):
    meter = dialect.StreamMeter(hide_usage=True)
    meter.feed([event(choices=[value], usage=value) for value in values])
    meter.feed([(b"data: x\n\n", b"x"), (b":\n\n", b"")])
    assert meter.output_tokens() >= 0


@pytest.mark.parametrize(
    "usage", [None, [], "x", {}, {"prompt_tokens": None}, {"prompt_tokens": -4}]
)
def test_a_usage_that_says_nothing_is_none(usage):
    assert dialect.usage_of({"usage": usage}) is None


def test_cached_and_reasoning_tokens_are_part_of_their_sums():
    found = dialect.usage_of({"usage": {
        "prompt_tokens": 10.0, "completion_tokens": 6,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }})  # fmt: skip
    assert (found.input_tokens, found.cache_read_tokens) == (10, 4)
    assert (found.output_tokens, found.reasoning_tokens) == (6, 2)

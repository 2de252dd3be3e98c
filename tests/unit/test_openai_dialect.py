"""Requests are parsed once and refused by field; streams are metered on their way through."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenhub.dialects import openai as dialect
from tokenhub.dialects.sse import events
from tokenhub.domain import Usage
from tokenhub.errors import InvalidRequest

MESSAGES = [{"role": "user", "content": "hi"}]


def body(**fields) -> bytes:
    return orjson.dumps({"model": "m", "messages": MESSAGES, **fields})


def event(**chunk) -> bytes:
    return b"data: " + orjson.dumps(chunk) + b"\n\n"


def delta(text: str, **choice) -> bytes:
    return event(choices=[{"index": 0, "delta": {"content": text}, **choice}])


def test_unknown_fields_are_kept():
    request = dialect.read_request(body(seed=7, vendor_field={"deep": [1, None]}))
    assert request.body["vendor_field"] == {"deep": [1, None]}
    assert request.model == "m"


def test_calls_of_which_there_are_none_are_left_out():
    """vLLM puts an empty array into every answer, and OpenAI takes none back."""
    said = {"role": "assistant", "content": "yes", "tool_calls": []}
    request = dialect.read_request(body(messages=[*MESSAGES, said, *MESSAGES]))
    assert request.body["messages"][1] == {"role": "assistant", "content": "yes"}


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ({}, {"max_completion_tokens": 7}),
        ({"max_tokens": 50}, {"max_tokens": 7}),
        ({"max_tokens": None}, {"max_tokens": None, "max_completion_tokens": 7}),
        ({"max_completion_tokens": 50}, {"max_completion_tokens": 7}),
    ],
)
def test_a_limit_is_set_in_the_caller_s_word_or_in_that_which_every_model_knows(given_, expected):
    body = {"model": "gpt-5", "messages": [{"role": "user", "content": "hi"}]}
    limited = dialect.with_output_limit(dialect.read_request(orjson.dumps({**body, **given_})), 7)
    assert (limited.body, limited.output_tokens_max) == ({**body, **expected}, 7)
    assert dialect.read_request(orjson.dumps(limited.body)).output_tokens_max == 7


def test_the_newer_output_limit_wins():
    request = dialect.read_request(body(max_tokens=5, max_completion_tokens=9, n=2))
    assert (request.output_tokens_max, request.choices) == (9, 2)


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
TEXT = {"type": "text", "text": "What is this? An image_url?"}
TOOL = {"type": "function", "function": {"name": "f"}}


def said(*parts) -> list[object]:
    return [*MESSAGES, {"role": "user", "content": list(parts)}, *MESSAGES]


@pytest.mark.parametrize(
    ("fields", "needs"),
    [
        ({}, set()),
        ({"messages": said(TEXT)}, set()),
        ({"messages": said(TEXT, IMAGE)}, {"vision"}),
        ({"messages": said(1, None, "image_url", [])}, set()),
        ({"tools": [TOOL]}, {"tools"}),
        ({"functions": [{"name": "f"}]}, {"tools"}),
        ({"tools": [], "functions": None}, set()),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, {"json"}),
        ({"response_format": {"type": "json_object"}}, {"json"}),
        ({"response_format": {"type": "text"}}, set()),
        ({"response_format": {"type": []}}, set()),
        ({"response_format": "json_object"}, set()),
        ({"messages": said(IMAGE), "tools": [TOOL], "response_format": {"type": "json_object"}},
         {"vision", "tools", "json"}),
    ],
)  # fmt: skip
def test_what_a_request_needs_is_read_from_it(fields, needs):
    assert dialect.read_request(body(**fields)).needs == needs


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


def test_a_body_nested_too_deeply_is_refused():
    raw = b'{"messages":' + b"[" * 600 + b"]" * 600 + b"}"
    with pytest.raises(InvalidRequest):
        dialect.parse_object(raw)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), json_values, max_size=5), st.booleans())
def test_any_object_without_duplicates_is_accepted_however_it_is_spaced(value, spaced):
    raw = orjson.dumps(value, option=orjson.OPT_INDENT_2 if spaced else 0)
    assert dialect.parse_object(raw) == value


def make_meter(*, hide_usage: bool = True) -> dialect.StreamMeter:
    return dialect.StreamMeter(split=events, hide_usage=hide_usage)


USAGE = event(choices=[], usage={"prompt_tokens": 3, "completion_tokens": 5})
DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
def test_usage_is_counted_and_hidden_when_the_caller_did_not_ask(end):
    before = delta("abcdefgh") + delta("", finish_reason="stop")
    before, usage, done = (part.replace(b"\n\n", end) for part in (before, USAGE, DONE))
    meter = make_meter()
    assert meter.pass_on(before + usage + done) == before + done
    assert meter.finish_reason == "stop"
    assert meter.usage == Usage(3, 5)


def test_usage_that_was_asked_for_passes():
    assert make_meter(hide_usage=False).pass_on(USAGE + DONE) == USAGE + DONE


def test_a_usage_beside_a_choice_is_counted_and_passes():
    meter = make_meter()
    chunk = event(choices=[{"delta": {"content": "x"}}], usage={"prompt_tokens": 1})
    assert meter.pass_on(chunk) == chunk
    assert meter.usage == Usage(1)


def test_an_empty_usage_in_every_chunk_hides_nothing():
    chunk = event(choices=[{"delta": {"content": "x"}}], usage=None)
    assert make_meter().pass_on(chunk + chunk) == chunk + chunk


def test_what_was_produced_is_estimated_from_text_reasoning_and_tool_calls():
    meter = make_meter()
    call = {"index": 0, "function": {"name": "find", "arguments": '{"a":1}'}}
    meter.pass_on(delta("12345678"))
    meter.pass_on(event(choices=[{"index": 0, "delta": {"reasoning_content": "1234"}}]))
    meter.pass_on(event(choices=[{"index": 0, "delta": {"tool_calls": [call]}}]))
    assert meter.output_tokens == -(-(8 + 4 + 4 + 7) // 4)


def test_a_long_stream_is_counted_whole_though_little_of_it_is_kept():
    meter = make_meter()
    for _ in range(1000):
        meter.pass_on(delta("x" * 400))
    assert meter.output_tokens == 100_000
    assert meter._unread_bytes <= dialect.UNREAD_BYTES_MAX


@given(st.lists(json_values))
def test_no_event_whatever_it_holds_breaks_the_meter(values):
    meter = make_meter()
    for value in values:
        meter.pass_on(event(choices=[value], usage=value) + event(choices=value))
    meter.pass_on(b"data: x\n\n:\n\n")
    assert meter.output_tokens >= 0


@pytest.mark.parametrize(
    "usage", [None, [], "x", {}, {"prompt_tokens": None}, {"prompt_tokens": -4}]
)
def test_a_usage_that_says_nothing_is_none(usage):
    assert dialect.usage_of({"usage": usage}) is None


def test_cached_and_reasoning_tokens_are_part_of_their_sums():
    found = dialect.usage_of({"usage": {
        "prompt_tokens": 10.0, "completion_tokens": 6,
        "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 9},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }})  # fmt: skip
    assert found == Usage(10, 6, cache_read_tokens=4, cache_write_tokens=6, reasoning_tokens=2)


def test_reasoning_that_was_counted_beside_the_completion_is_added():
    found = dialect.usage_of({"usage": {
        "prompt_tokens": 10, "completion_tokens": 6, "total_tokens": 20,
        "completion_tokens_details": {"reasoning_tokens": 4},
    }})  # fmt: skip
    assert found == Usage(10, 10, reasoning_tokens=4)


@pytest.mark.parametrize("count", [2**53 - 1, 2**31 + 1, 1e15, -1, "7", None, True])
def test_a_count_of_tokens_that_cannot_be_is_not_believed(count):
    usage = dialect.usage_of({"usage": {"prompt_tokens": 3, "completion_tokens": count}})
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (3, 0)


@pytest.mark.parametrize(
    ("chunk", "opens"),
    [
        ({"choices": [{"delta": {"role": "assistant", "content": "", "refusal": None}}]}, True),
        ({"choices": [], "prompt_filter_results": [{"prompt_index": 0}]}, True),
        ({"choices": [{"delta": {"role": "assistant", "content": "a"}}]}, False),
        ({"choices": [{"delta": {}}, {"delta": {"reasoning": "a"}}]}, False),
        ({"choices": [{"delta": {"tool_calls": [{"index": 0}]}}]}, False),
        ({"choices": [{"delta": {}, "finish_reason": "stop"}]}, False),
        ({"choices": [{"delta": None}]}, False),
        ({"choices": [7]}, False),
        ({"choices": [], "usage": {"prompt_tokens": 1}}, False),
        ({"choices": None}, False),
        ({}, False),
    ],
)
def test_what_only_opens_a_stream_says_nothing(chunk, opens):
    assert dialect.opens_stream(orjson.dumps(chunk)) is opens
    assert not dialect.opens_stream(b"[DONE]")

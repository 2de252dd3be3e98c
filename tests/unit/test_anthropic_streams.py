"""Anthropic's events become OpenAI's chunks, cut anywhere, and say what a whole answer says."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.lib.streaming._deltas import accumulate_delta
from openai.types.chat import ChatCompletionChunk

from tokenhub.dialects.anthropic.answers import arguments_of, to_chat_completion
from tokenhub.dialects.anthropic.streams import ChatStreamMeter, ends_stream, opens_stream
from tokenhub.dialects.anthropic.usage import usage_of
from tokenhub.dialects.sse import EventBuffer, events
from tokenhub.domain import Usage

CREATED = 1_700_000_000
DONE = b"data: [DONE]\n\n"
PING = b'event: ping\ndata: {"type": "ping"}\n\n'


def event(type: str, **fields: Any) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (type.encode(), orjson.dumps({"type": type, **fields}))


def delta(index: int, type: str, **fields: Any) -> bytes:
    return event("content_block_delta", index=index, delta={"type": type, **fields})


def opened(index: int, type: str, **fields: Any) -> bytes:
    return event("content_block_start", index=index, content_block={"type": type, **fields})


def closed(index: int) -> bytes:
    return event("content_block_stop", index=index)


def start(**usage: Any) -> bytes:
    message: dict[str, Any] = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "content": [],
        "stop_reason": None, "usage": usage or {"input_tokens": 10},
    }  # fmt: skip
    return event("message_start", message=message)


def stop(reason: str = "end_turn", tokens: int | None = 6, **more: Any) -> bytes:
    usage = {} if tokens is None else {"usage": {"output_tokens": tokens}}
    return event("message_delta", delta={"stop_reason": reason, **more}, **usage)


END = event("message_stop")


def make_meter(*, wants_usage: bool = False) -> ChatStreamMeter:
    return ChatStreamMeter(split=events, wants_usage=wants_usage, created_at_secs=CREATED)


def chunks(out: bytes) -> list[dict[str, Any]]:
    """The chunks of a stream that has ended well, each as OpenAI's SDK accepts it."""
    found = [orjson.loads(data) for _, data in events(out.removesuffix(DONE))]
    for chunk in found:
        ChatCompletionChunk.model_validate(chunk, strict=True)
    return found


def deltas(out: bytes) -> list[dict[str, Any]]:
    return [chunk["choices"][0]["delta"] for chunk in chunks(out) if chunk["choices"]]


def test_text_is_passed_on_piece_by_piece():
    meter = make_meter()
    assert deltas(meter.pass_on(start())) == [{"role": "assistant", "content": "", "refusal": None}]
    assert meter.pass_on(opened(0, "text", text="") + PING) == b""
    out = meter.pass_on(delta(0, "text_delta", text='Hé"') + delta(0, "text_delta", text="llo"))
    assert deltas(out) == [{"content": 'Hé"'}, {"content": "llo"}]
    assert chunks(out)[0] == {
        "id": "chatcmpl-msg_1",
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": "claude-x",
        "choices": [
            {"index": 0, "delta": {"content": 'Hé"'}, "logprobs": None, "finish_reason": None}
        ],
    }
    out = meter.pass_on(closed(0) + stop())
    assert chunks(out)[0]["choices"][0] == {
        "index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop",
    }  # fmt: skip
    assert meter.finish_reason == "stop"
    assert meter.pass_on(END) == DONE
    assert meter.finish() == b""


def test_usage_comes_last_and_is_null_before_if_it_was_asked_for():
    out = make_meter(wants_usage=True).pass_on(
        start(input_tokens=5, cache_read_input_tokens=7, output_tokens=1)
        + delta(0, "text_delta", text="x") + stop() + END
    )  # fmt: skip
    found = chunks(out)
    assert [chunk["usage"] for chunk in found[:-1]] == [None] * 3
    assert found[-1]["choices"] == []
    assert found[-1]["usage"]["prompt_tokens"] == 12
    assert found[-1]["usage"]["total_tokens"] == 18
    assert out.endswith(DONE)


def test_calls_are_numbered_and_their_arguments_come_in_pieces():
    out = make_meter().pass_on(
        start()
        + opened(0, "text", text="") + delta(0, "text_delta", text="a") + closed(0)
        + opened(1, "tool_use", id="toolu_1", name="f", input={})
        + delta(1, "input_json_delta", partial_json="")
        + delta(1, "input_json_delta", partial_json='{"n": 1234567890')
        + delta(1, "input_json_delta", partial_json="1234567890}")
        + closed(1)
        + opened(2, "tool_use", id="toolu_2", name="g", input={}) + closed(2)
        + opened(3, "tool_use", id="toolu_3", name="h", input={"a": 1}) + closed(3)
        + stop("tool_use")
    )  # fmt: skip
    calls = [delta["tool_calls"][0] for delta in deltas(out) if "tool_calls" in delta]
    assert calls[:3] == [
        {"index": 0, "id": "call_toolu_1", "type": "function",
         "function": {"name": "f", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"n": 1234567890'}},
        {"index": 0, "function": {"arguments": "1234567890}"}},
    ]  # fmt: skip
    assert [(each["index"], each["function"]["arguments"]) for each in calls[3:]] == [
        (1, ""), (1, "{}"), (2, ""), (2, '{"a":1}'),
    ]  # fmt: skip
    assert chunks(out)[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_thoughts_come_as_text_and_whole_once_they_are_signed():
    out = make_meter().pass_on(
        start()
        + opened(0, "thinking", thinking="", signature="")
        + delta(0, "thinking_delta", thinking="h") + delta(0, "thinking_delta", thinking="m")
        + delta(0, "signature_delta", signature="s1") + delta(0, "signature_delta", signature="s2")
        + closed(0)
        + opened(1, "redacted_thinking", data="zz") + closed(1)
        + opened(2, "thinking", thinking="", signature="") + closed(2)
    )  # fmt: skip
    assert deltas(out)[1:] == [
        {"reasoning_content": "h"},
        {"reasoning_content": "m"},
        {"thinking_blocks": [
            {"index": 0, "type": "thinking", "thinking": "hm", "signature": "s1s2"}]},
        {"thinking_blocks": [{"index": 1, "type": "redacted_thinking", "data": "zz"}]},
    ]  # fmt: skip


def test_a_refusal_is_told_before_its_reason():
    out = make_meter().pass_on(start() + stop("refusal", stop_details={"explanation": "No."}))
    assert deltas(out)[1:] == [{"refusal": "No."}, {}]
    assert chunks(out)[-1]["choices"][0]["finish_reason"] == "content_filter"


def test_the_providers_own_tools_are_left_out():
    meter = make_meter()
    meter.pass_on(start())
    assert meter.pass_on(
        opened(0, "server_tool_use", id="x", name="web_search", input={})
        + delta(0, "input_json_delta", partial_json='{"q": 1}') + closed(0)
        + opened(1, "web_search_tool_result", content=[]) + closed(1)
        + delta(2, "citations_delta", citation={}) + event("something_new")
    ) == b""  # fmt: skip


def test_a_stream_that_lacks_only_its_last_event_is_ended():
    meter = make_meter(wants_usage=True)
    meter.pass_on(start() + stop())
    rest = meter.finish()
    assert rest.endswith(DONE)
    assert chunks(rest)[0]["usage"]["completion_tokens"] == 6
    assert meter.finish() == b""


def test_an_end_without_a_reason_is_an_end():
    out = make_meter().pass_on(start() + END)
    assert chunks(out)[-1]["choices"][0]["finish_reason"] == "stop"


def test_a_stream_that_was_cut_is_billed_by_what_was_produced():
    meter = make_meter()
    assert (meter.usage, meter.output_tokens) == (None, 0)
    meter.pass_on(start(input_tokens=10, cache_creation_input_tokens=5, output_tokens=1))
    for kind in ("text_delta", "thinking_delta"):
        meter.pass_on(opened(0, kind.removesuffix("_delta"), **{kind[:-6]: ""}))
        meter.pass_on(delta(0, kind, **{kind[:-6]: "1234567é"}))
    meter.pass_on(opened(1, "tool_use", id="x", name="find", input={}))
    meter.pass_on(delta(1, "input_json_delta", partial_json='{"a":1}'))
    assert meter.output_tokens == -(-(9 + 9 + 4 + 7) // 4)
    assert meter.finish_reason is None
    assert meter.usage == Usage(15, 8, cache_write_tokens=5, is_estimate=True)


def test_what_is_said_last_of_usage_counts_and_what_is_not_said_again_stands():
    meter = make_meter()
    meter.pass_on(start(input_tokens=10, cache_read_input_tokens=4, output_tokens=1))
    last = {"output_tokens": 9, "input_tokens": 12, "cache_read_input_tokens": None}
    meter.pass_on(event("message_delta", delta={"stop_reason": "end_turn"}, usage=last))
    assert meter.usage == Usage(16, 9, cache_read_tokens=4)


def test_the_usage_of_a_stream_counts_as_told_only_with_its_output():
    text = delta(0, "text_delta", text="x" * 400)
    silent = event("message_delta", delta={"stop_reason": "end_turn"}, usage={})
    early = event("message_delta", delta={"stop_reason": None}, usage={"output_tokens": 3})
    for middle in (text + silent, early + text):
        meter = make_meter()
        meter.pass_on(start(input_tokens=10, output_tokens=1) + middle)
        assert meter.usage == Usage(10, 100, is_estimate=True)
    meter.pass_on(stop(tokens=90) + END)
    assert meter.usage == Usage(10, 90)


def test_an_input_of_nothing_at_the_end_is_not_believed():
    meter = make_meter()
    end = event(
        "message_delta", delta={"stop_reason": "end_turn"},
        usage={"input_tokens": 0, "output_tokens": 7},
    )  # fmt: skip
    meter.pass_on(start(input_tokens=10, output_tokens=0) + end + END)
    assert meter.usage == Usage(10, 7)


def test_a_call_that_is_never_closed_has_arguments_all_the_same():
    out = make_meter().pass_on(
        start() + opened(0, "tool_use", id="toolu_1", name="f", input={}) + stop("tool_use") + END
    )
    calls = [delta["tool_calls"][0] for delta in deltas(out) if "tool_calls" in delta]
    assert [call["function"]["arguments"] for call in calls] == ["", "{}"]
    assert chunks(out)[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_nobody_is_told_to_wait_for_calls_that_are_not_there():
    out = make_meter().pass_on(start() + stop("tool_use") + END)
    assert chunks(out)[-1]["choices"][0]["finish_reason"] == "stop"


def test_an_input_nested_beyond_reason_breaks_nothing():
    deep = b'{"a":' * 1000 + b"1" + b"}" * 1000
    block = opened(0, "tool_use", id="toolu_1", name="f", input={}).replace(b"{}", deep)
    out = make_meter().pass_on(start() + block + closed(0) + stop("tool_use") + END)
    assert out.endswith(DONE)


@pytest.mark.parametrize(
    ("data", "opens"),
    [
        (b'{"type":"message_start","message":{}}', True),
        (b'{"type": "ping"}', True),
        (b'{"type":"content_block_start","index":0,"content_block":{"type":"text"}}', True),
        (b'{"type":"content_block_delta"}', False),
        (b'{"type":"message_stop"}', False),
        (b'{"type":["ping"]}', False),
        (b"[]", False),
        (b"{", False),
    ],
)
def test_what_only_opens_a_stream_is_known_by_its_type(data, opens):
    assert opens_stream(data) is opens


@pytest.mark.parametrize(
    ("tail", "is_end"),
    [
        (END.rstrip(), True),
        (b'event: message_stop\ndata: {"type": "message_stop"}', True),
        (b'data: {"type":"message_stop"          }', True),
        (b'data: {"type":"message_stop", "more": 1}', True),
        (delta(0, "text_delta", text='{"type":"message_stop"}').rstrip()[-64:], False),
        (opened(0, "tool_use", input={"type": "message_stop"}).rstrip()[-64:], False),
        (PING.rstrip(), False),
        (b"", False),
    ],
)
def test_the_end_is_known_by_its_last_event(tail, is_end):
    assert ends_stream(tail) is is_end


texts = st.text(max_size=12)
inputs = st.dictionaries(texts, st.none() | st.integers() | texts | st.lists(texts), max_size=3)
blocks = st.one_of(
    st.fixed_dictionaries({"type": st.just("text"), "text": texts}),
    st.fixed_dictionaries({"type": st.just("thinking"), "thinking": texts, "signature": texts}),
    st.fixed_dictionaries({"type": st.just("redacted_thinking"), "data": texts}),
    st.fixed_dictionaries({"type": st.just("tool_use"), "id": texts, "name": texts,
                           "input": inputs}),
)  # fmt: skip
wholes = st.fixed_dictionaries({
    "id": texts, "model": texts, "content": st.lists(blocks, max_size=4),
    "stop_reason": st.sampled_from(
        ["end_turn", "max_tokens", "tool_use", "refusal", "pause_turn", "stop_sequence", "new"]),
    "usage": st.fixed_dictionaries({
        "input_tokens": st.integers(1, 99), "output_tokens": st.integers(1, 99),
        "cache_read_input_tokens": st.none() | st.integers(0, 99),
        "service_tier": st.sampled_from(["standard", "priority", None]),
    }),
})  # fmt: skip


def streamed(message: dict[str, Any], cut: int) -> bytes:
    """The same message as events, its texts in pieces of `cut` characters."""
    kinds = {"text": ("text", "text_delta"), "thinking": ("thinking", "thinking_delta")}
    usage = {**message["usage"], "output_tokens": 1}
    out = event("message_start", message={**message, "content": [], "usage": usage}) + PING
    for index, block in enumerate(message["content"]):
        kind = block["type"]
        name, piece = kinds.get(kind, ("partial_json", "input_json_delta"))
        told = arguments_of(block) if kind == "tool_use" else block.get(name, "")
        start_of: dict[str, dict[str, Any]] = {
            "tool_use": {"input": {}}, "redacted_thinking": {},
            "text": {"text": ""}, "thinking": {"thinking": "", "signature": ""},
        }  # fmt: skip
        out += opened(index, **{**block, **start_of[kind]})
        for at in range(0, len(told), cut):
            out += delta(index, piece, **{name: told[at : at + cut]})
        if name == "thinking":
            out += delta(index, "signature_delta", signature=block["signature"])
        out += closed(index)
    return out + stop(message["stop_reason"], message["usage"]["output_tokens"]) + END


def gathered(out: bytes) -> dict[str, Any]:
    """A stream's chunks put together as OpenAI's SDK does it, in the form of a whole answer."""
    found = chunks(out)
    usage, last = found.pop(), found[-1]
    message: dict[Any, Any] = {}
    for chunk in found:
        accumulate_delta(message, chunk["choices"][0]["delta"])
    message["content"] = message["content"] or None
    for each in message.get("thinking_blocks", ()), message.get("tool_calls", ()):
        for entry in each:
            del entry["index"]
    choice = {"index": 0, "message": message, "logprobs": None,
              "finish_reason": last["choices"][0]["finish_reason"]}  # fmt: skip
    return {**usage, "object": "chat.completion", "choices": [choice]}


@settings(max_examples=100, deadline=None)
@given(wholes, st.integers(1, 9), st.lists(st.integers(1, 200), min_size=1))
def test_a_stream_cut_anywhere_says_what_the_whole_answer_says(message, cut, lengths):
    meter, buffer = make_meter(wants_usage=True), EventBuffer()
    raw, out, number = streamed(message, cut), b"", 0
    while raw:
        length = lengths[number % len(lengths)]
        block = buffer.feed(raw[:length])
        out += meter.pass_on(block) if block else b""
        raw, number = raw[length:], number + 1
    assert buffer.take_rest() == b""
    assert out.endswith(DONE)
    assert gathered(out) == to_chat_completion(message, created_at_secs=CREATED)
    assert meter.usage == usage_of(message["usage"])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
odd = st.fixed_dictionaries({}, optional={
    "type": st.sampled_from(["message_start", "content_block_start", "content_block_delta",
                             "content_block_stop", "message_delta", "message_stop"]) | json_values,
    "index": st.integers(0, 1) | json_values,
    "message": json_values, "usage": json_values,
    "content_block": st.one_of(blocks, json_values),
    "delta": json_values | st.dictionaries(
        st.sampled_from(["type", "text", "thinking", "signature", "partial_json", "stop_reason"]),
        texts | json_values | st.sampled_from(
            ["text_delta", "thinking_delta", "signature_delta", "input_json_delta", "end_turn"])),
})  # fmt: skip


def test_what_comes_behind_the_end_is_not_passed_on():
    meter = make_meter()
    out = meter.pass_on(start() + stop() + END + start() + stop())
    assert out.endswith(DONE)
    assert meter.pass_on(start()) == b""


@given(st.lists(odd | json_values, max_size=8))
def test_no_event_whatever_it_holds_breaks_the_meter(values):
    meter = make_meter(wants_usage=True)
    out = meter.pass_on(b"data: x\n\n:\n\ndata: []\n\n")
    for value in values:
        out += meter.pass_on(b"data: " + json.dumps(value).encode() + b"\n\n")
    out += meter.finish()
    assert out.count(DONE) == 1
    assert meter.output_tokens >= 0
    chunks(out)

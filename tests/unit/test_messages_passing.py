"""A stream of Anthropic's that goes through untouched, and what is known of it afterwards."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.messages_kit import use
from tokenhub.dialects import openai
from tokenhub.dialects.messages import (
    StreamMeter,
    ends_stream,
    is_answer,
    is_event,
    opens_stream,
    reports_error,
    usage_of,
)
from tokenhub.dialects.sse import events
from tokenhub.domain import Usage


def event(kind: str, **fields: Any) -> bytes:
    data = orjson.dumps({"type": kind, **fields})
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)


def delta(kind: str, name: str, said: str) -> bytes:
    return event("content_block_delta", index=0, delta={"type": kind, name: said})


START = event("message_start", message={"usage": {
    "input_tokens": 5, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 20,
    "output_tokens": 1}})  # fmt: skip
TEXT = delta("text_delta", "text", 'say "usage": "x" ' * 4)
END = event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 7})
STOP = event("message_stop")


def meter() -> StreamMeter:
    return StreamMeter(split=events)


def test_everything_goes_through_as_it_came():
    followed = meter()
    blocks = [START + event("ping"), b": comment\n\n", TEXT, END + STOP]
    assert [followed.pass_on(block) for block in blocks] == blocks
    assert followed.usage == Usage(125, 7, 100, 20)
    assert followed.finish_reason == "stop"


def test_usage_of_a_whole_stream_is_known_without_reading_it_all(monkeypatch):
    followed = meter()
    parsed: list[bytes] = []
    real = openai.object_of

    def parse(data: bytes) -> dict[str, Any]:
        parsed.append(data)
        return real(data)

    monkeypatch.setattr(openai, "object_of", parse)
    for block in (START, *[TEXT] * 50, END, STOP):
        followed.pass_on(block)
    assert followed.usage == Usage(125, 7, 100, 20)
    assert len(parsed) == 2


def test_until_the_end_what_was_written_is_our_estimate():
    followed = meter()
    followed.pass_on(START)
    assert followed.usage == Usage(125, 1, 100, 20, is_estimate=True)
    followed.pass_on(delta("thinking_delta", "thinking", "a" * 20))
    followed.pass_on(delta("input_json_delta", "partial_json", "é" * 10))
    assert (followed.output_tokens, followed.finish_reason) == (10, None)
    assert followed.usage == Usage(125, 10, 100, 20, is_estimate=True)


def test_counts_are_cumulative_and_a_zero_at_the_end_takes_nothing_back():
    followed = meter()
    followed.pass_on(START)
    followed.pass_on(event("message_delta", delta={"stop_reason": "max_tokens"},
                           usage={"input_tokens": 0, "output_tokens": 7}))  # fmt: skip
    assert followed.usage == Usage(125, 7, 100, 20)
    assert followed.finish_reason == "length"


def test_a_stream_that_never_tells_usage_has_none():
    followed = meter()
    followed.pass_on(TEXT + event("message_delta", delta={"stop_reason": "tool_use"}))
    assert followed.usage is None
    assert followed.output_tokens > 0
    assert followed.finish_reason == "stop"


def test_calls_are_noticed():
    followed = meter()
    followed.pass_on(event("content_block_start", index=0, content_block=use()))
    followed.pass_on(event("message_delta", delta={"stop_reason": "tool_use"}, usage={}))
    assert followed.finish_reason == "tool_calls"


def test_long_streams_are_not_kept():
    followed = meter()
    for _ in range(2000):
        followed.pass_on(TEXT)
    assert followed._unread_bytes <= openai.UNREAD_BYTES_MAX
    assert followed.output_tokens == 2000 * 68 // 4


def test_an_end_that_is_missing_is_said():
    assert meter().finish() == STOP
    assert ends_stream(STOP.rstrip()[-64:])
    assert not ends_stream(END.rstrip()[-64:])


FIGURES = event("message_stop", **{"amazon-bedrock-invocationMetrics": {"inputTokenCount": 1}})


@pytest.mark.parametrize("end", [
    STOP, FIGURES, TEXT + FIGURES, FIGURES.replace(b"\n", b"\r\n"),
    b'data: {"x":1, "type" : "message_stop"}', FIGURES[26:], FIGURES[26:-2],
])  # fmt: skip
def test_an_end_is_one_whatever_else_is_in_it(end):
    assert ends_stream(end.rstrip())


@pytest.mark.parametrize("block", [
    TEXT, delta("text_delta", "text", '{"type":"message_stop"}'), STOP + END,
    event("content_block_start", content_block={"type": "message_stop"}), b'"message_stop"',
])  # fmt: skip
def test_nothing_else_is_an_end(block):
    assert not ends_stream(block.rstrip())


@pytest.mark.parametrize("last", [STOP, FIGURES, FIGURES + event("ping")])
def test_an_end_that_was_there_is_not_said_again(last):
    followed = meter()
    followed.pass_on(START + END)
    followed.pass_on(last)
    assert followed.finish() == b""


COMPACTION = {
    "type": "compaction",
    "input_tokens": 150_000,
    "output_tokens": 3000,
    "cache_read_input_tokens": 7,
    "cache_creation": {"ephemeral_5m_input_tokens": 2},
}
ITERATIONS = [COMPACTION, {"type": "message", "input_tokens": 5, "output_tokens": 7}, 7]


def test_what_compaction_took_is_counted_too():
    told = {"input_tokens": 5, "output_tokens": 7, "iterations": ITERATIONS}
    assert usage_of({"usage": told}) == Usage(150_014, 3007, 7, 2)
    followed = meter()
    followed.pass_on(
        START
        + event(
            "message_delta",
            delta={"stop_reason": "end_turn"},
            usage={"output_tokens": 7, "iterations": ITERATIONS},
        )
    )
    assert followed.usage == Usage(150_134, 3007, 107, 22)


@pytest.mark.parametrize(("data", "opens"), [
    (b'{"type":"message_start"}', True), (b'{"type":"ping"}', True),
    (b'{"type":"content_block_delta"}', False), (b"{", False),
])  # fmt: skip
def test_what_only_opens_a_stream_is_known(data, opens):
    assert opens_stream(data) is opens


def test_answers_errors_and_events_are_told_apart():
    assert is_answer({"content": []})
    assert not is_answer({"content": "x"})
    assert reports_error({"type": "error", "error": None})
    assert reports_error({"error": {}, "type": "error"})
    assert not reports_error({"type": "message_stop"})
    assert is_event({"type": "ping"})
    assert not is_event({"type": 7})
    assert usage_of({"usage": {"input_tokens": 3, "output_tokens": 2}}) == Usage(3, 2)
    assert usage_of({}) is None


@given(st.lists(st.binary(max_size=40) | st.sampled_from([START, TEXT, END, STOP]), max_size=8))
def test_any_stream_goes_through(blocks):
    followed = meter()
    for block in blocks:
        assert followed.pass_on(block) == block
    assert followed.output_tokens >= 0
    assert followed.usage is None or followed.usage.input_tokens >= 0

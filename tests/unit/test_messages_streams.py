"""A stream of chat chunks as Anthropic's events, as its SDK gathers them."""

from __future__ import annotations

import re
from typing import Any

import orjson
import pytest

from tests.unit.messages_kit import (
    DONE,
    USAGE,
    chunk,
    completion,
    data_of,
    gathered,
    piece,
    read,
    text,
    translated,
    use,
)
from tokenhub.dialects.messages import MESSAGES
from tokenhub.errors import ProviderError

FIRST = chunk({"role": "assistant", "content": ""})
LAST = chunk(usage=USAGE) + DONE


def message_of(*blocks: bytes, **fields: Any) -> dict[str, Any]:
    return gathered(translated(*blocks, **fields))


def starts(stream: bytes) -> list[str]:
    return [event["type"] for event in data_of(stream)]


def test_a_stream_is_told_in_named_events_as_it_comes():
    translator = MESSAGES.translator(read(system="a" * 38))
    begun = data_of(translator.feed(FIRST))
    assert begun == [{"type": "message_start", "message": {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "gpt", "content": [],
        "stop_reason": None, "stop_sequence": None, "stop_details": None,
        "usage": {"input_tokens": 10, "cache_creation_input_tokens": 0,
                  "cache_read_input_tokens": 0, "output_tokens": 0},
    }}]  # fmt: skip
    assert starts(translator.feed(chunk({"content": "he"}))) == [
        "content_block_start", "content_block_delta",
    ]  # fmt: skip
    assert data_of(translator.feed(chunk({"content": 'l"é\n'}))) == [
        {"type": "content_block_delta", "index": 0,
         "delta": {"type": "text_delta", "text": 'l"é\n'}},
    ]  # fmt: skip
    assert translator.feed(chunk({}, "stop")) == b""
    assert translator.feed(chunk(usage=USAGE)) == b""
    assert data_of(translator.feed(DONE)) == [
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta",
         "delta": {"stop_reason": "end_turn", "stop_sequence": None, "stop_details": None},
         "usage": {"input_tokens": 10, "cache_creation_input_tokens": 0,
                   "cache_read_input_tokens": 0, "output_tokens": 4}},
        {"type": "message_stop"},
    ]  # fmt: skip


def test_thoughts_come_before_the_text_as_a_block_of_their_own():
    found = message_of(
        FIRST,
        chunk({"reasoning": "h", "content": None}),
        chunk({"reasoning_content": "m", "reasoning": "m"}),
        chunk({"content": "a"}),
        chunk({}, "stop"),
        LAST,
    )
    assert found["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": ""}, text("a"),
    ]  # fmt: skip


def test_calls_come_in_pieces_each_in_its_block():
    stream = translated(
        FIRST,
        chunk({"content": "look"}),
        chunk(piece("", 0, id="a", name="find", type="function")),
        chunk(piece('{"q"', 0)),
        chunk(piece(":1}", 0)),
        chunk(piece('{"q":2}', 1, id="b", name="find")),
        chunk({}, "tool_calls"),
        LAST,
    )
    found = gathered(stream)
    assert found["content"] == [text("look"), use("a", q=1), use("b", q=2)]
    assert found["stop_reason"] == "tool_use"
    kinds = [kind.removeprefix("content_block_") for kind in starts(stream)]
    assert kinds[1:-2] == ["start", "delta", "stop", "start", "delta", "delta", "stop",
                           "start", "delta", "stop"]  # fmt: skip


def test_calls_that_come_in_turns_stay_open():
    found = message_of(
        FIRST,
        chunk({"tool_calls": [
            {"index": 0, "id": "a", "function": {"name": "find", "arguments": ""}},
            {"index": 1, "id": "b", "function": {"name": "find", "arguments": ""}},
        ]}),
        chunk(piece('{"q"', 0)), chunk(piece('{"q"', 1)),
        chunk(piece(":1}", 0)), chunk(piece(":2}", 1)),
        chunk({}, "tool_calls"), LAST,
    )  # fmt: skip
    assert found["content"] == [use("a", q=1), use("b", q=2)]


def test_calls_that_all_have_the_same_number_are_told_apart_by_their_ids():
    found = message_of(
        FIRST,
        chunk(piece('{"q":1}', 0, id="a", name="find")),
        chunk(piece('{"q":2}', 0, id="b", name="find")),
        chunk({}, "stop"),
        LAST,
    )
    assert found["content"] == [use("a", q=1), use("b", q=2)]
    assert found["stop_reason"] == "tool_use"


def test_a_call_without_number_id_or_arguments_is_one():
    given = {"tool_calls": [{"function": {"name": "find"}}]}
    assert message_of(chunk(given), LAST)["content"] == [use("toolu_1_0")]


@pytest.mark.parametrize("more", [{"id": ""}, {}])
@pytest.mark.parametrize(
    ("pieces", "inputs"),
    [
        ([("a", '{"x":1}'), ("b", '{"y":2}')], [("a", {"x": 1}), ("b", {"y": 2})]),
        ([("a", '{"x":1}'), ("a", '{"y":2}')], [("a", {"x": 1}), ("a", {"y": 2})]),
        ([("a", ""), ("b", "")], [("a", {}), ("b", {})]),
        ([("a", '{"x"'), ("a", ":1}")], [("a", {"x": 1})]),
        ([("a", '{"x"'), (None, ":1}")], [("a", {"x": 1})]),
    ],
)
def test_calls_without_ids_and_numbers_are_told_apart_by_their_names(more, pieces, inputs):
    for numbered in ({"index": 0}, {}):
        calls = [
            {**numbered, **more, "function": {"name": name, "arguments": arguments}}
            for name, arguments in pieces
        ]
        found = message_of(*(chunk({"tool_calls": [call]}) for call in calls), LAST)
        assert [(each["name"], each["input"]) for each in found["content"]] == inputs
        assert len({each["id"] for each in found["content"]}) == len(inputs)


def test_an_id_that_comes_late_is_of_the_same_call():
    found = message_of(chunk(piece('{"q"', name="find")), chunk(piece(":1}", id="late")), LAST)
    assert [each["input"] for each in found["content"]] == [{"q": 1}]


def test_the_ids_that_we_make_are_those_of_the_whole_answer():
    told = [{"index": n, "function": {"name": "find", "arguments": "{}"}} for n in (0, 1)]
    found = message_of(chunk({"content": "look"}), chunk({"tool_calls": told}), LAST)
    whole = MESSAGES.answer(completion("tool_calls", tool_calls=told), read())
    ids = [each["id"] for each in found["content"][1:]]
    assert ids == [each["id"] for each in whole["content"]] == ["toolu_1_0", "toolu_1_1"]


@pytest.mark.parametrize("arguments", ["null", " null\n"])
def test_arguments_that_are_null_are_none(arguments):
    found = message_of(FIRST, chunk(piece(arguments, id="a", name="find")), LAST)
    assert found["content"] == [use("a")]


def test_what_azure_says_of_the_prompt_is_no_beginning():
    first = b'data: {"choices":[],"id":"","model":"","object":"","prompt_filter_results":[]}\n\n'
    found = message_of(first, FIRST, chunk({"content": "a"}), LAST)
    assert (found["id"], found["model"]) == ("msg_1", "gpt")


def test_text_in_parts_is_text():
    parts = [text("a"), {"type": "thinking", "thinking": []}, text("b")]
    assert message_of(FIRST, chunk({"content": parts}), LAST)["content"] == [text("ab")]


def test_text_after_calls_is_a_block_of_its_own():
    found = message_of(chunk(piece("{}", 0, id="a", name="find")), chunk({"content": "so"}), LAST)
    assert found["content"] == [use("a"), text("so")]


def test_a_refusal_is_text_and_the_reason():
    found = message_of(chunk({"refusal": "I "}), chunk({"refusal": "won't."}, "stop"), LAST)
    assert (found["content"], found["stop_reason"]) == ([text("I won't.")], "refusal")
    assert found["stop_details"]["type"] == "refusal"


def test_the_text_that_ended_it_is_told():
    last = orjson.loads(chunk({}, "stop")[6:])
    last["choices"][0]["stop_reason"] = "END"
    ended = b"data: " + orjson.dumps(last) + b"\n\n"
    found = message_of(chunk({"content": "a"}), ended, LAST, stop_sequences=["END"])
    assert (found["stop_reason"], found["stop_sequence"]) == ("stop_sequence", "END")


def test_signed_thoughts_are_signed_in_the_stream_too():
    blocks = [{"index": 0, "type": "thinking", "thinking": "hm", "signature": "s"},
              {"index": 1, "type": "redacted_thinking", "data": "d"}]  # fmt: skip
    for before in (b"", chunk({"reasoning_content": "hm"})):
        found = message_of(
            before, chunk({"thinking_blocks": blocks}), chunk({"content": "a"}), LAST
        )
        assert found["content"] == [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "redacted_thinking", "data": "d"},
            text("a"),
        ]


def test_usage_is_cumulative_and_knows_the_cache():
    usage = {"prompt_tokens": 125, "completion_tokens": 9,
             "prompt_tokens_details": {"cached_tokens": 100}}  # fmt: skip
    found = message_of(chunk({"content": "a"}, "stop"), chunk(usage=usage), DONE)["usage"]
    assert (found["input_tokens"], found["cache_read_input_tokens"]) == (25, 100)
    assert found["output_tokens"] == 9


def test_usage_that_is_not_told_is_guessed():
    found = message_of(chunk({"content": "a" * 40}), DONE, system="b" * 38)["usage"]
    assert (found["input_tokens"], found["output_tokens"]) == (10, 10)


def test_a_stream_that_says_nothing_is_a_message_all_the_same():
    assert message_of(DONE)["content"] == []


def test_other_choices_comments_and_odd_chunks_are_left_out():
    other = b'data: {"choices":[{"index":1,"delta":{"content":"x"}}]}\n\n'
    odd = b'data: {"choices":[7]}\n\ndata: {"choices":[{"delta":7}]}\n\ndata: 7\n\ndata: {\n\n'
    found = message_of(chunk({"content": "a"}), b": ping\n\n", other, odd, LAST)
    assert found["content"] == [text("a")]


def test_an_error_within_the_chunks_ends_the_stream():
    error = b'data: {"error":{"message":"no","type":"invalid_request_error","code":"c"}}\n\n'
    found = data_of(translated(chunk({"content": "a"}), error, DONE))
    assert found[-1] == {"type": "error", "error": {
        "type": "invalid_request_error", "message": "no", "code": "c"}}  # fmt: skip


@pytest.mark.parametrize(
    ("error_class", "kind"),
    [("stream_cut", "api_error"), ("stream_idle", "timeout_error"),
     ("overloaded", "overloaded_error"), ("client_error", "invalid_request_error")],
)  # fmt: skip
def test_a_stream_that_breaks_off_ends_with_an_error_event(error_class, kind):
    translator = MESSAGES.translator(read())
    begun = translator.feed(FIRST + chunk({"content": "a"}))
    assert starts(begun) == ["message_start", "content_block_start", "content_block_delta"]
    error = data_of(translator.fail(ProviderError("cut", error_class=error_class)))
    assert [each["error"]["type"] for each in error] == [kind]
    assert error[0]["error"]["code"] == error_class
    assert translator.feed(DONE) == b""


def test_event_names_and_types_are_the_same():
    stream = translated(FIRST, chunk({"content": "a"}, "stop"), LAST)
    named = re.findall(rb"^event: (\w+)$", stream, re.MULTILINE)
    assert [name.decode() for name in named] == starts(stream)

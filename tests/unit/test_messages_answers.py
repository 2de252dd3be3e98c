"""A chat completion as the message that Anthropic's clients read."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from tests.unit.messages_kit import as_sdk, call, completion, read, text, use
from tokenhub.dialects.messages import MESSAGES


def answer(given: dict[str, Any], **fields: Any) -> dict[str, Any]:
    found = MESSAGES.answer(given, read(**fields))
    as_sdk(found)
    return found


def test_a_whole_answer_is_a_message():
    given = completion(content="hello", reasoning_content="hm")
    assert answer({**given, "service_tier": "default"}) == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "gpt",
        "content": [{"type": "thinking", "thinking": "hm", "signature": ""}, text("hello")],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "stop_details": None,
        "usage": {
            "input_tokens": 10, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
            "output_tokens": 4, "service_tier": "standard",
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    ("finish_reason", "message", "stop_reason"),
    [
        ("stop", {"content": "a"}, "end_turn"),
        ("length", {"content": "a"}, "max_tokens"),
        ("length", {"tool_calls": [call('{"a')]}, "max_tokens"),
        ("tool_calls", {"tool_calls": [call()]}, "tool_use"),
        ("stop", {"tool_calls": [call()]}, "tool_use"),
        (None, {"tool_calls": [call()]}, "tool_use"),
        ("tool_calls", {"content": "a"}, "end_turn"),
        ("content_filter", {"content": "a"}, "refusal"),
        ("stop", {"refusal": "I won't."}, "refusal"),
        ("word_of_tomorrow", {"content": "a"}, "end_turn"),
        (None, {"content": "a"}, "end_turn"),
    ],
)
def test_why_it_ended_is_told_in_anthropic_s_words(finish_reason, message, stop_reason):
    found = answer(completion(finish_reason, **message))
    assert found["stop_reason"] == stop_reason
    assert (found["stop_details"] is not None) == (stop_reason == "refusal")


@pytest.mark.parametrize("name", ["stop_reason", "matched_stop"])
@pytest.mark.parametrize(("told", "sequence"), [("END", "END"), ("no", None), (2, None)])
def test_the_text_that_ended_it_is_told_where_the_server_does(name, told, sequence):
    given = completion(content="a")
    given["choices"][0][name] = told
    found = answer(given, stop_sequences=["END"])
    assert found["stop_sequence"] == sequence
    assert found["stop_reason"] == ("stop_sequence" if sequence else "end_turn")


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        ('{"a":1}', {"a": 1}),
        ("", {}),
        ("null", {}),
        ('{"a', {"_raw": '{"a'}),
        ("[1]", {"_raw": "[1]"}),
        ('{"id":123456789012345678901234}', {"id": 123456789012345678901234}),
    ],
)
def test_arguments_become_an_input_and_none_are_lost(arguments, given):
    found = answer(completion("tool_calls", content="look", tool_calls=[call(arguments)]))
    assert found["content"][0] == text("look")
    assert json.loads(orjson.dumps(found["content"][1])) == {**use("c1"), "input": given}


@pytest.mark.parametrize(
    ("id", "made"),
    [("chatcmpl-1", "1_"), ("gen.2:a", "gen_2_a_"), ("chatcmpl-" + "ab" * 30, "ab" * 12 + "_"),
     ("", ""), (None, "")],
)  # fmt: skip
def test_calls_without_an_id_get_one_that_no_other_answer_has(id, made):
    calls = [{**call(), "id": ""}, {**call(), "id": None}]
    found = answer({**completion("stop", tool_calls=calls), "id": id})
    ids = [block["id"] for block in found["content"]]
    assert ids == [f"toolu_{made}0", f"toolu_{made}1"]
    assert all(len(each) <= 40 for each in ids)  # OpenAI's limit, where they may go back to


def test_cached_tokens_are_told_beside_the_input():
    usage = {
        "prompt_tokens": 125, "completion_tokens": 9,
        "prompt_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 20},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }  # fmt: skip
    assert answer({**completion(content="a"), "usage": usage})["usage"] == {
        "input_tokens": 5, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 100,
        "output_tokens": 9, "output_tokens_details": {"thinking_tokens": 3},
    }  # fmt: skip


def test_usage_that_is_not_told_is_guessed():
    found = answer({**completion(content="a" * 40), "usage": None}, system="b" * 400)["usage"]
    assert (found["input_tokens"], found["output_tokens"]) == (100, 10)


def test_a_refusal_is_shown():
    assert answer(completion(refusal="I won't."))["content"] == [text("I won't.")]


def test_thoughts_that_are_signed_stay_so():
    blocks = [{"type": "thinking", "thinking": "hm", "signature": "s"},
              {"type": "redacted_thinking", "data": "d"}]  # fmt: skip
    given = completion(content="a", reasoning_content="hm", thinking_blocks=blocks)
    assert answer(given)["content"] == [*blocks, text("a")]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"choices": []},
        {"choices": [None]},
        {"choices": [{"message": None}]},
        {"choices": [{"message": {"content": 7, "tool_calls": 7, "thinking_blocks": [7]}}]},
        {"choices": [{"message": {"tool_calls": [None, {}, {"function": 7}]}}]},
        {"choices": [{"message": {}, "finish_reason": []}], "usage": "none", "id": 7, "model": []},
    ],
)
def test_odd_completions_are_messages_all_the_same(given):
    found = answer(given)
    assert (found["content"], found["stop_reason"]) == ([], "end_turn")


def test_text_in_parts_is_text():
    given = completion(content=[text("a"), {"type": "thinking", "thinking": []}, text("b")])
    assert answer(given)["content"] == [text("ab")]

"""Thoughts and tool calls that a model writes into its text as Gemma does."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.chunk_kit import DONE, answer_of, chunk, event, run, streamed
from tokenhub.dialects.gemma import CALL_CHARS_MAX, GemmaStage, with_calls
from tokenhub.dialects.gemma_calls import read_call

THOUGHT = "<|channel>thought\nhm, so\n<channel|>"
CALL = '<|tool_call>call:find{query:<|"|>a, {b}<|"|>,limit:3}<tool_call|>'
PIECES = st.sampled_from([
    THOUGHT, CALL, "<|channel>thought\n", "<channel|>", "<|tool_call>", "<tool_call|>", "<|", "<",
    "|>", '<|"|>', "call:f{", "}", "call:g{a:1}", " ", "\n", "text", "é", "<|channel>final\n",
])  # fmt: skip
TEXTS = st.lists(PIECES, max_size=10).map("".join)


def completion(text, reason="stop", **message):
    return {
        "id": "chatcmpl-1", "model": "m", "x": 1, "usage": {"total_tokens": 9},
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text, **message},
                     "finish_reason": reason, "logprobs": None}],
    }  # fmt: skip


def read(text, reason="stop", **message):
    choice = with_calls(completion(text, reason, **message))["choices"][0]
    return choice["message"], choice["finish_reason"]


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ("{}", {}),
        ('{q:<|"|>a, b<|"|>,n:3}', {"q": "a, b", "n": 3}),
        ("{a:true,b:null,c:-1.5e3,d:plain words}",
         {"a": True, "b": None, "c": -1500.0, "d": "plain words"}),
        ('{a:{b:[1,{c:<|"|>}<|"|>}],d:[]}}', {"a": {"b": [1, {"c": "}"}], "d": []}}),
        ('{"a": "x, \\"y\\"", <|"|>b c<|"|> : [ 1 , 2 ]}', {"a": 'x, "y"', "b c": [1, 2]}),
        ("{id:123456789012345678901234567890}", {"id": "123456789012345678901234567890"}),
        ('{a:<|"|><|"|>}', {"a": ""}),
    ],
)  # fmt: skip
def test_arguments_are_read_nested_too(args, expected):
    found = read_call("call:my-tool.v2" + args)
    assert found is not None
    assert (found.name, found.arguments) == ("my-tool.v2", expected)


@pytest.mark.parametrize(
    "text", ["", "find{}", "call:{}", "call:f", "call:f{", "call:f{a}", "call:f{a:}", "call:f{a:1",
             "call:f{} x", 'call:f{a:<|"|>x}', "call:f{a:[1}", 'call:f{a:"x}', "call:f{a:1 b:2}}",
             "call:f" + "{a:" * 100 + "1" + "}" * 100],
)  # fmt: skip
def test_what_is_no_call_stays_text(text):
    assert read_call(text) is None
    whole = f"a <|tool_call>{text}<tool_call|> b"
    assert read(whole) == ({"role": "assistant", "content": whole}, "stop")


def test_calls_and_thoughts_come_out_and_the_text_around_them_stays():
    message, reason = read(f"{THOUGHT}\nLet me look. {CALL}\n{CALL} Then.", refusal=None)
    assert message["content"] == "Let me look. \n Then."
    assert message["reasoning_content"] == "hm, so\n"
    assert message["refusal"] is None
    assert reason == "tool_calls"
    first, second = message["tool_calls"]
    assert first["function"]["name"] == "find"
    assert json.loads(first["function"]["arguments"]) == {"query": "a, {b}", "limit": 3}
    assert first["type"] == "function"
    assert first["id"] != second["id"]
    assert first["id"].startswith("call_")


def test_a_call_alone_leaves_no_text():
    message, _ = read(f" {CALL}\n")
    assert message["content"] is None


def test_a_finish_reason_that_says_more_and_own_calls_stay():
    own = [{"id": "call_own", "type": "function", "function": {"name": "g", "arguments": "{}"}}]
    message, reason = read(CALL, "length", tool_calls=own, reasoning_content="first ")
    assert reason == "length"
    assert [each["function"]["name"] for each in message["tool_calls"]] == ["g", "find"]
    assert message["reasoning_content"] == "first "


def test_an_answer_without_marks_is_untouched():
    before = completion(" plain <b> ")
    assert with_calls(before) is before


def test_the_mark_of_the_end_may_stand_in_a_string():
    message, _ = read('<|tool_call>call:f{a:<|"|>x<tool_call|>y<|"|>}<tool_call|>')
    arguments = message["tool_calls"][0]["function"]["arguments"]
    assert json.loads(arguments) == {"a": "x<tool_call|>y"}


def test_a_thought_that_is_not_closed_is_a_thought():
    message, reason = read("<|channel>thought\nhm", "length")
    assert (message["content"], message["reasoning_content"], reason) == (None, "hm", "length")


def test_a_call_that_is_too_long_is_text():
    text = "<|tool_call>call:f{a:" + "x" * (CALL_CHARS_MAX + 100) + f"}}<tool_call|>{CALL}"
    message, _ = read(text)
    assert len(message["tool_calls"]) == 1
    found = answer_of(
        run(
            GemmaStage(),
            [event(chunk(0, {"content": text[at : at + 5000]})) for at in range(0, len(text), 5000)]
            + [DONE],
        )
    )
    assert found.choices[0]["content"] == message["content"]
    assert len(found.choices[0]["calls"]) == 1


@given(TEXTS, TEXTS, st.data())
def test_a_stream_comes_to_the_same_however_it_is_cut(one, two, data):
    whole = completion(one)
    second = {**whole["choices"][0], "index": 1, "message": {"role": "assistant", "content": two}}
    whole["choices"].append(second)
    found = answer_of(run(GemmaStage(), streamed([one, two], data.draw)))
    for said, expected in zip(found.choices, with_calls(whole)["choices"], strict=True):
        message = expected["message"]
        assert said["content"] == (message["content"] or "")
        assert said["reasoning"] == message.get("reasoning_content", "")
        calls = [said["calls"][index] for index in sorted(said["calls"])]
        assert [(each["id"], each["name"], each["arguments"]) for each in calls] == [
            (each["id"], each["function"]["name"], each["function"]["arguments"])
            for each in message.get("tool_calls", ())
        ]
        assert said["finish_reason"] == expected["finish_reason"]
    assert found.usage == {"total_tokens": 9}
    assert found.is_done


@given(st.lists(st.sampled_from(["a", "<", "|", ">", "tool_call", "\n", "é"])).map("".join))
def test_nothing_of_a_text_without_marks_is_lost(text):
    assert read(text)[0]["content"] == text


def test_a_stream_keeps_reasoning_usage_own_calls_and_length():
    own = {"index": 0, "id": "call_own", "type": "function",
           "function": {"name": "g", "arguments": "{}"}}  # fmt: skip
    blocks = [
        event(chunk(0, {"role": "assistant", "reasoning_content": "hm"}, service_tier="x")),
        event(chunk(0, {"tool_calls": [own]})),
        event(chunk(0, {"content": "Hi " + CALL[:9]})),
        event(chunk(0, {"content": CALL[9:], "annotations": []})),
        event(chunk(0, {}, "length")),
        event({"choices": [], "usage": {"total_tokens": 3}}),
        DONE,
    ]
    stage = GemmaStage()
    assert stage.feed(blocks[0]) == blocks[0]
    found = answer_of(blocks[0] + run(stage, blocks[1:]))
    choice = found.choices[0]
    assert choice["content"] == "Hi"
    assert (choice["reasoning"], choice["finish_reason"]) == ("hm", "length")
    assert [choice["calls"][index]["name"] for index in (0, 1)] == ["g", "find"]
    assert found.usage == {"total_tokens": 3}


def test_a_stream_without_a_finish_reason_still_says_everything():
    found = answer_of(run(GemmaStage(), [event(chunk(0, {"content": "<|tool_call>call"})), DONE]))
    assert found.choices[0]["content"] == "<|tool_call>call"
    assert found.is_done

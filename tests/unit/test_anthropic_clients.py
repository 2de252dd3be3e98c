"""Requests to be translated as real clients send them, and as hostile ones do.

Agents send an answer's message back as their SDK has gathered it: with nulls, indices, ids that a
server left out, and arguments that say nothing.
"""

from __future__ import annotations

import time
from typing import Any

import orjson
import pytest

from tests.unit.anthropic_kit import call, check, text, translate, turns, written
from tokenhub.dialects.openai import read_request
from tokenhub.errors import InvalidRequest

USER = {"role": "user", "content": "hi"}
PNG = {"type": "base64", "media_type": "image/png", "data": "aGk="}
LONGEST_SECS = 1.0


def assistant(*calls: object, **fields: object) -> dict[str, object]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls), **fields}


def result(id: str | None, content: object = "found") -> dict[str, object]:
    return {"role": "tool", "tool_call_id": id, "content": content}


def without(name: str, found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if key != name}


@pytest.mark.parametrize(
    "message",
    [
        assistant(call("a")),
        assistant(call("a"), content=""),
        without("content", assistant(call("a"))),
        assistant(call("a"), content=[]),
        assistant(call("a"), content=[text("")]),
        assistant({**call("a"), "index": 0}),
        assistant({**call("a"), "type": None}),
        assistant({**call("a"), "type": ""}),
        assistant(without("type", call("a"))),
        assistant(call("a"), refusal=None, audio=None, function_call=None, annotations=[]),
        assistant(call("a"), name=None, reasoning_content=None, thinking_blocks=None),
        assistant({**call("a"), "function": {"name": "find"}}),
        assistant({**call("a"), "function": {"name": "find", "arguments": None}}),
        assistant(call("a", arguments="null")),
    ],
)
def test_a_call_is_read_in_every_form_in_which_clients_send_it_back(message):
    translated = translate([USER, message, result("a")])
    assert written(translated)["messages"][1:] == [
        {"role": "assistant",
         "content": [{"type": "tool_use", "id": "a", "name": "find", "input": {}}]},
        {"role": "user",
         "content": [{"type": "tool_result", "tool_use_id": "a", "content": [text("found")]}]},
    ]  # fmt: skip
    assert translated.dropped == ()


@pytest.mark.parametrize("id", ["", None])
def test_a_call_without_an_id_finds_its_result(id):
    found = written(translate([USER, assistant({**call("x"), "id": id}), result(id), USER,
                               assistant(without("id", call("x"))), result("")]))  # fmt: skip
    check(found)
    assert found["messages"][1]["content"][0]["id"] == "call"
    assert found["messages"][3]["content"][0]["id"] == "call-2"


def test_what_is_left_out_of_a_call_is_told():
    signed = {**call("a"), "extra_content": {"google": {"thought_signature": "x"}}}
    signed["function"] = {**signed["function"], "parsed": {"q": 1}}
    assert translate([USER, assistant(signed), result("a")]).dropped == (
        "messages.tool_calls.extra_content",
        "messages.tool_calls.function.parsed",
    )


@pytest.mark.parametrize(
    ("url", "source"),
    [
        ("HTTPS://example.com/A.png", {"type": "url", "url": "HTTPS://example.com/A.png"}),
        (" http://example.com/a\n", {"type": "url", "url": "http://example.com/a"}),
        ("data:image/png;base64, aG\r\nk=\n", PNG),
        ("DATA:Image/PNG;charset=utf-8; BASE64,aGk=", PNG),
    ],
)
def test_an_image_s_address_may_be_written_carelessly(url, source):
    part = {"type": "image_url", "image_url": {"url": url}}
    assert turns([{"role": "user", "content": [part]}])[0]["content"] == [
        {"type": "image", "source": source}
    ]


def test_an_empty_stop_asks_for_nothing():
    assert translate(stop="").dropped == translate(stop=[""]).dropped == ()


def test_a_whole_number_may_have_a_point():
    sent = written(translate(max_tokens=5.0, n=1.0, top_k=40.0))
    assert (sent["max_tokens"], sent["top_k"]) == (5, 40)
    assert all(isinstance(sent[name], int) for name in ("max_tokens", "top_k"))
    with pytest.raises(InvalidRequest):
        translate(max_tokens=5.5)


def test_no_budget_is_no_budget():
    assert translate(thinking={"type": "disabled", "budget_tokens": 0}).body.get("thinking") is None


@pytest.mark.parametrize("arguments", ["{bad", "[1]", "7", "{", '{"a": "\\ud83d"}', "x" * 9])
def test_arguments_that_are_no_object_are_shown_as_text_and_the_talk_goes_on(arguments):
    body = written(translate([USER, assistant(call("a", arguments=arguments)), result("a")]))
    assert body["messages"][1]["content"][0]["input"] == {"_raw": arguments}


@pytest.mark.parametrize(
    "raw",
    [
        b'{"messages":[{"role":"user","content":"\\ud800"}]}',
        b'{"messages":[{"role":"user","content":"\xff"}]}',
        b'\xef\xbb\xbf{"messages":[]}',
        b'{"messages":[{"role":"user","content":"hi"}],"temperature":NaN}',
        b'{"messages":[{"role":"user","content":"hi"}],"temperature":1e999}',
        b'{"messages":' + b"[" * 100_000,
        b'{"messages":[{"role":"user","content":"hi"}],"x":' + b'{"a":' * 500 + b"1" + b"}" * 501,
    ],
)
def test_what_is_no_json_to_be_sent_on_is_a_bad_request(raw):
    with pytest.raises(InvalidRequest) as refused:
        read_request(raw)
    assert refused.value.status == 400


# --- what must not take long --------------------------------------------------------------------


def took_secs(*args: Any, **fields: Any) -> float:
    began = time.process_time()
    orjson.dumps(translate(*args, **fields).body)
    return time.process_time() - began


def test_a_long_conversation_of_equal_ids_takes_no_longer_than_others():
    pairs = [assistant(call("x")), result("x")]
    assert took_secs([USER, *pairs * 8_000]) < LONGEST_SECS


def test_a_long_list_of_allowed_tools_is_read_at_once():
    tools = [{"type": "function", "function": {"name": f"t{n}"}} for n in range(12_000)]
    allowed = {"mode": "auto", "tools": tools}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    assert took_secs(tools=tools, tool_choice=choice) < LONGEST_SECS


def test_a_long_user_is_dropped_at_once():
    assert took_secs(user="a@" + "." * 200_000 + " ") < LONGEST_SECS

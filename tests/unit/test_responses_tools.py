"""Tools that no chat has are left out and told, unless they are chosen; texts are functions."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from openai.types.responses import Response

from tests.unit.responses_kit import (
    FUNCTION,
    RESPONSES,
    chat,
    checked,
    chunk,
    client,
    completion,
    dropped,
    ending,
    read,
)
from tokenhub.dialects.responses.to_chat import to_chat
from tokenhub.errors import Untranslatable

CUSTOM = {"type": "custom", "name": "patch", "description": "Patches."}
GRAMMAR = {**CUSTOM, "format": {"type": "grammar", "syntax": "lark", "definition": "x"}}
SEARCH: dict[str, Any] = {"type": "web_search", "external_web_access": False}
NAMESPACE = {"type": "namespace", "name": "n", "description": "d", "tools": [FUNCTION]}


def patched(arguments: str, name: str = "patch") -> dict[str, Any]:
    return {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}


@pytest.mark.parametrize(
    "tool", [SEARCH, {"type": "local_shell"}, {"type": "mcp"}, GRAMMAR, NAMESPACE]
)
def test_tools_that_no_chat_has_are_left_out_and_told(tool):
    fields = {"tools": [FUNCTION, tool], "tool_choice": "auto", "parallel_tool_calls": False}
    assert dropped(**fields) == (f"tools.{tool['type']}",)
    said = to_chat(read(**fields)).request.body
    assert [each["function"]["name"] for each in said["tools"]] == ["find"]
    assert (said["tool_choice"], said["parallel_tool_calls"]) == ("auto", False)


@pytest.mark.parametrize("choice", ["auto", "none", None])
def test_where_no_tool_is_left_nothing_is_said_of_them(choice):
    said = to_chat(read(tools=[SEARCH], tool_choice=choice, parallel_tool_calls=True)).request.body
    assert said.keys() == {"model", "messages"}


@pytest.mark.parametrize(
    ("tools", "choice", "param", "word"),
    [
        ([FUNCTION, SEARCH], {"type": "web_search"}, "tool_choice.type", "web_search"),
        ([FUNCTION, GRAMMAR], {"type": "custom", "name": "patch"}, "tool_choice.type", "custom"),
        ([SEARCH], "required", "tools[0].type", "web_search"),
        ([FUNCTION, SEARCH],
         {"type": "allowed_tools", "mode": "required", "tools": [{"type": "web_search"}]},
         "tool_choice.tools[0].type", "web_search"),
    ],
)  # fmt: skip
def test_a_tool_that_is_chosen_cannot_be_left_out(tools, choice, param, word):
    with pytest.raises(Untranslatable, match=word) as refused:
        to_chat(read(tools=tools, tool_choice=choice))
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([{"type": "function", "name": "find"}, {"type": "web_search"}], ["find"]),
        ([{"type": "web_search"}], None),
    ],
)
def test_those_that_are_left_out_are_not_among_the_allowed(names, expected):
    choice = {"type": "allowed_tools", "mode": "auto", "tools": names}
    said = to_chat(read(tools=[FUNCTION, SEARCH], tool_choice=choice)).request.body["tool_choice"]
    if expected is None:
        assert said == "none"
    else:
        tools = said["allowed_tools"]["tools"]
        assert [each["function"]["name"] for each in tools] == expected


@pytest.mark.parametrize("format", [None, {"type": "text"}])
def test_a_custom_tool_is_a_function_of_one_text(format):
    choice = {"type": "custom", "name": "patch"}
    body = chat(tools=[{**CUSTOM, "format": format}], tool_choice=choice)
    schema = {"type": "object", "properties": {"input": {"type": "string"}},
              "required": ["input"], "additionalProperties": False}  # fmt: skip
    function = {"name": "patch", "description": "Patches.", "parameters": schema}
    assert body["tools"] == [{"type": "function", "function": function}]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "patch"}}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [('{"input":"a\\nb"}', "a\nb"), ("a bare text", "a bare text"), ("", ""), ("[1]", "[1]")],
)
def test_a_call_of_a_custom_tool_comes_back_as_one(arguments, text):
    found = completion({"content": None, "tool_calls": [patched(arguments)]}, "tool_calls")
    response = RESPONSES.answer(found, read(tools=[CUSTOM, FUNCTION]))
    Response.model_validate(response)
    assert response["output"] == [
        {"id": "ctc_abc_0", "type": "custom_tool_call", "status": "completed", "call_id": "c1",
         "name": "patch", "input": text},
    ]  # fmt: skip
    pieces = [{"index": 0, **patched(arguments[:3])},
              {"index": 0, "function": {"arguments": arguments[3:]}}]  # fmt: skip
    translator = RESPONSES.translator(read(stream=True, tools=[CUSTOM, FUNCTION]))
    raw = b"".join(
        translator.feed(block)
        for block in [*(chunk({"tool_calls": [each]}) for each in pieces), ending("tool_calls")]
    )
    told = checked(raw)
    assert told[-1]["response"] == response
    deltas = [each["delta"] for each in told if each["type"].endswith("input.delta")]
    assert deltas == [text]
    with client(raw).responses.stream(model="m", input="hi") as stream:
        item = stream.get_final_response().output[0]
    assert orjson.loads(item.to_json())["input"] == text
    again = chat([*response["output"], {"type": "custom_tool_call_output", "call_id": "c1",
                                        "output": "done"}])["messages"]  # fmt: skip
    sent = again[0]["tool_calls"][0]["function"]["arguments"]
    assert orjson.loads(sent) == {"input": text}


def test_a_function_of_the_same_request_stays_a_function():
    found = completion({"tool_calls": [patched("{}", "find")]}, "tool_calls")
    output = RESPONSES.answer(found, read(tools=[CUSTOM, FUNCTION]))["output"]
    assert output[0]["type"] == "function_call"

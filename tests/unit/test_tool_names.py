"""Tools by the names that a model knows them by; nothing but names changes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.chunk_kit import DONE, chunk, event
from tokenhub.dialects.stage import chunk_of
from tokenhub.dialects.tool_names import (
    ToolNames,
    ToolNamesStage,
    tool_names_of,
    with_our_names,
    with_their_names,
)
from tokenhub.domain import ChatRequest

MAP = {"search": "web_search", "google": "web_search", "run": "bash"}


def tool(name, **more):
    return {"type": "function", "function": {"name": name, "strict": True, **more}, "extra": 1}


def call(name, **more):
    return {"id": "call_1", "type": "function", "function": {"name": name, "arguments": ""}, **more}


def names(body=None) -> ToolNames:
    found = tool_names_of(MAP, body or {"tools": [tool("web_search"), tool("bash")]})
    assert found is not None
    return found


def asked(body):
    request = ChatRequest(body=body, model="m", stream=False, input_tokens=1)
    return with_their_names(request, names(body)).body


def test_a_request_is_asked_by_the_models_names_wherever_they_stand():
    body: dict[str, Any] = {
        "tools": [tool("web_search", parameters={"name": "web_search"}), tool("other"),
                  {"type": "custom", "custom": {"name": "bash", "format": {}}},
                  {"type": "web_search_preview"}, 7],
        "functions": [{"name": "bash", "x": 1}],
        "function_call": {"name": "bash"},
        "tool_choice": {"type": "function", "function": {"name": "web_search"}},
        "messages": [
            {"role": "user", "name": "bash", "content": "web_search"},
            {"role": "assistant", "content": None, "tool_calls": [call("bash", y=2), call("z")]},
            {"role": "assistant", "function_call": {"name": "bash", "arguments": "{}"}},
            {"role": "tool", "tool_call_id": "call_1", "name": "bash", "content": "bash"},
        ],
        "seed": 7,
    }  # fmt: skip
    before = copy.deepcopy(body)
    found = asked(body)
    assert body == before
    expected = copy.deepcopy(body)
    expected["tools"][0]["function"]["name"] = "search"
    expected["tools"][2]["custom"]["name"] = "run"
    expected["functions"][0]["name"] = "run"
    expected["function_call"]["name"] = "run"
    expected["tool_choice"]["function"]["name"] = "search"
    expected["messages"][1]["tool_calls"][0]["function"]["name"] = "run"
    expected["messages"][2]["function_call"]["name"] = "run"
    expected["messages"][3]["name"] = "run"
    assert found == expected


def test_a_choice_of_allowed_tools_is_renamed():
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [tool("bash")]}}
    found = asked({"tools": [tool("bash")], "tool_choice": choice})
    assert found["tool_choice"]["allowed_tools"]["tools"][0]["function"]["name"] == "run"
    assert asked({"tool_choice": "auto"})["tool_choice"] == "auto"


def test_a_tool_of_the_callers_that_has_the_models_name_of_another_is_left_alone():
    body = {"tools": [tool("bash"), tool("run")]}
    found = names(body)
    request = ChatRequest(body=body, model="m", stream=False, input_tokens=1)
    assert with_their_names(request, found).body == body
    answer = {"choices": [{"message": {"tool_calls": [call("run"), call("google")]}}]}
    said = with_our_names(answer, found)["choices"][0]["message"]["tool_calls"]
    assert [each["function"]["name"] for each in said] == ["run", "web_search"]


@pytest.mark.parametrize("field", ["message", "delta"])
def test_an_answer_has_the_callers_names_and_all_its_fields(field):
    said = {"role": "assistant", "content": "search", "reasoning_content": "run", "refusal": None,
            "tool_calls": [call("search", index=0), call("google"), call("else"),
                           {"index": 1, "function": {"arguments": "search"}}],
            "function_call": {"name": "run", "arguments": ""}}  # fmt: skip
    whole: dict[str, Any] = {"id": "1", "system_fingerprint": "f", "choices": [
        {"index": 0, field: said, "finish_reason": "tool_calls", "logprobs": None}]}  # fmt: skip
    expected = copy.deepcopy(whole)
    renamed = expected["choices"][0][field]
    renamed["tool_calls"][0]["function"]["name"] = "web_search"
    renamed["tool_calls"][1]["function"]["name"] = "web_search"
    renamed["function_call"]["name"] = "bash"
    if field == "message":
        assert with_our_names(whole, names()) == expected
    else:
        found = ToolNamesStage(names()).feed(event(whole) + DONE)
        assert found == event(expected) + DONE


@given(st.recursive(st.none() | st.booleans() | st.text(max_size=3) | st.sampled_from(list(MAP)),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                        st.sampled_from(["choices", "message", "delta", "tool_calls", "function",
                                         "function_call", "name", "tools", "custom"]),
                        inner, max_size=4), max_leaves=12))  # fmt: skip
def test_whatever_comes_is_passed_on(value):
    body = value if isinstance(value, dict) else {"tools": value, "messages": value}
    found = tool_names_of(MAP, body)
    if found is not None:
        with_their_names(ChatRequest(body, "m", False, 1), found)
    with_our_names(body, names())
    assert chunk_of(ToolNamesStage(names()).feed(event(body))[6:]) is not None


def test_chunks_without_calls_pass_as_they_came():
    block = event(chunk(0, {"content": "search"})) + b': ping\n\ndata: {"tool_calls": 1}\n\n' + DONE
    assert ToolNamesStage(names()).feed(block) == block


def test_a_model_without_names_costs_nothing():
    assert tool_names_of({}, {"tools": [tool("a")]}) is None
    assert tool_names_of({"a": "b"}, {"tools": [tool("a")]}) is None

"""What becomes of a Messages request in the chat dialect: translated, refused, or told."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.unit.messages_kit import (
    PDF,
    PNG,
    TOOL,
    USER,
    assistant,
    body,
    chat,
    read,
    result,
    said,
    text,
    use,
    user,
)
from tokenhub.dialects.messages import MESSAGES
from tokenhub.dialects.messages.turns import ATTACHED, FAILED
from tokenhub.errors import InvalidRequest, Untranslatable

IMAGE = {"type": "image", "source": PNG}
IMAGE_PART = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
FILE_PART: dict[str, Any] = {
    "type": "file",
    "file": {"filename": "document.pdf", "file_data": "data:application/pdf;base64,aGk="},
}
CALL = {"id": "t1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
MARK = {"type": "ephemeral"}


def test_the_whole_of_a_request_is_translated():
    found = chat(
        USER,
        system="be brief",
        stop_sequences=["END"],
        temperature=0.5,
        top_p=0.9,
        stream=True,
        metadata={"user_id": "u1"},
        service_tier="standard_only",
        tools=[{**TOOL, "strict": True}],
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
        output_config={"effort": "high"},
    )
    assert found.dropped == ()
    assert found.request.body == {
        "model": "m",
        "messages": [{"role": "system", "content": "be brief"}, USER],
        "max_completion_tokens": 100,
        "temperature": 0.5,
        "top_p": 0.9,
        "stream": True,
        "stop": ["END"],
        "user": "u1",
        "service_tier": "default",
        "reasoning_effort": "high",
        "tools": [{"type": "function", "function": {
            "name": "find", "description": "Finds.", "parameters": {"type": "object"},
            "strict": True}}],
        "tool_choice": "required",
        "parallel_tool_calls": False,
    }  # fmt: skip


def test_the_request_stays_the_same_and_knows_its_dialect():
    asked = read(system=[text("a")], tools=[TOOL])
    before = orjson.dumps(asked.body)
    found = MESSAGES.to_chat(asked).request
    assert orjson.dumps(asked.body) == before
    assert (found.dialect, found.headers, found.wants_usage) == ("chat", {}, True)
    assert (found.needs, found.input_tokens) == (asked.needs, asked.input_tokens)


@pytest.mark.parametrize(
    ("system", "content"),
    [
        ("s", "s"),
        ([text("s")], "s"),
        ([text("s"), text(""), text("t")], [text("s"), text("t")]),
    ],
)
def test_instructions_are_one_message(system, content):
    assert said(USER, system=system) == [{"role": "system", "content": content}, USER]


def test_instructions_that_are_empty_are_none():
    assert said(USER, system=[]) == [USER]


def test_instructions_in_between_stay_where_they_are():
    told = {"role": "system", "content": "s"}
    assert said(USER, told, user(text("b"))) == [USER, told, {"role": "user", "content": "b"}]


@pytest.mark.parametrize(
    ("blocks", "content"),
    [
        ([text("a")], "a"),
        ([text("a"), text("b")], [text("a"), text("b")]),
        ([text("a"), IMAGE], [text("a"), IMAGE_PART]),
        ([IMAGE], [IMAGE_PART]),
        ([{"type": "image", "source": {"type": "url", "url": "https://x.test/a"}}],
         [{"type": "image_url", "image_url": {"url": "https://x.test/a"}}]),
        ([{"type": "document", "source": PDF}], [FILE_PART]),
        ([{"type": "document", "source": PDF, "title": "a.pdf", "context": "c"}],
         [text("c"), {"type": "file", "file": {**FILE_PART["file"], "filename": "a.pdf"}}]),
        ([{"type": "document", "source": {"type": "text", "media_type": "text/plain",
                                          "data": "d"}, "title": "t"}], [text("t"), text("d")]),
        ([{"type": "document", "source": {"type": "content", "content": "d"}}], "d"),
        ([{"type": "document", "source": {"type": "content", "content": [text("d"), IMAGE]}}],
         [text("d"), IMAGE_PART]),
        ([{"type": "search_result", "source": "s", "title": "t", "content": [text("c")]}],
         [text("t"), text("s"), text("c")]),
    ],
)  # fmt: skip
def test_what_the_user_shows_is_shown(blocks, content):
    assert said(user(*blocks)) == [{"role": "user", "content": content}]


def test_turns_of_one_role_are_one():
    found = said(USER, user(text("b")), assistant(text("x")), assistant(text("y"), use()),
                 user(result()), user(text("go")))  # fmt: skip
    assert found == [
        {"role": "user", "content": [text("hi"), text("b")]},
        {"role": "assistant", "content": [text("x"), text("y")], "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "t1", "content": "found"},
        {"role": "user", "content": "go"},
    ]


def test_calls_of_two_turns_of_the_assistant_are_answered_together():
    found = said(USER, assistant(use("a")), assistant(use("b")), user(result("b"), result("a")))
    assert [call["id"] for call in found[1]["tool_calls"]] == ["a", "b"]
    assert [each.get("tool_call_id") for each in found[2:]] == ["b", "a"]


def test_results_come_before_what_the_user_says_wherever_they_stand():
    found = said(
        USER,
        assistant(text("look"), use("a", q=1), use("b")),
        user(text("first"), result("a")),
        user(result("b", [text("x"), text("y")]), text("last")),
    )
    assert [each["role"] for each in found] == ["user", "assistant", "tool", "tool", "user"]
    assert found[1]["content"] == "look"
    assert found[1]["tool_calls"][0]["function"]["arguments"] == '{"q":1}'
    assert found[3] == {"role": "tool", "tool_call_id": "b", "content": [text("x"), text("y")]}
    assert found[4]["content"] == [text("first"), text("last")]


@pytest.mark.parametrize(
    ("block", "content", "shown"),
    [
        (result(content=[text("a"), IMAGE]), "a", [IMAGE_PART]),
        (result(content=[IMAGE]), ATTACHED, [IMAGE_PART]),
        (result(content=[{"type": "document", "source": PDF}]), ATTACHED, [FILE_PART]),
        (result(content=[]), "", []),
        (result(content=None), "", []),
        (result(content=""), "", []),
        (result(content="no", is_error=True), "no", []),
        (result(content=[], is_error=True), FAILED, []),
    ],
)
def test_what_a_tool_shows_is_shown_by_the_user(block, content, shown):
    found = said(USER, assistant(use()), user(block, text("go")))
    assert found[2] == {"role": "tool", "tool_call_id": "t1", "content": content}
    assert found[3]["content"] == ([*shown, text("go")] if shown else "go")


def test_a_call_alone_has_no_content():
    found = said(USER, assistant(use()), user(result()))
    assert found[1] == {"role": "assistant", "content": None, "tool_calls": [CALL]}


def test_arguments_keep_integers_of_any_size():
    raw = orjson.dumps(body(USER, assistant(use(number=7)), user(result())))
    found = MESSAGES.to_chat(MESSAGES.read(raw.replace(b'"input":{"number":7}',
        b'"input":{"number":123456789012345678901234}')))  # fmt: skip
    call = found.request.body["messages"][1]["tool_calls"][0]
    assert call["function"]["arguments"] == '{"number":123456789012345678901234}'


@pytest.mark.parametrize(
    ("thinking", "config", "effort", "dropped"),
    [
        ({"type": "enabled", "budget_tokens": 1024}, None, "low", ()),
        ({"type": "enabled", "budget_tokens": 4095}, None, "low", ()),
        ({"type": "enabled", "budget_tokens": 4096}, None, "medium", ()),
        ({"type": "enabled", "budget_tokens": 31999}, None, "high", ()),
        ({"type": "enabled", "budget_tokens": 31999}, {"effort": "low"}, "low", ()),
        ({"type": "adaptive"}, {"effort": "max"}, "max", ()),
        (None, {"effort": "xhigh"}, "xhigh", ()),
        ({"type": "adaptive"}, None, None, ("thinking",)),
        ({"type": "disabled"}, None, None, ("thinking",)),
        ({"type": "disabled"}, {"effort": "low"}, None, ("thinking", "output_config.effort")),
        ({"type": "enabled", "budget_tokens": 2048, "display": "omitted"}, None, "low",
         ("thinking.display",)),
    ],
)  # fmt: skip
def test_how_much_to_think_is_an_effort(thinking, config, effort, dropped):
    found = chat(thinking=thinking, output_config=config)
    assert found.request.body.get("reasoning_effort") == effort
    assert found.dropped == dropped


CLOSED = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"],
          "additionalProperties": False}  # fmt: skip


@pytest.mark.parametrize(
    ("schema", "is_strict"),
    [
        (CLOSED, True),
        ({**CLOSED, "required": []}, False),
        ({**CLOSED, "additionalProperties": True}, False),
        ({"type": "object", "properties": {"a": {"anyOf": [{"type": "object"}]}},
          "required": ["a"], "additionalProperties": False}, False),
        ({"type": "array", "items": CLOSED}, True),
        ({**CLOSED, "required": True}, False),
        ({**CLOSED, "required": [["a"]]}, False),
        ({**CLOSED, "required": None}, False),
        ({**CLOSED, "properties": True}, False),
        ({**CLOSED, "properties": ["a"]}, False),
        ({"type": "object", "additionalProperties": False}, True),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["output_config", "output_format"])
def test_a_schema_is_strict_if_it_can_be(name, schema, is_strict):
    wanted = {"type": "json_schema", "schema": schema}
    found = chat(**{name: {"format": wanted} if name == "output_config" else wanted})
    assert found.request.body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema, "strict": is_strict},
    }


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ({"type": "auto"}, "auto"),
        ({"type": "any"}, "required"),
        ({"type": "none"}, "none"),
        ({"type": "tool", "name": "find"}, {"type": "function", "function": {"name": "find"}}),
    ],
)
def test_the_choice_of_tools_is_translated(choice, told):
    found = chat(tools=[TOOL], tool_choice=choice).request.body
    assert found["tool_choice"] == told
    assert "parallel_tool_calls" not in found


def test_a_choice_without_tools_that_asks_for_nothing_is_left_out():
    assert "tool_choice" not in chat(tool_choice={"type": "auto"}, tools=[]).request.body


DROPPED = [
    ({"tools": [{**TOOL, "defer_loading": False}]}, ()),
    ({"messages": [USER, assistant(use()), user(result(is_error=False))]}, ()),
    ({"top_k": 5}, ("top_k",)),
    ({"cache_control": MARK}, ("cache_control",)),
    ({"speed": "fast"}, ("speed",)),
    ({"speed": "standard"}, ()),
    ({"temperatur": 1}, ("temperatur",)),
    ({"system": [text("a", cache_control=MARK)]}, ("messages.content.cache_control",)),
    ({"tools": [{**TOOL, "cache_control": MARK}]}, ("tools.cache_control",)),
    ({"tools": [{**TOOL, "type": "custom", "input_examples": [{}]}]}, ("tools.input_examples",)),
    ({"metadata": {"user_id": "a" * 65}}, ("metadata.user_id",)),
    ({"messages": [user(text("a", citations=[{"x": 1}]))]}, ("messages.content.citations",)),
    ({"messages": [user({"type": "document", "source": PDF, "citations": {"enabled": True}})]},
     ("messages.content.citations",)),
    ({"messages": [user({"type": "document", "source": PDF, "citations": {"enabled": False}})]},
     ()),
    ({"messages": [USER, assistant({"type": "thinking", "thinking": "x", "signature": "s"},
                                   {"type": "redacted_thinking", "data": "d"}), USER]},
     ("messages.content.thinking", "messages.content.redacted_thinking")),
    ({"messages": [USER, assistant({**use(), "caller": {"type": "direct"}}),
                   user(result(is_error=True))]}, ("messages.content.is_error",)),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "dropped"), DROPPED)
def test_what_is_left_out_is_told(fields, dropped):
    assert MESSAGES.to_chat(MESSAGES.read(orjson.dumps({**body(), **fields}))).dropped == dropped


def test_what_headers_ask_of_anthropic_is_told():
    asked = read()
    asked.headers = {"anthropic-version": "2023-06-01", "anthropic-beta": "new-2026",
                     "anthropic-user-profile-id": "u", "anthropic-workspace-id": "w"}  # fmt: skip
    assert MESSAGES.to_chat(asked).dropped == (
        "anthropic-beta", "anthropic-user-profile-id", "anthropic-workspace-id",
    )  # fmt: skip


REFUSED = [
    ("container", {"container": "c"}),
    ("mcp_servers", {"mcp_servers": [{"url": "https://x.test"}]}),
    ("inference_geo", {"inference_geo": "us"}),
    ("stop_sequences", {"stop_sequences": list("abcde")}),
    ("max_tokens", {"max_tokens": 0}),
    ("messages[0].role", {"messages": [{"role": "developer", "content": "x"}]}),
    ("thinking.type", {"thinking": {"type": "auto"}}),
    ("tool_choice.type", {"tools": [TOOL], "tool_choice": {"type": "allowed"}}),
    ("tools[0].type", {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
    ("tools[1].type", {"tools": [TOOL, {"type": "bash_20250124", "name": "bash"}]}),
    ("messages[1]", {"messages": [USER, assistant(text("The answer is"))]}),
    ("messages[0].content[0].type", {"messages": [user({"type": "container_upload"})]}),
    ("messages[0].content[0].type", {"messages": [assistant(IMAGE)]}),
    ("messages[0].content[0].source.type",
     {"messages": [user({"type": "image", "source": {"type": "file", "file_id": "f"}})]}),
    ("messages[0].content[0].source.type",
     {"messages": [user({"type": "document", "source": {"type": "url", "url": "https://x"}})]}),
    ("messages[0].content[0].tool_use_id", {"messages": [user(result())]}),
    ("messages[2].content[1].tool_use_id",
     {"messages": [USER, assistant(use()), user(result(), result())]}),
    ("messages[1].content[0]", {"messages": [USER, assistant(use()), USER]}),
    ("messages[1].content[0]", {"messages": [USER, assistant(use())]}),
]  # fmt: skip


@pytest.mark.parametrize(("param", "fields"), REFUSED)
def test_what_a_chat_cannot_say_is_refused(param, fields):
    request = MESSAGES.read(orjson.dumps({**body(), **fields}))
    with pytest.raises(Untranslatable) as caught:
        MESSAGES.to_chat(request)
    assert caught.value.param == param


WRONG = [
    ("messages", {"messages": [user()]}),
    ("tool_choice", {"tool_choice": {"type": "any"}}),
    ("thinking.budget_tokens", {"thinking": {"type": "enabled"}}),
    ("thinking.budget_tokens", {"thinking": {"type": "enabled", "budget_tokens": 5}}),
    ("tool_choice.name", {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "lose"}}),
    ("output_config.effort", {"output_config": {"effort": "little"}}),
    ("output_config.format.type", {"output_config": {"format": {"type": "text"}}}),
    ("output_config.format.schema", {"output_config": {"format": {"type": "json_schema"}}}),
    ("messages[0].content[0].text", {"messages": [user({"type": "text"})]}),
    ("messages[0].content[0].source", {"messages": [user({"type": "image"})]}),
    ("messages[0].content[0].id", {"messages": [assistant({**use(), "id": None})]}),
    ("messages[0].content[1].id", {"messages": [assistant(use(), use())]}),
    ("messages[0].content[0].source.media_type", {"messages": [
        user({"type": "document", "source": {**PDF, "media_type": "text/html"}})]}),
]  # fmt: skip


@pytest.mark.parametrize(("param", "fields"), WRONG)
def test_what_is_of_the_wrong_form_is_refused_by_its_path(param, fields):
    request = MESSAGES.read(orjson.dumps({**body(), **fields}))
    with pytest.raises(InvalidRequest) as caught:
        MESSAGES.to_chat(request)
    assert caught.value.param == param
    assert not isinstance(caught.value, Untranslatable)

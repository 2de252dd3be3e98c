"""The items of a conversation become messages in the order that chats want, and none is lost."""

from __future__ import annotations

from time import process_time
from typing import Any

import orjson
import pytest

from tests.unit.responses_kit import FUNCTION, USER, chat, read
from tokenhub.dialects.anthropic.requests import to_messages
from tokenhub.dialects.responses.to_chat import to_chat

PNG = "data:image/png;base64,aGk="
IMAGE = {"type": "input_image", "image_url": PNG}
SHOWN = {"type": "image_url", "image_url": {"url": PNG}}
FILE = {"type": "input_file", "filename": "f.pdf", "file_data": "data:application/pdf;base64,aGk="}


def call(id: str) -> dict[str, Any]:
    return {"type": "function_call", "call_id": id, "name": "find", "arguments": "{}"}


def result(id: str, output: Any = "found") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": id, "output": output}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def answered(id: str, content: Any = "found") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": content}


def calling(*ids: str, content: Any = None) -> dict[str, Any]:
    function = {"name": "find", "arguments": "{}"}
    calls = [{"id": id, "type": "function", "function": function} for id in ids]
    return {"role": "assistant", "content": content, "tool_calls": calls}


def test_what_a_tool_shows_begins_the_next_message_of_the_user():
    output = [{"type": "input_text", "text": "two pages"}, IMAGE, FILE]
    messages = chat([USER, call("a"), call("b"), result("a", output), result("b"), USER])[
        "messages"
    ]
    file = {k: v for k, v in FILE.items() if k != "type"}
    assert messages[2:] == [
        answered("a", "two pages"), answered("b"),
        user([SHOWN, {"type": "file", "file": file}, text("hi")]),
    ]  # fmt: skip


@pytest.mark.parametrize("after", [[], [{"role": "assistant", "content": "a cat"}]])
def test_what_a_tool_only_shows_is_a_message_of_its_own(after):
    messages = chat([USER, call("a"), result("a", [IMAGE]), *after])["messages"]
    assert messages[2:] == [answered("a", "(attached to the next message)"), user([SHOWN]), *after]


def test_what_a_tool_shows_reaches_anthropic_too():
    request = to_chat(read([USER, call("a"), result("a", [IMAGE])], tools=[FUNCTION])).request
    turn = to_messages(request, model="claude-sonnet-4-5").body["messages"][-1]
    assert [block["type"] for block in turn["content"]] == ["tool_result", "image"]


@pytest.mark.parametrize(
    ("instructions", "items", "first"),
    [
        ("I", [{"role": "developer", "content": "D"}, {"role": "system", "content": "S"}],
         "I\n\nD\n\nS"),
        (None, [{"role": "developer", "content": [{"type": "input_text", "text": "A"},
                                                  {"type": "input_text", "text": "B"}]},
                {"role": "developer", "content": "C"}], "A\n\nB\n\nC"),
        (None, [{"role": "developer", "content": "D"}], "D"),
    ],
)  # fmt: skip
def test_instructions_are_one_first_message_of_the_role_that_every_server_knows(
    instructions, items, first
):
    messages = chat([*items, USER], instructions=instructions)["messages"]
    assert messages == [system(first), USER]


def test_marks_within_instructions_are_kept():
    mark = {"mode": "explicit"}
    part = {"type": "input_text", "text": "D", "prompt_cache_breakpoint": mark}
    items = [{"role": "developer", "content": [part]}, USER]
    assert chat(items, instructions="I")["messages"][0]["content"] == [
        text("I"), {**text("D"), "prompt_cache_breakpoint": mark},
    ]  # fmt: skip


@pytest.mark.parametrize("item", [
    {"role": "developer", "content": [{"type": "input_text", "text": "x"}]},
    {"role": "assistant", "content": "x"},
])  # fmt: skip
def test_ever_so_many_items_are_joined_in_time(item):
    items = [call("a"), *[item] * 20_000, result("a")]
    request, started = (
        read([item] * 20_000 if item["role"] == "developer" else items),
        process_time(),
    )
    to_chat(request)
    assert process_time() - started < 2.0


def test_later_instructions_stay_where_they_are():
    messages = chat([USER, {"role": "developer", "content": "D"}, USER], instructions="I")
    assert messages["messages"] == [system("I"), USER, system("D"), USER]


@pytest.mark.parametrize(
    ("items", "messages"),
    [
        ([call("a"), user("also"), result("a")], [calling("a"), answered("a"), user("also")]),
        ([call("a"), call("b"), result("a"), user("also"), result("b")],
         [calling("a", "b"), answered("a"), answered("b"), user("also")]),
        ([call("a"), user("also"), {"role": "developer", "content": "D"}, result("a", [IMAGE])],
         [calling("a"), answered("a", "(attached to the next message)"),
          user([SHOWN, text("also")]), system("D")]),
        ([call("a"), user("also"), {"role": "assistant", "content": "so"}, result("a")],
         [calling("a", content="so"), answered("a"), user("also")]),
        ([call("a"), call("b"), result("a"), call("c"), result("b"), result("c")],
         [calling("a", "b", "c"), answered("a"), answered("b"), answered("c")]),
        ([call("a"), result("a"), call("a"), user("also"), result("a")],
         [calling("a"), answered("a"), calling("a"), answered("a"), user("also")]),
    ],
)  # fmt: skip
def test_results_follow_their_calls_whatever_comes_between(items, messages):
    assert chat([USER, *items])["messages"] == [USER, *messages]


def test_a_call_that_is_never_answered_holds_nothing_back():
    said = {"role": "assistant", "content": "so"}
    items = [call("a"), USER, said, call("b"), USER, result("b"), USER]
    assert chat(items)["messages"] == [
        calling("a"), USER, calling("b", content="so"), answered("b"), USER, USER,
    ]  # fmt: skip


def test_calls_of_custom_tools_and_their_results_are_said_as_those_of_functions():
    items = [
        {"type": "custom_tool_call", "id": "ctc_1", "call_id": "a", "name": "patch", "input": '"'},
        {"type": "custom_tool_call_output", "call_id": "a", "output": "done"},
    ]
    said, told = chat([USER, *items])["messages"][1:]
    function = said["tool_calls"][0]["function"]
    assert (function["name"], orjson.loads(function["arguments"])) == ("patch", {"input": '"'})
    assert told == answered("a", "done")
    assert read(items).input_tokens == 2  # ten bytes: a quote, the name, and "done"

"""Names of tools that are too long for a chat: shortened there, whole again in the answer."""

from __future__ import annotations

from typing import Any

from tests.unit.messages_kit import (
    DONE,
    TOOL,
    USER,
    assistant,
    call,
    chat,
    chunk,
    completion,
    gathered,
    piece,
    read,
    result,
    translated,
    use,
    user,
)
from tokenhub.dialects.messages import MESSAGES
from tokenhub.dialects.tool_names import find_short_names, tool_names_of

LONG, TWIN = "mcp__server__" + "x" * 90, "mcp__server__" + "x" * 91
TOOLS: list[dict[str, Any]] = [{**TOOL, "name": LONG}, TOOL, {**TOOL, "name": TWIN}]


def short_of(name: str) -> str:
    asked = chat(tools=[{**TOOL, "name": name}]).request.body
    found: str = asked["tools"][0]["function"]["name"]
    return found


def test_each_is_short_and_its_own_wherever_it_stands():
    turns = [USER, assistant(use("a", LONG), use("b")), user(result("a"), result("b"))]
    asked = chat(*turns, tools=TOOLS, tool_choice={"type": "tool", "name": TWIN}).request.body
    names = [tool["function"]["name"] for tool in asked["tools"]]
    assert names == [short_of(LONG), "find", short_of(TWIN)]
    assert len(set(names)) == 3
    assert all(len(name) <= 64 for name in names)
    assert [each["function"]["name"] for each in asked["messages"][1]["tool_calls"]] == names[:2]
    assert asked["tool_choice"]["function"]["name"] == names[2]


def test_names_that_are_only_in_the_history_are_short_too():
    asked = chat(USER, assistant(use("a", LONG)), user(result("a"))).request.body
    assert asked["messages"][1]["tool_calls"][0]["function"]["name"] == short_of(LONG)


def test_the_caller_gets_its_own_name_whole_and_streamed():
    given = completion("tool_calls", tool_calls=[call(name=short_of(LONG)), call(id="c2")])
    whole = MESSAGES.answer(given, read(tools=TOOLS))
    first = chunk(piece("{}", 0, id="c1", name=short_of(LONG)))
    second = chunk(piece("{}", 1, id="c2", name="find"))
    streamed = gathered(translated(first, second, DONE, tools=TOOLS))
    assert whole["content"] == streamed["content"] == [use("c1", LONG), use("c2")]


def test_a_name_that_another_tool_has_is_not_given_again():
    taken = short_of(LONG)
    found = find_short_names([taken, LONG])
    assert found is not None
    assert found.theirs[LONG] != taken
    assert found.ours == {found.theirs[LONG]: LONG}


def test_a_model_s_own_name_for_such_a_tool_is_still_its_name():
    asked = chat(tools=[{**TOOL, "name": LONG}]).request.body
    found = tool_names_of({"lookup": LONG}, asked)
    assert found is not None
    assert (found.theirs, found.ours) == ({short_of(LONG): "lookup"}, {"lookup": short_of(LONG)})

"""A conversation that another provider began goes on at Anthropic."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.unit.messages_kit import USER, assistant, body, result, text, use, user
from tokenhub.dialects.messages import as_anthropic_takes
from tokenhub.providers.simulator.anthropic_checks import check
from tokenhub.providers.simulator.signature import sign

BUDGET, ADAPTIVE = "claude-sonnet-4-5", "claude-opus-4-6"
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": ""}
SIGNED = {**THOUGHT, "signature": sign("hm")}
HIDDEN = {"type": "redacted_thinking", "data": "d"}
ON = {"type": "enabled", "budget_tokens": 1024}
TOLD = "messages.content.thinking"


def mended(*messages: Any, model: str = BUDGET, **fields: Any) -> tuple[Any, tuple[str, ...]]:
    """What becomes of the messages and the other fields; what came stays as it was."""
    given = body(*messages, max_tokens=4000, **fields)
    before = orjson.dumps(given)
    found, dropped = as_anthropic_takes(given, model)
    assert orjson.dumps(given) == before
    tools = [{"name": "find", "input_schema": {"type": "object"}}]
    check({"tools": tools, **found}, version="2023-06-01", is_beta=True)
    return found, dropped


def ids_in(found: dict[str, Any]) -> list[str]:
    blocks = [block for message in found["messages"] for block in message["content"]
              if isinstance(block, dict)]  # fmt: skip
    return [block.get("id") or block["tool_use_id"] for block in blocks
            if block["type"] in ("tool_use", "tool_result")]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["functions.find:0"] * 2, ["functions_find_0"] * 2),
        (["toolu_0"] * 4, ["toolu_0", "toolu_0", "toolu_0-2", "toolu_0-2"]),
        (["a:b", "a:b", "a_b", "a_b"], ["a_b", "a_b", "a_b-2", "a_b-2"]),
        (["", "", "", ""], ["call", "call", "call-2", "call-2"]),
    ],
)
def test_ids_of_calls_are_plain_and_no_other_s_and_results_find_them(given, found):
    turns = []
    for id in given[::2]:
        turns += [assistant(use(id)), user(result(id))]
    got, dropped = mended(USER, *turns)
    assert (ids_in(got), dropped) == (found, ())


def test_calls_of_one_turn_with_one_id_get_their_results_in_order():
    turns = [assistant(use("a", q=1)), assistant(use("a", q=2)), user(result("a"), result("a"))]
    joined = [USER, assistant(use("a", q=1), use("a", q=2)), turns[2]]
    got, _ = mended(*joined)
    assert ids_in(got) == ["a", "a-2", "a", "a-2"]


def test_a_text_that_is_blank_is_left_out():
    got, dropped = mended(USER, assistant(text("\n\n"), use()), user(text(""), result()))
    assert got["messages"][1:] == [assistant(use()), user(result())]
    assert dropped == ()


@pytest.mark.parametrize("content", [[], "", " \n", [text(" ")], [THOUGHT]])
def test_an_answer_that_says_nothing_is_left_out(content):
    got, _ = mended(USER, {"role": "assistant", "content": content}, USER)
    assert got["messages"] == [USER, USER]


def test_a_turn_of_the_user_s_that_is_blank_is_left_out():
    got, _ = mended(USER, user(text(" ")), assistant(text("a")), USER)
    assert got["messages"] == [USER, assistant(text("a")), USER]


def test_what_the_user_says_last_stays_although_it_is_refused():
    given = body(USER, assistant(text("a")), user(text(" ")))
    found, _ = as_anthropic_takes(given, BUDGET)
    assert found["messages"] == given["messages"]


def test_thoughts_of_other_models_are_left_out_and_told():
    got, dropped = mended(USER, assistant(THOUGHT, SIGNED, text("a")), USER, assistant(THOUGHT),
                          USER, thinking=ON)  # fmt: skip
    assert got["messages"] == [USER, assistant(SIGNED, text("a")), USER, USER]
    assert (got["thinking"], dropped) == (ON, (TOLD,))


LOST = [
    ([assistant(THOUGHT, use()), user(result())], (TOLD, "thinking")),
    ([assistant(use()), user(result())], ("thinking",)),
    ([assistant(text("a"), use()), user(result(), text("b"))], ("thinking",)),
    ([assistant(SIGNED, use("a")), user(result("a")), assistant(THOUGHT, use()), user(result())],
     (TOLD, "thinking")),
    ([assistant(SIGNED, text("a")), USER, assistant(use()), user(result())], ("thinking",)),
]  # fmt: skip


@pytest.mark.parametrize(("turns", "dropped"), LOST)
def test_without_the_thoughts_before_results_nothing_is_thought(turns, dropped):
    got, told = mended(USER, *turns, thinking=ON)
    assert (got["thinking"], told) == ({"type": "disabled"}, dropped)
    given = body(USER, *turns, thinking=ON)
    found, told = as_anthropic_takes(given, ADAPTIVE)
    assert (found["thinking"], told) == (ON, tuple(name for name in dropped if name == TOLD))


def test_what_is_to_be_done_to_thoughts_goes_with_them():
    edits = [
        {"type": "clear_thinking_20251015", "keep": "all"},
        {"type": "clear_tool_uses_20250919"},
    ]
    got, told = mended(USER, assistant(use()), user(result()), thinking=ON,
                       context_management={"edits": edits, "x": 1})  # fmt: skip
    assert got["context_management"] == {"edits": edits[1:], "x": 1}
    assert told == ("thinking", "context_management.edits")


KEPT: list[tuple[dict[str, Any], ...]] = [
    (USER,),
    (USER, assistant(SIGNED, text("a")), USER),
    (USER, assistant(SIGNED, use()), user(result())),
    (USER, assistant(HIDDEN, use()), user(result())),
    # Between the calls of one turn Claude need not think again.
    (USER, assistant(SIGNED, use("a")), user(result("a")), assistant(use()), user(result())),
    (USER, assistant(text("a")), USER),
    (USER, {"role": "assistant", "content": ""}),
    (USER, assistant(use("toolu_1"), use("toolu_2")), user(result("toolu_2"), result("toolu_1")),
     assistant(SIGNED, use("toolu_3")), user(result("toolu_3"))),
    (USER, {"role": "tomorrow", "content": [{"type": "tool_use", "input": {}, "id": 7}]}),
    (user(result("a b"), {"type": "text", "text": 7}),),
]  # fmt: skip


@pytest.mark.parametrize("messages", KEPT)
def test_what_anthropic_can_have_said_goes_through_as_it_is(messages):
    given = body(*messages, thinking=ON)
    found, dropped = as_anthropic_takes(given, BUDGET)
    assert found is given
    assert dropped == ()

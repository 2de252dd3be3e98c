"""Whatever stands wherever in a Messages request is taken or refused, and never a fault of ours."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import orjson
import pytest

from tests.unit.messages_kit import (
    DONE,
    PDF,
    PNG,
    TOOL,
    assistant,
    body,
    call,
    chunk,
    completion,
    piece,
    result,
    text,
    use,
    user,
)
from tokenhub.dialects.messages import MESSAGES, as_anthropic_takes
from tokenhub.errors import TokenHubError

ODD: tuple[Any, ...] = (
    None, True, 0, -1, 1.5, 1e30, "", "x", [], {}, ["a"], [["a"]], [{}], {"type": 7}, {"a": [1]},
    {"type": "text"}, {"type": "enabled"}, {"type": "tool"},
)  # fmt: skip
SCHEMA = {"type": "object", "properties": {"a": {"enum": ["b"]}, "c": {"anyOf": [{}]}},
          "required": ["a", "c"], "additionalProperties": False}  # fmt: skip
WHOLE = body(
    user(text("hi"), {"type": "image", "source": PNG},
         {"type": "document", "source": PDF, "title": "t", "citations": {"enabled": True}},
         {"type": "search_result", "source": "s", "title": "t", "content": [text("c")]}),
    assistant({"type": "thinking", "thinking": "x", "signature": ""}, use("a", q=1), use("b")),
    user(result("a", [text("x")]), result("b", is_error=True)),
    system=[text("s")], stop_sequences=["E"], temperature=0.5, metadata={"user_id": "u"},
    tools=[{**TOOL, "strict": True}], thinking={"type": "enabled", "budget_tokens": 2000},
    tool_choice={"type": "tool", "name": "find", "disable_parallel_tool_use": True},
    output_config={"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
    context_management={"edits": [{"type": "clear_thinking"}]},
)  # fmt: skip


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to everything within a value."""
    if path:
        yield path
    if isinstance(value, list):
        value = dict(enumerate(value))
    for step, inner in value.items() if isinstance(value, dict) else ():
        yield from paths(inner, (*path, step))


def with_odd(path: tuple[Any, ...], odd: Any) -> bytes:
    found = copy.deepcopy(WHOLE)
    holder: Any = found
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = odd
    return orjson.dumps(found)


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_a_request_with_something_odd_in_it_is_refused_at_most(odd):
    answer = completion(content="x", tool_calls=[call()])
    stream = chunk({"content": "x"}) + chunk(piece("{}", id="a", name="find")) + DONE
    for path in paths(WHOLE):
        with suppress(TokenHubError):
            asked = MESSAGES.read(with_odd(path, odd))
            MESSAGES.limit_output(asked, 10)
            orjson.dumps(as_anthropic_takes(asked.body, "claude-sonnet-4-5")[0])
            MESSAGES.answer(answer, asked)
            MESSAGES.translator(asked).feed(stream)
            orjson.dumps(MESSAGES.to_chat(asked).request.body)

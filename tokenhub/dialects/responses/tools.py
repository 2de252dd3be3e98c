"""Tools of a Responses request, and the choice among them, as a chat has them.

A chat's tools are functions, and nested. A custom tool, which takes free text, is said as a
function with one field for it. What no function can be is left out and told, unless it is chosen:
tools that OpenAI runs itself, texts by a grammar, namespaces.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from tokenhub.dialects.anthropic.reading import Dropped, filled_text_at
from tokenhub.errors import Untranslatable

_FIELDS = {
    "function": frozenset({"type", "name", "description", "parameters", "strict"}),
    "custom": frozenset({"type", "name", "description", "format"}),
}
_ASKS_NOTHING = {"async": False, "defer_loading": False, "allowed_callers": ["direct"]}
_INPUT = "input"
"""How the field is called that a custom tool's text stands in."""
_INPUT_SCHEMA = {
    "type": "object",
    "properties": {_INPUT: {"type": "string"}},
    "required": [_INPUT],
    "additionalProperties": False,
}


def to_chat_tools(tools: list[dict[str, Any]], dropped: Dropped) -> list[dict[str, Any]]:
    """Those tools of a request that was checked that can be functions."""
    said = []
    for tool in tools:
        if _can_be_function(tool):
            said.append(_tool(tool, dropped))
        else:
            dropped.add(f"tools.{tool['type']}")
    return said


def to_chat_choice(
    choice: str | dict[str, Any], tools: list[dict[str, Any]], dropped: Dropped
) -> str | dict[str, Any]:
    """The choice of a request that was checked.

    Args:
        tools: the request's.

    Raises:
        Untranslatable: it chooses what is left out, or there is nothing left to choose from.
    """
    left_out = [tool for tool in tools if not _can_be_function(tool)]
    is_none_left = bool(left_out) and len(left_out) == len(tools)
    if isinstance(choice, str):
        if choice == "required" and is_none_left:
            raise _no_function(left_out[0], "tools[0].type")
        return choice
    if choice["type"] != "allowed_tools":
        return _chosen(choice, "tool_choice", left_out)
    return _allowed(choice, left_out, dropped)


def custom_names(body: Mapping[str, Any]) -> frozenset[str]:
    """The names of the custom tools that are said as functions."""
    tools = body.get("tools") or ()
    return frozenset(
        tool["name"] for tool in tools if tool["type"] == "custom" and _can_be_function(tool)
    )


def said_arguments(text: str) -> str:
    """The text of a custom tool's call as a function's arguments."""
    return orjson.dumps({_INPUT: text}).decode()


def heard_input(arguments: str) -> str:
    """The text that a custom tool is called with: a function's arguments may be anything."""
    try:
        found = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return arguments
    text = found.get(_INPUT) if isinstance(found, dict) else None
    return text if isinstance(text, str) else arguments


def _can_be_function(tool: Mapping[str, Any]) -> bool:
    if tool["type"] == "custom":
        return (tool.get("format") or {"type": "text"}).get("type") == "text"
    return bool(tool["type"] == "function")


def _tool(tool: dict[str, Any], dropped: Dropped) -> dict[str, Any]:
    function = {
        name: tool[name]
        for name in ("name", "description", "parameters", "strict")
        if tool.get(name) is not None
    }
    if tool["type"] == "custom":
        function = {**function, "parameters": _INPUT_SCHEMA}
    said = {name: value for name, value in tool.items() if value != _ASKS_NOTHING.get(name)}
    dropped.add_unknown(said, _FIELDS[tool["type"]], "tools.")
    return {"type": "function", "function": function}


def _allowed(
    choice: dict[str, Any], left_out: list[dict[str, Any]], dropped: Dropped
) -> str | dict[str, Any]:
    """Those that are allowed; what is left out cannot be called anyway."""
    allowed, tools = choice.get("tools") or [], []
    for number, each in enumerate(allowed):
        if _is_function(each, left_out):
            tools.append(_chosen(each, f"tool_choice.tools[{number}]", left_out))
        else:
            dropped.add(f"tools.{each['type']}")
    if allowed and not tools:
        if choice["mode"] == "required":
            raise _no_function(allowed[0], "tool_choice.tools[0].type")
        return "none"
    return {"type": "allowed_tools", "allowed_tools": {"mode": choice["mode"], "tools": tools}}


def _chosen(choice: dict[str, Any], path: str, left_out: list[dict[str, Any]]) -> dict[str, Any]:
    if not _is_function(choice, left_out):
        raise _no_function(choice, f"{path}.type")
    name = filled_text_at(choice.get("name"), f"{path}.name")
    return {"type": "function", "function": {"name": name}}


def _is_function(choice: dict[str, Any], left_out: list[dict[str, Any]]) -> bool:
    """Whether a tool is chosen that is said as a function."""
    if choice["type"] != "custom":
        return bool(choice["type"] == "function")
    return all(tool["type"] != "custom" or tool["name"] != choice.get("name") for tool in left_out)


def _no_function(found: dict[str, Any], path: str) -> Untranslatable:
    return Untranslatable(
        f"TokenHub translates function tools only, not {found['type'][:64]}", param=path
    )

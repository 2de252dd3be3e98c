"""Anthropic's tools, and the choice among them, in the words of the chat dialect.

https://platform.claude.com/docs/en/agents-and-tools/tool-use/define-tools.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tokenhub.dialects.anthropic.reading import Block, Dropped, flag_at, text_at
from tokenhub.dialects.messages.reading import OWN_TOOL_TYPES
from tokenhub.dialects.tool_names import ToolNames, find_short_names
from tokenhub.errors import InvalidRequest, Untranslatable

_FIELDS = frozenset({"type", "name", "description", "input_schema", "strict"})
_CHOICE_FIELDS = frozenset({"type", "name", "disable_parallel_tool_use"})
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def read_tools(body: Mapping[str, Any], dropped: Dropped) -> dict[str, Any]:
    """The fields of a chat request that say which tools there are, and how to choose.

    Raises:
        InvalidRequest: a tool is not of its form, or the choice is not among them.
        Untranslatable: a tool is Anthropic's own.
    """
    tools = [_read_tool(tool, f"tools[{n}]", dropped) for n, tool in enumerate(body["tools"])]
    said: dict[str, Any] = {"tools": tools}
    choice = body.get("tool_choice")
    if choice is not None:
        said["tool_choice"] = _choice(choice, {tool["function"]["name"] for tool in tools})
        if choice.get("disable_parallel_tool_use") and choice["type"] != "none":
            said["parallel_tool_calls"] = False
        dropped.add_unknown(choice, _CHOICE_FIELDS, "tool_choice.")
    return said


def short_names_of(body: Mapping[str, Any], called: Iterable[str] = ()) -> ToolNames | None:
    """The names of tools that a chat takes where Anthropic's are too long; None = none is.

    Args:
        called: the names in earlier calls, which do not change those of the tools.
    """
    tools = body.get("tools")
    names = [tool.get("name") for tool in tools] if tools else []
    return find_short_names([name for name in names if isinstance(name, str)], called)


def _read_tool(tool: Block, path: str, dropped: Dropped) -> dict[str, Any]:
    if tool.get("type") not in OWN_TOOL_TYPES:
        raise Untranslatable(
            "the tool is one of Anthropic's own: describe it with an input_schema",
            param=f"{path}.type",
        )
    function = {"name": tool["name"], "parameters": tool["input_schema"]}
    description = tool.get("description")
    if description is not None and text_at(description, f"{path}.description"):
        function["description"] = description
    if (strict := flag_at(tool.get("strict"), f"{path}.strict")) is not None:
        function["strict"] = strict
    dropped.add_unknown(tool, _FIELDS, "tools.")
    return {"type": "function", "function": function}


def _choice(choice: Block, names: set[str]) -> str | dict[str, Any]:
    if choice["type"] != "tool":
        if choice["type"] not in _CHOICES:
            raise Untranslatable("a chat has no such choice", param="tool_choice.type")
        return _CHOICES[choice["type"]]
    if choice["name"] not in names:
        raise InvalidRequest("tools has no tool of this name", param="tool_choice.name")
    return {"type": "function", "function": {"name": choice["name"]}}

"""Tools by the names that a model knows them by, in what the chat dialect says.

A model's `tool_name_map` has the model's name of a tool and the caller's. Where several of the
model's names are for one of the caller's, the first is what the model is told, and any is
understood. Nothing but names is changed. Knows no model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tokenhub.dialects.stage import Chunk, ChunkStage, each_choice
from tokenhub.domain import ChatRequest

NAME_CHARS_MAX = 64
"""https://platform.openai.com/docs/api-reference/chat/create: longer names of tools are a 400."""
_HASH_CHARS = 10


@dataclass(frozen=True, slots=True)
class ToolNames:
    """How the tools of one request are called.

    Args:
        theirs: the model's name by the caller's.
        ours: the caller's name by the model's.
    """

    theirs: Mapping[str, str]
    ours: Mapping[str, str]


def tool_names_of(names: Mapping[str, str], body: Mapping[str, Any]) -> ToolNames | None:
    """How a model with these names is asked a request; None = every name is as the caller's.

    A tool that the caller itself calls by the model's name of another stays what it is, both ways:
    else the two could not be told apart.

    Args:
        names: the model's `tool_name_map`.
        body: the request in the chat dialect.
    """
    if not names:
        return None
    declared = {name for name in map(_name_of, _list(body.get("tools"))) if name}
    declared |= {each["name"] for each in _list(body.get("functions")) if _has_name(each)}
    ours = {
        theirs: _as_declared(our, declared)
        for theirs, our in names.items()
        if theirs not in declared
    }
    theirs: dict[str, str] = {}
    for name, our in ours.items():
        theirs.setdefault(our, name)
    return ToolNames(theirs, ours) if ours else None


def find_short_names(declared: Iterable[str], called: Iterable[str] = ()) -> ToolNames | None:
    """Names of at most NAME_CHARS_MAX characters for those that are longer; None = none is.

    Args:
        declared: the names of the request's tools.
        called: those in its history. They change nothing about the others.
    """
    theirs: dict[str, str] = {}
    taken: set[str] = set()
    for names in (list(declared), list(called)):
        taken.update(names)
        for name in names:
            if len(name) > NAME_CHARS_MAX and name not in theirs:
                theirs[name] = _untaken(name, taken)
                taken.add(theirs[name])
    return ToolNames(theirs, {short: name for name, short in theirs.items()}) if theirs else None


def short_name(name: str, tries: int = 0) -> str:
    """A name that is too long by its beginning and a hash of it all, always the same.

    Args:
        tries: how many such names another tool has already.
    """
    text = f"{name} {tries}" if tries else name
    mark = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_CHARS]
    return f"{name[: NAME_CHARS_MAX - _HASH_CHARS - 1]}_{mark}"


def with_their_names(request: ChatRequest, names: ToolNames) -> ChatRequest:
    """The request as the model is asked it."""
    body, theirs = dict(request.body), names.theirs
    for field in ("tools", "functions"):
        if isinstance(body.get(field), list):
            body[field] = [_rename_tool(each, theirs) for each in body[field]]
    for field in ("tool_choice", "function_call"):
        if isinstance(body.get(field), dict):
            body[field] = _rename_choice(body[field], theirs)
    if isinstance(body.get("messages"), list):
        body["messages"] = [_rename_message(each, theirs) for each in body["messages"]]
    return replace(request, body=body)


def with_our_names(completion: dict[str, Any], names: ToolNames) -> dict[str, Any]:
    """A whole completion as the caller gets it."""

    def rename(_: int, choice: Any) -> Any:
        return _rename_within(choice, "message", names.ours)

    return each_choice(completion, rename)


class ToolNamesStage(ChunkStage):
    """The same for a stream."""

    def __init__(self, names: ToolNames) -> None:
        self._names = names

    def feed(self, block: bytes) -> bytes:
        if b"_call" not in block:
            return block
        return super().feed(block)

    def change(self, chunk: Chunk) -> Chunk:
        return each_choice(
            chunk, lambda _, choice: _rename_within(choice, "delta", self._names.ours)
        )


def _untaken(name: str, taken: set[str]) -> str:
    short, tries = short_name(name), 0
    while short in taken:
        tries += 1
        short = short_name(name, tries)
    return short


def _as_declared(name: str, declared: set[str]) -> str:
    """A name of the caller's as a request has it whose dialect allows longer ones than a chat."""
    if len(name) <= NAME_CHARS_MAX:
        return name
    short = short_name(name)
    return short if short in declared else name


def _rename_within(choice: Any, field: str, names: Mapping[str, str]) -> Any:
    if not isinstance(choice, dict):
        return choice
    renamed = _rename_calls(choice.get(field), names)
    return choice if renamed is choice.get(field) else {**choice, field: renamed}


def _rename_message(message: Any, names: Mapping[str, str]) -> Any:
    renamed = _rename_calls(message, names)
    # What answers a call may say whose answer it is; a `name` of others is a person's.
    if isinstance(renamed, dict) and renamed.get("role") in ("tool", "function"):
        return _rename_in(renamed, names)
    return renamed


def _rename_calls(message: Any, names: Mapping[str, str]) -> Any:
    """A message, or a delta, with other names in its calls; the same if there are none."""
    if not isinstance(message, dict):
        return message
    changes: dict[str, Any] = {}
    calls = message.get("tool_calls")
    if isinstance(calls, list):
        renamed = [_rename_tool(call, names) for call in calls]
        if any(new is not old for new, old in zip(renamed, calls, strict=True)):
            changes["tool_calls"] = renamed
    call = message.get("function_call")
    if _rename_in(call, names) is not call:
        changes["function_call"] = _rename_in(call, names)
    return {**message, **changes} if changes else message


def _rename_choice(choice: Any, names: Mapping[str, str]) -> Any:
    """A `tool_choice`: one tool, or a list of those that are allowed."""
    allowed = choice.get("allowed_tools")
    if isinstance(allowed, dict) and isinstance(allowed.get("tools"), list):
        tools = [_rename_tool(each, names) for each in allowed["tools"]]
        return {**choice, "allowed_tools": {**allowed, "tools": tools}}
    return _rename_tool(choice, names)


def _rename_tool(tool: Any, names: Mapping[str, str]) -> Any:
    """A tool, a call or a choice: the name is within `function` or `custom`, or beside `type`."""
    if not isinstance(tool, dict):
        return tool
    for field in ("function", "custom"):
        if field in tool:
            renamed = _rename_in(tool[field], names)
            return tool if renamed is tool[field] else {**tool, field: renamed}
    return _rename_in(tool, names)


def _rename_in(holder: Any, names: Mapping[str, str]) -> Any:
    if not _has_name(holder) or holder["name"] not in names:
        return holder
    return {**holder, "name": names[holder["name"]]}


def _name_of(tool: Any) -> str:
    if not isinstance(tool, dict):
        return ""
    for field in ("function", "custom"):
        if field in tool:
            return str(tool[field]["name"]) if _has_name(tool[field]) else ""
    return ""


def _has_name(holder: Any) -> bool:
    return isinstance(holder, dict) and isinstance(holder.get("name"), str)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []

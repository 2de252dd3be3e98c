"""From a Responses request to a chat's: every field is translated, refused, or dropped and told.

The tables below are the whole of the request; docs/translation.md says the same to operators.
Formats: https://platform.openai.com/docs/api-reference/responses/create and …/chat/create.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tokenhub.dialects.anthropic.reading import Dropped
from tokenhub.dialects.dialect import InChat
from tokenhub.dialects.responses.conversation import Conversation
from tokenhub.dialects.responses.reading import STATEFUL
from tokenhub.dialects.responses.tools import to_chat_choice, to_chat_tools
from tokenhub.domain import ChatRequest
from tokenhub.errors import Untranslatable

SAME = frozenset({
    "model", "stream", "temperature", "top_p", "user", "safety_identifier", "service_tier",
    "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention",
})  # fmt: skip
"""What a chat says in the same words."""
KEPT = frozenset({"metadata", *STATEFUL})
"""What no provider needs to know: `metadata` is said again in the answer."""
TRANSLATED = SAME | KEPT | {
    "input", "instructions", "tools", "tool_choice", "parallel_tool_calls", "text", "reasoning",
    "max_output_tokens", "include", "top_logprobs",
}  # fmt: skip

REFUSED = frozenset({"prompt", "moderation"})
"""What no chat can do, or not in an answer of this form; null asks for nothing."""

DROPPED: Mapping[str, tuple[Any, ...]] = {
    "truncation": ("disabled",),
    "max_tool_calls": (),
    "context_management": ([],),
    "background_options": ({},),
    "access_programs": ({},),
    "image": ({},),
    "stream_options": ({}, {"include_obfuscation": False}),
}
"""What the answer is right without: left out and told, unless it is null or one of these values."""

LOGPROBS = "message.output_text.logprobs"

_TEXT_FIELDS = frozenset({"format", "verbosity"})
_FORMAT_FIELDS = frozenset({"type", "name", "schema", "strict", "description"})
_REASONING_NOTHING = {"mode": "standard", "context": "auto"}


def to_chat(request: ChatRequest) -> InChat:
    """The same in a chat's words; the request stays as it is.

    Raises:
        InvalidRequest: an item has no id that a chat could tell it by.
        Untranslatable: a chat cannot be asked for this.
    """
    body, dropped = request.body, Dropped()
    for name in sorted(REFUSED):
        if body.get(name) is not None:
            raise Untranslatable(f"{name} cannot be asked of a chat model", param=name)
    said = {name: body[name] for name in SAME if body.get(name) is not None}
    said["messages"] = _messages(body, dropped)
    said |= _tools(body, dropped) | _form(body, dropped) | _logprobs(body, dropped)
    said |= _effort(body, dropped)
    if request.output_tokens_max is not None:
        said["max_completion_tokens"] = request.output_tokens_max
    for name, value in body.items():
        if name not in TRANSLATED and value is not None and value not in DROPPED.get(name, ()):
            dropped.add(name)
    return InChat(replace(request, body=said, dialect="chat", headers={}), dropped.names)


def _messages(body: Mapping[str, Any], dropped: Dropped) -> list[dict[str, Any]]:
    talk = Conversation(body.get("instructions") or "", dropped)
    talk.read(body["input"])
    if not talk.messages:
        raise Untranslatable("there is nothing in it that a chat could say", param="input")
    return talk.messages


def _tools(body: Mapping[str, Any], dropped: Dropped) -> dict[str, Any]:
    """Nothing without tools: a chat refuses a choice where there is none."""
    given, choice = body.get("tools") or [], body.get("tool_choice")
    tools = to_chat_tools(given, dropped)
    said: dict[str, Any] = {"tools": tools} if tools else {}
    if choice is not None:
        choice = to_chat_choice(choice, given, dropped)
        if tools or choice not in ("auto", "none"):
            said["tool_choice"] = choice
    if tools and body.get("parallel_tool_calls") is not None:
        said["parallel_tool_calls"] = body["parallel_tool_calls"]
    return said


def _form(body: Mapping[str, Any], dropped: Dropped) -> dict[str, Any]:
    wish = body.get("text") or {}
    dropped.add_unknown(wish, _TEXT_FIELDS, "text.")
    said: dict[str, Any] = {}
    if wish.get("verbosity") is not None:
        said["verbosity"] = wish["verbosity"]
    wanted = wish.get("format") or {"type": "text"}
    dropped.add_unknown(wanted, _FORMAT_FIELDS, "text.format.")
    if wanted["type"] == "json_object":
        said["response_format"] = {"type": "json_object"}
    elif wanted["type"] == "json_schema":
        described = {
            name: wanted[name]
            for name in ("name", "description", "schema", "strict")
            if wanted.get(name) is not None
        }
        said["response_format"] = {"type": "json_schema", "json_schema": described}
    return said


def _logprobs(body: Mapping[str, Any], dropped: Dropped) -> dict[str, Any]:
    wanted = body.get("include") or ()
    for name in wanted:
        if name != LOGPROBS:
            dropped.add(f"include.{name}")
    count = body.get("top_logprobs")
    if LOGPROBS not in wanted and not count:
        return {}
    return {"logprobs": True} if count is None else {"logprobs": True, "top_logprobs": count}


def _effort(body: Mapping[str, Any], dropped: Dropped) -> dict[str, Any]:
    wish = body.get("reasoning") or {}
    asked = {name: value for name, value in wish.items() if value != _REASONING_NOTHING.get(name)}
    dropped.add_unknown(asked, frozenset({"effort"}), "reasoning.")
    effort = wish.get("effort")
    return {} if effort is None else {"reasoning_effort": effort}

"""From a chat completion to a response, whole.

Knows what stands around the output of a response; draft.py writes the output itself. Formats:
https://platform.openai.com/docs/api-reference/responses/object and …/chat/object.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tokenhub.dialects import openai
from tokenhub.dialects.responses.draft import Draft, Item
from tokenhub.dialects.responses.tools import custom_names
from tokenhub.domain import ChatRequest

INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""The finish reasons that leave an answer incomplete, in a response's words."""
TIERS = frozenset({"auto", "default", "flex", "scale", "priority", "fast", "ultrafast"})
ID_CHARS_MAX = 48
"""OpenAI refuses items whose id has more than 64, our prefix and number included."""

_NOT_IN_ID = re.compile(r"[^A-Za-z0-9_-]")
_ECHOED: Mapping[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "temperature": None,
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": None,
    "user": None,
}
"""What a response repeats of its request, with what it says where the request says nothing."""


def to_response(completion: dict[str, Any], request: ChatRequest) -> dict[str, Any]:
    """A whole completion as the response to a request; what is not of the shape we know is left
    out."""
    choices = completion.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else {}
    choice = choice if isinstance(choice, dict) else {}
    draft = Draft(base_of(completion), lambda kind, fields: None, custom_names(request.body))
    message = choice.get("message")
    if isinstance(message, dict):
        write(draft, message, logprobs_of(choice))
    reason = choice.get("finish_reason")
    output = draft.finish(is_complete=cut_by(reason) is None)
    return {**begun(completion, request), **ended(completion, reason, output)}


def write(draft: Draft, message: Mapping[str, Any], logprobs: list[dict[str, Any]]) -> None:
    """Add what a message, or a delta of one, says."""
    # vLLM and others call their thoughts `reasoning_content`, or `reasoning`, or both.
    if thought := _text(message, "reasoning_content") or _text(message, "reasoning"):
        draft.think(thought)
    text = _text(message, "content")
    if text or logprobs:
        draft.say(text, logprobs)
    if refusal := _text(message, "refusal"):
        draft.refuse(refusal)
    calls = message.get("tool_calls")
    for number, call in enumerate(calls if isinstance(calls, list) else ()):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            continue
        position = call.get("index")
        draft.call(
            position if isinstance(position, int) else number,
            _text(call, "id"),
            _text(function, "name"),
            _text(function, "arguments"),
        )


def begun(chat: Mapping[str, Any], request: ChatRequest) -> dict[str, Any]:
    """The response before anything is said; `chat` is a completion or the chunk that began one."""
    body, created = request.body, chat.get("created")
    echoed = {
        name: otherwise if body.get(name) is None else body[name]
        for name, otherwise in _ECHOED.items()
    }
    wish = body.get("reasoning") or {}
    return {
        "id": f"resp_{base_of(chat)}",
        "object": "response",
        "created_at": created if isinstance(created, int) else 0,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "model": _text(chat, "model"),
        "output": [],
        "previous_response_id": None,
        "reasoning": {"effort": wish.get("effort"), "summary": None},
        "service_tier": _tier(chat),
        "store": False,
        "text": {"format": {"type": "text"}, **_said(body.get("text"))},
        "truncation": "disabled",
        "usage": None,
        **echoed,
    }


def ended(chat: Mapping[str, Any], reason: Any, output: list[Item]) -> dict[str, Any]:
    """What is different once all is said.

    Args:
        chat: a completion, or what the chunks of one have said of tier and usage.
        reason: why it ended; None = it is not told.
    """
    cut = cut_by(reason)
    return {
        "status": "incomplete" if cut else "completed",
        "incomplete_details": {"reason": cut} if cut else None,
        "output": output,
        "service_tier": _tier(chat),
        "usage": to_usage(chat),
    }


def cut_by(reason: Any) -> str | None:
    """Why an answer that ended for this reason is incomplete; None when it is whole."""
    return INCOMPLETE.get(reason) if isinstance(reason, str) else None


def to_usage(chat: Mapping[str, Any]) -> dict[str, Any] | None:
    """The usage of a chat in a response's words; None when there is none worth having."""
    usage = openai.usage_of(chat)
    if usage is None:
        return None
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def base_of(chat: Mapping[str, Any]) -> str:
    """What a response's ids are made of: the chat's id, without its prefix."""
    plain = _NOT_IN_ID.sub("", _text(chat, "id").removeprefix("chatcmpl-"))
    return plain[:ID_CHARS_MAX] or "0"


def logprobs_of(choice: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The log probabilities of a choice's text, or of a piece of it."""
    told = choice.get("logprobs")
    tokens = told.get("content") if isinstance(told, dict) else None
    found = []
    for each in tokens if isinstance(tokens, list) else ():
        if token := _logprob(each):
            others = each.get("top_logprobs")
            others = others if isinstance(others, list) else []
            top = [other for other in map(_logprob, others) if other]
            found.append({**token, "top_logprobs": top})
    return found


def _logprob(found: Any) -> dict[str, Any] | None:
    if not isinstance(found, dict) or not isinstance(found.get("logprob"), int | float):
        return None
    token, octets = _text(found, "token"), found.get("bytes")
    if not isinstance(octets, list):
        octets = list(token.encode("utf-8", "surrogatepass"))
    return {"token": token, "bytes": octets, "logprob": found["logprob"]}


def _said(wish: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (wish or {}).items() if value is not None}


def _text(source: Mapping[str, Any], name: str) -> str:
    value = source.get(name)
    return value if isinstance(value, str) else ""


def _tier(chat: Mapping[str, Any]) -> str | None:
    tier = _text(chat, "service_tier")
    return tier if tier in TIERS else None

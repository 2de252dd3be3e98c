"""From a chat completion to Anthropic's message, whole.

Knows what a finish reason becomes and where each part of the answer goes; streams.py tells the
same in pieces. Formats: https://platform.openai.com/docs/api-reference/chat/object and
https://docs.claude.com/en/api/messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenhub.dialects import openai
from tokenhub.dialects.anthropic.answers import (
    FINISH_REASONS,
    SERVICE_TIERS,
    text_of,
    thinking_block,
)
from tokenhub.dialects.anthropic.reading import Block
from tokenhub.dialects.anthropic.turns import RAW, find_arguments, plain_id
from tokenhub.dialects.messages.to_chat import stops_of
from tokenhub.dialects.messages.tokens import content_size
from tokenhub.dialects.messages.tools import short_names_of
from tokenhub.dialects.tool_names import with_our_names
from tokenhub.domain import ChatRequest, Usage

# Of several reasons that are one in a chat, the first: end_turn for stop.
STOP_REASONS = {said: heard for heard, said in reversed(FINISH_REASONS.items())}
REFUSAL_DETAILS = {"type": "refusal", "category": None, "explanation": None}

_ID_CHARS_MAX = 24
"""How much of a message's id goes into those of its calls: OpenAI takes 40 characters back."""
_TIERS = {said: heard for heard, said in SERVICE_TIERS.items()}


def to_message(completion: dict[str, Any], request: ChatRequest) -> dict[str, Any]:
    """Translate a completion; what is not of the shape we know is left out.

    Args:
        request: what it answers.
    """
    names = short_names_of(request.body)
    if names is not None:
        completion = with_our_names(completion, names)
    choices = completion.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    choice = choice if isinstance(choice, dict) else {}
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    told = envelope(completion)
    content = _content(message, told["id"])
    has_calls = bool(content) and content[-1]["type"] == "tool_use"
    usage = openai.usage_of(completion) or _guess(content, request)
    return {
        **told,
        "content": content,
        **ending(choice, request, has_calls=has_calls, is_refused=bool(message.get("refusal"))),
        "usage": to_anthropic_usage(usage, completion.get("service_tier")),
    }


def envelope(completion: Mapping[str, Any]) -> dict[str, Any]:
    """What every message begins with."""
    id = text_of(completion, "id").removeprefix("chatcmpl-")
    return {
        "id": id if id.startswith("msg_") else f"msg_{id}",
        "type": "message",
        "role": "assistant",
        "model": text_of(completion, "model"),
    }


def ending(
    choice: Mapping[str, Any], request: ChatRequest, *, has_calls: bool, is_refused: bool
) -> dict[str, Any]:
    """Why it ended, in Anthropic's three fields.

    Whoever is told of calls waits for some, so they must be there; and where they are there, they
    are to be run, though some servers say `stop`. vLLM and SGLang tell which text ended the answer.
    """
    reason = choice.get("finish_reason")
    told = STOP_REASONS.get(reason, "end_turn") if isinstance(reason, str) else "end_turn"
    sequence = None
    if is_refused:
        told = "refusal"
    elif told in ("end_turn", "tool_use"):
        told = "tool_use" if has_calls else "end_turn"
        stops = stops_of(request)
        found = (choice.get(name) for name in ("stop_reason", "matched_stop"))
        sequence = next((text for text in found if isinstance(text, str) and text in stops), None)
    if sequence is not None:
        told = "stop_sequence"
    details = REFUSAL_DETAILS if told == "refusal" else None
    return {"stop_reason": told, "stop_sequence": sequence, "stop_details": details}


def to_anthropic_usage(usage: Usage, tier: object = None) -> dict[str, Any]:
    """Anthropic's `usage` object, whose `input_tokens` leave out the cache's."""
    read, written = usage.cache_read_tokens, usage.cache_write_tokens
    told: dict[str, Any] = {
        "input_tokens": usage.input_tokens - read - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "output_tokens": usage.output_tokens,
    }
    if usage.reasoning_tokens:
        told["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    if isinstance(tier, str) and tier in _TIERS:
        told["service_tier"] = _TIERS[tier]
    return told


def thoughts_of(message: Mapping[str, Any]) -> str:
    """What it has thought, by either of the names that servers have for it."""
    return text_of(message, "reasoning_content") or text_of(message, "reasoning")


def call_id(call: Mapping[str, Any], number: int, message_id: str) -> str:
    """A call's id as it came, so that its result finds it; some servers give none.

    Args:
        number: which of the message's calls it is.
        message_id: what makes it another id in every message.
    """
    id = text_of(call, "id")
    if id:
        return id
    of_message = plain_id(message_id.removeprefix("msg_"))[-_ID_CHARS_MAX:]
    return f"toolu_{of_message}_{number}" if of_message else f"toolu_{number}"


def objects_in(values: object) -> list[dict[str, Any]]:
    """The objects of a list; none where there is no list."""
    return [each for each in values if isinstance(each, dict)] if isinstance(values, list) else []


def text_in(content: object) -> str:
    """A text, or the texts of parts."""
    if isinstance(content, str):
        return content
    return "".join(text_of(part, "text") for part in objects_in(content))


def _content(message: Mapping[str, Any], message_id: str) -> list[Block]:
    content = _signed(message)
    thoughts = thoughts_of(message)
    if thoughts and not content:
        content.append({"type": "thinking", "thinking": thoughts, "signature": ""})
    for text in (text_in(message.get("content")), text_of(message, "refusal")):
        if text:
            content.append({"type": "text", "text": text})
    calls = enumerate(objects_in(message.get("tool_calls")))
    return content + [
        _use(call, call_id(call, number, message_id))
        for number, call in calls
        if isinstance(call.get("function"), dict)
    ]


def _signed(message: Mapping[str, Any]) -> list[Block]:
    """Thoughts of Claude's that came by way of a chat, as other gateways tell them."""
    found = (thinking_block(each) for each in objects_in(message.get("thinking_blocks")))
    return [block for block in found if block is not None]


def _use(call: Mapping[str, Any], id: str) -> Block:
    function = call["function"]
    text = text_of(function, "arguments")
    found = find_arguments(text)
    return {
        "type": "tool_use",
        "id": id,
        "name": text_of(function, "name"),
        "input": {RAW: text} if found is None else found,
    }


def _guess(content: list[Block], request: ChatRequest) -> Usage:
    """What was used, where the server does not say: at four bytes a token."""
    return Usage(request.input_tokens, -(-content_size(content) // 4), is_estimate=True)

"""A Messages request: read once, and checked as far as others rely on its form.

What is left to whoever answers: the insides of blocks, fields and words that we do not know.
https://docs.claude.com/en/api/messages.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import orjson

from tokenhub.dialects import openai
from tokenhub.dialects.anthropic.reading import (
    Block,
    filled_text_at,
    flag_at,
    list_at,
    number_at,
    object_at,
    text_at,
    whole_at,
    word_at,
)
from tokenhub.dialects.anthropic.thinking import BUDGET_MIN
from tokenhub.dialects.messages.tokens import estimate_tokens
from tokenhub.domain import ChatRequest
from tokenhub.errors import InvalidRequest

OWN_TOOL_TYPES = (None, "custom")
"""The types of tools that the caller runs and describes itself."""

_USE = "tool_use"
"""What the types of calls end with: mcp_tool_use, server_tool_use."""
_INTEGER_MAX = 2**63  # from here on orjson reads a float
_NO_THREAD = {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}


def read_request(raw: bytes) -> ChatRequest:
    """Parse and check a request for a message, once.

    Raises:
        InvalidRequest: naming the field that is wrong.
    """
    body = openai.parse_object(raw)
    if body.get("max_tokens") is None:
        raise InvalidRequest("max_tokens is required", param="max_tokens")
    return _read(raw, body)


def read_count(raw: bytes) -> ChatRequest:
    """Parse and check a request to count the tokens of what a message would be asked with.

    Raises:
        InvalidRequest: naming the field that is wrong.
    """
    return _read(raw, openai.parse_object(raw))


def with_output_limit(request: ChatRequest, tokens: int) -> ChatRequest:
    """The same request with an answer of at most `tokens`, of which thoughts are a part."""
    body = {**request.body, "max_tokens": tokens}
    thinking = body.get("thinking")
    if thinking and _budget_of(thinking) >= tokens:
        if tokens > BUDGET_MIN:
            budget = max(BUDGET_MIN, tokens // 2)
            body["thinking"] = {**thinking, "budget_tokens": budget}
        else:  # no room for anything but thoughts
            body["thinking"] = {"type": "disabled"}
    return replace(request, body=body, output_tokens_max=tokens)


def blocks_of(body: Mapping[str, Any]) -> Iterator[Block]:
    """All blocks of all messages whose content is not a string; results' own come after them."""
    for message in body["messages"]:
        if isinstance(message["content"], list):
            for block in message["content"]:
                yield block
                if block["type"] == "tool_result" and isinstance(block.get("content"), list):
                    yield from (each for each in block["content"] if isinstance(each, dict))


def _budget_of(thinking: Mapping[str, Any]) -> float:
    budget = thinking.get("budget_tokens") if thinking.get("type") == "enabled" else None
    return budget if isinstance(budget, int | float) else 0


def _read(raw: bytes, body: dict[str, Any]) -> ChatRequest:
    model = openai.model_of(body)
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest("messages is required and must not be empty", param="messages")
    for number, message in enumerate(messages):
        _check_message(message, f"messages[{number}]")
    for name, check in _CHECKS.items():
        if body.get(name) is not None:
            check(body[name], name)
    limit = body.get("max_tokens")
    needs = _needs(body)
    _keep_integers(raw, body)
    return ChatRequest(
        body=body,
        model=model,
        stream=bool(body.get("stream")),
        input_tokens=estimate_tokens(body),
        output_tokens_max=None if limit is None else int(limit),
        needs=needs,
        dialect="messages",
    )


def _check_message(message: Any, path: str) -> None:
    object_at(message, path)
    filled_text_at(message.get("role"), f"{path}.role")
    content, at = message.get("content"), f"{path}.content"
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        raise InvalidRequest(f"{at} must be a string or an array of blocks", param=at)
    for number, block in enumerate(content):
        if not isinstance(block, dict) or not isinstance(block.get("type"), str):
            where = f"{at}[{number}]"
            raise InvalidRequest(f"{where} must be an object with a type", param=where)
        if block["type"] == "tool_use":
            object_at(block.get("input"), f"{at}[{number}].input")


def _needs(body: Mapping[str, Any]) -> frozenset[str]:
    """What a model must be able to do for this request, besides to chat."""
    needs = []
    if any(block.get("type") == "image" for block in blocks_of(body)):
        needs.append("vision")
    if body.get("tools"):
        needs.append("tools")
    if format_of(body) is not None:
        needs.append("json")
    return frozenset(needs)


def format_of(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """The form that the answer must have; the second name is that of the API's beta."""
    config = body.get("output_config")
    wanted = config.get("format") if config else None
    found: dict[str, Any] | None = wanted or body.get("output_format")
    return found


def _keep_integers(raw: bytes, body: dict[str, Any]) -> None:
    """Put tools' inputs back as they came that have integers beyond 64 bits, which became floats.

    They are nearly always ids. The slow parser reads the body only if there is such a number.
    """
    uses = list(_uses_of(body))
    if not any(_has_rounded(block.get("input")) for block in uses):
        return
    try:
        exact = json.loads(raw)
    except (ValueError, RecursionError):  # of thousands of digits
        return
    for block, exactly in zip(uses, _uses_of(exact), strict=True):
        if _has_rounded(block.get("input")):
            text = json.dumps(exactly["input"], ensure_ascii=False, separators=(",", ":"))
            block["input"] = orjson.Fragment(text)


def _uses_of(body: Mapping[str, Any]) -> Iterator[Block]:
    """The calls of all tools, the provider's own among them."""
    return (block for block in blocks_of(body) if str(block.get("type")).endswith(_USE))


def _has_rounded(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_rounded, value.values()))
    if isinstance(value, list):
        return any(map(_has_rounded, value))
    return isinstance(value, float) and abs(value) >= _INTEGER_MAX


def _check_limit(value: Any, path: str) -> None:
    whole_at(value, path, 0)  # 0 only fills the cache


def _check_share(value: Any, path: str) -> None:
    number_at(value, path, 0, 1)


def _check_natural(value: Any, path: str) -> None:
    whole_at(value, path, 0)


def _check_system(value: Any, path: str) -> None:
    if isinstance(value, str):
        return
    for number, block in enumerate(list_at(value, path)):
        at = f"{path}[{number}]"
        word_at(object_at(block, at).get("type"), f"{at}.type", ("text",))
        text_at(block.get("text"), f"{at}.text")


def _check_tools(value: Any, path: str) -> None:
    for number, tool in enumerate(list_at(value, path)):
        at = f"{path}[{number}]"
        if object_at(tool, at).get("type") in OWN_TOOL_TYPES:
            filled_text_at(tool.get("name"), f"{at}.name")
            object_at(tool.get("input_schema"), f"{at}.input_schema")


def _check_choice(value: Any, path: str) -> None:
    kind = filled_text_at(object_at(value, path).get("type"), f"{path}.type")
    if kind == "tool":
        filled_text_at(value.get("name"), f"{path}.name")
    at = f"{path}.disable_parallel_tool_use"
    flag_at(value.get("disable_parallel_tool_use"), at)


def _check_stops(value: Any, path: str) -> None:
    for number, text in enumerate(list_at(value, path)):
        text_at(text, f"{path}[{number}]")


def _check_thinking(value: Any, path: str) -> None:
    filled_text_at(object_at(value, path).get("type"), f"{path}.type")


def _check_metadata(value: Any, path: str) -> None:
    if object_at(value, path).get("user_id") is not None:
        text_at(value["user_id"], f"{path}.user_id")


def _check_output(value: Any, path: str) -> None:
    if object_at(value, path).get("effort") is not None:
        text_at(value["effort"], f"{path}.effort")
    if value.get("format") is not None:
        object_at(value["format"], f"{path}.format")


def _refuse_thread(value: Any, path: str) -> None:
    """A conversation that the server is to hold. Told in the words after which Anthropic's SDK
    sends the same again, and all that follows, with the whole conversation in it."""
    raise InvalidRequest(
        "TokenHub keeps no conversations: leave out thread, and send all messages",
        code="unsupported_parameter",
        param=path,
        details={"details": _NO_THREAD},
    )


_CHECKS: Mapping[str, Callable[[Any, str], object]] = {
    "thread": _refuse_thread,
    "max_tokens": _check_limit,
    "system": _check_system,
    "stream": flag_at,
    "temperature": _check_share,
    "top_p": _check_share,
    "top_k": _check_natural,
    "stop_sequences": _check_stops,
    "tools": _check_tools,
    "tool_choice": _check_choice,
    "thinking": _check_thinking,
    "metadata": _check_metadata,
    "output_config": _check_output,
    "output_format": object_at,
    "service_tier": text_at,
}

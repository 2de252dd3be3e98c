"""A Responses request, parsed and checked once; what would need memory is refused.

Only what OpenAI's API documents is checked. Tools, items and parts that we do not know are kept:
a provider that speaks the dialect itself may take them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from tokenhub.dialects import openai
from tokenhub.dialects.anthropic.reading import filled_text_at, list_at, object_at, text_at, word_at
from tokenhub.dialects.responses.fields import check_fields
from tokenhub.domain import ChatRequest
from tokenhub.errors import InvalidRequest
from tokenhub.pricing import estimate_input_tokens

ROLES = ("user", "assistant", "system", "developer")
STATEFUL = ("store", "background", "previous_response_id", "conversation")
"""What asks us to remember: refused unless it is null or false."""

_KEEPS_NOTHING = "TokenHub keeps no responses: send store=false and the whole input"


def read_request(raw: bytes) -> ChatRequest:
    """Parse and check a request, once. Its `store` is false from here on, whoever is asked.

    Raises:
        InvalidRequest: naming the field that is wrong, or that asks us to remember something.
    """
    body = openai.parse_object(raw)
    model = openai.model_of(body)
    for name in STATEFUL:
        if body.get(name) not in (None, False):
            raise _refused(name)
    check_fields(body)
    has_image = _check_input(body)
    body["store"] = False
    return ChatRequest(
        body=body,
        model=model,
        stream=bool(body.get("stream")),
        input_tokens=estimate_input_tokens(
            {"messages": list(_as_messages(body)), "tools": body.get("tools")}
        ),
        output_tokens_max=_limit(body),
        wants_usage=True,  # it stands in the last event of every stream
        needs=_needs(body, has_image),
        dialect="responses",
    )


def with_output_limit(request: ChatRequest, tokens: int) -> ChatRequest:
    """The same request with an answer of at most `tokens`."""
    body = {**request.body, "max_output_tokens": tokens}
    return replace(request, body=body, output_tokens_max=tokens)


def kind_of(item: Mapping[str, Any]) -> str:
    """What an item is; a message need not say so, nor a reference."""
    kind = item.get("type")
    if kind is None:
        return "message" if "role" in item or "content" in item else "item_reference"
    return kind if isinstance(kind, str) else ""


def _check_input(body: Mapping[str, Any]) -> bool:
    """Returns whether there is an image in it."""
    value = body.get("input")
    if value is None:
        if body.get("prompt") is not None:
            return False  # a template of the provider's
        raise InvalidRequest("input is required", param="input")
    if isinstance(value, str):
        return False
    if not isinstance(value, list):
        raise InvalidRequest("input must be a string or an array of items", param="input")
    if not value:
        raise InvalidRequest("input must not be empty", param="input")
    images = [_check_item(item, f"input[{number}]") for number, item in enumerate(value)]
    return any(images)


def _check_item(raw: Any, path: str) -> bool:
    """Returns whether there is an image in it."""
    item = object_at(raw, path)
    kind = kind_of(item)
    if not kind:
        raise InvalidRequest("the type of an item must be a string", param=f"{path}.type")
    check = _ITEMS.get(kind)
    return check(item, path) if check else False


def _check_message(item: dict[str, Any], path: str) -> bool:
    word_at(item.get("role"), f"{path}.role", ROLES)
    return _check_content(item.get("content"), f"{path}.content")


def _check_call(item: dict[str, Any], path: str) -> bool:
    filled_text_at(item.get("call_id"), f"{path}.call_id")
    filled_text_at(item.get("name"), f"{path}.name")
    text_at(item.get("arguments"), f"{path}.arguments")
    return False


def _check_custom_call(item: dict[str, Any], path: str) -> bool:
    filled_text_at(item.get("call_id"), f"{path}.call_id")
    filled_text_at(item.get("name"), f"{path}.name")
    text_at(item.get("input"), f"{path}.input")
    return False


def _check_output(item: dict[str, Any], path: str) -> bool:
    if item.get("call_id") is not None:
        filled_text_at(item["call_id"], f"{path}.call_id")
    return _check_content(item.get("output"), f"{path}.output")


def _check_reasoning(item: dict[str, Any], path: str) -> bool:
    list_at(item.get("summary"), f"{path}.summary")
    if item.get("encrypted_content") is not None:
        text_at(item["encrypted_content"], f"{path}.encrypted_content")
    return False


def _check_reference(item: dict[str, Any], path: str) -> bool:
    raise _refused(path)


def _check_content(value: Any, path: str) -> bool:
    """A text or an array of parts; returns whether one is an image."""
    if isinstance(value, str):
        return False
    if not isinstance(value, list):
        raise InvalidRequest(f"{path} must be a string or an array of parts", param=path)
    kinds = {_check_part(part, f"{path}[{number}]") for number, part in enumerate(value)}
    return "input_image" in kinds


def _check_part(raw: Any, path: str) -> str:
    part = object_at(raw, path)
    kind = filled_text_at(part.get("type"), f"{path}.type")
    required = _PARTS.get(kind, ())
    for name in required:
        text_at(part.get(name), f"{path}.{name}")
    if kind in _SOURCES:
        _check_sources(part, path, _SOURCES[kind])
    return kind


def _check_sources(part: dict[str, Any], path: str, names: tuple[str, ...]) -> None:
    """One of them must be there, and each that is must be a string."""
    given = [name for name in names if part.get(name) is not None]
    for name in given:
        filled_text_at(part[name], f"{path}.{name}")
    if not given:
        raise InvalidRequest(f"{path} needs one of {', '.join(names)}", param=path)


def _as_messages(body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What is to be read, in a form whose tokens can be guessed."""
    yield {"content": body.get("instructions")}
    given = body.get("input")
    if not isinstance(given, list):
        yield {"content": given}
        return
    for item in given:
        name = _READ.get(kind_of(item))
        yield {"content": item.get(name) if name else [item]}
        if name in ("arguments", "input"):
            yield {"content": item["name"]}


def _needs(body: Mapping[str, Any], has_image: bool) -> frozenset[str]:
    needs = []
    if has_image:
        needs.append("vision")
    if body.get("tools"):
        needs.append("tools")
    wanted = (body.get("text") or {}).get("format") or {}
    if wanted.get("type") in ("json_schema", "json_object"):
        needs.append("json")
    return frozenset(needs)


def _limit(body: Mapping[str, Any]) -> int | None:
    limit = body.get("max_output_tokens")
    return None if limit is None else int(limit)


def _refused(path: str) -> InvalidRequest:
    return InvalidRequest(_KEEPS_NOTHING, code="unsupported_parameter", param=path)


_READ = {
    "message": "content",
    "function_call": "arguments",
    "function_call_output": "output",
    "custom_tool_call": "input",
    "custom_tool_call_output": "output",
    "reasoning": "encrypted_content",
}
"""Which field of an item is read by a model; any other item counts as an attachment."""
_PARTS: Mapping[str, tuple[str, ...]] = {
    "input_text": ("text",),
    "output_text": ("text",),
    "refusal": ("refusal",),
}
_SOURCES: Mapping[str, tuple[str, ...]] = {
    "input_image": ("image_url", "file_id"),
    "input_file": ("file_data", "file_id", "file_url"),
}
_ITEMS: Mapping[str, Callable[[dict[str, Any], str], bool]] = {
    "message": _check_message,
    "function_call": _check_call,
    "function_call_output": _check_output,
    "custom_tool_call": _check_custom_call,
    "custom_tool_call_output": _check_output,
    "reasoning": _check_reasoning,
    "item_reference": _check_reference,
}

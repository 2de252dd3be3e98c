"""How many tokens a Messages request is, by the same guess as for a chat: see pricing.

Counted is what the model reads: instructions, texts, thoughts, calls and their results, and the
JSON of the tools. Whatever is no text is a flat `ATTACHMENT_TOKENS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from tokenhub.domain import ChatRequest
from tokenhub.errors import InvalidRequest
from tokenhub.pricing import ATTACHMENT_TOKENS, BYTES_PER_TOKEN

_ATTACHMENT_BYTES = ATTACHMENT_TOKENS * BYTES_PER_TOKEN


def estimate_tokens(body: Mapping[str, Any]) -> int:
    """Our estimate for a body whose form `reading` has checked.

    Raises:
        InvalidRequest: a part of it cannot be written as JSON again (nested too deeply).
    """
    size = content_size(body.get("system"))
    size += sum(content_size(message["content"]) for message in body["messages"])
    if body.get("tools"):
        size += _json_size(body["tools"])
    return max(1, size // BYTES_PER_TOKEN) if size else 0


def count_tokens(request: ChatRequest) -> int:
    """The answer to a request to count, for a model whose provider cannot be asked."""
    return request.input_tokens


def content_size(content: Any) -> int:
    """The bytes that the model reads, or has written, of a string or of blocks."""
    if isinstance(content, str):
        return _size(content)
    return sum(map(_block_size, content)) if isinstance(content, list) else 0


def _block_size(block: Any) -> int:
    text = block.get("text") if isinstance(block, dict) else None
    if isinstance(text, str):  # nearly every block
        return _size(text)
    kind = block.get("type") if isinstance(block, dict) else None
    measure = _MEASURES.get(kind) if isinstance(kind, str) else None
    return measure(block) if measure else _ATTACHMENT_BYTES


def _call_size(block: dict[str, Any]) -> int:
    return _json_size(block.get("input"))


def _result_size(block: dict[str, Any]) -> int:
    return content_size(block.get("content"))


def _thought_size(block: dict[str, Any]) -> int:
    return content_size(block.get("thinking") or block.get("data"))


def _document_size(block: dict[str, Any]) -> int:
    source = block.get("source")
    if not isinstance(source, dict) or source.get("type") not in ("text", "content"):
        return _ATTACHMENT_BYTES
    return content_size(source.get("data")) + content_size(source.get("content"))


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _json_size(value: Any) -> int:
    try:
        return len(orjson.dumps(value))
    except orjson.JSONEncodeError as error:
        raise InvalidRequest("the body cannot be written as JSON", code="bad_json") from error


_MEASURES: Mapping[str, Callable[[dict[str, Any]], int]] = {
    "tool_use": _call_size,
    "tool_result": _result_size,
    "search_result": _result_size,
    "thinking": _thought_size,
    "redacted_thinking": _thought_size,
    "document": _document_size,
}

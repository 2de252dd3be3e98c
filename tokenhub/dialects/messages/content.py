"""Anthropic's content blocks as the parts of a chat message.

Knows one block at a time, and nothing of turns. Formats: https://docs.claude.com/en/api/messages
and https://platform.openai.com/docs/api-reference/chat/create.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tokenhub.dialects.anthropic.content import PDF
from tokenhub.dialects.anthropic.reading import (
    Block,
    Dropped,
    filled_text_at,
    list_at,
    object_at,
    text_at,
)
from tokenhub.errors import InvalidRequest, Untranslatable

Part = dict[str, Any]

FILENAME = "document.pdf"
"""OpenAI wants one for each file; that of a document without a title."""

_Reader = Callable[[Block, str, Dropped], list[Part]]

_NOTHING: tuple[Any, ...] = (None, "", [], {}, {"enabled": False}, {"type": "direct"})
"""The last two are citations that are switched off, and a call of the model's own."""
_FIELDS: Mapping[str, frozenset[str]] = {
    "text": frozenset({"type", "text"}),
    "image": frozenset({"type", "source"}),
    "document": frozenset({"type", "source", "title", "context"}),
    "search_result": frozenset({"type", "source", "title", "content"}),
}


def read_block(block: Block, path: str, readers: Mapping[str, _Reader], dropped: Dropped) -> Any:
    """The parts that a block becomes.

    Args:
        readers: the types of blocks that may stand here.

    Raises:
        InvalidRequest: the block has not the form of its type.
        Untranslatable: it is of no type in `readers`, or has a source that a chat cannot name.
    """
    kind = object_at(block, path).get("type")
    reader = readers.get(kind) if isinstance(kind, str) else None
    if reader is None or not isinstance(kind, str):
        raise Untranslatable("a chat has no such block here", param=f"{path}.type")
    note_rest(block, _FIELDS[kind], dropped)
    return reader(block, path, dropped)


def read_content(content: Any, path: str, dropped: Dropped) -> list[Part]:
    """The texts of a content that has no others: a string, an array of blocks, or null.

    Raises:
        InvalidRequest, Untranslatable: see read_block.
    """
    if isinstance(content, str):
        return [text_part(content)] if content else []
    parts = []
    for number, block in enumerate(list_at(content, path)):
        parts += read_block(block, f"{path}[{number}]", TEXT, dropped)
    return parts


def plain(parts: list[Part]) -> str | list[Part]:
    """Parts as a message's content: a string where one will do, which every server takes."""
    if not parts:
        return ""
    return parts[0]["text"] if len(parts) == 1 and "text" in parts[0] else parts


def text_part(text: str) -> Part:
    """A part that is text."""
    return {"type": "text", "text": text}


def note_rest(block: Block, known: frozenset[str], dropped: Dropped) -> None:
    """Note what of a block is left out, if it says anything."""
    for name, value in block.items():
        if name not in known and value is not False and value not in _NOTHING:
            dropped.add(f"messages.content.{name}")


def _read_text(block: Block, path: str, _: Dropped) -> list[Part]:
    text = text_at(block.get("text"), f"{path}.text")
    return [text_part(text)] if text else []


def _read_image(block: Block, path: str, _: Dropped) -> list[Part]:
    source, at = object_at(block.get("source"), f"{path}.source"), f"{path}.source"
    kind = source.get("type")
    if kind == "url":
        url = filled_text_at(source.get("url"), f"{at}.url")
    elif kind == "base64":
        media_type = filled_text_at(source.get("media_type"), f"{at}.media_type")
        url = f"data:{media_type};base64,{filled_text_at(source.get('data'), f'{at}.data')}"
    else:
        raise Untranslatable("the image is not in the request", param=f"{at}.type")
    return [{"type": "image_url", "image_url": {"url": url}}]


def _read_document(block: Block, path: str, dropped: Dropped) -> list[Part]:
    source, at = object_at(block.get("source"), f"{path}.source"), f"{path}.source"
    title, context = (_optional(block, name, path) for name in ("title", "context"))
    kind = source.get("type")
    before = [text_part(text) for text in (title, context) if text]
    if kind == "text":
        return [*before, text_part(text_at(source.get("data"), f"{at}.data"))]
    if kind == "content":
        return before + _read_inner(source.get("content"), f"{at}.content", dropped)
    if kind != "base64":
        raise Untranslatable("the document is not in the request", param=f"{at}.type")
    if source.get("media_type") != PDF:
        raise InvalidRequest(f"{at}.media_type must be {PDF}", param=f"{at}.media_type")
    data = f"data:{PDF};base64,{filled_text_at(source.get('data'), f'{at}.data')}"
    file = {"type": "file", "file": {"filename": title or FILENAME, "file_data": data}}
    return [text_part(context), file] if context else [file]


def _read_inner(content: Any, path: str, dropped: Dropped) -> list[Part]:
    if isinstance(content, str):
        return [text_part(content)]
    parts = []
    for number, block in enumerate(list_at(content, path)):
        parts += read_block(block, f"{path}[{number}]", _INNER, dropped)
    return parts


def _read_search_result(block: Block, path: str, dropped: Dropped) -> list[Part]:
    """Its title, its source and its texts: what of it the model reads."""
    names = [_optional(block, name, path) for name in ("title", "source")]
    before = [text_part(text) for text in names if text]
    return before + read_content(block.get("content"), f"{path}.content", dropped)


def _optional(block: Block, name: str, path: str) -> str:
    value = block.get(name)
    return "" if value is None else text_at(value, f"{path}.{name}")


TEXT: Mapping[str, _Reader] = {"text": _read_text}
_INNER: Mapping[str, _Reader] = {"text": _read_text, "image": _read_image}
SHOWN: Mapping[str, _Reader] = {
    **_INNER, "document": _read_document, "search_result": _read_search_result,
}  # fmt: skip
"""The blocks that instructions and the assistant's messages, and users' and results have."""

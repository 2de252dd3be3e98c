"""A response of OpenAI's as a stream of named events, numbered from 0.

https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson


class _Part(NamedTuple):
    """How a part of an item is streamed.

    Args:
        frame: the event that opens and closes it; "" = it is all of its item.
        text: the event that brings its text.
        field: that holds the text.
        at: that numbers it within its item.
    """

    frame: str
    text: str
    field: str
    at: str


_PARTS = {
    "output_text": _Part("content_part", "output_text", "text", "content_index"),
    "reasoning_text": _Part("content_part", "reasoning_text", "text", "content_index"),
    "summary_text": _Part(
        "reasoning_summary_part", "reasoning_summary_text", "text", "summary_index"
    ),
    "function_call": _Part("", "function_call_arguments", "arguments", ""),
}


class Events:
    """The stream of one response.

    Args:
        pieces: those in which the text of each item of its output is streamed.
    """

    def __init__(self, response: dict[str, Any], pieces: list[list[str]]) -> None:
        self._response = response
        self._pieces = pieces
        self._number = 0

    def opening(self) -> bytes:
        """What comes before any output."""
        begun = {
            **self._response, "status": "in_progress", "output": [], "usage": None,
            "completed_at": None, "incomplete_details": None,
        }  # fmt: skip
        return self._event("created", response=begun) + self._event("in_progress", response=begun)

    def all(self) -> Iterator[bytes]:
        """The stream; what comes before a piece is yielded at once, as it is sent at once."""
        pending = self.opening()
        output = self._response["output"]
        for index, (item, pieces) in enumerate(zip(output, self._pieces, strict=True)):
            pending += self._event("output_item.added", output_index=index, item=_begun(item))
            for block in self._item(index, item, pieces):
                yield pending
                pending = block
            yield pending
            pending = self._event("output_item.done", output_index=index, item=item)
        yield pending + self._event(self._response["status"], response=self._response)

    def _item(self, index: int, item: dict[str, Any], pieces: list[str]) -> Iterator[bytes]:
        for number, part in enumerate(_parts_of(item)):
            kind = _PARTS[part["type"]]
            where: dict[str, Any] = {"item_id": item["id"], "output_index": index}
            if kind.at:
                where[kind.at] = number
            extra: dict[str, Any] = {"logprobs": []} if kind.text == "output_text" else {}
            pending = b""
            if kind.frame:
                empty = {**part, kind.field: ""}
                pending = self._event(f"{kind.frame}.added", **where, part=empty)
            for piece in pieces:
                yield pending + self._event(f"{kind.text}.delta", **where, delta=piece, **extra)
                pending = b""
            whole = {kind.field: part[kind.field], **extra}
            if "name" in part:
                whole["name"] = part["name"]
            pending += self._event(f"{kind.text}.done", **where, **whole)
            if kind.frame:
                pending += self._event(f"{kind.frame}.done", **where, part=part)
            yield pending

    def _event(self, name: str, /, **fields: Any) -> bytes:
        data = {"type": f"response.{name}", "sequence_number": self._number, **fields}
        self._number += 1
        return b"event: response.%b\ndata: %b\n\n" % (name.encode(), orjson.dumps(data))


def _parts_of(item: dict[str, Any]) -> list[dict[str, Any]]:
    if item["type"] == "function_call":
        return [item]
    parts: list[dict[str, Any]] = item.get("content") or item.get("summary") or []
    return parts


def _begun(item: dict[str, Any]) -> dict[str, Any]:
    """The item before any of its text is there."""
    empty = {"content": [], "summary": [], "arguments": "", "status": "in_progress"}
    return {**item, **{name: value for name, value in empty.items() if name in item}}

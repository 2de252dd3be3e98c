"""A stream of chat chunks as Anthropic's named events, as they pass.

The blocks of a message follow one another, and each has its number: a block ends where the next
begins. Of several calls, one whose arguments are not complete stays open, as a chat may tell them
in turns. Formats: https://platform.openai.com/docs/api-reference/chat-streaming and
https://docs.claude.com/en/docs/build-with-claude/streaming.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from tokenhub.dialects import openai
from tokenhub.dialects.anthropic.answers import text_of, thinking_block
from tokenhub.dialects.anthropic.turns import find_arguments
from tokenhub.dialects.messages import errors
from tokenhub.dialects.messages.answers import (
    call_id,
    ending,
    envelope,
    objects_in,
    text_in,
    thoughts_of,
    to_anthropic_usage,
)
from tokenhub.dialects.messages.passing import MESSAGE_STOP
from tokenhub.dialects.messages.tools import short_names_of
from tokenhub.dialects.sse import events
from tokenhub.dialects.tool_names import ToolNamesStage
from tokenhub.domain import ChatRequest, Usage
from tokenhub.errors import ProviderError

_DELTAS = {"text": ("text_delta", "text"), "thinking": ("thinking_delta", "thinking")}
_OPENED: Mapping[str, dict[str, Any]] = {
    "text": {"type": "text", "text": ""},
    "thinking": {"type": "thinking", "thinking": "", "signature": ""},
}


_DELTA_HEAD = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":'


class _Call:
    """A call whose block is open; `id` is the server's, or ""."""

    __slots__ = ("id", "index", "is_open", "name", "pieces")

    def __init__(self, index: int, id: str, name: str) -> None:
        self.index = index
        self.id = id
        self.name = name
        self.is_open = True
        self.pieces: list[str] = []

    def has(self, id: str, name: str) -> bool:
        """Whether a piece with these is one of it; most have neither.

        Some servers give every call the same number, and some of those no ids either: then another
        name is another call, and so is the same one after arguments that are complete.
        """
        if id and self.id:
            return id == self.id
        if not name or not self.name:
            return True
        return name == self.name and not self.is_complete

    @property
    def is_complete(self) -> bool:
        """Whether its arguments are a JSON object, to which nothing can be added."""
        text = "".join(self.pieces)
        return text.lstrip()[:1] == "{" and find_arguments(text) is not None


class Events:
    """See dialect.Translator."""

    def __init__(self, request: ChatRequest) -> None:
        self._request = request
        names = short_names_of(request.body)
        self._names = None if names is None else ToolNamesStage(names)
        self._id = ""
        self._has_begun = False
        self._is_over = False
        self._blocks = 0  # how many were opened
        self._calls_told = 0
        self._open = ""  # what the last block is, while it is an open one that is no call
        self._head = b""  # what a delta of it begins with
        self._calls: dict[int, _Call] = {}  # the latest of each number
        self._open_calls: list[_Call] = []
        self._is_refused = False
        self._last: Mapping[str, Any] = {}  # the choice with the finish reason
        self._usage: Usage | None = None
        self._tier: object = None
        self._text_bytes = 0

    def feed(self, block: bytes) -> bytes:
        """See dialect.Translator.feed."""
        if self._names is not None:
            block = self._names.feed(block)
        out: list[bytes] = []
        for _, data in events(block):
            if not data or self._is_over:
                continue
            if openai.ends_stream(data):
                self._end(out)
            else:
                self._read(openai.object_of(data), out)
        return b"".join(out)

    def fail(self, error: ProviderError) -> bytes:
        """See dialect.Translator.fail."""
        self._is_over = True
        return errors.error_event(error)

    def _read(self, chunk: dict[str, Any], out: list[bytes]) -> None:
        if isinstance(chunk.get("error"), dict):
            out.append(errors.event_of(errors.in_our_words(chunk["error"], None)))
            self._is_over = True
            return
        # Azure begins with a chunk that has neither: nothing but what it thinks of the prompt.
        if not self._has_begun and (chunk.get("choices") or chunk.get("id")):
            self._begin(chunk, out)
        if chunk.get("usage"):
            self._usage = openai.usage_of(chunk) or self._usage
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if isinstance(choice, dict) and not choice.get("index"):
            delta = choice.get("delta")
            if isinstance(delta, dict):
                self._read_delta(delta, out)
            if choice.get("finish_reason"):
                self._last = choice
                self._tier = chunk.get("service_tier")

    def _read_delta(self, delta: dict[str, Any], out: list[bytes]) -> None:
        if thoughts := thoughts_of(delta):
            self._say("thinking", thoughts, out)
        for block in objects_in(delta.get("thinking_blocks")):
            self._sign(block, out)
        if text := text_in(delta.get("content")):
            self._say("text", text, out)
        if refusal := text_of(delta, "refusal"):
            self._is_refused = True
            self._say("text", refusal, out)
        for call in objects_in(delta.get("tool_calls")):
            self._call(call, out)

    def _begin(self, chunk: Mapping[str, Any], out: list[bytes]) -> None:
        """What was read is our estimate until the end, where it is said again."""
        self._has_begun = True
        told = envelope(chunk)
        self._id = told["id"]
        message = {
            **told,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "stop_details": None,
            "usage": to_anthropic_usage(Usage(self._request.input_tokens)),
        }
        out.append(_event("message_start", message=message))

    def _say(self, kind: str, text: str, out: list[bytes]) -> None:
        if self._open != kind:
            self._open_block(_OPENED[kind], out)
            self._open = kind
            delta, name = _DELTAS[kind]
            self._head = b'%b{"type":"%b","%b":' % (
                _DELTA_HEAD % (self._blocks - 1), delta.encode(), name.encode()
            )  # fmt: skip
        told = orjson.dumps(text)
        self._text_bytes += len(told) - 2
        out.append(self._head + told + b"}}\n\n")

    def _sign(self, block: dict[str, Any], out: list[bytes]) -> None:
        """A whole block of thoughts of Claude's: what of it has not been said yet."""
        found = thinking_block(block)
        if found is None:
            return
        if found["type"] == "redacted_thinking":
            self._open_block(found, out)
            out.append(_event("content_block_stop", index=self._blocks - 1))
        elif found["signature"]:
            if self._open != "thinking":
                self._say("thinking", found["thinking"], out)
            delta = {"type": "signature_delta", "signature": found["signature"]}
            out.append(_event("content_block_delta", index=self._blocks - 1, delta=delta))
            self._close(out)

    def _call(self, piece: dict[str, Any], out: list[bytes]) -> None:
        number, id = piece.get("index"), text_of(piece, "id")
        number = number if isinstance(number, int) else 0
        function = piece.get("function")
        function = function if isinstance(function, dict) else {}
        call, name = self._calls.get(number), text_of(function, "name")
        if call is None or not call.has(id, name):
            call = self._open_call(piece, name, out)
            self._calls[number] = call
        arguments = text_of(function, "arguments")
        if not call.pieces and arguments.strip() == "null":
            arguments = ""  # as some say that there are none
        if arguments and call.is_open:
            call.pieces.append(arguments)
            told = orjson.dumps(arguments)
            self._text_bytes += len(told) - 2
            head = _DELTA_HEAD % call.index + b'{"type":"input_json_delta","partial_json":'
            out.append(head + told + b"}}\n\n")

    def _open_call(self, piece: Mapping[str, Any], name: str, out: list[bytes]) -> _Call:
        self._text_bytes += len(name)
        id = call_id(piece, self._calls_told, self._id)
        self._calls_told += 1
        self._open_block({"type": "tool_use", "id": id, "name": name, "input": {}}, out)
        call = _Call(self._blocks - 1, text_of(piece, "id"), name)
        self._open_calls.append(call)
        return call

    def _open_block(self, block: Mapping[str, Any], out: list[bytes]) -> None:
        self._close(out)
        out.append(_event("content_block_start", index=self._blocks, content_block=block))
        self._blocks += 1

    def _close(self, out: list[bytes], *, is_last: bool = False) -> None:
        """End the blocks to which nothing more can come."""
        if self._open:
            out.append(_event("content_block_stop", index=self._blocks - 1))
            self._open = ""
        for call in list(self._open_calls):
            if is_last or call.is_complete:
                call.is_open = False
                self._open_calls.remove(call)
                out.append(_event("content_block_stop", index=call.index))

    def _end(self, out: list[bytes]) -> None:
        if not self._has_begun:
            self._begin({}, out)
        self._close(out, is_last=True)
        self._is_over = True
        delta = ending(
            self._last, self._request, has_calls=bool(self._calls), is_refused=self._is_refused
        )
        usage = self._usage or Usage(self._request.input_tokens, -(-self._text_bytes // 4))
        told = to_anthropic_usage(usage, self._tier)
        out.append(_event("message_delta", delta=delta, usage=told))
        out.append(MESSAGE_STOP)


def _event(kind: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps({"type": kind, **fields}))

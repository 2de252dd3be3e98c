"""Anthropic's stream of events as OpenAI's stream of chunks, metered on its way.

Each event becomes at most one chunk, in order, and nothing waits for the next event. Formats:
https://docs.claude.com/en/docs/build-with-claude/streaming and
https://platform.openai.com/docs/api-reference/chat-streaming.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from tokenhub.dialects.anthropic.answers import (
    arguments_of,
    envelope,
    finish_reason,
    refusal_of,
    text_of,
    thinking_block,
    tool_call,
)
from tokenhub.dialects.anthropic.usage import StreamUsage, to_openai_usage
from tokenhub.dialects.openai import DONE, Split, error_event, object_of
from tokenhub.dialects.sse import events
from tokenhub.domain import Usage
from tokenhub.errors import ProviderError

OPENINGS = ("message_start", "content_block_start", "ping")

_END = b'"message_stop"'


class ChatStreamMeter:
    """Translates a stream and follows it: what was produced, how it ended, what it used.

    Args:
        split: cuts a block of whole events into (as it came, data) pairs.
        wants_usage: end with a chunk that has the usage, as the caller asked for.
        created_at_secs: unix time of the answer, which Anthropic does not tell.
    """

    def __init__(self, *, split: Split, wants_usage: bool, created_at_secs: int) -> None:
        self._split = split
        self._wants_usage = wants_usage
        self._created_at_secs = created_at_secs
        self._text_bytes = 0
        self._finish_reason: str | None = None
        self._has_begun = False
        self._has_ended = False
        self._calls = 0
        self._thoughts = 0
        self._blocks: dict[Any, dict[str, Any]] = {}  # open ones that are more than text
        self._usage = StreamUsage()
        self._set_envelope({})

    def pass_on(self, block: bytes) -> bytes:
        """Take a block of Anthropic's events; returns the chunks that they become."""
        out = []
        for _, data in self._split(block):
            if not data or self._has_ended:
                continue  # what comes behind the end is nobody's
            try:
                event = orjson.loads(data)
                kind = event["type"]
                if kind == "content_block_delta" and event["delta"]["type"] == "text_delta":
                    text = orjson.dumps(event["delta"]["text"] + "")  # a string, or TypeError
                    self._text_bytes += len(text) - 2
                    out.append(self._content_head + text + self._tail)  # nearly every event
                elif kind in _READERS:
                    out.append(_READERS[kind](self, event))
            except (AttributeError, KeyError, TypeError, ValueError):
                continue  # not the shape we know; errors were sorted out before
        return b"".join(out)

    def finish(self) -> bytes:
        """What is missing when the provider gave a reason to stop, but no end."""
        return self._end({})

    @property
    def usage(self) -> Usage | None:
        """What the provider said that it used.

        At the beginning of a stream it says what it has read, and at the end what it has written;
        in between the latter is our estimate.
        """
        return self._usage.so_far(self.output_tokens, has_ended=self._finish_reason is not None)

    @property
    def output_tokens(self) -> int:
        """Our estimate of what was produced so far, at four bytes a token."""
        return -(-self._text_bytes // 4)

    def fail(self, error: ProviderError) -> bytes:
        """The event that ends a stream that broke off."""
        return error_event(error)

    @property
    def finish_reason(self) -> str | None:
        """Why the model stopped, if it said so."""
        return self._finish_reason

    def _set_envelope(self, message: Mapping[str, Any]) -> None:
        """Every chunk is these bytes, and a delta in their middle."""
        around = envelope(message, "chat.completion.chunk", self._created_at_secs)
        self._envelope = orjson.dumps(around)[:-1]
        self._head = b"data: " + self._envelope + b',"choices":[{"index":0,"delta":'
        self._content_head = self._head + b'{"content":'
        self._last = b',"usage":null}\n\n' if self._wants_usage else b"}\n\n"
        self._after = b',"logprobs":null,"finish_reason":null}]' + self._last
        self._tail = b"}" + self._after

    def _chunk(self, delta: dict[str, Any]) -> bytes:
        return self._head + orjson.dumps(delta) + self._after

    def _begin(self, event: dict[str, Any]) -> bytes:
        message = event["message"]
        if self._has_begun:
            return b""
        self._has_begun = True
        self._set_envelope(message)
        self._usage.note(message.get("usage"), is_last=False)
        return self._chunk({"role": "assistant", "content": "", "refusal": None})

    def _open_block(self, event: dict[str, Any]) -> bytes:
        block, index = event["content_block"], event["index"]
        kind = block["type"]
        if kind == "text":
            return self._say("content", text_of(block, "text"))
        if kind == "tool_use":
            opened = {**block, "number": self._calls, "is_told": False}
            self._calls += 1
            self._blocks[index] = opened
            call = {"index": opened["number"], **tool_call(block, opened["number"], "")}
            self._text_bytes += len(call["function"]["name"])
            return self._chunk({"tool_calls": [call]})
        if kind in ("thinking", "redacted_thinking"):
            opened = {**block, "thoughts": [], "signature": text_of(block, "signature")}
            self._blocks[index] = opened
            return self._think(opened, text_of(block, "thinking"))
        return b""

    def _add(self, event: dict[str, Any]) -> bytes:
        delta = event["delta"]
        kind, block = delta["type"], self._blocks.get(event.get("index"))
        if block is None:
            return b""  # of a block that is left out
        if kind == "thinking_delta":
            return self._think(block, delta["thinking"])
        if kind == "signature_delta":
            block["signature"] += delta["signature"]
        elif kind == "input_json_delta" and delta["partial_json"] and "number" in block:
            block["is_told"] = True
            return self._argue(block, delta["partial_json"])
        return b""

    def _close_block(self, event: dict[str, Any]) -> bytes:
        block = self._blocks.pop(event["index"], None)
        if block is None:
            return b""
        if "number" in block:  # arguments that came with the beginning, or none at all
            return b"" if block["is_told"] else self._argue(block, arguments_of(block))
        thoughts = thinking_block({**block, "thinking": "".join(block["thoughts"])})
        if thoughts is None:
            return b""
        # SDKs that gather deltas tell the entries of a list by their index.
        self._thoughts += 1
        return self._chunk({"thinking_blocks": [{"index": self._thoughts - 1, **thoughts}]})

    def _change(self, event: dict[str, Any]) -> bytes:
        delta = event["delta"]
        self._usage.note(event.get("usage"), is_last=True)
        return self._stop(delta) if delta.get("stop_reason") else b""

    def _stop(self, message: dict[str, Any]) -> bytes:
        """The chunk with the reason, once, and before it a refusal's."""
        if self._finish_reason is not None:
            return b""
        reason = finish_reason(message.get("stop_reason"), self._calls > 0)
        before = b"".join(self._close_block({"index": index}) for index in list(self._blocks))
        if refusal := refusal_of(message):
            before += self._say("refusal", refusal)
        self._finish_reason = reason
        told = b'{},"logprobs":null,"finish_reason":"' + reason.encode() + b'"}]'
        return before + self._head + told + self._last

    def _end(self, _: dict[str, Any]) -> bytes:
        if self._has_ended:
            return b""
        self._has_ended = True
        out = self._stop({})
        usage = self.usage if self._wants_usage else None
        if usage is not None:
            told = orjson.dumps(to_openai_usage(usage))
            out += b"data: " + self._envelope + b',"choices":[],"usage":' + told + b"}\n\n"
        return out + DONE

    def _think(self, block: dict[str, Any], text: str) -> bytes:
        said = self._say("reasoning_content", text)
        block["thoughts"].append(text)
        return said

    def _argue(self, block: dict[str, Any], text: str) -> bytes:
        self._text_bytes += len(text.encode())
        call = {"index": block["number"], "function": {"arguments": text}}
        return self._chunk({"tool_calls": [call]})

    def _say(self, name: str, text: str) -> bytes:
        self._text_bytes += len(text.encode())
        return self._chunk({name: text}) if text else b""


def opens_stream(data: bytes) -> bool:
    """Whether an event has nothing of an answer in it yet."""
    try:
        return orjson.loads(data)["type"] in OPENINGS
    except (KeyError, TypeError, ValueError):
        return False


def ends_stream(tail: bytes) -> bool:
    """Whether a stream's block, or the data of one event, ends with the stream's last event: some
    put their own figures into it. Within a JSON text the quotes of its name would be escaped."""
    if _END not in tail:
        return False
    found = [data for _, data in events(tail + b"\n\n") if data]
    return object_of(found[-1] if found else tail).get("type") == "message_stop"


_READERS: Mapping[str, Callable[[ChatStreamMeter, dict[str, Any]], bytes]] = {
    "message_start": ChatStreamMeter._begin,
    "content_block_start": ChatStreamMeter._open_block,
    "content_block_delta": ChatStreamMeter._add,
    "content_block_stop": ChatStreamMeter._close_block,
    "message_delta": ChatStreamMeter._change,
    "message_stop": ChatStreamMeter._end,
}

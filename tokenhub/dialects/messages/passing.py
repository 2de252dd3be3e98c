"""What goes through to a provider that speaks Messages itself: its stream as it comes, metered.

https://docs.claude.com/en/docs/build-with-claude/streaming.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenhub.dialects import openai
from tokenhub.dialects.anthropic import usage as counts
from tokenhub.dialects.anthropic.answers import finish_reason
from tokenhub.dialects.anthropic.streams import ends_stream
from tokenhub.dialects.messages.errors import error_event
from tokenhub.domain import Usage
from tokenhub.errors import ProviderError

MESSAGE_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'

_PIECES = ("text", "thinking", "partial_json")


class StreamMeter:
    """Follows a stream on its way through: what was produced, how it ended, what it used.

    Blocks are set aside unread, as in openai.StreamMeter, but for the two events that tell usage.

    Args:
        split: cuts a block of whole events into (as it came, data) pairs.
    """

    def __init__(self, *, split: openai.Split) -> None:
        self._split = split
        self._unread: list[bytes] = []
        self._unread_bytes = 0
        self._text_bytes = 0
        self._has_call = False
        self._stop_reason: str | None = None
        self._has_ended = False
        self._usage = counts.StreamUsage()

    def pass_on(self, block: bytes) -> bytes:
        """Take note of a block of whole events; returns it."""
        self._unread.append(block)
        self._unread_bytes += len(block)
        if self._unread_bytes > openai.UNREAD_BYTES_MAX:
            self._catch_up()
        if b'"usage"' in block:  # a quote inside a text is escaped, so this is a key
            for _, data in self._split(block):
                if b'"usage"' in data:
                    self._note_usage(openai.object_of(data))
        if not self._has_ended and b'"message_stop"' in block:
            self._has_ended = any(ends_stream(data) for _, data in self._split(block))
        return block

    def finish(self) -> bytes:
        """What is missing when the provider gave a reason to stop, but no end."""
        return b"" if self._has_ended else MESSAGE_STOP

    def fail(self, error: ProviderError) -> bytes:
        """The event that ends a stream that broke off."""
        return error_event(error)

    @property
    def usage(self) -> Usage | None:
        """What the provider said that it used; until its end, with our estimate of the output."""
        has_ended = self._stop_reason is not None
        is_whole = has_ended and self._usage.is_output_told
        return self._usage.so_far(0 if is_whole else self.output_tokens, has_ended=has_ended)

    @property
    def output_tokens(self) -> int:
        """Our estimate of what was produced so far, at four bytes a token."""
        self._catch_up()
        return -(-self._text_bytes // 4)

    @property
    def finish_reason(self) -> str | None:
        """Why the model stopped, if it said so; in the words of the chat dialect, like all ours."""
        self._catch_up()
        if self._stop_reason is None:
            return None
        return finish_reason(self._stop_reason, self._has_call)

    def _note_usage(self, event: Mapping[str, Any]) -> None:
        message = event.get("message")
        if isinstance(message, dict):
            self._usage.note(message.get("usage"), is_last=False)
        else:
            self._usage.note(event.get("usage"), is_last=True)
            self._note_stop(event)

    def _note_stop(self, event: Mapping[str, Any]) -> None:
        delta = event.get("delta")
        reason = delta.get("stop_reason") if isinstance(delta, dict) else None
        if isinstance(reason, str) and reason:
            self._stop_reason = reason

    def _catch_up(self) -> None:
        unread, self._unread, self._unread_bytes = self._unread, [], 0
        for block in unread:
            for _, data in self._split(block):
                self._look_at(openai.object_of(data))

    def _look_at(self, event: Mapping[str, Any]) -> None:
        delta, block = event.get("delta"), event.get("content_block")
        for source in (delta, block):
            if isinstance(source, dict):
                for name in _PIECES:
                    if isinstance(source.get(name), str):
                        self._text_bytes += len(source[name].encode())
        self._has_call |= isinstance(block, dict) and block.get("type") == "tool_use"
        if event.get("type") == "message_delta":
            self._note_stop(event)


def usage_of(message: Mapping[str, Any]) -> Usage | None:
    """What a whole message says that it used."""
    return counts.usage_of(message.get("usage"))


def is_answer(payload: Mapping[str, Any]) -> bool:
    """Whether it is a message."""
    return isinstance(payload.get("content"), list)


def reports_error(payload: Mapping[str, Any]) -> bool:
    """Whether it is an error, or the event of one."""
    return bool(payload.get("error")) or payload.get("type") == "error"


def is_event(payload: Mapping[str, Any]) -> bool:
    """Whether it may be an event of a stream."""
    return isinstance(payload.get("type"), str)

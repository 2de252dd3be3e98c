"""Responses of a provider that speaks the dialect itself, on their way through.

Events are relayed untouched and read late or never: what was used stands in the last one. Format:
https://platform.openai.com/docs/api-reference/responses-streaming.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from tokenhub.dialects.openai import UNREAD_BYTES_MAX, Split, count_of, object_of
from tokenhub.dialects.responses.answers import INCOMPLETE
from tokenhub.dialects.responses.draft import THOUGHT_PREFIX
from tokenhub.dialects.responses.streams import BROKEN
from tokenhub.dialects.sse import events
from tokenhub.domain import Usage
from tokenhub.errors import ProviderError

OPENINGS = frozenset({
    "response.created", "response.queued", "response.in_progress", "response.output_item.added",
    "response.content_part.added",
})  # fmt: skip
ENDS = ("response.completed", "response.incomplete", "response.failed")

_REASONS = {cut: reason for reason, cut in INCOMPLETE.items()}


class StreamMeter:
    """Follows a stream of events on its way through; see providers.base.Meter.

    Args:
        split: cuts a block of whole events into (as it came, data) pairs.
    """

    def __init__(self, *, split: Split) -> None:
        self._split = split
        self._unread: list[bytes] = []
        self._unread_bytes = 0
        self._text_bytes = 0
        self._last: dict[str, Any] = {}
        self._number = -1  # of the last event that was read

    def pass_on(self, block: bytes) -> bytes:
        """Take note of a block of whole events; returns it."""
        self._unread.append(block)
        self._unread_bytes += len(block)
        if self._unread_bytes > UNREAD_BYTES_MAX:
            self._catch_up()
        # A quote inside a text is escaped. Only the last event has a usage that is not null.
        elif block.count(b'"usage"') != block.count(b'"usage":null'):
            self._note_last(block)
        return block

    def finish(self) -> bytes:
        """Nothing: the last event is the provider's to say."""
        return b""

    def fail(self, error: ProviderError) -> bytes:
        """The event that ends a stream that broke off, numbered like those before it."""
        self._catch_up()
        return error_event(error, self._number + 1)

    @property
    def usage(self) -> Usage | None:
        """What the provider said that it used."""
        return usage_of(self._last)

    @property
    def output_tokens(self) -> int:
        """Our estimate of what was produced so far, at four bytes a token."""
        self._catch_up()
        return -(-self._text_bytes // 4)

    @property
    def finish_reason(self) -> str | None:
        """Why the model stopped, in a chat's words, if it said so."""
        if not self._last:
            self._catch_up()
        status = self._last.get("status")
        if status == "completed":
            return "stop"
        details = self._last.get("incomplete_details")
        reason = details.get("reason") if isinstance(details, dict) else ""
        return _REASONS.get(str(reason), "stop") if status == "incomplete" else None

    def _note_last(self, block: bytes) -> None:
        for _, data in self._split(block):
            if b'"usage"' in data:
                self._note_end(object_of(data))

    def _note_end(self, event: dict[str, Any]) -> None:
        response = event.get("response")
        if event.get("type") in ENDS and isinstance(response, dict):
            self._last = response

    def _catch_up(self) -> None:
        unread, self._unread, self._unread_bytes = self._unread, [], 0
        for block in unread:
            for _, data in self._split(block):
                event = object_of(data)
                if isinstance(event.get("sequence_number"), int):
                    self._number = event["sequence_number"]
                delta = event.get("delta")
                if isinstance(delta, str):
                    self._text_bytes += len(delta.encode())
                else:
                    self._note_end(event)


def opens_stream(data: bytes) -> bool:
    """Whether an event has nothing of an answer in it yet."""
    return object_of(data).get("type") in OPENINGS


def ends_stream(tail: bytes) -> bool:
    """Whether a stream's block ends with its last event.

    The type stands at the event's beginning, so the whole of it is needed.
    """
    if not any(kind.encode() in tail for kind in ENDS):
        return False
    found = events(tail + b"\n\n")
    return bool(found) and object_of(found[-1][1]).get("type") in ENDS


def is_answer(payload: Mapping[str, Any]) -> bool:
    """Whether it is a response."""
    return isinstance(payload.get("output"), list)


def reports_error(payload: Mapping[str, Any]) -> bool:
    """Whether it is an error: an envelope, a response that has failed, or an event that says so."""
    if payload.get("error") or payload.get("object") == "error":
        return True
    return payload.get("type") in ("error", "response.failed")


def failure_in(data: bytes) -> bytes:
    """The envelope of the error that an event of a failed response has; else the data itself."""
    event = object_of(data)
    response = event.get("response")
    if event.get("type") != "response.failed" or not isinstance(response, dict):
        return data
    return orjson.dumps({"error": response.get("error") or {"message": "the response failed"}})


def usage_of(payload: Mapping[str, Any]) -> Usage | None:
    """The usage of a response in normal form, or None when there is none worth having."""
    usage = payload.get("usage")
    read, written = count_of(usage, "input_tokens"), count_of(usage, "output_tokens")
    if not isinstance(usage, dict) or not (read or written):
        return None
    details = usage.get("input_tokens_details")
    cached = min(read, count_of(details, "cached_tokens"))
    thought = count_of(usage.get("output_tokens_details"), "reasoning_tokens")
    return Usage(
        input_tokens=read,
        output_tokens=written,
        cache_read_tokens=cached,
        cache_write_tokens=min(read - cached, count_of(details, "cache_write_tokens")),
        reasoning_tokens=min(written, thought),
    )


def without_unknown(body: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A request without the thoughts that no provider knows, and what was left out: those that we
    have said for one of another dialect, and those that are an id only. As nothing is stored, that
    names nothing, and OpenAI refuses what it does not know."""
    given = body.get("input")
    if not isinstance(given, list):
        return body, ()
    kept = [item for item in given if not _is_unknown(item)]
    if len(kept) == len(given):
        return body, ()
    return {**body, "input": kept}, ("input.reasoning",)


def error_event(error: ProviderError, number: int) -> bytes:
    """The event that ends a broken stream, as its event of this number.

    It is said twice, flat as the API documents it and as an object, by which SDKs know it and
    raise.
    """
    told = {"code": error.error_class, "message": BROKEN, "param": None}
    event = {
        "type": "error",
        **told,
        "sequence_number": number,
        "error": {**told, "type": "server_error"},
    }
    return b"event: error\ndata: " + orjson.dumps(event) + b"\n\n"


def _is_unknown(item: Any) -> bool:
    if not isinstance(item, dict) or item.get("type") != "reasoning":
        return False
    if not item.get("encrypted_content") and not item.get("content"):
        return True
    id_ = item.get("id")
    return isinstance(id_, str) and id_.startswith(THOUGHT_PREFIX)

"""Stages: what the chunks of a streamed chat completion go through between meter and caller.

A stage takes blocks of whole events and hands out whole events. Stages follow one another in any
number; each parses what it must and leaves alone what is not its business.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import orjson

from tokenhub.dialects.openai import DONE
from tokenhub.dialects.sse import events

Chunk = dict[str, Any]


class Stage(Protocol):
    """Acts on a stream of chat completion chunks."""

    def feed(self, block: bytes) -> bytes:
        """Take a block of whole events, the last with `data: [DONE]`; returns whole events, or b""
        while there is nothing to say yet."""


class ChunkStage:
    """What stages share that look at every chunk; each says what becomes of one, and of the end."""

    def feed(self, block: bytes) -> bytes:
        return b"".join([self._pass(raw, data) for raw, data in events(block)])

    def change(self, chunk: Chunk) -> Chunk | None:
        """What becomes of a chunk: itself, unchanged, or another, or nothing."""
        raise NotImplementedError

    def end(self) -> list[Chunk]:
        """What is still to be said before the end."""
        return []

    def _pass(self, raw: bytes, data: bytes) -> bytes:
        if data.strip() == b"[DONE]":
            return b"".join(map(event_of, self.end())) + DONE
        chunk = chunk_of(data)
        if chunk is None:
            return raw
        changed = self.change(chunk)
        if changed is chunk:
            return raw
        return b"" if changed is None else event_of(changed)


class TextStage(ChunkStage):
    """A stage for the texts of the choices: each choice has a text, which is changed in pieces.

    What a choice's text has left at its end comes with its finish reason, or before `[DONE]` if it
    has none. A chunk that has nothing left to say goes.
    """

    def __init__(self) -> None:
        self._open: dict[int, None] = {}  # the choices that have begun and not ended
        self._last: Chunk = {}

    def say(self, number: int, delta: Chunk) -> Chunk:
        """What becomes of a delta of a choice."""
        raise NotImplementedError

    def finish(self, number: int, delta: Chunk, reason: str | None) -> tuple[Chunk, str | None]:
        """The same for the last delta of a choice, with its finish reason; None = it has none."""
        raise NotImplementedError

    def change(self, chunk: Chunk) -> Chunk | None:
        choices = chunk.get("choices")
        if not isinstance(choices, list) or not choices:
            return chunk
        self._last = chunk
        changed = [self._change_choice(choice) for choice in choices]
        if all(new is old for new, old in zip(changed, choices, strict=True)):
            return chunk
        kept = [choice for choice in changed if choice is not None]
        if not kept and not chunk.get("usage"):
            return None
        return {**chunk, "choices": kept}

    def end(self) -> list[Chunk]:
        chunks = []
        for number in list(self._open):
            delta, reason = self.finish(number, {}, None)
            if delta or reason:
                choice = {"index": number, "delta": delta, "finish_reason": reason}
                rest = {name: value for name, value in self._last.items() if name != "usage"}
                chunks.append({**rest, "choices": [choice]})
        self._open.clear()
        return chunks

    def _change_choice(self, choice: Any) -> Any:
        delta = choice.get("delta") if isinstance(choice, dict) else None
        number = choice.get("index", 0) if isinstance(choice, dict) else None
        if not isinstance(delta, dict) or not isinstance(number, int):
            return choice
        reason = choice.get("finish_reason")
        if reason:
            self._open.pop(number, None)
            said, reason = self.finish(number, delta, reason)
            if said is delta and reason == choice["finish_reason"]:
                return choice
            return {**choice, "delta": said, "finish_reason": reason}
        self._open[number] = None
        said = self.say(number, delta)
        if said is delta:
            return choice
        return {**choice, "delta": said} if said else None


def chunk_of(data: bytes) -> Chunk | None:
    """The chunk in an event's data, or None if it is none."""
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def event_of(chunk: Chunk) -> bytes:
    """A chunk as an event."""
    return b"data: " + orjson.dumps(chunk) + b"\n\n"


def with_text(delta: Chunk, name: str, text: str) -> Chunk:
    """A delta with another text; without the field if there is none left to say."""
    if text:
        return {**delta, name: text}
    return {key: value for key, value in delta.items() if key != name}


def each_choice(completion: dict[str, Any], change: Callable[[int, Any], Any]) -> dict[str, Any]:
    """A whole completion with each choice, and its number, through `change`."""
    choices = completion.get("choices")
    if not isinstance(choices, list):
        return completion
    changed = [change(number, choice) for number, choice in enumerate(choices)]
    if all(new is old for new, old in zip(changed, choices, strict=True)):
        return completion
    return {**completion, "choices": changed}

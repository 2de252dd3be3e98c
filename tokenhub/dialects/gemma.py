"""Thoughts and tool calls that a model writes into its text as Gemma does, in fields of their own.

    <|channel>thought
    …<channel|>  <|tool_call>call:NAME{key:<|"|>text<|"|>,other:[1,{deep:true}]}<tool_call|>

Thoughts become `reasoning_content`, calls `tool_calls`; the text around them stays, and so does a
call that cannot be read. A whole text and any stream of it come to the same. Knows no model.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

import orjson

from tokenhub.dialects.gemma_calls import QUOTE, Call, read_call
from tokenhub.dialects.stage import Chunk, TextStage, each_choice, with_text
from tokenhub.shaping import WHOLE, held_from, pieces

THOUGHT, THOUGHT_END = "<|channel>thought\n", "<channel|>"
CALL, CALL_END = "<|tool_call>", "<tool_call|>"
_MARKS = re.compile(f"{re.escape(THOUGHT)}|{re.escape(CALL)}")
CALL_CHARS_MAX = 1 << 18
"""What is longer is no call: nobody waits for its end."""


class Parts:
    """What a piece of text has come to."""

    __slots__ = ("calls", "text", "thoughts")

    def __init__(self) -> None:
        self.text: list[str] = []
        self.thoughts: list[str] = []
        self.calls: list[Call] = []


class _Reader:
    """Reads one text in pieces. Where there are thoughts or calls, the white space around what
    remains goes; within it, it stays."""

    def __init__(self) -> None:
        self._pending = ""
        self._mark = ""  # the thought or call that we are in
        self._seen = 0  # how much of a call has been looked through for its end
        self._blank = ""
        self._has_text = False
        self._has_mark = False

    def feed(self, text: str) -> Parts:
        self._pending += text
        parts = Parts()
        while self._step(parts):
            pass
        return parts

    def end(self) -> Parts:
        parts = Parts()
        if self._mark == THOUGHT:
            parts.thoughts.append(self._pending)
        else:
            self._say(parts, self._mark + self._pending)
        if not self._has_mark:
            parts.text.append(self._blank)
        return parts

    def _step(self, parts: Parts) -> bool:
        if not self._mark:
            return self._find_mark(parts)
        return self._think(parts) if self._mark == THOUGHT else self._find_call(parts)

    def _find_mark(self, parts: Parts) -> bool:
        text = self._pending
        found = _MARKS.search(text)
        if found is None:
            cut = held_from(text, (THOUGHT, CALL))
            self._say(parts, text[:cut])
            self._pending = text[cut:]
            return False
        self._say(parts, text[: found.start()])
        self._mark, self._pending, self._seen = found[0], text[found.end() :], 0
        return True

    def _think(self, parts: Parts) -> bool:
        self._has_mark = True
        thoughts, end, rest = self._pending.partition(THOUGHT_END)
        cut = len(thoughts) if end else held_from(thoughts, (THOUGHT_END,))
        parts.thoughts.append(thoughts[:cut])
        self._pending = rest if end else thoughts[cut:]
        self._mark = "" if end else THOUGHT
        return bool(end)

    def _find_call(self, parts: Parts) -> bool:
        at = self._pending.find(CALL_END, self._seen)
        while at >= 0 and self._pending.count(QUOTE, 0, at) % 2:  # within a string
            at = self._pending.find(CALL_END, at + 1)
        if at < 0 and len(self._pending) <= CALL_CHARS_MAX + len(CALL_END):
            self._seen = max(0, len(self._pending) - len(CALL_END) + 1)
            return False
        is_call = 0 <= at <= CALL_CHARS_MAX
        call = read_call(self._pending[:at]) if is_call else None
        end = at + len(CALL_END) if is_call else 0
        if call is None:
            self._say(parts, CALL + self._pending[:end])
        else:
            self._has_mark = True
            parts.calls.append(call)
        self._pending, self._mark = self._pending[end:], ""
        return True

    def _say(self, parts: Parts, text: str) -> None:
        body = text.lstrip()
        if not body:
            self._blank += text
            return
        blank = self._blank + text[: len(text) - len(body)]
        if not self._has_mark or self._has_text:
            parts.text.append(blank)
        end = len(body.rstrip())
        parts.text.append(body[:end])
        self._blank, self._has_text = body[end:], True


def with_calls(completion: dict[str, Any]) -> dict[str, Any]:
    """A whole completion with what its texts hold in the fields that are meant for it."""
    seed = str(completion.get("id", ""))

    def change(number: int, choice: Any) -> Any:
        message = choice.get("message") if isinstance(choice, dict) else None
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            return choice
        parts = _read_whole(message["content"])
        text = "".join(parts.text)
        if text == message["content"]:
            return choice
        said = {**message, "content": text or None}
        if parts.thoughts:
            thoughts = [message.get("reasoning_content") or "", *parts.thoughts]
            said["reasoning_content"] = "".join(thoughts)
        reason = choice.get("finish_reason")
        if parts.calls:
            own = message.get("tool_calls") or []
            said["tool_calls"] = [*own, *_calls_of(parts.calls, seed, number, 0)]
            reason = "tool_calls" if reason in WHOLE else reason
        return {**choice, "message": said, "finish_reason": reason}

    return each_choice(completion, change)


def _read_whole(text: str) -> Parts:
    reader, whole = _Reader(), Parts()
    for parts in (*map(reader.feed, pieces(text)), reader.end()):
        whole.text += parts.text
        whole.thoughts += filter(None, parts.thoughts)
        whole.calls += parts.calls
    return whole


class GemmaStage(TextStage):
    """The same for a stream."""

    def __init__(self) -> None:
        super().__init__()
        self._choices: dict[int, _Choice] = {}

    def say(self, number: int, delta: Chunk) -> Chunk:
        return self._of(number).say(delta, self._seed)

    def finish(self, number: int, delta: Chunk, reason: str | None) -> tuple[Chunk, str | None]:
        choice = self._of(number)
        delta = choice.finish(choice.say(delta, self._seed), self._seed)
        del self._choices[number]
        if choice.calls and reason in WHOLE:
            reason = "tool_calls"
        return delta, reason

    @property
    def _seed(self) -> str:
        return str(self._last.get("id", ""))

    def _of(self, number: int) -> _Choice:
        choice = self._choices.get(number)
        if choice is None:
            choice = self._choices[number] = _Choice(number)
        return choice


class _Choice:
    """One choice of a stream on its way."""

    def __init__(self, number: int) -> None:
        self.calls = 0
        self._number = number
        self._reader = _Reader()
        self._next_index = 0  # of a call, where the provider itself has sent some

    def say(self, delta: Chunk, seed: str) -> Chunk:
        for call in delta.get("tool_calls") or ():
            if isinstance(call, dict) and isinstance(call.get("index"), int):
                self._next_index = max(self._next_index, call["index"] + 1)
        content = delta.get("content")
        if not isinstance(content, str) or not content:
            return delta
        return self._put(delta, self._reader.feed(content), seed)

    def finish(self, delta: Chunk, seed: str) -> Chunk:
        rest = self._reader.end()
        text = (delta.get("content") or "") + "".join(rest.text)
        rest.text = [text]
        return self._put(delta, rest, seed)

    def _put(self, delta: Chunk, parts: Parts, seed: str) -> Chunk:
        text = "".join(parts.text)
        if text == delta.get("content", "") and not parts.thoughts and not parts.calls:
            return delta
        delta = with_text(delta, "content", text)
        thoughts = (delta.get("reasoning_content") or "") + "".join(parts.thoughts)
        delta = with_text(delta, "reasoning_content", thoughts)
        if not parts.calls:
            return delta
        calls = _calls_of(parts.calls, seed, self._number, self.calls)
        for call in calls:
            call["index"] = self._next_index
            self._next_index += 1
        self.calls += len(calls)
        return {**delta, "tool_calls": [*(delta.get("tool_calls") or ()), *calls]}


def _calls_of(calls: list[Call], seed: str, choice: int, start: int) -> list[dict[str, Any]]:
    """Calls as the chat dialect says them. The ids come of the answer's, so that the calls of a
    conversation have different ones."""
    found = []
    for number, call in enumerate(calls, start):
        digest = hashlib.sha256(f"{seed}:{choice}:{number}".encode()).hexdigest()
        function = {"name": call.name, "arguments": orjson.dumps(call.arguments).decode()}
        found.append({"id": f"call_{digest[:24]}", "type": "function", "function": function})
    return found

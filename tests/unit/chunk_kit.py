"""Streams of chat completion chunks for tests: made of texts, and put together again."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import strategies as st

DONE = b"data: [DONE]\n\n"


def event(chunk) -> bytes:
    return b"data: " + orjson.dumps(chunk) + b"\n\n"


def chunk(number, delta, reason=None, **more) -> dict[str, Any]:
    choice = {"index": number, "delta": delta, "finish_reason": reason}
    return {"id": "chatcmpl-1", "model": "m", "choices": [choice], **more}


def streamed(texts, draw, reason="stop") -> list[bytes]:
    """Blocks of a stream of these texts, one for each choice, cut anywhere."""
    events = []
    for number, text in enumerate(texts):
        cuts = draw(st.lists(st.integers(0, len(text)), max_size=8).map(sorted))
        events.append(event(chunk(number, {"role": "assistant", "content": ""})))
        for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
            events.append(event(chunk(number, {"content": text[start:end]})))
        events.append(event(chunk(number, {}, reason)))
    events += [event({"id": "chatcmpl-1", "choices": [], "usage": {"total_tokens": 9}}), DONE]
    size = draw(st.integers(1, 4))
    return [b"".join(events[at : at + size]) for at in range(0, len(events), size)]


def run(stage, blocks) -> bytes:
    return b"".join(map(stage.feed, blocks))


class Answer:
    """What a client makes of a stream."""

    def __init__(self) -> None:
        self.choices: list[dict[str, Any]] = []
        self.usage: Any = None
        self.is_done = False
        self.error: Any = None


def answer_of(stream: bytes) -> Answer:
    found = Answer()
    for each in stream.split(b"\n\n")[:-1]:
        data = each.removeprefix(b"data: ")
        if data == b"[DONE]":
            found.is_done = True
            continue
        said = orjson.loads(data)
        found.error = said.get("error") or found.error
        found.usage = said.get("usage") or found.usage
        for choice in said.get("choices", ()):
            _add(found, choice)
    return found


def _add(found: Answer, choice) -> None:
    while len(found.choices) <= choice["index"]:
        found.choices.append({"content": "", "reasoning": "", "calls": {}, "finish_reason": None})
    into, delta = found.choices[choice["index"]], choice["delta"]
    assert into["finish_reason"] is None, "something came after the finish reason"
    into["content"] += delta.get("content") or ""
    into["reasoning"] += delta.get("reasoning_content") or ""
    for call in delta.get("tool_calls") or ():
        known = into["calls"].setdefault(call["index"], {"name": "", "arguments": ""})
        known["id"] = call.get("id") or known.get("id")
        known["name"] += call["function"].get("name") or ""
        known["arguments"] += call["function"].get("arguments") or ""
    into["finish_reason"] = choice.get("finish_reason")

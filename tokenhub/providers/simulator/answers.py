"""What the simulator answers: pure functions from a chat request to texts, usage and events.

The wire format is OpenAI's: https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

MODELS = {"sim-fast": (0, 0), "sim-cheap": (20, 2), "sim-smart": (60, 5)}
"""Healthy models: milliseconds before the answer, and between the chunks of a stream."""
CREATED_AT = 1_700_000_000  # seconds; fixed, so that the same question has the same answer
CHOICES_MAX = 16
CHUNKS_MAX = 100_000
WORDS = (
    "routes", "answers", "models", "tokens", "through", "quiet", "gateways", "while", "careful",
    "brokers", "compare", "latency", "price", "and", "trust", "before", "each", "prompt", "finds",
    "its", "way", "home", "again",
)  # fmt: skip
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Pacing:
    """How an answer comes: None leaves it to the model."""

    chunks: int | None = None
    interval_ms: int | None = None
    latency_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Chat:
    """An answer worked out: `texts` holds, for each choice, the pieces of its text."""

    id: str
    model: str
    texts: list[list[str]]
    finish_reason: str
    tool_call: dict[str, Any] | None
    usage: dict[str, int]
    wants_usage: bool
    interval_ms: int
    latency_ms: int

    @property
    def whole(self) -> bytes:
        """The answer in one piece."""
        choices = [
            {"index": index, "message": self._message(pieces), "finish_reason": self.finish_reason}
            for index, pieces in enumerate(self.texts)
        ]
        head = {"id": self.id, "object": "chat.completion", "created": CREATED_AT}
        return orjson.dumps({**head, "model": self.model, "choices": choices, "usage": self.usage})

    @property
    def events(self) -> Iterator[bytes]:
        """The answer as server-sent events, [DONE] included; a piece of text in each."""
        everyone = range(len(self.texts))
        yield self._event([(i, {"role": "assistant", "content": ""}) for i in everyone])
        for number in range(max(map(len, self.texts))):
            yield self._event(
                [(i, {"content": t[number]}) for i, t in enumerate(self.texts) if number < len(t)]
            )
        for delta in self._tool_deltas():
            yield self._event([(i, delta) for i in everyone])
        yield self._event([(i, {}) for i in everyone], finish_reason=self.finish_reason)
        if self.wants_usage:
            yield self._event([], usage=self.usage)
        yield DONE

    def _message(self, pieces: list[str]) -> dict[str, Any]:
        if self.tool_call is not None:
            return {"role": "assistant", "content": None, "tool_calls": [self.tool_call]}
        return {"role": "assistant", "content": "".join(pieces)}

    def _tool_deltas(self) -> Iterator[dict[str, Any]]:
        if self.tool_call is None:
            return
        function = self.tool_call["function"]
        begun = {**self.tool_call, "index": 0, "function": {**function, "arguments": ""}}
        yield {"tool_calls": [begun]}
        middle = len(function["arguments"]) // 2
        for part in (function["arguments"][:middle], function["arguments"][middle:]):
            yield {"tool_calls": [{"index": 0, "function": {"arguments": part}}]}

    def _event(
        self,
        deltas: list[tuple[int, dict[str, Any]]],
        *,
        finish_reason: str | None = None,
        usage: dict[str, int] | None = None,
    ) -> bytes:
        payload = {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": CREATED_AT,
            "model": self.model,
            "choices": [
                {"index": i, "delta": delta, "finish_reason": finish_reason} for i, delta in deltas
            ],
        }
        if self.wants_usage:
            payload["usage"] = usage
        return b"data: %b\n\n" % orjson.dumps(payload)


def answer(body: dict[str, Any], pacing: Pacing) -> Chat:
    """Work out the answer to a chat request whose `model` and `messages` have been checked."""
    model, prompt = body["model"], _prompt(body["messages"])
    digest = hashlib.sha256(prompt.encode(errors="replace")).digest()
    latency_ms, interval_ms = MODELS.get(model, (0, 0))
    chunks = pacing.chunks
    if named := re.fullmatch(r"stream-(\d{1,6})-(\d{1,6})", model):
        chunks, interval_ms = int(named[1]), int(named[2])
    elif pacing.interval_ms is not None:
        interval_ms = pacing.interval_ms
    tool_call = _tool_call(body, digest)
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    limit = limit if isinstance(limit, int) else CHUNKS_MAX
    length = 0 if tool_call else min(chunks or 20 + digest[0] % 40, CHUNKS_MAX)
    count = body.get("n")
    count = min(max(count, 1), CHOICES_MAX) if isinstance(count, int) else 1
    texts = [_pieces(prompt, digest[i:], min(length, limit)) for i in range(count)]
    written = sum(map(len, texts)) + (10 * count if tool_call else 0)
    read = max(1, -(-len(prompt.encode(errors="replace")) // 4))
    options = body.get("stream_options")
    return Chat(
        id="chatcmpl-" + digest.hex()[:24],
        model=model,
        texts=texts,
        finish_reason="tool_calls" if tool_call else "length" if limit < length else "stop",
        tool_call=tool_call,
        usage={
            "prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written
        },
        wants_usage=isinstance(options, dict) and options.get("include_usage") is True,
        interval_ms=interval_ms,
        latency_ms=latency_ms if pacing.latency_ms is None else pacing.latency_ms,
    )  # fmt: skip


def _prompt(messages: list[Any]) -> str:
    return "\n".join(_text(m.get("content")) for m in messages if isinstance(m, dict))


def _text(content: object) -> str:
    if isinstance(content, list):  # parts: text, images and so on
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _pieces(prompt: str, seed: bytes, length: int) -> list[str]:
    """A text in `length` pieces, each one token by our count."""
    line = prompt.strip().rpartition("\n")[2]
    quoted = " ".join(line.split()[:6])[:60]
    opening = ["You", " asked:", *(f" {word}" for word in quoted.split()), " —"]
    more = length - len(opening)
    filling = [f" {WORDS[(seed[0] + i * 7) % len(WORDS)]}" for i in range(more)]
    return (opening + filling)[: max(length, 0)]


def _tool_call(body: dict[str, Any], digest: bytes) -> dict[str, Any] | None:
    """A call of the tool that the request insists on, with made-up arguments of the right types."""
    functions = [
        tool["function"]
        for tool in body.get("tools") or []
        if isinstance(tool, dict) and isinstance(tool.get("function"), dict)
    ]
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        wanted = choice.get("function", {}).get("name")
        functions = [each for each in functions if each.get("name") == wanted]
    elif choice != "required":
        return None
    if not functions:
        return None
    schema = functions[0].get("parameters")
    arguments = _sample(schema) if isinstance(schema, dict) else {}
    return {
        "id": "call_" + digest.hex()[:24],
        "type": "function",
        "function": {
            "name": functions[0].get("name"), "arguments": orjson.dumps(arguments).decode()
        },
    }  # fmt: skip


def _sample(schema: dict[str, Any]) -> object:
    if schema.get("enum"):
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            properties = schema.get("properties", {})
            return {k: _sample(properties.get(k, {})) for k in schema.get("required", properties)}
        case "array":
            return []
        case "integer" | "number":
            return 1
        case "boolean":
            return True
    return WORDS[0]

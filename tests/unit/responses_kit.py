"""Shorthand for Responses requests, and OpenAI's own SDK as the judge of what we answer."""

from __future__ import annotations

from typing import Any

import httpx2
import openai
import orjson
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from tokenhub.dialects import DIALECTS
from tokenhub.dialects.responses.to_chat import to_chat
from tokenhub.dialects.sse import events
from tokenhub.domain import ChatRequest

RESPONSES = DIALECTS["responses"]
EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
USER = {"role": "user", "content": "hi"}
FUNCTION = {
    "type": "function", "name": "find", "strict": True, "description": "Finds.",
    "parameters": {"type": "object", "properties": {"q": {"type": "string"}}},
}  # fmt: skip
USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 5,
    "total_tokens": 14,
    "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
    "completion_tokens_details": {"reasoning_tokens": 3},
}
HEAD = {"id": "chatcmpl-abc", "created": 1700000000, "model": "m-1", "service_tier": "default"}


def read(given: Any = "hi", **fields: Any) -> ChatRequest:
    """Read a request as the gateway does; `input` is the first argument."""
    return RESPONSES.read(orjson.dumps({"model": "m", "input": given, **fields}))


def chat(given: Any = "hi", **fields: Any) -> dict[str, Any]:
    """The chat request that it becomes, which must lose nothing."""
    said, dropped = to_chat(read(given, **fields))
    assert dropped == ()
    assert said.dialect == "chat"
    return said.body


def dropped(given: Any = "hi", **fields: Any) -> tuple[str, ...]:
    """What a chat cannot say of a request."""
    return to_chat(read(given, **fields)).dropped


def completion(message: dict[str, Any], reason: str | None = "stop", **more: Any) -> dict[str, Any]:
    """A whole chat completion."""
    choice = {"index": 0, "message": message, "finish_reason": reason, **more}
    return {**HEAD, "object": "chat.completion", "choices": [choice], "usage": USAGE}


def chunk(delta: dict[str, Any], reason: str | None = None, **more: Any) -> bytes:
    """An event of a chat's stream."""
    choice = {"index": 0, "delta": delta, "finish_reason": reason, **more}
    told = {**HEAD, "object": "chat.completion.chunk", "choices": [choice]}
    return b"data: " + orjson.dumps(told) + b"\n\n"


def ending(reason: str | None = "stop") -> bytes:
    """The events that end a chat's stream."""
    usage = {**HEAD, "object": "chat.completion.chunk", "choices": [], "usage": USAGE}
    last = b"data: " + orjson.dumps(usage) + b"\n\ndata: [DONE]\n\n"
    return chunk({}, reason) + last


def checked(raw: bytes) -> list[dict[str, Any]]:
    """The events of a stream, after OpenAI's SDK and its rules have had a look at each."""
    found: list[dict[str, Any]] = []
    for whole, data in events(raw):
        event = orjson.loads(data)
        assert EVENTS.validate_python(event).type == event["type"]
        assert whole.startswith(b"event: " + event["type"].encode() + b"\n")
        assert event["sequence_number"] == len(found)
        found.append(event)
    return found


def accumulated(raw: bytes) -> Response:
    """What the SDK's stream helper makes of a stream that ends well."""
    with client(raw).responses.stream(model="m", input="hi") as stream:
        return stream.get_final_response()


def client(raw: bytes) -> openai.OpenAI:
    """An SDK's client to whom a stream is answered."""

    def handle(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, content=raw, headers={"content-type": "text/event-stream"})

    http = httpx2.Client(transport=httpx2.MockTransport(handle))
    return openai.OpenAI(api_key="k", base_url="http://127.0.0.1:1/v1", http_client=http)

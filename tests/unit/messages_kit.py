"""Requests and answers in Anthropic's words, chat chunks, and what the SDK makes of a stream."""

from __future__ import annotations

from typing import Any

import orjson
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message

from tokenhub.dialects.dialect import InChat
from tokenhub.dialects.messages import MESSAGES
from tokenhub.dialects.sse import events
from tokenhub.domain import ChatRequest

USER = {"role": "user", "content": "hi"}
TOOL = {"name": "find", "description": "Finds.", "input_schema": {"type": "object"}}
PNG = {"type": "base64", "media_type": "image/png", "data": "aGk="}
PDF = {"type": "base64", "media_type": "application/pdf", "data": "aGk="}
USAGE = {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14}
DONE = b"data: [DONE]\n\n"


def body(*messages: Any, **fields: Any) -> dict[str, Any]:
    """A request's body."""
    return {"model": "m", "max_tokens": 100, "messages": list(messages) or [USER], **fields}


def read(*messages: Any, **fields: Any) -> ChatRequest:
    """A request as the gateway reads it."""
    return MESSAGES.read(orjson.dumps(body(*messages, **fields)))


def chat(*messages: Any, **fields: Any) -> InChat:
    """A request in the chat dialect."""
    return MESSAGES.to_chat(read(*messages, **fields))


def said(*messages: Any, **fields: Any) -> Any:
    """The messages of a request in the chat dialect."""
    return chat(*messages, **fields).request.body["messages"]


def text(words: str, **more: Any) -> dict[str, Any]:
    """A block of text."""
    return {"type": "text", "text": words, **more}


def use(id: str = "t1", name: str = "find", **given: Any) -> dict[str, Any]:
    """A call of a tool."""
    return {"type": "tool_use", "id": id, "name": name, "input": given}


def result(id: str = "t1", content: Any = "found", **more: Any) -> dict[str, Any]:
    """What a tool has found."""
    return {"type": "tool_result", "tool_use_id": id, "content": content, **more}


def user(*blocks: Any) -> dict[str, Any]:
    """A turn of the user's."""
    return {"role": "user", "content": list(blocks)}


def assistant(*blocks: Any) -> dict[str, Any]:
    """A turn of the assistant's."""
    return {"role": "assistant", "content": list(blocks)}


def call(arguments: str = "{}", id: str = "c1", name: str = "find") -> dict[str, Any]:
    """A call in a chat completion."""
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def completion(finish_reason: str | None = "stop", **message: Any) -> dict[str, Any]:
    """A chat completion with one choice."""
    said = {"role": "assistant", "content": None, **message}
    choice = {"index": 0, "message": said, "finish_reason": finish_reason}
    return {"id": "chatcmpl-1", "model": "gpt", "choices": [choice], "usage": USAGE}


def chunk(delta: Any = None, finish_reason: str | None = None, **fields: Any) -> bytes:
    """A chunk of a chat completion as an event; without a delta, one without choices."""
    choices = [{"index": 0, "delta": delta, "finish_reason": finish_reason}]
    told = {"id": "chatcmpl-1", "model": "gpt", "choices": choices if delta is not None else []}
    return b"data: " + orjson.dumps({**told, **fields}) + b"\n\n"


def piece(arguments: str, index: int = 0, **call: Any) -> dict[str, Any]:
    """A delta with a piece of a call."""
    function = {"arguments": arguments, **({"name": call.pop("name")} if "name" in call else {})}
    return {"tool_calls": [{"index": index, "function": function, **call}]}


def translated(*blocks: bytes, **fields: Any) -> bytes:
    """The events that blocks of chunks become."""
    translator = MESSAGES.translator(read(**fields))
    return b"".join(map(translator.feed, blocks))


def data_of(stream: bytes) -> list[dict[str, Any]]:
    """The data of a stream's events, each of which is named by its type."""
    found = []
    for raw, data in events(stream):
        event = orjson.loads(data)
        assert raw.startswith(b"event: %b\n" % event["type"].encode())
        found.append(event)
    return found


def gathered(stream: bytes) -> dict[str, Any]:
    """The message that Anthropic's SDK makes of a stream, which begins and ends as it must."""
    found = data_of(stream)
    assert [found[0]["type"], found[-1]["type"]] == ["message_start", "message_stop"]
    _check_blocks(found)
    snapshot: Any = None
    buffers: dict[int, bytes] = {}
    for event in found:
        snapshot = accumulate_event(
            event=event,  # type: ignore[arg-type]  # it takes plain objects too
            current_snapshot=snapshot,
            json_bufs=buffers,
        )
    return dict(Message.model_validate(snapshot.to_dict()).to_dict())


def as_sdk(message: dict[str, Any]) -> dict[str, Any]:
    """A whole message as the SDK reads it."""
    return dict(Message.model_validate(orjson.loads(orjson.dumps(message))).to_dict())


def _check_blocks(found: list[dict[str, Any]]) -> None:
    started = [event["index"] for event in found if event["type"] == "content_block_start"]
    stopped = [event["index"] for event in found if event["type"] == "content_block_stop"]
    assert started == list(range(len(started)))
    assert sorted(stopped) == started
    open_blocks: set[int] = set()
    for event in found:
        if event["type"] == "content_block_start":
            open_blocks.add(event["index"])
        elif event["type"] == "content_block_stop":
            open_blocks.remove(event["index"])
        elif event["type"] == "content_block_delta":
            assert event["index"] in open_blocks

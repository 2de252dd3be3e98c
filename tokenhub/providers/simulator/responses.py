"""The simulator at OpenAI's /v1/responses, which vLLM has too. It keeps nothing.

Pure but for the prompt cache. The wire format:
https://platform.openai.com/docs/api-reference/responses
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import orjson

from tokenhub.providers.simulator import content, responses_checks
from tokenhub.providers.simulator.client import Request
from tokenhub.providers.simulator.content import CREATED_AT, Pacing, Question, Reply
from tokenhub.providers.simulator.dialect import Answer
from tokenhub.providers.simulator.errors import Refused
from tokenhub.providers.simulator.memory import Memory
from tokenhub.providers.simulator.openai import ANY_JSON, OpenAI, is_reasoner, tokens_of
from tokenhub.providers.simulator.responses_events import Events

ECHOED: dict[str, Any] = {
    "background": False, "instructions": None, "max_output_tokens": None, "max_tool_calls": None,
    "metadata": {}, "parallel_tool_calls": True, "previous_response_id": None,
    "prompt_cache_key": None, "safety_identifier": None, "service_tier": "default", "store": True,
    "temperature": 1.0, "tool_choice": "auto", "top_logprobs": 0, "top_p": 1.0,
    "truncation": "disabled", "user": None,
}  # fmt: skip
"""What an answer repeats of its request, and says when that says nothing."""


@dataclass(slots=True)
class Response:
    """An answer in the format of responses."""

    fields: dict[str, Any]
    pieces: list[list[str]]
    """Those in which each item of `fields["output"]` is streamed."""
    interval_ms: int
    latency_ms: int

    @property
    def whole(self) -> bytes:
        """The answer in one piece."""
        return orjson.dumps(self.fields)

    @property
    def events(self) -> Iterator[bytes]:
        """The answer as server-sent events, to the one that completes it."""
        return Events(self.fields, self.pieces).all()

    @property
    def opening(self) -> bytes:
        """The events that open the stream."""
        return Events(self.fields, self.pieces).opening()


class AtResponses(OpenAI):
    """The dialect at /v1/responses."""

    broken_event: ClassVar[bytes] = (
        b'event: response.output_text.delta\ndata: {"type":"response.output_te\n\n'
    )

    def check(self, request: Request, body: dict[str, Any]) -> None:
        responses_checks.check(body)

    def answer(self, body: dict[str, Any], pacing: Pacing, memory: Memory) -> Answer:
        chunks, interval_ms, latency_ms = content.pace(body["model"], pacing)
        question = _question(body)
        reply = content.reply(question, chunks)
        output, pieces = _output(reply, body)
        is_cut = reply.ending == "length"
        is_cached = "prompt_cache_key" in body and memory.has_seen(question.prompt.encode())
        fields = {
            **{n: v if body.get(n) is None else body[n] for n, v in ECHOED.items()},
            "id": "resp_" + reply.digest[:48],
            "object": "response",
            "created_at": CREATED_AT,
            "completed_at": CREATED_AT,
            "status": "incomplete" if is_cut else "completed",
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "model": body["model"],
            "output": output,
            "reasoning": {"effort": None, "summary": None, **(body.get("reasoning") or {})},
            "text": {"format": {"type": "text"}, **(body.get("text") or {})},
            "tools": [_shown(tool) for tool in body.get("tools") or ()],
            "usage": _usage(tokens_of(question.prompt), reply, is_cached=is_cached),
        }
        return Response(fields, pieces, interval_ms, latency_ms)

    def error_event(self, refused: Refused) -> bytes:
        error = {
            "type": refused.kind, "code": refused.openai_code or refused.kind,
            "message": refused.message, "param": refused.param,
        }  # fmt: skip
        return b"event: error\ndata: %b\n\n" % orjson.dumps({"type": "error", "error": error})


def _question(body: dict[str, Any]) -> Question:
    given = body["input"]
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    effort = (body.get("reasoning") or {}).get("effort")
    question = Question(
        "", thinks=effort not in ("none", None) or is_reasoner(body["model"]),
        output_tokens_max=body.get("max_output_tokens") or content.CHUNKS_MAX,
        schema=_schema((body.get("text") or {}).get("format") or {}),
        is_parallel=body.get("parallel_tool_calls") is not False,
    )  # fmt: skip
    texts = [body["instructions"]] if body.get("instructions") else []
    for item in items:
        _note_item(question, item, texts)
    question.prompt = "\n".join(texts)
    tools = [tool for tool in body.get("tools") or () if tool["type"] == "function"]
    question.tools = [(tool["name"], tool.get("parameters")) for tool in tools]
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        question.choice, question.tool = "tool", choice.get("name", "")
    elif choice in ("required", "none"):
        question.choice = "any" if choice == "required" else "none"
    return question


def _note_item(question: Question, item: dict[str, Any], texts: list[str]) -> None:
    kind = item.get("type", "message")
    if kind == "function_call_output":
        question.results.append(_text(item["output"]))
        texts.append(question.results[-1])
        return
    question.results = []  # only those that end the conversation count
    if kind != "message":
        return
    texts.append(_text(item["content"]))
    if item["role"] == "user":
        question.asked = texts[-1]
    for part in item["content"] if isinstance(item["content"], list) else ():
        if part["type"] == "input_image":
            url = part.get("image_url") or "file"
            question.images.append(url[5:].partition(";")[0] if url.startswith("data:") else "url")
        elif part["type"] == "input_file":
            data = str(part.get("file_data", ""))
            is_url = data.startswith("data:")
            question.documents.append(data[5:].partition(";")[0] if is_url else "file")


def _text(parts: Any) -> str:
    if isinstance(parts, str):
        return parts
    return " ".join(part["text"] for part in parts if part["type"].endswith("_text"))


def _schema(wanted: dict[str, Any]) -> dict[str, Any] | None:
    if wanted.get("type") == "json_schema":
        found: dict[str, Any] = wanted["schema"]
        return found
    return ANY_JSON if wanted.get("type") == "json_object" else None


def _output(reply: Reply, body: dict[str, Any]) -> tuple[list[dict[str, Any]], list[list[str]]]:
    """The items of the answer, and for each the pieces that it is streamed in."""
    items: list[dict[str, Any]] = []
    pieces: list[list[str]] = []
    if reply.thought:
        items.append(_thought(reply, body))
        pieces.append(reply.thought)
    if not reply.calls:
        said = reply.texts[0]
        text = {"type": "output_text", "text": "".join(said), "annotations": [], "logprobs": []}
        status = "incomplete" if reply.ending == "length" else "completed"
        items.append(
            {"id": "msg_" + reply.digest[:48], "type": "message", "role": "assistant",
             "status": status, "content": [text]}
        )  # fmt: skip
        pieces.append(said)
    for number, (name, arguments) in enumerate(reply.calls):
        items.append(
            {
                "id": f"fc_{reply.digest[:46]}{number:02d}", "type": "function_call",
                "call_id": f"call_{reply.digest[:22]}{number:02d}", "name": name,
                "arguments": arguments, "status": "completed",
            }
        )  # fmt: skip
        middle = len(arguments) // 2
        pieces.append([arguments[:middle], arguments[middle:]])
    return items, pieces


def _thought(reply: Reply, body: dict[str, Any]) -> dict[str, Any]:
    """What is seen of the thinking: a summary if one is asked for, all of it as vLLM shows it."""
    item: dict[str, Any] = {"id": "rs_" + reply.digest[:48], "type": "reasoning", "summary": []}
    text = "".join(reply.thought)
    if is_reasoner(body["model"]):
        item["content"] = [{"type": "reasoning_text", "text": text}]
    elif (body.get("reasoning") or {}).get("summary"):
        item["summary"] = [{"type": "summary_text", "text": text}]
    return item


def _shown(tool: dict[str, Any]) -> dict[str, Any]:
    if tool["type"] != "function":
        return tool
    return {"description": None, "parameters": {}, "strict": True, **tool}


def _usage(read: int, reply: Reply, *, is_cached: bool) -> dict[str, Any]:
    written = reply.output_tokens
    return {
        "input_tokens": read,
        "input_tokens_details": {
            "cached_tokens": read // 2 if is_cached else 0, "cache_write_tokens": 0,
        },
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": len(reply.thought)},
        "total_tokens": read + written,
    }  # fmt: skip

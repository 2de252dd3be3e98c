"""The simulator in OpenAI's dialect: what it makes of a chat request, and how it writes the answer.

Pure but for the prompt cache. The wire format:
https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import orjson

from tokenhub.providers.simulator import content, openai_checks
from tokenhub.providers.simulator.client import Request
from tokenhub.providers.simulator.content import CREATED_AT, Pacing, Question, Reply
from tokenhub.providers.simulator.dialect import Answer
from tokenhub.providers.simulator.errors import Refused, openai_envelope
from tokenhub.providers.simulator.memory import Memory

CHOICES_MAX = 16
CONTEXT_TOKENS = 128_000
HEADERS = (
    "openai-organization: simulator\r\nopenai-processing-ms: 1\r\nopenai-version: 2020-10-01\r\n"
    "x-ratelimit-limit-requests: 10000\r\nx-ratelimit-limit-tokens: 2000000\r\n"
    "x-ratelimit-remaining-requests: 9999\r\nx-ratelimit-remaining-tokens: 1999990\r\n"
    "x-ratelimit-reset-requests: 6ms\r\nx-ratelimit-reset-tokens: 0s\r\n"
)
"""https://platform.openai.com/docs/api-reference/debugging-requests"""
DONE = b"data: [DONE]\n\n"
ANY_JSON = {"type": "object", "properties": {"answer": {"type": "string"}}}
ERRORS: dict[str, dict[str, Any]] = {
    "401": {"message": "Incorrect API key provided.", "openai_code": "invalid_api_key"},
    "403": {"kind": "permission_error"},
    "404": {"openai_code": "model_not_found"},
    "429": {"kind": "requests", "openai_code": "rate_limit_exceeded"},
    "529": {"kind": "overloaded_error"},
    "policy": {"status": 400, "openai_code": "content_policy_violation"},
    "quota": {
        "status": 429, "kind": "insufficient_quota", "openai_code": "insufficient_quota",
        "message": "You exceeded your current quota, please check your plan and billing details.",
    },
}  # fmt: skip


@dataclass(slots=True)
class Chat:
    """An answer in OpenAI's format."""

    model: str
    reply: Reply
    usage: dict[str, Any]
    wants_usage: bool
    interval_ms: int
    latency_ms: int

    @property
    def finish_reason(self) -> str:
        ending = self.reply.ending
        return {"calls": "tool_calls", "sequence": "stop"}.get(ending, ending)

    @property
    def whole(self) -> bytes:
        """The answer in one piece."""
        choices = [
            {"index": index, "message": self.message(pieces), **self.ended()}
            for index, pieces in enumerate(self.reply.texts)
        ]
        head = {"id": self.id, "object": "chat.completion", "created": CREATED_AT}
        return orjson.dumps(
            {**head, "model": self.model, "choices": choices, "usage": self.usage, **self.tail()}
        )

    @property
    def events(self) -> Iterator[bytes]:
        """The answer as server-sent events, [DONE] included; a piece of text in each."""
        texts = self.reply.texts
        head, tail = self._frame()
        yield self.opening
        for delta in self.thought_deltas():
            yield head + self._choices(delta) + tail
        for number in range(max(map(len, texts))):
            choices = [
                {"index": i, "delta": {"content": t[number]}, "finish_reason": None}
                for i, t in enumerate(texts)
                if number < len(t)
            ]
            yield head + orjson.dumps(choices) + tail
        for delta in self._call_deltas():
            yield head + self._choices(delta) + tail
        yield head + self._choices({}, self.ended()) + tail
        if self.wants_usage:
            yield head + b'[],"usage":%b}\n\n' % orjson.dumps(self.usage)
        yield DONE

    @property
    def opening(self) -> bytes:
        """The chunk that holds the role."""
        head, tail = self._frame()
        return head + self._choices({"role": "assistant", "content": ""}) + tail

    @property
    def id(self) -> str:
        return "chatcmpl-" + self.reply.digest[:24]

    def message(self, pieces: list[str]) -> dict[str, Any]:
        """A choice's message."""
        message: dict[str, Any] = {"role": "assistant", "content": "".join(pieces), "refusal": None}
        if self.reply.calls:
            message["content"] = None
            message["tool_calls"] = self._calls()
        return message

    def ended(self) -> dict[str, Any]:
        """How a choice ended."""
        return {"finish_reason": self.finish_reason}

    def tail(self) -> dict[str, Any]:
        """What else stands in a whole answer."""
        return {}

    def thought_deltas(self) -> Iterator[dict[str, Any]]:
        """What is seen of the thinking: with OpenAI nothing."""
        return iter(())

    def _calls(self) -> list[dict[str, Any]]:
        return [
            {
                "id": f"call_{self.reply.digest[:22]}{number:02d}",
                "type": "function",
                "function": {"name": name, "arguments": arguments},
            }
            for number, (name, arguments) in enumerate(self.reply.calls)
        ]

    def _call_deltas(self) -> Iterator[dict[str, Any]]:
        for index, call in enumerate(self._calls()):
            arguments = call["function"]["arguments"]
            function = {**call["function"], "arguments": ""}
            yield {"tool_calls": [{**call, "index": index, "function": function}]}
            middle = len(arguments) // 2
            for part in (arguments[:middle], arguments[middle:]):
                yield {"tool_calls": [{"index": index, "function": {"arguments": part}}]}

    def _frame(self) -> tuple[bytes, bytes]:
        """What stands before and after the choices of every chunk but that of the usage."""
        head = {
            "id": self.id, "object": "chat.completion.chunk", "created": CREATED_AT,
            "model": self.model,
        }  # fmt: skip
        tail = b',"usage":null}\n\n' if self.wants_usage else b"}\n\n"
        return b'data: %b,"choices":' % orjson.dumps(head)[:-1], tail

    def _choices(self, delta: dict[str, Any], ended: dict[str, Any] | None = None) -> bytes:
        """The same for every choice."""
        rest = ended or {"finish_reason": None}
        everyone = range(len(self.reply.texts))
        return orjson.dumps([{"index": i, "delta": delta, **rest} for i in everyone])


class OpenAI:
    """OpenAI's dialect, at its chat endpoint.

    Args:
        request_id: sent with the answer.
    """

    broken_event: ClassVar[bytes] = b'data: {"choices": [\n\n'

    def __init__(self, request_id: str) -> None:
        self.extra = f"x-request-id: {request_id}\r\n{HEADERS}"

    def authenticate(self, request: Request, api_key: str) -> None:
        given = request.headers.get("authorization", "")
        if not api_key or given == f"Bearer {api_key}":
            return
        if not given:
            raise Refused("You didn't provide an API key. You need to provide your API key in an "
                          "Authorization header using Bearer auth.", status=401)  # fmt: skip
        raise Refused("Incorrect API key provided.", status=401, openai_code="invalid_api_key")

    def check(self, request: Request, body: dict[str, Any]) -> None:
        openai_checks.check(body)

    def answer(self, body: dict[str, Any], pacing: Pacing, memory: Memory) -> Answer:
        return self._answer(body, pacing, memory, Chat)

    def error(self, refused: Refused) -> bytes:
        return openai_envelope(refused)

    def error_event(self, refused: Refused) -> bytes:
        return b"data: %b\n\n" % self.error(refused)

    def refusal(self, fault: str) -> Refused:
        if fault == "context":
            return self.overflow(CONTEXT_TOKENS, 200_000, 0)
        details = {"message": f"simulated fault {fault}", **ERRORS.get(fault, {})}
        return Refused(**{"status": int(fault) if fault.isdecimal() else 400, **details})

    def overflow(self, context_tokens: int, input_tokens: int, asked_tokens: int) -> Refused:
        if asked_tokens:
            said = (
                f"you requested {input_tokens + asked_tokens} tokens ({input_tokens} in the "
                f"messages, {asked_tokens} in the completion). Please reduce the length of the "
                "messages or completion."
            )
        else:
            said = (
                f"your messages resulted in {input_tokens} tokens. Please reduce the length of "
                "the messages."
            )
        return Refused(
            f"This model's maximum context length is {context_tokens} tokens. However, {said}",
            openai_code="context_length_exceeded", param="messages",
        )  # fmt: skip

    def models(self, models: list[dict[str, Any]]) -> bytes:
        data = [
            {"object": "model", "created": CREATED_AT, "owned_by": "simulator", **each}
            for each in models
        ]
        return orjson.dumps({"object": "list", "data": data})

    def _answer(
        self, body: dict[str, Any], pacing: Pacing, memory: Memory, kind: type[Chat]
    ) -> Chat:
        chunks, interval_ms, latency_ms = content.pace(body["model"], pacing)
        question = _question(body)
        reply = content.reply(question, chunks)
        read = tokens_of(question.prompt)
        is_cached = "prompt_cache_key" in body and memory.has_seen(question.prompt.encode())
        options = body.get("stream_options")
        return kind(
            model=body["model"],
            reply=reply,
            usage=self.usage(read, reply, read // 2 if is_cached else 0),
            wants_usage=isinstance(options, dict) and options.get("include_usage") is True,
            interval_ms=interval_ms,
            latency_ms=latency_ms,
        )

    def usage(self, read: int, reply: Reply, cached: int) -> dict[str, Any]:
        """The tokens used; `cached` are among those read."""
        written = reply.output_tokens
        return {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
            "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": len(reply.thought), "audio_tokens": 0,
                "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0,
            },
        }  # fmt: skip


def tokens_of(text: str) -> int:
    """How many tokens are read: one for four bytes."""
    return max(1, -(-len(text.encode(errors="replace")) // 4))


def thinks(body: dict[str, Any]) -> bool:
    """Whether tokens go into thinking."""
    model: str = body["model"]
    return body.get("reasoning_effort", "none") not in ("none", None) or is_reasoner(model)


def is_reasoner(model: str) -> bool:
    """Whether it is a model that always thinks, and shows it."""
    return model.startswith("sim-reason")


def _question(body: dict[str, Any]) -> Question:
    messages = body["messages"]
    texts = [_text(message.get("content")) for message in messages]
    question = Question("\n".join(texts), thinks=thinks(body))
    _note_options(question, body)
    for message in messages:
        if isinstance(message.get("content"), list):
            _note_attachments(question, message["content"])
    question.results = _results(messages, texts)
    if body.get("tools"):
        _note_tools(question, body, texts)
    return question


def _note_options(question: Question, body: dict[str, Any]) -> None:
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    if limit:
        question.output_tokens_max = limit
    if count := body.get("n"):
        question.count = min(count, CHOICES_MAX)
    if stop := body.get("stop"):
        question.stops = [stop] if isinstance(stop, str) else [each for each in stop if each]
    if "response_format" in body:
        question.schema = _schema(body["response_format"] or {})


def _results(messages: list[dict[str, Any]], texts: list[str]) -> list[str]:
    """What the tools said, if that is how the conversation ends."""
    at = len(messages)
    while at and messages[at - 1]["role"] == "tool":
        at -= 1
    return texts[at:]


def _note_tools(question: Question, body: dict[str, Any], texts: list[str]) -> None:
    asked = [t for t, m in zip(texts, body["messages"], strict=True) if m["role"] == "user"]
    question.asked = asked[-1] if asked else ""
    functions = [tool["function"] for tool in body["tools"] if tool["type"] == "function"]
    question.tools = [(each["name"], each.get("parameters")) for each in functions]
    question.is_parallel = body.get("parallel_tool_calls") is not False
    choice = body.get("tool_choice")
    if choice in ("required", "none"):
        question.choice = "any" if choice == "required" else "none"
    elif isinstance(choice, dict) and choice.get("type") == "function":
        question.choice, question.tool = "tool", choice["function"]["name"]


def _schema(wanted: dict[str, Any]) -> dict[str, Any] | None:
    match wanted.get("type"):
        case "json_schema":
            found: dict[str, Any] = wanted["json_schema"].get("schema", ANY_JSON)
            return found
        case "json_object":
            return ANY_JSON
    return None


def _note_attachments(question: Question, parts: list[dict[str, Any]]) -> None:
    for part in parts:
        if part["type"] == "image_url":
            url: str = part["image_url"]["url"]
            question.images.append(url[5:].partition(";")[0] if url.startswith("data:") else "url")
        elif part["type"] == "file":
            data = str(part.get("file", {}).get("file_data", ""))
            kind = data[5:].partition(";")[0] if data.startswith("data:") else "file"
            question.documents.append(kind)


def _text(parts: Any) -> str:
    if isinstance(parts, str):
        return parts
    if isinstance(parts, list):
        return " ".join(str(part.get("text", "")) for part in parts)
    return ""

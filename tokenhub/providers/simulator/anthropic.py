"""The simulator in Anthropic's dialect: what it makes of a request, and how it writes the answer.

Pure but for the prompt cache. The wire format:
https://platform.claude.com/docs/en/api/messages
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import orjson

from tokenhub.providers.simulator import anthropic_checks, content
from tokenhub.providers.simulator.anthropic_events import event, events_of, opening
from tokenhub.providers.simulator.client import Request
from tokenhub.providers.simulator.content import Pacing, Question
from tokenhub.providers.simulator.dialect import Answer, Whole
from tokenhub.providers.simulator.errors import Refused, anthropic_envelope
from tokenhub.providers.simulator.memory import Memory
from tokenhub.providers.simulator.signature import sign

CREATED_AT = "2023-11-14T22:13:20Z"
CONTEXT_TOKENS = 200_000
LOOKING = ["I", " shall", " look", "."]
STOP_REASONS = {
    "stop": "end_turn", "length": "max_tokens", "calls": "tool_use", "sequence": "stop_sequence",
}  # fmt: skip
MESSAGES = {
    "401": "invalid x-api-key",
    "402": "Your account has a billing problem.",
    "404": "model: simulated fault 404",
    "413": "Request exceeds the maximum size",
    "429": "This request would exceed your organization's rate limit.",
    "500": "Internal server error",
    "529": "Overloaded",
    "context": f"prompt is too long: 205000 tokens > {CONTEXT_TOKENS} maximum",
    "policy": "Output blocked by content filtering policy",
    "quota": "Your credit balance is too low to access the Anthropic API. Please go to Plans & "
             "Billing to upgrade or purchase credits.",
}  # fmt: skip
"""What the API says. An empty account is answered with 400, not 402 or 429."""
LIMITS = {"requests": 4000, "tokens": 500_000, "input-tokens": 400_000, "output-tokens": 100_000}
HEADERS = "anthropic-organization-id: simulator\r\n" + "".join(
    f"anthropic-ratelimit-{name}-limit: {limit}\r\n"
    f"anthropic-ratelimit-{name}-remaining: {limit - 1}\r\n"
    f"anthropic-ratelimit-{name}-reset: {CREATED_AT}\r\n"
    for name, limit in LIMITS.items()
)
"""https://platform.claude.com/docs/en/api/rate-limits#response-headers"""


@dataclass(slots=True)
class Message:
    """An answer in Anthropic's format."""

    fields: dict[str, Any]
    pieces: list[list[str]]
    """The pieces in which each block of `fields["content"]` is streamed."""
    interval_ms: int
    latency_ms: int

    @property
    def whole(self) -> bytes:
        """The answer in one piece."""
        return orjson.dumps(self.fields)

    @property
    def events(self) -> Iterator[bytes]:
        """The answer as server-sent events, message_stop included."""
        return events_of(self.fields, self.pieces)

    @property
    def opening(self) -> bytes:
        """The event message_start."""
        return opening(self.fields)


class Anthropic:
    """Anthropic's dialect, where it answers with messages.

    Args:
        request_id: sent with the answer, and in the body of an error.
    """

    broken_event: ClassVar[bytes] = b'event: content_block_delta\ndata: {"type":"content_blo\n\n'

    def __init__(self, request_id: str) -> None:
        self._request_id = request_id
        self.extra = f"request-id: {request_id}\r\n{HEADERS}"

    def authenticate(self, request: Request, api_key: str) -> None:
        given = request.headers.get("x-api-key", "")
        bearer = request.headers.get("authorization", "")  # how the SDK sends it since version 2
        if not api_key or given == api_key or (not given and bearer == f"Bearer {api_key}"):
            return
        if not given and not bearer:
            raise Refused("x-api-key header is required", status=401)
        raise Refused("invalid x-api-key" if given else "Invalid bearer token", status=401)

    def check(self, request: Request, body: dict[str, Any]) -> None:
        version = anthropic_checks.check_version(request)
        is_beta = "anthropic-beta" in request.headers
        anthropic_checks.check(body, version=version, is_beta=is_beta)

    def answer(self, body: dict[str, Any], pacing: Pacing, memory: Memory) -> Answer:
        chunks, interval_ms, latency_ms = content.pace(body["model"], pacing)
        question = _question(body)
        reply = content.reply(question, chunks)
        blocks, pieces = _blocks(question, reply, body)
        usage = _usage(body, memory)
        preamble_tokens = len(LOOKING) if reply.calls and question.choice == "auto" else 0
        usage["output_tokens"] = reply.output_tokens + preamble_tokens
        usage["output_tokens_details"] = {"thinking_tokens": len(reply.thought)}
        fields = {
            "id": "msg_01" + reply.digest[:22],
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": blocks,
            "stop_reason": STOP_REASONS[reply.ending],
            "stop_sequence": reply.stopped_by,
            "stop_details": None,
            "usage": usage,
        }
        return Message(fields, pieces, interval_ms, latency_ms)

    def error(self, refused: Refused) -> bytes:
        return anthropic_envelope(refused, self._request_id)

    def error_event(self, refused: Refused) -> bytes:
        return event("error", self.error(refused))

    def refusal(self, fault: str) -> Refused:
        status = int(fault) if fault.isdecimal() else 400
        return Refused(MESSAGES.get(fault, f"simulated fault {fault}"), status=status)

    def overflow(self, context_tokens: int, input_tokens: int, asked_tokens: int) -> Refused:
        if asked_tokens:
            return Refused(
                f"input length and `max_tokens` exceed context limit: {input_tokens} + "
                f"{asked_tokens} > {context_tokens}, decrease input length or `max_tokens` and "
                "try again"
            )
        return Refused(f"prompt is too long: {input_tokens} tokens > {context_tokens} maximum")

    def models(self, models: list[dict[str, Any]]) -> bytes:
        data = [
            {
                "type": "model", "display_name": each["id"], "created_at": CREATED_AT,
                "lifecycle": "active", "max_input_tokens": CONTEXT_TOKENS,
                "max_tokens": anthropic_checks.OUTPUT_TOKENS_MAX, **each,
            }
            for each in models
        ]  # fmt: skip
        ends = {"first_id": models[0]["id"], "last_id": models[-1]["id"]} if models else {}
        page = {"data": data, "has_more": False, "first_id": None, "last_id": None}
        return orjson.dumps({**page, **ends})


class AnthropicCount(Anthropic):
    """The same where it only counts."""

    def check(self, request: Request, body: dict[str, Any]) -> None:
        anthropic_checks.check_version(request)
        anthropic_checks.check_count(body)

    def answer(self, body: dict[str, Any], pacing: Pacing, memory: Memory) -> Answer:
        usage = _usage(body, Memory())
        read = usage["input_tokens"] + usage["cache_creation_input_tokens"]
        _, _, latency_ms = content.pace(body["model"], pacing)
        return Whole(orjson.dumps({"input_tokens": read}), latency_ms)


def _question(body: dict[str, Any]) -> Question:
    question = Question(_text(body.get("system")))
    question.output_tokens_max = body["max_tokens"]
    question.stops = body.get("stop_sequences", [])
    question.thinks = body.get("thinking", {}).get("type") in ("enabled", "adaptive")
    config = body.get("output_config", {}).get("format") or body.get("output_format")
    if config:
        question.schema = config["schema"]
    texts = [question.prompt] if question.prompt else []
    for message in body["messages"]:
        _note_message(question, message, texts)
    question.prompt = "\n".join(texts)
    for tool in body.get("tools", []):
        if tool.get("type") in (None, "custom"):
            question.tools.append((tool["name"], tool["input_schema"]))
    choice = body.get("tool_choice", {})
    question.choice, question.tool = choice.get("type", "auto"), choice.get("name", "")
    question.is_parallel = choice.get("disable_parallel_tool_use") is not True
    return question


def _note_message(question: Question, message: dict[str, Any], texts: list[str]) -> None:
    question.results = []  # only those that end the conversation count
    said = message["content"]
    blocks = [{"type": "text", "text": said}] if isinstance(said, str) else said
    for block in blocks:
        _note_attachment(question, block)
        if block["type"] == "tool_result":
            result = block.get("content", "")
            question.results.append(_text(result))
            if isinstance(result, list):
                for part in result:
                    _note_attachment(question, part)
    text = _text(said)
    texts.append("\n".join([*question.results, *([text] if text else [])]))
    if message["role"] == "user" and text:
        question.asked = text


def _note_attachment(question: Question, block: dict[str, Any]) -> None:
    if block["type"] in ("image", "document"):
        seen = question.images if block["type"] == "image" else question.documents
        source = block["source"]
        seen.append(source.get("media_type") or source["type"])


def _text(blocks: Any) -> str:
    if isinstance(blocks, list):
        return " ".join(block["text"] for block in blocks if block["type"] == "text")
    return blocks or ""


def _blocks(
    question: Question, reply: content.Reply, body: dict[str, Any]
) -> tuple[list[dict[str, Any]], list[list[str]]]:
    """The content of the answer, and for each block the pieces that it is streamed in."""
    blocks: list[dict[str, Any]] = []
    pieces: list[list[str]] = []
    if reply.thought:
        is_shown = body["thinking"].get("display") != "omitted"
        thought = reply.thought if is_shown else []
        text = "".join(thought)
        blocks.append({"type": "thinking", "thinking": text, "signature": sign(text)})
        pieces.append(thought)
    said = reply.texts[0]
    if reply.calls and question.choice == "auto":  # as models do, unless a call is forced
        said = LOOKING
    if said:
        blocks.append({"type": "text", "text": "".join(said)})
        pieces.append(said)
    for number, (name, arguments) in enumerate(reply.calls):
        blocks.append(
            {
                "type": "tool_use", "id": f"toolu_01{reply.digest[:20]}{number:02d}",
                "name": name, "input": orjson.loads(arguments),
            }
        )  # fmt: skip
        middle = len(arguments) // 2
        pieces.append([arguments[:middle], arguments[middle:]])
    return blocks, pieces


def _usage(body: dict[str, Any], memory: Memory) -> dict[str, Any]:
    """What is read, in three parts: what the cache has, what it is given, and the rest."""
    parts = [*body.get("tools", []), *_listed(body.get("system"))]
    for message in body["messages"]:
        parts += _listed(message["content"])
    marked = [i for i, part in enumerate(parts) if part.get("cache_control")]
    if body.get("cache_control"):
        marked.append(len(parts) - 1)
    sizes = [len(orjson.dumps(part.get("text") or part)) for part in parts]
    total = max(1, -(-sum(sizes) // 4))
    cached = -(-sum(sizes[: marked[-1] + 1]) // 4) if marked else 0
    key = orjson.dumps([body["model"], parts[: marked[-1] + 1]]) if marked else b""
    is_known = bool(marked) and memory.has_seen(hashlib.sha256(key).digest())
    written = 0 if is_known else cached
    mark = (parts[marked[-1]].get("cache_control") or body["cache_control"]) if marked else {}
    is_long = mark.get("ttl") == "1h"
    return {
        "input_tokens": total - cached,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": cached - written,
        "cache_creation": {
            "ephemeral_5m_input_tokens": 0 if is_long else written,
            "ephemeral_1h_input_tokens": written if is_long else 0,
        },
        "output_tokens": 0,
        "service_tier": "standard",
    }


def _listed(said: Any) -> list[dict[str, Any]]:
    if isinstance(said, str):
        return [{"type": "text", "text": said}]
    return said or []

"""The OpenAI chat dialect: requests in, stream events through, errors out.

Wire format: https://platform.openai.com/docs/api-reference/chat. Fields that we do not know are
kept. Nothing here does I/O.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import orjson

from tokenhub.domain import ChatRequest, Usage
from tokenhub.errors import InvalidRequest, ProviderError, TokenHubError
from tokenhub.pricing import estimate_input_tokens

ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
CHOICES_MAX = 128
TOKENS_MAX = 2**31
"""No answer has more; what claims to is nonsense, and its cost would not fit 64 bits."""
UNREAD_BYTES_MAX = 32 << 10
"""How much of a stream is set aside unread; a thousand streams at once must fit in memory."""

DONE = b"data: [DONE]\n\n"

Split = Callable[[bytes], list[tuple[bytes, bytes]]]

_SPACED_COLON = re.compile(rb'"[ \t\r\n]+:')


def read_request(raw: bytes) -> ChatRequest:
    """Parse and check a chat completion request, once.

    Raises:
        InvalidRequest: naming the field that is wrong.
    """
    return request_of(parse_object(raw))


def request_of(body: dict[str, Any]) -> ChatRequest:
    """Check the body of a chat completion request that is parsed already.

    Raises:
        InvalidRequest: naming the field that is wrong.
    """
    model = model_of(body)
    has_image = _check_messages(body.get("messages"))
    stream = body.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise InvalidRequest("stream must be a boolean", param="stream")
    options = body.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise InvalidRequest("stream_options must be an object", param="stream_options")
    return ChatRequest(
        body=body,
        model=model,
        stream=bool(stream),
        input_tokens=estimate_input_tokens(body),
        output_tokens_max=_limit(body),
        choices=_positive(body, "n", CHOICES_MAX) or 1,
        wants_usage=bool(options and options.get("include_usage")),
        needs=_needs(body, has_image),
    )


def model_of(body: Mapping[str, Any]) -> str:
    """The model that is asked for; "" when none is.

    Raises:
        InvalidRequest: it is no string.
    """
    model = body.get("model")
    if model is None:
        return ""
    if not isinstance(model, str):
        raise InvalidRequest("model must be a string", param="model")
    return model


def parse_object(raw: bytes) -> dict[str, Any]:
    """A JSON object without duplicate keys.

    Raises:
        InvalidRequest: it is something else.
    """
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not valid JSON: {error.msg}", code="bad_json") from None
    if not isinstance(body, dict):
        raise InvalidRequest("the body must be a JSON object", code="bad_json")
    # orjson keeps the last of two equal keys and says nothing. Every key is followed by `":`, so
    # where that count differs from the re-serialised text's, look closely; it is rare and slow.
    try:
        again = orjson.dumps(body)
    except TypeError:
        raise InvalidRequest("the body is nested too deeply", code="bad_json") from None
    if raw.count(b'":') != again.count(b'":') or _SPACED_COLON.search(raw):
        _refuse_duplicates(raw)
    return body


def with_output_limit(request: ChatRequest, tokens: int) -> ChatRequest:
    """The same request with an answer of at most `tokens`, in the older word only if the caller
    uses it: OpenAI's reasoning models refuse that, and vLLM takes both."""
    body = request.body
    is_older = body.get("max_tokens") is not None and body.get("max_completion_tokens") is None
    key = "max_tokens" if is_older else "max_completion_tokens"
    return replace(request, body={**request.body, key: tokens}, output_tokens_max=tokens)


class StreamMeter:
    """Follows a chat stream on its way through: what was produced, how it ended, what it used.

    Looking closely costs more than relaying, so blocks are set aside unread. They are read when
    the answer is needed, which for a stream that ends well it never is: there the provider says
    what was used.

    Args:
        split: cuts a block of whole events into (as it came, data) pairs.
        hide_usage: drop the usage chunk, which we asked for and the caller did not.
    """

    def __init__(self, *, split: Split, hide_usage: bool) -> None:
        self._split = split
        self._hide_usage = hide_usage
        self._unread: list[bytes] = []
        self._unread_bytes = 0
        self._text_bytes = 0
        self._finish_reason: str | None = None
        self._usage_payload: dict[str, Any] | None = None

    def pass_on(self, block: bytes) -> bytes:
        """Take note of a block of whole events; returns what of it the caller may see."""
        self._unread.append(block)
        self._unread_bytes += len(block)
        if self._unread_bytes > UNREAD_BYTES_MAX:
            self._catch_up()
        # Providers that are asked for usage may send `"usage":null` with every chunk before it.
        if block.count(b'"usage"') == block.count(b'"usage":null'):
            return block
        return self._without_usage(block)

    def finish(self) -> bytes:
        """The mark that ends a stream, for a provider that ended without saying so."""
        return DONE

    def fail(self, error: ProviderError) -> bytes:
        """The event that ends a stream that broke off."""
        return error_event(error)

    @property
    def usage(self) -> Usage | None:
        """What the provider said that it used."""
        return usage_of(self._usage_payload) if self._usage_payload else None

    @property
    def output_tokens(self) -> int:
        """Our estimate of what was produced so far, at four bytes a token."""
        self._catch_up()
        return -(-self._text_bytes // 4)

    @property
    def finish_reason(self) -> str | None:
        """Why the model stopped, if it said so."""
        self._catch_up()
        return self._finish_reason

    def _without_usage(self, block: bytes) -> bytes:
        """Keep the last usage of a block, and leave out the event that has nothing else."""
        # It is in the last event but one, so what comes before need not be taken apart.
        cut = block.rfind(b"\n\ndata:", 0, block.rfind(b'"usage"')) + 2
        start = cut if cut > 1 else 0
        kept = [block[:start]]
        for raw, data in self._split(block[start:]):
            chunk = object_of(data) if b'"usage"' in data else {}
            if chunk.get("usage"):
                self._usage_payload = chunk
                if self._hide_usage and not chunk.get("choices"):
                    continue
            kept.append(raw)
        return b"".join(kept)

    def _catch_up(self) -> None:
        unread, self._unread, self._unread_bytes = self._unread, [], 0
        for block in unread:
            for _, data in self._split(block):
                choices = object_of(data).get("choices")
                for choice in choices if isinstance(choices, list) else ():
                    self._look_at(choice)

    def _look_at(self, choice: Any) -> None:
        try:
            delta = choice["delta"]
            if choice.get("finish_reason"):
                self._finish_reason = choice["finish_reason"]
            # vLLM and others call their thoughts `reasoning_content`, or `reasoning`, or both.
            thought = delta.get("reasoning_content") or delta.get("reasoning")
            for text in (delta.get("content"), delta.get("refusal"), thought):
                if text:
                    self._text_bytes += len(text.encode())
            functions = [call.get("function") for call in delta.get("tool_calls") or ()]
            for function in (*functions, delta.get("function_call")):
                if function:
                    self._text_bytes += len(function.get("name") or "")
                    self._text_bytes += len((function.get("arguments") or "").encode())
        except (AttributeError, KeyError, TypeError):
            return  # not the shape we know: relayed all the same


def opens_stream(data: bytes) -> bool:
    """Whether an event has nothing of an answer in it yet: a role, a prompt's filter results."""
    chunk = object_of(data)
    choices = chunk.get("choices")
    if not isinstance(choices, list) or chunk.get("usage"):
        return False
    return not any(map(_says_something, choices))


def ends_stream(tail: bytes) -> bool:
    """Whether a stream's block ends with its last event; a JSON text cannot end like the mark."""
    return tail.endswith(b"[DONE]")


def usage_of(payload: Mapping[str, Any]) -> Usage | None:
    """The `usage` object in normal form, or None when there is none worth having.

    Tolerates what compatible servers send: floats, nulls, missing details.
    """
    usage = payload.get("usage")
    if not isinstance(usage, dict):
        return None
    prompt, completion = count_of(usage, "prompt_tokens"), count_of(usage, "completion_tokens")
    if not prompt and not completion:
        return None
    cached = min(prompt, count_of(usage.get("prompt_tokens_details"), "cached_tokens"))
    written = count_of(usage.get("prompt_tokens_details"), "cache_write_tokens")
    reasoning = count_of(usage.get("completion_tokens_details"), "reasoning_tokens")
    # Some servers count reasoning beside the completion; their total gives it away.
    if reasoning and count_of(usage, "total_tokens") == prompt + completion + reasoning:
        completion += reasoning
    return Usage(
        input_tokens=prompt,
        output_tokens=completion,
        cache_read_tokens=cached,
        cache_write_tokens=min(written, prompt - cached),
        reasoning_tokens=min(reasoning, completion),
    )


def count_of(usage: Any, key: str) -> int:
    """A number of tokens in a provider's `usage`; what cannot be one counts as none."""
    value = usage.get(key) if isinstance(usage, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return int(value) if 0 <= value <= TOKENS_MAX else 0


def object_of(data: bytes) -> dict[str, Any]:
    """The JSON object in an event's data; an empty one when there is none."""
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def error_body(error: TokenHubError) -> dict[str, Any]:
    """The OpenAI error envelope; details beyond it stand beside `code`."""
    return {
        "error": {
            "message": error.message,
            "type": error.type,
            "param": error.param,
            "code": error.code,
            **error.details,
        }
    }


def error_event(error: ProviderError) -> bytes:
    """The event that ends a broken stream; SDKs raise it as an API error."""
    body = {
        "error": {
            "message": "the provider broke off the stream",
            "type": "server_error",
            "param": None,
            "code": error.error_class,
        }
    }
    return b"data: " + orjson.dumps(body) + b"\n\n"


def _check_messages(messages: Any) -> bool:
    """Refuse what are no messages; returns whether there is an image in them."""
    has_image = False
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest("messages is required and must not be empty", param="messages")
    for number, message in enumerate(messages):
        if not isinstance(message, dict):
            raise InvalidRequest("a message must be an object", param=f"messages[{number}]")
        role = message.get("role")
        if not isinstance(role, str) or role not in ROLES:
            raise InvalidRequest("unknown role", param=f"messages[{number}].role")
        content = message.get("content")
        if content is not None and not isinstance(content, str | list):
            raise InvalidRequest(
                "content must be a string, an array of parts or null",
                param=f"messages[{number}].content",
            )
        if message.get("tool_calls") == []:  # vLLM says so of every answer, and OpenAI refuses it
            del message["tool_calls"]
        if isinstance(content, list) and not has_image:
            has_image = any(isinstance(part, dict) and "image_url" in part for part in content)
    return has_image


def _needs(body: Mapping[str, Any], has_image: bool) -> frozenset[str]:
    """What a model must be able to do for this request, besides to chat."""
    needs = []
    if has_image:
        needs.append("vision")
    if body.get("tools") or body.get("functions"):
        needs.append("tools")
    wanted = body.get("response_format")
    if isinstance(wanted, dict) and wanted.get("type") in ("json_schema", "json_object"):
        needs.append("json")
    return frozenset(needs)


def _limit(body: Mapping[str, Any]) -> int | None:
    newer = _positive(body, "max_completion_tokens", 2**31)
    return newer if newer is not None else _positive(body, "max_tokens", 2**31)


def _positive(body: Mapping[str, Any], key: str, high: int) -> int | None:
    value = body.get(key)
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # JSON Schema takes 1.0 for a whole number, and so do providers
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= high:
        raise InvalidRequest(f"{key} must be a whole number from 1 to {high}", param=key)
    return value


def _says_something(choice: Any) -> bool:
    delta = choice.get("delta") if isinstance(choice, dict) else None
    if not isinstance(delta, dict) or choice.get("finish_reason"):
        return True
    return any(value for name, value in delta.items() if name != "role")


def _refuse_duplicates(raw: bytes) -> None:
    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        built = dict(pairs)
        if len(built) != len(pairs):
            raise InvalidRequest("a key appears twice in one object", code="duplicate_key")
        return built

    try:
        json.loads(raw, object_pairs_hook=build)
    except (ValueError, RecursionError):
        raise InvalidRequest("the body is not valid JSON", code="bad_json") from None

"""Anthropic's Messages API: https://docs.claude.com/en/api/messages.

What comes in Anthropic's own dialect goes through. What comes in the chat dialect is translated by
`dialects.anthropic`, and its answers back. Errors arrive as
`{"type":"error","error":{"type","message"}}`, as an `error` event within a stream:
https://docs.claude.com/en/api/errors.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import orjson

from tokenhub.dialects.anthropic.answers import to_chat_completion
from tokenhub.dialects.anthropic.errors import to_openai_error
from tokenhub.dialects.anthropic.requests import to_messages
from tokenhub.dialects.anthropic.streams import ChatStreamMeter, ends_stream, opens_stream
from tokenhub.dialects.messages import as_anthropic_takes, passing
from tokenhub.dialects.sse import events
from tokenhub.domain import ChatRequest
from tokenhub.errors import InvalidRequest, ProviderError
from tokenhub.providers.base import Meter, ModelListing, Target, Timeouts
from tokenhub.providers.calls import (
    key_line,
    normalise_base_url,
    parse,
    read_listings,
    read_object,
)
from tokenhub.providers.errors import MALFORMED, failed
from tokenhub.providers.upstream import header_line
from tokenhub.providers.wired import MODELS_PATH, WiredAdapter
from tokenhub.providers.wires import Heard, Payload, Said, Wire, as_heard, as_it_came, as_judged

VERSION = "2023-06-01"
"""The version of the API that is spoken unless the caller names another."""
MESSAGES_PATH = "/v1/messages"
COUNT_PATH = "/v1/messages/count_tokens"
MODELS_QUERY = "limit=1000"  # the most that a page may have; twenty by default

WORKSPACE = "anthropic-workspace-id"
"""A header of callers' that stays here: whose bill it is, the operator's key says."""

_PASSED_ON = ("anthropic-beta", "anthropic-user-profile-id")
_HANDED_ON = re.compile(
    rb"\r\n(request-id|anthropic-(?:(?:organization|workspace)-id|(?:ratelimit|priority|fast)"
    rb"-[a-z0-9-]+)):[ \t]*([ -~]+)",
    re.I,
)
_NOT_COUNTED = frozenset(
    {
        "max_tokens", "stream", "temperature", "top_p", "top_k", "stop_sequences", "metadata",
        "service_tier",
    }
)  # fmt: skip
"""What a request to count may not have: it says nothing to the model."""
_LONG_NUMBER = re.compile(rb"\d{19}")

log = logging.getLogger("tokenhub.providers")


def _say(request: ChatRequest, model: str, stream: bool) -> Said:
    translated = to_messages(request, model=model)
    return Said({**translated.body, "stream": stream}, translated.dropped)


def _hear(raw: bytes, message: Payload) -> Heard:
    if _LONG_NUMBER.search(raw):
        message = _exactly(raw, message)
    try:
        parsed = to_chat_completion(message, created_at_secs=int(time.time()))
    except ValueError:
        raise failed(MALFORMED, "the answer is nested too deeply") from None
    return Heard(orjson.dumps(parsed), parsed)


def _pass(request: ChatRequest, model: str, stream: bool) -> Said:
    said = as_it_came(request, model, stream)
    body, dropped = as_anthropic_takes(said.body, model)
    if WORKSPACE in request.headers:
        dropped += (WORKSPACE,)
    return Said(body, dropped)


def _meter(request: ChatRequest) -> Meter:
    return ChatStreamMeter(
        split=events, wants_usage=request.wants_usage, created_at_secs=int(time.time())
    )


def _passing_meter(_: ChatRequest) -> Meter:
    return passing.StreamMeter(split=events)


def _exactly(raw: bytes, message: dict[str, Any]) -> dict[str, Any]:
    """The message with its integers as they came: orjson makes floats of those beyond 64 bits."""
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):  # thousands of digits, or deeply nested
        return message
    return found if isinstance(found, dict) else message


def _line(name: str, value: str) -> bytes:
    try:
        return header_line(name.encode(), value)
    except ValueError:
        raise InvalidRequest(f"the header {name} is not one line of ASCII", param=name) from None


def _in_openai_words(error: ProviderError) -> ProviderError:
    """The body that is relayed speaks the caller's dialect."""
    if error.body:
        error.body = orjson.dumps(to_openai_error(parse(error.body)))
    return error


CHAT = Wire(
    dialect="chat",
    path=MESSAGES_PATH,
    is_answer=passing.is_answer,
    reports_error=passing.reports_error,
    is_event=passing.is_event,
    usage_of=passing.usage_of,
    opens=opens_stream,
    ends=ends_stream,
    meter=_meter,
    say=_say,
    hear=_hear,
    word=_in_openai_words,
)
MESSAGES = replace(
    CHAT,
    dialect="messages",
    meter=_passing_meter,
    say=_pass,
    hear=as_heard,
    word=as_judged,
    handed_on=_HANDED_ON,
)


class AnthropicAdapter(WiredAdapter):
    """Anthropic, and whoever speaks as it does.

    Its health is asked by the list of models: the original GETs /v1/messages instead, and takes
    the 405 for a sign of life.
    """

    wires: ClassVar = {"chat": CHAT, "messages": MESSAGES}
    speaks: ClassVar = frozenset({"chat", "messages"})

    def head(self, target: Target, request: ChatRequest | None = None) -> bytes:
        """The key's line is sent without a key, too: empty, as the original does. Which version of
        the API is meant, which of its betas, and for whom it asks, the caller may say.

        Raises:
            InvalidRequest: what it says cannot be put into a line.
        """
        said = request.headers if request is not None else {}
        lines = _line("anthropic-version", said.get("anthropic-version") or VERSION)
        for name in _PASSED_ON:
            if said.get(name):
                lines += _line(name, said[name])
        return lines + key_line(b"x-api-key", target.api_key or "")

    def count_tokens(
        self, target: Target, request: ChatRequest, timeouts: Timeouts, request_id: str
    ) -> Mapping[str, Any] | None:
        """See base.Adapter.count_tokens; https://docs.claude.com/en/api/messages-count-tokens."""
        body = _pass(request, target.model, False).body
        counted = {name: value for name, value in body.items() if name not in _NOT_COUNTED}
        fields = header_line(b"X-Request-Id", request_id) + self.head(target, request)
        exchange = self._calls.post((target.base_url, COUNT_PATH), fields, counted, timeouts)
        _, parsed = read_object(exchange)
        found = parsed.get("input_tokens")
        if not isinstance(found, int) or isinstance(found, bool):
            return None
        return parsed

    def list_models(self, target: Target, timeouts: Timeouts) -> list[ModelListing]:
        """See base.Adapter.list_models. One page, newest models first."""
        url = normalise_base_url(target.base_url) + MODELS_PATH
        payload = self._calls.get(url, self.head(target), timeouts, query=MODELS_QUERY)
        found = read_listings(payload)
        if isinstance(payload, dict) and payload.get("has_more") is True:
            log.warning("model list is cut short", extra={"provider_id": target.provider_id})
        return found

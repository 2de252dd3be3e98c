"""Errors in Anthropic's envelope and words.

https://docs.claude.com/en/api/errors. What OpenAI says more (`code`, `param`) stands beside them,
so that nothing is lost.
"""

from __future__ import annotations

from typing import Any

import orjson

from tokenhub.dialects import openai
from tokenhub.dialects.anthropic.errors import NO_REASON, WORDS
from tokenhub.errors import ProviderError, TokenHubError

TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""By status; what is not here is `invalid_request_error`, from 500 on `api_error`."""
BROKEN = {
    "client_error": "invalid_request_error",
    "content_policy": "invalid_request_error",
    "context_overflow": "invalid_request_error",
    "overloaded": "overloaded_error",
    "rate_limited": "rate_limit_error",
    "timeout": "timeout_error",
    "stream_idle": "timeout_error",
    "total_deadline": "timeout_error",
}
"""By the class of what broke a stream off; any other is `api_error`."""
TOO_LONG = "prompt is too long"
"""What Anthropic's message begins with, and agents look for before they shorten a conversation."""

_OVERFLOW_CODE = "context_length_exceeded"
_OVERFLOW_TEXT = "maximum context length"


def type_of(status: int) -> str:
    """Anthropic's word for an error of that status."""
    return TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")


def error_body(error: TokenHubError, request_id: str) -> dict[str, Any]:
    """The envelope; details beyond it stand beside `message`.

    Args:
        request_id: ours.
    """
    told = {
        "message": error.message,
        "param": error.param,
        "code": error.code,
        **error.details,
        "type": type_of(error.status),
    }
    return _envelope(told, request_id)


def error_event(error: ProviderError) -> bytes:
    """The event that ends a broken stream; SDKs raise it as an API error."""
    told = {
        "type": BROKEN.get(error.error_class, "api_error"),
        "message": "the provider broke off the stream",
        "code": error.error_class,
    }
    return event_of(told)


def event_of(told: dict[str, Any]) -> bytes:
    """An error as an event of a stream."""
    data = orjson.dumps({"type": "error", "error": told})
    return b"event: error\ndata: " + data + b"\n\n"


def relayed_error(body: bytes, status: int, request_id: str) -> bytes | None:
    """A provider's refusal in Anthropic's envelope, whichever it came in; None if in neither."""
    error = openai.object_of(body).get("error")
    if not isinstance(error, dict):
        return None
    return orjson.dumps(_envelope(in_our_words(error, status), request_id))


def in_our_words(error: dict[str, Any], status: int | None) -> dict[str, Any]:
    """An error object of either dialect.

    Args:
        status: None = it came within a stream.
    """
    message, kind = error.get("message"), error.get("type")
    message = message if isinstance(message, str) and message else NO_REASON
    is_overflow = error.get("code") == _OVERFLOW_CODE or _OVERFLOW_TEXT in message.lower()
    if is_overflow and TOO_LONG not in message.lower():
        message = f"{TOO_LONG}: {message}"
    rest = {name: value for name, value in error.items() if value is not None}
    # OpenAI says `invalid_request_error` of nearly everything: the status is more exact.
    is_exact = kind in WORDS and (status is None or kind != "invalid_request_error")
    return {**rest, "type": kind if is_exact else type_of(status or 500), "message": message}


def _envelope(error: dict[str, Any], request_id: str) -> dict[str, Any]:
    return {"type": "error", "error": error, "request_id": request_id}

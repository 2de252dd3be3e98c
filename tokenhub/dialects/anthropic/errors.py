"""Anthropic's errors in OpenAI's envelope, for those that are relayed to the caller.

https://docs.claude.com/en/api/errors, https://platform.openai.com/docs/guides/error-codes.
"""

from __future__ import annotations

from typing import Any

NO_REASON = "the provider refused the request and did not say why"

WORDS = {
    "invalid_request_error": ("invalid_request_error", None),
    "authentication_error": ("authentication_error", "invalid_api_key"),
    "billing_error": ("insufficient_quota", "insufficient_quota"),
    "permission_error": ("permission_error", None),
    "not_found_error": ("not_found_error", "model_not_found"),
    "request_too_large": ("invalid_request_error", "request_too_large"),
    "rate_limit_error": ("rate_limit_error", "rate_limit_exceeded"),
    "timeout_error": ("server_error", "timeout"),
    "overloaded_error": ("server_error", "overloaded"),
    "api_error": ("server_error", None),
}
"""Anthropic's words, and OpenAI's `type` and `code` for each."""

_OVERFLOWS = ("prompt is too long", "exceed context limit")


def to_openai_error(parsed: object) -> dict[str, Any]:
    """The envelope with OpenAI's `type` and `code`; an overflow has the code that SDKs look for.

    `param` stays null: the path that Anthropic's message begins with is one of its own request.
    """
    error = parsed.get("error") if isinstance(parsed, dict) else None
    error = error if isinstance(error, dict) else {}
    message, word = error.get("message"), error.get("type")
    if not isinstance(message, str) or not message:
        message = NO_REASON
    kind, code = WORDS.get(word, (word, None)) if isinstance(word, str) else (None, None)
    if any(text in message.lower() for text in _OVERFLOWS):
        code = "context_length_exceeded"
    return {
        "error": {
            "message": message,
            "type": kind or "invalid_request_error",
            "param": None,
            "code": code,
        }
    }

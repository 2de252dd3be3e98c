"""What each failure of a provider means: the one table of error classes, and the judge.

Knows words, statuses and texts of all dialects, and no connection: what arrives is judged by
`classify`, what breaks underneath is raised by upstream.py and connection.py with the classes of
the second half.

Columns: what comes next; whether it is held against the model (M); whether the provider's other
models would fail alike (P); whether the provider may charge for it ($).

| what the provider says | error_class | next step | |
|---|---|---|---|
| context_length_exceeded, or the text of a 400, 413, 422 | context_overflow | failover | |
| a 429 that no waiting helps: the text says so | request_over_rate | failover | |
| content_policy_violation, content_filter | content_policy | stop | |
| 400, 413 (too many bytes), 422, other 4xx | client_error | stop, the body is relayed | |
| insufficient_quota, billing words or texts, 402 | quota_exhausted | cooldown | M P |
| 401 | auth_failed | cooldown | M P |
| 403, a disabled organisation | forbidden | cooldown | M |
| 404 of something else in the request: its `param` or text says so | client_error | as above | |
| 404 | model_not_found | cooldown | M |
| 429 | rate_limited | cooldown | M |
| 409 | conflict | failover | M |
| 408, 504, 524: somebody in between gave up waiting | timeout | failover | M $ |
| 529 | overloaded | failover | M |
| other 5xx | server_error | failover | M |
| 3xx | redirect | failover | M |
| any other status, no JSON object, no event stream | malformed_answer | failover | M $ |

| what breaks | error_class | next step | |
|---|---|---|---|
| no such name, no route, refused, TLS | unreachable | failover | M P |
| no connection in time | connect_timeout | failover | M P |
| an address that we do not call | address_refused | cooldown | M P |
| closed without an answer | connection_closed | failover | M $ |
| no answer in time | first_byte_timeout | failover | M $ |
| silent within the answer | answer_idle, stream_idle | failover | M $ |
| closed within the answer | answer_cut, stream_cut | failover | M $ |
| the attempt's time is over | total_deadline | failover | M $ |
| too many bytes | response_too_large | failover | M $ |

Words come first (`error.code`, then `error.type`), then the status; the text only decides where
they blame the caller or a rate. From 500 on nobody is believed who blames the caller: a broken
server knows nothing about requests. An error object inside a 200 or inside a stream is judged by
the same words, and may always be charged: the provider had begun. One that comes with an error
status is not, save for timeouts: providers bill answers, not refusals.
"""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import orjson

from tokenhub.errors import NextStep, ProviderError
from tokenhub.providers.overflow import MESSAGE_CHARS_MAX, Overflow, read_overflow

RETRY_AFTER_SECS_MAX = 300.0


class ErrorClass(NamedTuple):
    """A row of the table.

    Args:
        counts: whether it is held against the model's health.
        is_provider_wide: whether its other models would fail alike.
        may_charge: whether the provider may have worked for it: ProviderError.sent.
    """

    name: str
    next_step: NextStep = "failover"
    counts: bool = True
    is_provider_wide: bool = False
    may_charge: bool = True


OVERFLOW = ErrorClass("context_overflow", counts=False, may_charge=False)
OVER_RATE = ErrorClass("request_over_rate", counts=False, may_charge=False)
POLICY = ErrorClass("content_policy", "stop", counts=False, may_charge=False)
CLIENT_ERROR = ErrorClass("client_error", "stop", counts=False, may_charge=False)
QUOTA = ErrorClass("quota_exhausted", "cooldown", is_provider_wide=True, may_charge=False)
AUTH = ErrorClass("auth_failed", "cooldown", is_provider_wide=True, may_charge=False)
FORBIDDEN = ErrorClass("forbidden", "cooldown", may_charge=False)
NOT_FOUND = ErrorClass("model_not_found", "cooldown", may_charge=False)
RATE = ErrorClass("rate_limited", "cooldown", may_charge=False)
CONFLICT = ErrorClass("conflict", may_charge=False)
TIMEOUT = ErrorClass("timeout")
OVERLOADED = ErrorClass("overloaded", may_charge=False)
SERVER_ERROR = ErrorClass("server_error", may_charge=False)
REDIRECT = ErrorClass("redirect", may_charge=False)
MALFORMED = ErrorClass("malformed_answer")
UNREACHABLE = ErrorClass("unreachable", is_provider_wide=True, may_charge=False)
TOO_LARGE = ErrorClass("response_too_large")

ERROR_CLASSES = {
    each.name: each
    for each in (
        OVERFLOW, OVER_RATE, POLICY, CLIENT_ERROR, QUOTA, AUTH, FORBIDDEN, NOT_FOUND, RATE,
        CONFLICT, TIMEOUT, OVERLOADED, SERVER_ERROR, REDIRECT, MALFORMED, UNREACHABLE, TOO_LARGE,
        ErrorClass("connect_timeout", is_provider_wide=True, may_charge=False),
        ErrorClass("address_refused", "cooldown", is_provider_wide=True, may_charge=False),
        ErrorClass("connection_closed"),
        ErrorClass("first_byte_timeout"),
        ErrorClass("answer_idle"),
        ErrorClass("answer_cut"),
        ErrorClass("stream_idle"),
        ErrorClass("stream_cut"),
        ErrorClass("total_deadline"),
    )
}  # fmt: skip
"""Every class that a ProviderError can have, by its name."""

# OpenAI: https://platform.openai.com/docs/guides/error-codes
# Anthropic: https://docs.claude.com/en/api/errors
# Groq's `blocked_api_access`, LiteLLM's `budget_exceeded` and llama.cpp's
# `exceed_context_size_error` as seen in their sources.
BY_WORD = {
    "context_length_exceeded": OVERFLOW,
    "exceed_context_size_error": OVERFLOW,
    "content_policy_violation": POLICY,
    "content_filter": POLICY,
    "request_too_large": CLIENT_ERROR,
    "previous_response_not_found": CLIENT_ERROR,
    "insufficient_quota": QUOTA,
    "billing_hard_limit_reached": QUOTA,
    "project_spend_limit_exceeded": QUOTA,
    "organization_spend_limit_exceeded": QUOTA,
    "organization_usage_limit_exceeded": QUOTA,
    "credit_balance_exhausted": QUOTA,
    "enforced_spend_limit_reached": QUOTA,
    "blocked_api_access": QUOTA,
    "billing_not_active": QUOTA,
    "billing_error": QUOTA,
    "budget_exceeded": QUOTA,
    "rate_limit_exceeded": RATE,
    "rate_limit_error": RATE,
    "invalid_api_key": AUTH,
    "authentication_error": AUTH,
    "permission_error": FORBIDDEN,
    "model_not_found": NOT_FOUND,
    "not_found_error": NOT_FOUND,
    "conflict_error": CONFLICT,
    "overloaded_error": OVERLOADED,
    "timeout_error": TIMEOUT,
}
# Said of nearly everything (OpenAI's 401 and 404 too): counts only where there is no status.
BY_VAGUE_WORD = {"invalid_request_error": CLIENT_ERROR, "BadRequestError": CLIENT_ERROR}
BY_STATUS = {
    401: AUTH,
    402: QUOTA,
    403: FORBIDDEN,
    404: NOT_FOUND,
    408: TIMEOUT,
    409: CONFLICT,
    429: RATE,
    504: TIMEOUT,
    524: TIMEOUT,  # Cloudflare's: the origin did not answer in time
    529: OVERLOADED,
}
# OpenAI's 404 for an item of a response's input that it did not keep.
ITEM_TEXT = "item with id"
# Anthropic says all of these with a 400 of type invalid_request_error, as if the caller could help.
QUOTA_TEXTS = ("credit balance is too low", "specified api usage limits")
FORBIDDEN_TEXTS = ("organization has been disabled",)
OVERFLOW_TEXTS = (
    "context length", "context_length", "maximum context", "context window", "context limit",
    "context size", "prompt is too long", "prompt too long", "prompt_too_long",
    "input is too long", "too many tokens", "token limit", "maximum model length", "max_model_len",
    "maximum number of tokens allowed",
    "maximum allowed number of output tokens", "supports at most",  # another model may give more
    "max_tokens must be at least 1, got -",  # vLLM and others: what the prompt left of the window
)  # fmt: skip
# Rate limits that no waiting helps: the one request is larger than what a minute allows (OpenAI,
# Groq), or too long for what the account has paid for (Anthropic). No fault of the model's.
OVER_RATE_TEXTS = ("request too large for", "required for long context requests")


def classify(
    status: int | None, payload: object, body: bytes, retry_after_seconds: float | None = None
) -> ProviderError:
    """Judge what a provider says by the table above.

    Args:
        status: of the HTTP answer; None for an error inside a 200 or a stream.
        payload: `body` parsed, or None when it is no JSON.
        body: relayed when the caller is to blame, else dropped.
    """
    if isinstance(payload, list) and payload:
        payload = payload[0]  # Gemini's OpenAI-compatible server puts its envelope into a list
    error = _error_object(payload)
    words = _words_of(error)
    has_begun = status is None
    if status is None:
        status = next(filter(None, map(_status_in, words)), None)
    text = _text_of(error, body)
    kind = _by_words(status, words)
    if kind is NOT_FOUND and _is_no_model(error, words, text):
        kind = CLIENT_ERROR
    kind = _by_text(kind, text)
    room = read_overflow(text) if kind is OVERFLOW else Overflow()
    stops = kind.next_step == "stop"
    if stops and status is None:
        status = 400
    return ProviderError(
        f"the provider answered {status or 'an error'}",
        error_class=kind.name,
        next_step=kind.next_step,
        status=status,
        retry_after_seconds=retry_after_seconds,
        body=_relayable(payload, error, body) if stops or kind is OVERFLOW else b"",
        sent=has_begun or kind.may_charge,
        context_tokens=room.context_tokens,
        input_tokens=room.input_tokens,
        output_tokens_max=room.output_tokens_max,
    )


def failed(kind: ErrorClass, message: str, *, status: int | None = None) -> ProviderError:
    """An attempt that failed by no word of the provider's; `message` is ours."""
    return ProviderError(
        message,
        error_class=kind.name,
        next_step=kind.next_step,
        status=status,
        sent=kind.may_charge,
    )


def parse_retry_after(milliseconds: str, value: str, now: float) -> float | None:
    """How long the provider asks us to wait, in seconds, at most RETRY_AFTER_SECS_MAX.

    Args:
        milliseconds: the header `retry-after-ms`, or "".
        value: the header `retry-after`, seconds or an HTTP date (RFC 9110 §10.2.3), or "".
        now: unix seconds.
    """
    seconds = _number(milliseconds)
    if seconds is not None:
        seconds /= 1000
    elif (seconds := _number(value)) is None and value:
        try:
            seconds = max(parsedate_to_datetime(value).timestamp() - now, 0.0)
        except (ValueError, OverflowError):
            return None
    return None if seconds is None else min(seconds, RETRY_AFTER_SECS_MAX)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if number >= 0 else None  # false for NaN


def _error_object(payload: object) -> dict[str, Any]:
    if not isinstance(payload, dict):
        return {}
    error = payload.get("error", payload)  # older vLLM puts its fields at the top
    return error if isinstance(error, dict) else {"message": error}


def _status_in(word: str) -> int | None:
    """Some put the status into the error: `"code": 429`."""
    return int(word) if re.fullmatch("[45][0-9][0-9]", word) else None


def _word(value: object) -> str:
    return str(value) if isinstance(value, str | int) else ""


def _words_of(error: dict[str, Any]) -> list[str]:
    """The words that name the error, the most exact one first."""
    details = error.get("details")
    exact = details.get("error_code") if isinstance(details, dict) else None
    return [_word(each) for each in (exact, error.get("code"), error.get("type"))]


def _text_of(error: dict[str, Any], body: bytes) -> str:
    message = error.get("message")
    if isinstance(message, str) and message:
        return message
    return body[:MESSAGE_CHARS_MAX].decode(errors="replace")


def _by_words(status: int | None, words: list[str]) -> ErrorClass:
    is_broken = status is not None and status >= 500
    for word in words:
        kind = BY_WORD.get(word)
        if kind is not None and (kind.counts or not is_broken):
            return kind
    if status is None:
        return next((BY_VAGUE_WORD[w] for w in words if w in BY_VAGUE_WORD), SERVER_ERROR)
    return BY_STATUS.get(status) or (SERVER_ERROR if is_broken else CLIENT_ERROR)


def _is_no_model(error: dict[str, Any], words: list[str], text: str) -> bool:
    """Whether what was not found is something that the request names beside its model."""
    if any(word in BY_WORD for word in words):
        return False
    param = error.get("param")
    is_named = isinstance(param, str) and param not in ("", "model")
    return is_named or text.lower().startswith(ITEM_TEXT)


def _by_text(kind: ErrorClass, text: str) -> ErrorClass:
    """What the text makes of a verdict that leaves room for it."""
    if kind is not CLIENT_ERROR and kind is not RATE:
        return kind
    low = text.lower()
    if kind is RATE:
        return OVER_RATE if any(part in low for part in OVER_RATE_TEXTS) else RATE
    if any(part in low for part in QUOTA_TEXTS):
        return QUOTA
    if any(part in low for part in FORBIDDEN_TEXTS):
        return FORBIDDEN
    is_overflow = any(part in low for part in OVERFLOW_TEXTS) or (
        ("max_tokens" in low or "max_completion_tokens" in low) and "too large" in low
    )
    return OVERFLOW if is_overflow else CLIENT_ERROR


def _relayable(payload: object, error: dict[str, Any], body: bytes) -> bytes:
    """The body in OpenAI's envelope; fields that stand at its top, or a bare text, get one."""
    message = error.get("message", error.get("detail"))  # FastAPI's word for it
    is_envelope = isinstance(payload, dict) and error is payload.get("error")
    if not isinstance(message, str) or (is_envelope and body.lstrip()[:1] == b"{"):
        return body
    words = {name: _word(error.get(name)) or None for name in ("type", "param", "code")}
    return orjson.dumps({"error": {"message": message, **words}})

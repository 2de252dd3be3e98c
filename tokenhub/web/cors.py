"""Pages of other origins that call the client API from a browser: which may, and what they see.

Off unless the operator names origins. Never with credentials: a key is sent, not a cookie. The
admin API is for pages of our own and is left alone.

https://fetch.spec.whatwg.org/#http-cors-protocol
"""

from __future__ import annotations

import re

from flask import Flask, Response, request

PREFIX = "/v1/"
MAX_AGE_SECS = 600
METHODS = "GET, POST, OPTIONS"
NAMES_MAX = 100

ALLOWED = frozenset({
    "accept", "accept-language", "anthropic-beta", "anthropic-dangerous-direct-browser-access",
    "anthropic-version", "authorization", "content-language", "content-type", "idempotency-key",
    "openai-beta", "openai-organization", "openai-project", "traceparent", "tracestate",
    "x-api-key", "x-client-request-id", "x-idempotency-key", "x-request-id",
})  # fmt: skip
"""What the SDKs send, and what we read."""
ALLOWED_PREFIXES = ("x-tokenhub-", "x-stainless-")

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-z]{1,100}")
_EXPOSED = (
    "x-", "anthropic-", "idempotency-", "openai-", "request-id", "retry-after",
)  # fmt: skip


def register(app: Flask, origins: tuple[str, ...]) -> None:
    """Let pages of these origins in; `*` = of any. Without any, nothing is added to any answer."""
    if not origins:
        return
    known = frozenset(origin.rstrip("/").lower() for origin in origins)

    def answer_preflight() -> Response | None:
        asks = request.method == "OPTIONS" and _may_be_asked(request.path)
        if not asks or "HTTP_ACCESS_CONTROL_REQUEST_METHOD" not in request.environ:
            return None
        return _preflight()

    def add_headers(response: Response) -> Response:
        if _may_be_asked(request.path):
            _allow(response, known)
        return response

    app.before_request(answer_preflight)
    app.after_request(add_headers)


def _may_be_asked(path: str) -> bool:
    return path.startswith(PREFIX)


def _preflight() -> Response:
    """What may be sent. Whether this origin may is said with all answers."""
    asked = request.environ.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS", "")
    response = Response(status=204)
    headers = response.headers
    del headers["Content-Type"]
    headers["Access-Control-Allow-Methods"] = METHODS
    names = [name for name in _names(asked) if _is_allowed(name)]
    if names:
        headers["Access-Control-Allow-Headers"] = ", ".join(names)
    headers["Access-Control-Max-Age"] = str(MAX_AGE_SECS)
    headers.add("Vary", "Access-Control-Request-Headers")
    return response


def _names(asked: str) -> list[str]:
    return [name.strip().lower() for name in asked.split(",", NAMES_MAX)[:NAMES_MAX]]


def _is_allowed(name: str) -> bool:
    if name in ALLOWED:
        return True
    return name.startswith(ALLOWED_PREFIXES) and _TOKEN.fullmatch(name) is not None


def _allow(response: Response, known: frozenset[str]) -> None:
    """Say who may read the answer, and which of its headers."""
    headers = response.headers
    origin = request.environ.get("HTTP_ORIGIN", "")
    if "*" in known:
        headers["Access-Control-Allow-Origin"] = "*"
    else:
        headers.add("Vary", "Origin")
        if origin.lower() not in known:
            return
        headers["Access-Control-Allow-Origin"] = origin
    shown = [name for name, _ in headers if name.lower().startswith(_EXPOSED)]
    if shown:
        headers["Access-Control-Expose-Headers"] = ", ".join(shown)

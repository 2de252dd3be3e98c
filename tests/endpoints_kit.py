"""All endpoints that ask models, as tables need them: the smallest good request, and how each says
that something went wrong. Shared by the tests in one process and those with real workers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

HELLO = [{"role": "user", "content": "Hello"}]
MESSAGES = "/v1/messages"
TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 402: "billing_error",
    403: "permission_error", 404: "not_found_error", 408: "timeout_error",
    413: "request_too_large", 429: "rate_limit_error", 503: "overloaded_error",
    504: "timeout_error", 529: "overloaded_error",
}  # fmt: skip
"""Anthropic's words by status (https://docs.claude.com/en/api/errors)."""


@dataclass(frozen=True)
class Endpoint:
    """One endpoint, and how a request to it is written.

    Args:
        request: the smallest good request to a model.
        inner: the name of the object in the body that says whether to stream; "" = the body does.
        path_of: what the endpoint calls a field of the request in `param`.
        has_record: its requests are written down.
    """

    path: str
    request: Callable[[str], Json]
    streams: bool = True
    inner: str = ""
    has_record: bool = True

    def __str__(self) -> str:
        return self.path.removeprefix("/v1/").replace("/", "-")

    @property
    def speaks_messages(self) -> bool:
        return self.path.startswith(MESSAGES)

    def body(self, model: str, fields: Json | None = None, *, stream: bool = False) -> Json:
        """A request; `fields` go where the prompt stands."""
        body = self.request(model)
        place = body[self.inner] if self.inner else body
        if stream:
            place["stream"] = True
        place.update(fields or {})
        return body

    def error_of(self, status: int, body: bytes) -> Json:
        """The error in an answer's body, which must be in the envelope of the endpoint's dialect
        and hold no more than is meant for callers."""
        assert b"Traceback" not in body and b'File "' not in body, body
        found: Json = json.loads(body)
        error: Json = found["error"]
        assert error["message"], found
        if self.speaks_messages:
            other = "invalid_request_error" if status < 500 else "api_error"
            assert found["type"] == "error", found
            assert error["type"] == TYPES.get(status, other), found
            assert found["request_id"].startswith("req_"), found
        else:
            assert "type" not in found, found
            assert {"message", "type"} <= error.keys(), found
        return error

    def broken_off_with(self, body: bytes) -> Json:
        """The error that ends a stream; nothing in it says that the answer is whole."""
        *_, last = [event for event in body.decode().split("\n\n") if event.strip()]
        name, _, data = last.rpartition("data: ")
        said: Json = json.loads(data)
        assert "[DONE]" not in body.decode()
        if name == "event: response.failed\n":
            assert self is RESPONSE, last
            assert said["type"] == "response.failed"
            assert said["response"]["status"] == "failed"
            return dict(said["response"]["error"])
        # A stream of responses that a provider wrote itself ends with the API's other error event.
        is_named = self in (MESSAGE, RESPONSE, PLAN)
        assert name == ("event: error\n" if is_named else ""), last
        if self in (MESSAGE, RESPONSE):
            assert said["type"] == "error", last
        assert said["error"]["message"], last
        return dict(said["error"])


CHAT = Endpoint("/v1/chat/completions", lambda model: {"model": model, "messages": HELLO})
MESSAGE = Endpoint(MESSAGES, lambda model: {"model": model, "max_tokens": 64, "messages": HELLO})
COUNT = Endpoint(
    MESSAGES + "/count_tokens",
    lambda model: {"model": model, "messages": HELLO},
    streams=False,
    has_record=False,
)
RESPONSE = Endpoint("/v1/responses", lambda model: {"model": model, "input": "Hello"})
COMPLETION = Endpoint("/v1/completions", lambda model: {"model": model, "prompt": "Hello"})
EMBEDDING = Endpoint(
    "/v1/embeddings", lambda model: {"model": model, "input": "Hello"}, streams=False
)
NATIVE = Endpoint(
    "/v1/chat",
    lambda model: {"request": {"model_hint": model, "messages": HELLO}},
    inner="request",
)
PLAN = Endpoint(
    "/v1/plan",
    lambda model: {
        "request": {"model_hint": model, "messages": HELLO},
        "orchestration": {"mode": "planning"},
    },
    inner="request",
)

ENDPOINTS = (CHAT, MESSAGE, COUNT, RESPONSE, COMPLETION, EMBEDDING, NATIVE, PLAN)

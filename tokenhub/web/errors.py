"""Every error as an answer: an envelope of the caller's dialect, our words, the request's id, never
a stack trace."""

from __future__ import annotations

import logging
from typing import Any

import orjson
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from tokenhub.dialects import DIALECTS
from tokenhub.dialects.dialect import Dialect
from tokenhub.errors import NotFound, TokenHubError, UpstreamRefused
from tokenhub.web.answers import rfc3339
from tokenhub.web.guards import CODE, client_request_id, request_id

log = logging.getLogger("tokenhub.web")

MESSAGES_PATH = "/v1/messages"

_CODES = {
    400: "bad_request", 404: "not_found", 405: "method_not_allowed",
    413: "request_too_large",
}  # fmt: skip


_TYPES = {404: NotFound.type}


def register(app: Flask) -> None:
    """Make every failure of `app` an envelope, and put the request's id on every answer."""
    app.register_error_handler(TokenHubError, _show)
    app.register_error_handler(HTTPException, _show_http)
    app.register_error_handler(Exception, _show_bug)
    app.after_request(_add_request_id)


def _show(error: Any) -> Response:
    spoken, our_id = _dialect_of(request.path), request_id(request.environ)
    request.environ[CODE] = error.code
    body = None
    if isinstance(error, UpstreamRefused):  # the provider's own verdict, if it is one
        body = spoken.relayed_error(error.body, error.status, our_id)
    if body is None:
        found = spoken.error_body(error, our_id)
        moments = {name: rfc3339(at) for name, at in error.details.items() if name.endswith("_at")}
        found["error"].update(moments)
        body = orjson.dumps(found)
    return Response(body, error.status, error.headers, content_type="application/json")


def _dialect_of(path: str) -> Dialect:
    """Whose envelope a caller of a path expects: Anthropic's clients read no other than theirs."""
    return DIALECTS["messages" if path.startswith(MESSAGES_PATH) else "chat"]


def _show_http(error: Any) -> Response:
    """Unknown paths, wrong methods: what Flask itself refuses."""
    status = error.code or 500
    refused = TokenHubError(error.name.lower(), code=_CODES.get(status, "bad_request"))
    refused.status = status
    refused.type = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    response = _show(refused)
    if getattr(error, "valid_methods", None):
        response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
    return response


def _show_bug(error: Exception) -> Response:
    log.error(
        "unhandled error",
        exc_info=error,
        extra={"request_id": request_id(request.environ), "path": request.path},
    )
    return _show(TokenHubError("something went wrong on our side"))


def _add_request_id(response: Response) -> Response:
    headers, environ = response.headers, request.environ
    if "X-Request-Id" not in headers:
        headers["X-Request-Id"] = request_id(environ)
    if environ["PATH_INFO"].startswith(MESSAGES_PATH) and "Request-Id" not in headers:
        headers["Request-Id"] = headers["X-Request-Id"]  # where Anthropic's SDK looks for it
    given = client_request_id(environ)
    if given:
        headers["X-Client-Request-Id"] = given
    return response

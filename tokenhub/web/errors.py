"""Every error as an answer: one envelope, our words, the request's id, never a stack trace."""

from __future__ import annotations

import logging
from typing import Any

import orjson
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from tokenhub.dialects import openai
from tokenhub.errors import NotFound, TokenHubError, UpstreamRefused
from tokenhub.web.answers import rfc3339
from tokenhub.web.guards import client_request_id, request_id

log = logging.getLogger("tokenhub.web")

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
    if isinstance(error, UpstreamRefused):
        body = _relayed(error)
    else:
        found = openai.error_body(error)
        moments = {name: rfc3339(at) for name, at in error.details.items() if name.endswith("_at")}
        found["error"].update(moments)
        body = orjson.dumps(found)
    return Response(body, error.status, error.headers, content_type="application/json")


def _relayed(error: UpstreamRefused) -> bytes:
    """The provider's own verdict when it is an error envelope, else ours."""
    try:
        found = orjson.loads(error.body)
    except orjson.JSONDecodeError:
        found = None
    if isinstance(found, dict) and isinstance(found.get("error"), dict):
        return error.body
    return orjson.dumps(openai.error_body(error))


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
    given = client_request_id(environ)
    if given:
        headers["X-Client-Request-Id"] = given
    return response

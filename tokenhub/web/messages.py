"""Anthropic's endpoints: messages, and the counting of their tokens."""

from __future__ import annotations

import orjson
from flask import Blueprint, Response, request

from tokenhub.dialects import DIALECTS
from tokenhub.dialects.messages import read_count
from tokenhub.domain import ChatRequest
from tokenhub.errors import AllAttemptsFailed
from tokenhub.gateway import count_tokens
from tokenhub.gateway.verdict import OVERLOADED
from tokenhub.web import guards
from tokenhub.web.policy import FIELD, Given, request_policy
from tokenhub.web.routed import respond

_OVERLOADED_STATUS = 529
"""Anthropic's own: https://docs.claude.com/en/api/errors. Elsewhere it is 503."""

blueprint = Blueprint("messages", __name__)

_READ = {
    "anthropic-version": "HTTP_ANTHROPIC_VERSION",
    "anthropic-beta": "HTTP_ANTHROPIC_BETA",
    "anthropic-user-profile-id": "HTTP_ANTHROPIC_USER_PROFILE_ID",
    "anthropic-workspace-id": "HTTP_ANTHROPIC_WORKSPACE_ID",
}


@blueprint.post("/v1/messages")
def messages() -> Response:
    """`POST /v1/messages`, whole and streamed."""
    try:
        return respond("/v1/messages", "chat", DIALECTS["messages"], read=_read)
    except AllAttemptsFailed as error:
        if error.code == OVERLOADED:
            error.status = _OVERLOADED_STATUS
        raise


@blueprint.post("/v1/messages/count_tokens")
def count() -> Response:
    """`POST /v1/messages/count_tokens`: as the provider counts, or our estimate."""
    hub = guards.services()
    snapshot = hub.catalog.current()
    caller = guards.admit(hub, snapshot, "chat")
    snapshot = snapshot.seen_by(caller.key)
    ticket = hub.limiter.admit(caller.key, caller.team, "anthropic")
    try:
        asked = _with_headers(read_count(guards.read_body(hub)))
        given = Given(asked.body.pop(FIELD, None))
        policy, _ = request_policy(snapshot, caller.key, request.environ, given)
        told = count_tokens(hub.gateway, caller, snapshot, asked, policy)
    finally:
        if ticket is not None:
            ticket.release(0)
    return Response(orjson.dumps(told), 200, content_type="application/json")


def _read(body: bytes) -> ChatRequest:
    """The request with what its headers say to a provider of the same dialect."""
    return _with_headers(DIALECTS["messages"].read(body))


def _with_headers(asked: ChatRequest) -> ChatRequest:
    environ = request.environ
    asked.headers = {
        name: environ[variable] for name, variable in _READ.items() if variable in environ
    }
    return asked

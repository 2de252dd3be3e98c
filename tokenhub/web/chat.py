"""The OpenAI-compatible endpoints: chat completions and models."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import orjson
from flask import Blueprint, Response, request

from tokenhub.catalog import Snapshot
from tokenhub.dialects import openai as dialect
from tokenhub.domain import ApiKey, Model, Policy
from tokenhub.errors import NotFound
from tokenhub.gateway import Exchange, begin
from tokenhub.limiter import Ticket
from tokenhub.pricing import nanos_from_usd, usd
from tokenhub.web import guards

blueprint = Blueprint("chat", __name__)

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

Headers = list[tuple[str, str]]


class Ready(Response):
    """An answer whose headers are complete: it is handed to the worker as it is.

    Werkzeug would look again for what is missing or must be put right, for each request.
    """

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """The WSGI application; the worker closes what it is given."""
        start_response(self.status, self.headers.to_wsgi_list())
        body: Iterable[bytes] = self.response  # type: ignore[assignment]  # never text
        return body


@blueprint.post("/v1/chat/completions")
def chat_completions() -> Response:
    """`POST /v1/chat/completions`, whole and streamed."""
    hub = guards.services()
    hub.recorder.admit()
    try:
        snapshot = hub.catalog.current()
        caller = guards.admit(hub, snapshot, "chat")
        snapshot = snapshot.seen_by(caller.key)
        ticket = hub.limiter.admit(caller.key, caller.team)
    except BaseException:
        hub.recorder.abandon()
        raise
    with begin(hub.gateway, caller, snapshot, "/v1/chat/completions", ticket=ticket) as exchange:
        chat = dialect.read_request(guards.read_body(hub))
        policy = default_policy(snapshot, caller.key)
        if chat.stream:
            relay = exchange.stream(chat, policy)
            headers = [*stream_headers(exchange), *limit_headers(ticket)]
            # The worker iterates over the relay itself, and closes it.
            return Ready(relay, 200, headers)
        answer = exchange.serve(chat, policy)
    return Ready(answer.body, 200, [*whole_headers(exchange), *limit_headers(ticket)])


@blueprint.get("/v1/models")
def list_models() -> Response:
    """`GET /v1/models`: what can be asked for, sorted by id."""
    snapshot = _may_list_models()
    data = [_model_object(model) for model in snapshot.routable]
    return _json({"object": "list", "data": data})


@blueprint.get("/v1/models/<path:model_id>")
def get_model(model_id: str) -> Response:
    """`GET /v1/models/{id}`; ids may hold slashes."""
    snapshot = _may_list_models()
    for model in snapshot.routable:
        if model.id == model_id:
            return _json(_model_object(model))
    raise NotFound("the model does not exist", code="model_not_found", param="model")


def default_policy(snapshot: Snapshot, key: ApiKey) -> Policy:
    """What applies when the request says nothing, first the key's, then ours: it only ranks."""
    defaults = snapshot.defaults
    policy = Policy(
        mode=defaults.mode,
        max_budget_nanousd=defaults.max_budget_nanousd,
        max_latency_ms=defaults.max_latency_ms,
    )
    if not key.policy:
        return policy
    own = dict(key.policy)
    if "max_budget_usd" in own:
        own["max_budget_nanousd"] = nanos_from_usd(own.pop("max_budget_usd"))
    return replace(policy, **own)


def whole_headers(exchange: Exchange) -> Headers:
    """The headers of a whole answer: who gave it, why, at what cost."""
    outcome = exchange.outcome
    headers = [("Content-Type", "application/json"), *_routing_headers(exchange)]
    cost = usd(outcome.cost_nanousd)
    if cost is not None:
        headers.append(("X-TokenHub-Cost-USD", f"{cost:.9f}"))
    headers.append(("X-TokenHub-Overhead-Ms", f"{outcome.overhead_us / 1000:.1f}"))
    return headers


def stream_headers(exchange: Exchange) -> Headers:
    """The headers of a stream. Its cost is known only at its end."""
    return [
        ("Content-Type", "text/event-stream; charset=utf-8"),
        ("Cache-Control", "no-cache"),
        ("X-Accel-Buffering", "no"),
        *_routing_headers(exchange),
        ("X-TokenHub-Overhead-Ms", f"{exchange.overhead_ms:.1f}"),
    ]


def limit_headers(ticket: Ticket | None) -> Headers:
    """What is left of the limits of the key and its team; nothing where there are none."""
    return [] if ticket is None else ticket.headers()


def _routing_headers(exchange: Exchange) -> Headers:
    outcome = exchange.outcome
    return [
        ("X-Request-Id", outcome.request_id),
        ("X-Negotiated-Model", _header_text(outcome.model_id)),
        ("X-TokenHub-Provider", _header_text(outcome.provider_id)),
        ("X-TokenHub-Reason", outcome.reason),
        ("X-TokenHub-Attempts", str(exchange.attempt_count)),
        *_changes(exchange),
    ]


def _changes(exchange: Exchange) -> Headers:
    """How what the provider was asked differs from what the caller asked."""
    changes = []
    if exchange.output_tokens_max is not None:
        changes.append(("X-TokenHub-Max-Tokens", str(exchange.output_tokens_max)))
    if exchange.dropped:
        changes.append(("X-TokenHub-Dropped", _header_text(",".join(exchange.dropped))))
    return changes


def _header_text(text: str) -> str:
    """An id as a header can carry it: percent-encoded beyond ASCII."""
    return text if text.isascii() else quote(text, safe="/:@ ")


def _may_list_models() -> Snapshot:
    hub = guards.services()
    snapshot = hub.catalog.current()
    if hub.settings.public_models:
        guards.check_address(hub, request.environ)
    else:
        snapshot = snapshot.seen_by(guards.admit(hub, snapshot, "chat").key)
    return snapshot


def _model_object(model: Model) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": model.id,
        "object": "model",
        "created": model.created_at // 1000,
        "owned_by": model.provider_id,
    }
    if model.max_context_tokens:
        found["context_length"] = found["max_model_len"] = model.max_context_tokens
    return found


def _json(payload: object) -> Response:
    return Response(orjson.dumps(payload), 200, content_type="application/json")

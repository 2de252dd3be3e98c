"""OpenAI's endpoints: chat completions, responses, completions, embeddings, models."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

import orjson
from flask import Blueprint, Response, request

from tokenhub.catalog import Snapshot
from tokenhub.dialects import DIALECTS
from tokenhub.dialects.checked import SchemaCheck
from tokenhub.domain import Alias, ChatRequest, Model, Policy
from tokenhub.errors import InvalidRequest, NotFound
from tokenhub.gateway import Exchange, Relay
from tokenhub.structured import Schema, schema_of
from tokenhub.web import guards
from tokenhub.web.keeping import serve_keeping
from tokenhub.web.routed import Plain, respond, respond_by

blueprint = Blueprint("chat", __name__)


class Chat(Plain):
    """Chat completions: an answer for which the request has a JSON schema must keep to it."""

    def stream(self, exchange: Exchange, asked: ChatRequest, policy: Policy) -> Relay:
        """Chunks, checked at their end."""
        schema = _find_schema(asked)
        stages = () if schema is None else (SchemaCheck(schema).feed,)
        return exchange.stream(asked, policy, stages)

    def serve(self, exchange: Exchange, asked: ChatRequest, policy: Policy) -> bytes:
        """The whole completion.

        Raises:
            SchemaUnmet: it does not keep to its schema, however often the model was asked.
        """
        schema = _find_schema(asked)
        if schema is None:
            return super().serve(exchange, asked, policy)
        repairs = guards.services().settings.schema_repairs
        return serve_keeping(exchange, asked, policy, schema, repairs).body


def _find_schema(asked: ChatRequest) -> Schema | None:
    """The schema of a request, if it has one that can be checked: what a provider makes of any
    other is between it and the caller."""
    if "response_format" not in asked.body:
        return None
    try:
        return schema_of(asked)
    except InvalidRequest:
        return None


@blueprint.post("/v1/chat/completions")
def chat_completions() -> Response:
    """`POST /v1/chat/completions`, whole and streamed."""
    return respond_by("/v1/chat/completions", "chat", Chat(DIALECTS["chat"]))


@blueprint.post("/v1/responses")
def responses() -> Response:
    """`POST /v1/responses`, whole and streamed. Nothing is kept between requests."""
    return respond("/v1/responses", "chat", DIALECTS["responses"])


@blueprint.post("/v1/completions")
def completions() -> Response:
    """`POST /v1/completions`, whole and streamed."""
    return respond("/v1/completions", "chat", DIALECTS["completions"])


@blueprint.post("/v1/embeddings")
def embeddings() -> Response:
    """`POST /v1/embeddings`, always whole."""
    return respond("/v1/embeddings", "embeddings", DIALECTS["embeddings"])


@blueprint.get("/v1/models")
def list_models() -> Response:
    """`GET /v1/models`: what can be asked for, sorted by id."""
    snapshot = _may_list_models()
    data = [_model_object(model) for model in snapshot.routable]
    data += [_alias_object(alias) for alias in snapshot.offered_aliases()]
    data.sort(key=itemgetter("id"))
    return _json({"object": "list", "data": data})


@blueprint.get("/v1/models/<path:model_id>")
def get_model(model_id: str) -> Response:
    """`GET /v1/models/{id}`; ids may hold slashes."""
    snapshot = _may_list_models()
    for alias in snapshot.offered_aliases():
        if alias.name == model_id:
            return _json(_alias_object(alias))
    for model in snapshot.routable:
        if model.id == model_id:
            return _json(_model_object(model))
    raise NotFound("the model does not exist", code="model_not_found", param="model")


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


def _alias_object(alias: Alias) -> dict[str, Any]:
    return {
        "id": alias.name,
        "object": "model",
        "created": alias.created_at // 1000,
        "owned_by": "tokenhub",
    }


def _json(payload: object) -> Response:
    return Response(orjson.dumps(payload), 200, content_type="application/json")

"""`POST /v1/chat`: the native envelope, with schemas and shapes for the answers.

This is where what an answer shall keep to, and look like, is applied; how is `structured`'s and
`shaping`'s business.
"""

from __future__ import annotations

from typing import Any

import orjson
from flask import Blueprint, Response

from tokenhub.dialects.checked import SchemaCheck
from tokenhub.dialects.native import read_envelope
from tokenhub.dialects.shaped import Shaper
from tokenhub.domain import ChatRequest, Policy
from tokenhub.gateway import Exchange, Relay
from tokenhub.gateway.relay import Pass
from tokenhub.pricing import usd
from tokenhub.shaping import OutputFormat, shape
from tokenhub.structured import (
    Schema,
    read_schema,
)
from tokenhub.web import guards
from tokenhub.web.keeping import asking_for, serve_keeping
from tokenhub.web.routed import respond_by

blueprint = Blueprint("native", __name__)


@blueprint.post("/v1/chat")
def chat() -> Response:
    """`POST /v1/chat`, whole and streamed."""
    repairs = guards.services().settings.schema_repairs
    return respond_by("/v1/chat", "chat", Native(repairs))


class Native:
    """One request in the native envelope.

    Args:
        repairs: how often a model is asked again whose answer does not keep to its schema.
    """

    policy_field = "policy"

    def __init__(self, repairs: int) -> None:
        self._repairs = repairs
        self._policy: Any = None
        self._output = OutputFormat()
        self._schema: Schema | None = None

    def read(self, raw: bytes) -> ChatRequest:
        """The chat request in the envelope."""
        asked, self._policy, self._output, self._schema = read_envelope(raw)
        return asked

    def take_policy(self, asked: ChatRequest) -> Any:
        """The envelope's own policy object."""
        return self._policy

    def keep_to(self, schema: str) -> None:
        """Have the answer keep to a directive's schema, unless the request has one."""
        if self._schema is None:
            self._schema = read_schema(schema, "output_schema")

    def stream(self, exchange: Exchange, asked: ChatRequest, policy: Policy) -> Relay:
        """Chunks of a chat completion, checked and put in shape on their way."""
        stages: list[Pass] = []
        if self._schema is not None:
            asked = asking_for(self._schema, exchange, asked, policy)
            stages.append(SchemaCheck(self._schema).feed)
        if not self._output.changes_nothing:
            stages.append(Shaper(self._output).feed)
        return exchange.stream(asked, policy, stages)

    def serve(self, exchange: Exchange, asked: ChatRequest, policy: Policy) -> bytes:
        """The whole answer, with who gave it and at what cost.

        Raises:
            SchemaUnmet: it does not keep to its schema, however often the model was asked.
        """
        completion = shape(self._completion(exchange, asked, policy), self._output)
        exchange.settle()  # which sums up what its attempts cost
        outcome = exchange.outcome
        said = {
            "negotiated_model": outcome.model_id,
            "estimated_cost_usd": usd(outcome.cost_nanousd),
            "routing_reason": outcome.reason,
            "response": completion,
        }
        return orjson.dumps(said)

    def _completion(self, exchange: Exchange, asked: ChatRequest, policy: Policy) -> dict[str, Any]:
        if self._schema is None:
            return exchange.serve(asked, policy).parsed
        asked = asking_for(self._schema, exchange, asked, policy)
        return serve_keeping(exchange, asked, policy, self._schema, self._repairs).parsed

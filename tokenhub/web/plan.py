"""`POST /v1/plan`: several requests to models for one answer, whole or told as it comes about.

The modes are `orchestrate`'s business, and what an answer must keep to or look like `structured`'s
and `shaping`'s; here they come together.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import orjson
from flask import Blueprint, Response

from tokenhub.dialects.native import read_plan
from tokenhub.dialects.openai import error_body, object_of
from tokenhub.domain import ChatRequest, Policy
from tokenhub.errors import TokenHubError, UpstreamRefused
from tokenhub.gateway import Exchange, Told
from tokenhub.orchestrate import (
    Calls,
    Orchestration,
    Progress,
    Result,
    read_orchestration,
    run,
)
from tokenhub.pricing import usd
from tokenhub.shaping import OutputFormat, shape
from tokenhub.structured import Schema, read_schema
from tokenhub.web import guards
from tokenhub.web.keeping import asking_for
from tokenhub.web.routed import respond_by

blueprint = Blueprint("plan", __name__)

Fields = dict[str, Any]


@blueprint.post("/v1/plan")
def plan() -> Response:
    """`POST /v1/plan`, whole and told."""
    hub = guards.services()
    return respond_by("/v1/plan", "plan", Plan(hub.settings.schema_repairs, hub.gateway.rng))


class Plan:
    """One request for a plan.

    Args:
        repairs: how often a model is asked again whose answer does not keep to its schema.
        rng: puts the answers that are judged into an order that means nothing.
    """

    policy_field = "policy"

    def __init__(self, repairs: int, rng: Any) -> None:
        self._repairs = repairs
        self._rng = rng
        self._policy: Any = None
        self._output = OutputFormat()
        self._schema: Schema | None = None
        self._orchestration = Orchestration()

    def read(self, raw: bytes) -> ChatRequest:
        """The chat request in the envelope."""
        envelope, orchestration = read_plan(raw)
        self._orchestration = read_orchestration(orchestration)
        self._policy, self._output = envelope.policy, envelope.output
        self._schema = envelope.schema
        own = orchestration.get("output_schema") if isinstance(orchestration, dict) else None
        if own:
            self._schema = read_schema(own, "orchestration.output_schema")
        return envelope.request

    def take_policy(self, asked: ChatRequest) -> Any:
        """The envelope's own policy object."""
        return self._policy

    def keep_to(self, schema: str) -> None:
        """Have the answer keep to a directive's schema, unless the request has one."""
        if self._schema is None:
            self._schema = read_schema(schema, "output_schema")

    def stream(self, exchange: Exchange, asked: ChatRequest, policy: Policy) -> Told:
        """Each phase as it begins and ends, and the result."""
        exchange.foresee(asked, policy)
        steps = _Steps(run(self._calls(exchange, asked, policy)))
        first = steps.next()  # what cannot be is refused with a status, and not told
        return exchange.tell(self._tell(exchange, steps, first), _say_error)

    def serve(self, exchange: Exchange, asked: ChatRequest, policy: Policy) -> bytes:
        """The result."""
        steps = _Steps(run(self._calls(exchange, asked, policy)))
        while steps.next() is not None:
            pass
        return self._finish(exchange, steps)

    def _tell(
        self, exchange: Exchange, steps: _Steps, first: Progress | None
    ) -> Generator[bytes, None, None]:
        step = first
        while step is not None:
            yield _event("phase", _phase(step) | {"status": step.status})
            step = steps.next()
        yield b"event: result\ndata: " + self._finish(exchange, steps) + b"\n\n"

    def _finish(self, exchange: Exchange, steps: _Steps) -> bytes:
        """End the exchange with the result; returns the body that says it."""
        result, outcome = steps.result, exchange.outcome
        shown = _shown(result, self._output)
        exchange.finish(result.final.called)
        outcome.reason = result.reason
        exchange.settle()  # which sums up what its attempts cost
        found: Fields = {
            "negotiated_model": outcome.model_id,
            "estimated_cost_usd": usd(outcome.cost_nanousd),
            "routing_reason": result.reason,
            "response": shown,
            "phases": [_phase(step) for step in steps.seen if step.status != "started"],
            "usage": {
                "input_tokens": sum(each.usage.input_tokens for each in outcome.attempts),
                "output_tokens": sum(each.usage.output_tokens for each in outcome.attempts),
            },
        }
        if result.error is not None:
            failed = [step for step in steps.seen if step.status == "failed"]
            found |= {"partial": True, "failed_phase": failed[-1].phase if failed else ""}
            found |= _error_of(result.error)
        return orjson.dumps(found)

    def _calls(self, exchange: Exchange, asked: ChatRequest, policy: Policy) -> Calls:
        attempts = exchange.outcome.attempts
        return Calls(
            request=asked,
            policy=policy,
            orchestration=self._orchestration,
            answer=exchange.call,
            decide=exchange.foresee,
            shuffle=self._rng.shuffle,
            spent=lambda: sum(each.cost_nanousd or 0 for each in attempts),
            ask_for=lambda schema, request, own: asking_for(schema, exchange, request, own),
            schema=self._schema,
            repairs=self._repairs,
        )


class _Steps:
    """The steps of an orchestration, and its result once there are no more."""

    def __init__(self, steps: Generator[Progress, None, Result]) -> None:
        self._steps = steps
        self._result: Result | None = None
        self.seen: list[Progress] = []

    def next(self) -> Progress | None:
        """The next one; None = that was all."""
        try:
            step = next(self._steps)
        except StopIteration as end:
            self._result = end.value
            return None
        self.seen.append(step)
        return step

    @property
    def result(self) -> Result:
        """What it came to."""
        if self._result is None:
            raise RuntimeError("there are more steps")
        return self._result


def _shown(result: Result, output: OutputFormat) -> Fields:
    """What the mode tells, with its final text in shape; or the completion."""
    if not result.fields:
        return shape(result.final.completion, output)
    message = {"message": {"content": result.final.text}, "finish_reason": "stop"}
    shaped = shape({"choices": [message]}, output)
    result.tell(shaped["choices"][0]["message"]["content"])
    if result.final.asks_for_tools:
        return {**result.fields, "completion": result.final.completion}
    return result.fields


def _phase(step: Progress) -> Fields:
    found: Fields = {"phase": step.phase, "number": step.number, "model": step.model_id or None}
    if step.answered is not None:
        called = step.answered.called
        found |= {
            "provider": called.provider_id,
            "cost_usd": usd(called.cost_nanousd),
            "latency_ms": called.latency_ms,
        }
    return found | _error_of(step.error) if step.error is not None else found


def _say_error(error: TokenHubError) -> bytes:
    return _event("error", _error_of(error))


def _error_of(error: TokenHubError) -> Fields:
    """The error as it is told; a provider's verdict on the request is told in its own words."""
    if isinstance(error, UpstreamRefused):
        verdict = object_of(error.body).get("error")
        if isinstance(verdict, dict):
            return {"error": verdict}
    return error_body(error)


def _event(name: str, data: Fields) -> bytes:
    return f"event: {name}\ndata: ".encode() + orjson.dumps(data) + b"\n\n"

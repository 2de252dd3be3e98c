"""Answers that must keep to a JSON schema: how they are asked for, and asked for again.

How a schema is read and checked is `structured`'s business; each call is counted and paid for by
the exchange.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson

from tokenhub.domain import ChatRequest, Policy
from tokenhub.errors import NoEligibleModel
from tokenhub.gateway import Called, Exchange
from tokenhub.providers.base import Answer
from tokenhub.structured import Schema, answer_with_schema, with_instruction, with_schema


def serve_keeping(
    exchange: Exchange, asked: ChatRequest, policy: Policy, schema: Schema, repairs: int
) -> Answer:
    """The whole answer to a request in the chat dialect, and the end of its exchange.

    Args:
        repairs: how often a model is asked again whose answer does not keep to the schema.

    Raises:
        SchemaUnmet: it does not, however often the model was asked.
    """
    calls: list[Called] = []

    def call(request: ChatRequest) -> dict[str, Any]:
        calls.append(exchange.call(request, _what_is_left(policy, exchange)))
        return calls[-1].answer.parsed

    completion = answer_with_schema(call, asked, schema, repairs)
    exchange.finish(calls[-1])
    answer = calls[-1].answer
    if completion == answer.parsed:
        return answer
    return replace(answer, parsed=completion, body=orjson.dumps(completion))


def _what_is_left(policy: Policy, exchange: Exchange) -> Policy:
    """The policy with what its budget has left, if that is hard: it is that of all calls."""
    if not policy.budget_is_hard or not policy.max_budget_nanousd:
        return policy
    spent = sum(attempt.cost_nanousd or 0 for attempt in exchange.outcome.attempts)
    # 0 would be no budget at all.
    return replace(policy, max_budget_nanousd=max(1, policy.max_budget_nanousd - spent))


def asking_for(
    schema: Schema, exchange: Exchange, asked: ChatRequest, policy: Policy
) -> ChatRequest:
    """The request with its schema: in its own field where models can be asked that know it, and
    else in words."""
    in_field = with_schema(asked, schema)
    try:
        decision = exchange.foresee(in_field, policy)
    except NoEligibleModel:
        return with_instruction(asked, schema)
    first = (decision.candidates or decision.last_resort)[0].model
    is_able = not first.capabilities or "json" in first.capabilities
    return in_field if is_able else with_instruction(asked, schema)

"""Models that answer orchestrations by a script, and what they are asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from tokenhub.domain import Candidate, ChatRequest, Decision, Model, Policy
from tokenhub.errors import (
    NoEligibleModel,
    NotFound,
)
from tokenhub.gateway import Called
from tokenhub.orchestrate import Calls, Orchestration, Progress, Result, run
from tokenhub.providers.base import Answer
from tokenhub.structured import Schema, read_schema, with_schema

COST = 1000
SYSTEM = {"role": "system", "content": "Speak like a pirate."}
HISTORY = [
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Ahoy"},
    {"role": "user", "content": "How do I sail to Tortuga?"},
]
BODY: dict[str, Any] = {
    "messages": [SYSTEM, *HISTORY],
    "temperature": 0.3,
    "tools": [{"type": "function", "function": {"name": "wind", "parameters": {}}}],
}
POOL = (
    ("a-large", "acme", 9),
    ("a-small", "acme", 8),
    ("b-large", "bolt", 7),
    ("c-large", "core", 6),
)


class Models:
    """Models that answer by a script: by phase, found by what is asked.

    Args:
        says: what a model says to a body; raises TokenHubError if it fails.
    """

    def __init__(self, says: Callable[[str, dict[str, Any]], Any], pool: Any = POOL) -> None:
        self.says = says
        self.pool = pool
        self.asked: list[tuple[str, ChatRequest, Policy]] = []

    def decide(self, request: ChatRequest, policy: Policy) -> Decision:
        names = [name for name, _, _ in self.pool]
        if request.model and request.model not in names:
            raise NotFound("no such model", code="model_not_found")
        found = [
            Candidate(Model(name, provider, name, weight=weight), 1.0, 1.0, COST)
            for name, provider, weight in self.pool
            if name not in policy.exclude
            and weight >= policy.min_weight
            and (not request.model or name == request.model)
            and not (policy.budget_is_hard and policy.max_budget_nanousd < COST)
        ]
        if not found:
            raise NoEligibleModel("nobody")
        return Decision(tuple(found), (), {}, "routed-weight", policy.mode, 1)

    def answer(self, request: ChatRequest, policy: Policy) -> Called:
        model = self.decide(request, policy).candidates[0].model
        self.asked.append((model.id, request, policy))
        said = self.says(model.id, request.body)
        message = said if isinstance(said, dict) else {"role": "assistant", "content": said}
        completion = {"id": "c", "choices": [{"index": 0, "message": message}]}
        answer = Answer(orjson.dumps(completion), completion, None, 1)
        return Called(answer, model.id, model.provider_id, COST, 5, "routed-weight", 1, None)

    def run(
        self,
        orchestration: Orchestration,
        policy: Policy | None = None,
        schema: Schema | None = None,
    ) -> tuple[Result, list[Progress]]:
        calls = Calls(
            ChatRequest(BODY, "", stream=True, input_tokens=9, needs=frozenset({"tools"})),
            policy or Policy(),
            orchestration,
            self.answer,
            self.decide,
            lambda order: order.reverse(),
            lambda: COST * len(self.asked),
            lambda schema, request, _: with_schema(request, schema),
            schema,
            repairs=1,
        )
        steps, seen = run(calls), []
        while True:
            try:
                seen.append(next(steps))
            except StopIteration as stop:
                return stop.value, seen


def last(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"])


def is_review(body: dict[str, Any]) -> bool:
    return "Review your reply" in last(body)


def is_judging(body: dict[str, Any]) -> bool:
    return "response_format" in body


def by_phase(model: str, body: dict[str, Any]) -> str:
    if is_review(body):
        return "<think>hmm</think>too short"
    if "A reviewer says" in last(body):
        return "plan 2"
    return "plan 1"


AGE = read_schema({"type": "object", "required": ["age"]}, "schema")

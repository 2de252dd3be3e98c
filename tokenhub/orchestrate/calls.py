"""The sub-requests of one orchestration: whom they may ask, and what is left for them.

The gateway is known by what it does only: it answers a request, and says who could.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from tokenhub.domain import ChatRequest, Decision, Mode, Policy
from tokenhub.errors import TokenHubError
from tokenhub.gateway import Called
from tokenhub.orchestrate.answers import Answered, PhaseName, Progress, text_of
from tokenhub.orchestrate.orchestration import Orchestration
from tokenhub.shaping import OutputFormat, shape
from tokenhub.structured import Schema

Steps = Generator[Progress, None, Answered]

_WITHOUT_THOUGHTS = OutputFormat(strip_think=True)


class Whom(NamedTuple):
    """Who is to answer a sub-request.

    Args:
        model: "" = whoever is best.
        is_only: nobody but the one who is named.
        exclude: ids of models that may not.
        is_free: what it says need not keep to the schema.
    """

    mode: Mode = "normal"
    model: str = ""
    min_weight: int = 0
    is_only: bool = False
    exclude: frozenset[str] = frozenset()
    is_free: bool = False


@dataclass
class Calls:
    """What one orchestration may do.

    Args:
        request: the caller's, in the chat dialect.
        policy: the caller's: budget and deadline are those of all sub-requests together.
        answer: answers a request whole; may be called by several greenlets at once.
        decide: who could answer it, in order; no side effects.
        shuffle: puts a list into an order that means nothing.
        spent: nano-dollars that all calls so far cost, as far as prices are known.
        schema: what the final answer must keep to, if anything.
        repairs: how often it is asked for again when it does not.
        ask_for: a sub-request that asks for what keeps to the schema.
    """

    request: ChatRequest
    policy: Policy
    orchestration: Orchestration
    answer: Callable[[ChatRequest, Policy], Called]
    decide: Callable[[ChatRequest, Policy], Decision]
    shuffle: Callable[[list[int]], None]
    spent: Callable[[], int]
    ask_for: Callable[[Schema, ChatRequest, Policy], ChatRequest]
    schema: Schema | None = None
    repairs: int = 0
    counts: dict[PhaseName, int] = field(default_factory=dict)

    def primary(self, mode: Mode) -> Whom:
        """Who answers: who is named for it, or in the request, or the best for the mode."""
        asked = self.orchestration
        model = asked.primary_model_id or self.request.model
        return Whom(mode, model, asked.primary_min_weight)

    def reviewer(self, mode: Mode) -> Whom:
        """Who reviews: who is named for it, or the best for the mode."""
        asked = self.orchestration
        return Whom(mode, asked.review_model_id, asked.review_min_weight, is_free=True)

    def ask(self, phase: PhaseName, request: ChatRequest, whom: Whom) -> Steps:
        """One sub-request after the other.

        Raises:
            TokenHubError: it came to nothing.
        """
        number = self.begin(phase)
        yield Progress(phase, number, "started", whom.model)
        try:
            answered = self.call(request, whom)
        except TokenHubError as error:
            yield Progress(phase, number, "failed", whom.model, error=error)
            raise
        yield Progress(phase, number, "done", answered.model_id, answered)
        return answered

    def begin(self, phase: PhaseName) -> int:
        """Count a phase; returns which one of its kind it is."""
        number = self.counts[phase] = self.counts.get(phase, 0) + 1
        return number

    def call(self, request: ChatRequest, whom: Whom) -> Answered:
        """Have a sub-request answered, within what is left of the budget.

        Raises:
            TokenHubError: it came to nothing.
        """
        request, policy = replace(request, model=whom.model), self.policy_for(whom)
        if self.schema is not None and not whom.is_free:
            request = self.ask_for(self.schema, request, policy)
        called = self.answer(request, policy)
        text = text_of(shape(called.answer.parsed, _WITHOUT_THOUGHTS)).strip()
        return Answered(text, called)

    def policy_for(self, whom: Whom) -> Policy:
        """The caller's policy, for one of its sub-requests."""
        policy = replace(
            self.policy,
            mode=whom.mode,
            min_weight=max(self.policy.min_weight, whom.min_weight),
            exclude=self.policy.exclude | whom.exclude,
        )
        if whom.is_only:
            policy = replace(policy, fallbacks=())
        left = self.hard_budget_nanousd
        if left is not None:  # 0 would mean no limit at all
            policy = replace(policy, max_budget_nanousd=max(1, left))
        return policy

    @property
    def hard_budget_nanousd(self) -> int | None:
        """What may still be spent; None = there is no limit."""
        policy = self.policy
        if not policy.budget_is_hard or not policy.max_budget_nanousd:
            return None
        return max(0, policy.max_budget_nanousd - self.spent())

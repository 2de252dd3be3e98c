"""The course of a request: whose turn it is next, and what each failure does to the order.

Candidates in the order of the decision, then those that may not be tried by everybody now, then
the last resort, then once more who may have recovered: one retry budget for all of it. Pure but
for the question whether a recovering model may be tried, which is the board's to answer.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Iterator
from itertools import chain
from typing import NamedTuple

from tokenhub.domain import ESCALATED, Candidate, ChatRequest, Decision
from tokenhub.errors import ProviderError
from tokenhub.gateway.verdict import CONTEXT_OVERFLOW, OF_THE_PROVIDER, find_recovering
from tokenhub.routing import ROUTED_AS_LAST_RESORT

ATTEMPTS_MAX = 5
ENDPOINTS_MAX = 2
"""So many endpoints of a provider in one turn: then it is the others' turn, and the retry's."""
RETRIES_MAX = 2
RETRY_SECS = 0.1

SPARE_TOKENS = 256
"""Kept free of our own estimate of the input (reference §12.2)."""
OUTPUT_TOKENS_MIN = 64
"""An answer cut shorter than this helps nobody (reference §12.2)."""

REDUCED = "reduced-max-tokens"
RETRIED = "retried-transient"

Admit = Callable[[Candidate], bool]


class Step(NamedTuple):
    """One turn.

    Args:
        reason: why it is its turn, as it is told in `X-TokenHub-Reason`.
        output_tokens_max: answer with at most so many tokens, instead of what was asked for.
        pause_secs: wait before.
        urls: where it may be asked, the first one first; empty = the provider's base URL.
    """

    candidate: Candidate
    reason: str
    output_tokens_max: int | None = None
    pause_secs: float = 0.0
    urls: tuple[str, ...] = ()


class Course:
    """Whose turn it is, step by step; tell it of every failure.

    Args:
        admit: whether a candidate may be tried now; asked when its turn comes.
    """

    def __init__(
        self, decision: Decision, request: ChatRequest, *, admit: Admit, rng: random.Random
    ) -> None:
        self.failures: list[tuple[Candidate, ProviderError]] = []
        self._request = request
        self._admit = admit
        self._rng = rng
        self._reason = decision.reason  # of the next candidate
        self._urgent: Step | None = None
        # Iterators: there may be a thousand candidates, and nearly always the first one answers.
        self._candidates: Iterator[Candidate] = iter(decision.candidates)
        self._deferred: list[tuple[Candidate, str]] = []  # each with its reason
        self._last_resort: Iterator[Candidate] = iter(decision.last_resort)
        self._retries = 0

    def next_step(self) -> Step | None:
        """Whose turn it is; None when nobody is left, or the attempts are used up."""
        if len(self.failures) >= ATTEMPTS_MAX:
            return None
        if self._urgent is not None:
            step, self._urgent = self._urgent, None
            return step
        return self._next_candidate() or self._next_spare() or self._retry()

    def next_beside(self, providers: Container[str], count: int) -> Step | None:
        """Who may be asked while others are at work: the remedy for a failure, else a candidate,
        of another provider if there is one. Never a spare one nor a retry: those are for when all
        have failed.

        Args:
            providers: where they are at work.
            count: how many they are.
        """
        if len(self.failures) + count >= ATTEMPTS_MAX:
            return None
        if self._urgent is not None:
            step, self._urgent = self._urgent, None
            return step
        self._prefer_others(providers)
        return self._next_candidate()

    def defer(self, step: Step) -> None:
        """It cannot be asked while others are at work; it may be when they have failed."""
        self._deferred.append((step.candidate, step.reason))

    def fail(self, step: Step, error: ProviderError) -> None:
        """A step came to nothing: whoever may do better comes next."""
        self.failures.append((step.candidate, error))
        if error.error_class == CONTEXT_OVERFLOW:
            self._urgent = self._reduced(step, error)
            if self._urgent is None:
                self._escalate(step.candidate, error)
        elif error.error_class in OF_THE_PROVIDER or self._has_failed_before(step.candidate):
            self._sideline(step.candidate.model.provider_id)

    def fail_at_endpoint(self, step: Step, error: ProviderError) -> None:
        """One of a provider's endpoints is out of order: the same model at the next one."""
        self.failures.append((step.candidate, error))
        self._urgent = Step(step.candidate, step.reason, step.output_tokens_max, urls=step.urls[1:])

    def _next_candidate(self) -> Step | None:
        for candidate in self._candidates:
            reason, self._reason = self._reason, ""
            reason = reason or candidate.reason or f"routed-weight-{candidate.model.weight}"
            if self._admit(candidate):
                return Step(candidate, reason)
            self._deferred.append((candidate, reason))
        return None

    def _prefer_others(self, providers: Container[str]) -> None:
        """The first candidate of another provider comes first. If none is left, nothing changes."""
        passed: list[Candidate] = []
        for candidate in self._candidates:
            if candidate.model.provider_id not in providers:
                self._candidates = chain((candidate, *passed), self._candidates)
                return
            passed.append(candidate)
        self._candidates = iter(passed)

    def _next_spare(self) -> Step | None:
        if self._deferred:
            return Step(*self._deferred.pop(0))
        spare = next(self._last_resort, None)
        return None if spare is None else Step(spare, ROUTED_AS_LAST_RESORT)

    def _retry(self) -> Step | None:
        candidate = find_recovering(self.failures)
        if candidate is None or self._retries == RETRIES_MAX:
            return None
        pause_secs = RETRY_SECS * 2**self._retries * self._rng.uniform(0.5, 1.5)
        self._retries += 1
        return Step(candidate, RETRIED, pause_secs=pause_secs)

    def _reduced(self, step: Step, error: ProviderError) -> Step | None:
        """The same model with a shorter answer, if that makes the request fit."""
        if step.output_tokens_max is not None:
            return None
        if error.output_tokens_max:
            return self._shortened(step, error.output_tokens_max)
        context_tokens = error.context_tokens or step.candidate.model.max_context_tokens
        input_tokens = error.input_tokens or self._request.input_tokens + SPARE_TOKENS
        if self._request.output_tokens_max is None and error.input_tokens is None:
            return None  # nobody asked for a longer answer: it is the input that is too long
        return self._shortened(step, context_tokens - input_tokens)

    def _shortened(self, step: Step, room_tokens: int) -> Step | None:
        """The step with so much room for the answer, if that is less than before and enough."""
        wanted_tokens = self._request.output_tokens_max
        if wanted_tokens is not None and wanted_tokens <= room_tokens:
            return None  # it should have fitted: our numbers are wrong
        if room_tokens < OUTPUT_TOKENS_MIN:
            return None
        return Step(step.candidate, REDUCED, room_tokens, urls=step.urls)

    def _escalate(self, failed: Candidate, error: ProviderError) -> None:
        """Larger contexts first, the smallest of them before the others; smaller ones not at all
        when the provider told its figures, for ours may be wrong.

        The original asks for twice the input (reference §12.2); any larger one may do.
        """
        least = error.context_tokens or failed.model.max_context_tokens
        if not least:
            return
        deferred = [candidate for candidate, _ in self._deferred]
        rest = [*self._candidates, *deferred, *self._last_resort]
        larger = [each for each in rest if each.model.max_context_tokens > least]
        larger.sort(key=lambda each: each.model.max_context_tokens)
        unknown = [each for each in rest if not each.model.max_context_tokens]
        smaller = [
            each
            for each in rest
            if not error.context_tokens
            and (error.input_tokens or 0) < each.model.max_context_tokens <= least
        ]
        self._candidates = iter([*larger, *unknown, *smaller])
        self._deferred, self._last_resort = [], iter(())
        self._reason = ESCALATED if larger else ""

    def _has_failed_before(self, candidate: Candidate) -> bool:
        """Whether its provider has failed twice now, and not because the request was too long."""
        failures = [
            each.model.provider_id == candidate.model.provider_id
            for each, error in self.failures
            if error.error_class != CONTEXT_OVERFLOW
        ]
        return sum(failures) > 1

    def _sideline(self, provider_id: str) -> None:
        """What keeps a provider from answering may keep its other models from it as well: they
        come last among their like, so that five attempts are not all made in vain with one."""

        def is_theirs(candidate: Candidate) -> bool:
            return candidate.model.provider_id == provider_id

        self._candidates = iter(sorted(self._candidates, key=is_theirs))
        self._last_resort = iter(sorted(self._last_resort, key=is_theirs))
        self._deferred.sort(key=lambda pair: is_theirs(pair[0]))

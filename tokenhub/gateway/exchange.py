"""One request from the moment its key was accepted to its record.

An `Exchange` ends in exactly one record, whoever ends it: the answer, an error, the caller leaving.
Here is the only loop over candidates; what follows a failure is read from the error's `next_step`,
never from a status code.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

import gevent

from tokenhub.board.board import unix_ms
from tokenhub.budgets import hard_accounts
from tokenhub.catalog import Snapshot
from tokenhub.dialects.openai import with_output_limit
from tokenhub.domain import (
    Attempt,
    Caller,
    Candidate,
    ChatRequest,
    Decision,
    Ending,
    Outcome,
    Policy,
    Usage,
)
from tokenhub.errors import (
    ProviderError,
    RequestRefused,
    TokenHubError,
    UpstreamRefused,
    VaultError,
)
from tokenhub.gateway.course import ENDPOINTS_MAX, Course, Step
from tokenhub.gateway.gateway import Gateway
from tokenhub.gateway.ledger import INTERNAL_ERROR, Try, broken_off, failed, worked
from tokenhub.gateway.money import Money
from tokenhub.gateway.relay import Relay
from tokenhub.gateway.standing import Standing
from tokenhub.gateway.verdict import OF_THE_ENDPOINT, end_of, last_word, without_key
from tokenhub.limiter import Ticket
from tokenhub.providers.base import Adapter, Answer, Stream, Target
from tokenhub.routing import RECOVERING, ROUTED_AS_NAMED

SLOW_CLIENT_SECS = 5.0
"""A stream that waited longer for its reader than this, and than for its provider, says nothing
about the provider when it breaks."""

T = TypeVar("T")


def begin(
    gateway: Gateway,
    caller: Caller,
    snapshot: Snapshot,
    endpoint: str,
    *,
    ticket: Ticket | None = None,
) -> Exchange:
    """A new exchange for an admitted caller; use it as a context manager.

    Args:
        ticket: what it holds of the limits of its key and team; the exchange releases it.
    """
    return Exchange(
        gateway,
        snapshot,
        Outcome(
            request_id=caller.request_id,
            key_id=caller.key.id,
            endpoint=endpoint,
            mode=snapshot.defaults.mode,
            stream=False,
            started_at=unix_ms(),
            client_ip=caller.client_ip,
            client_request_id=caller.client_request_id,
            snapshot_version=snapshot.version,
            team_id=caller.key.team_id,
        ),
        ticket=ticket,
    )


class Exchange:
    """One request on its way from an accepted key to its record.

    Attributes:
        dropped: what the caller asked for and the answering provider's dialect cannot say.
        output_tokens_max: the limit of the answer, where the caller's did not fit the context.
    """

    def __init__(
        self, gateway: Gateway, snapshot: Snapshot, outcome: Outcome, *, ticket: Ticket | None
    ) -> None:
        self._gateway = gateway
        self._ticket = ticket
        self._snapshot = snapshot
        self.outcome = outcome
        self._began = time.monotonic()
        self._upstream_secs = 0.0
        self._standing = Standing(gateway.board, gateway.rng, outcome.request_id)
        self._money = self._find_money()
        self._was_opened = False
        self._is_settled = False
        self._relay: Relay | None = None
        self.dropped: tuple[str, ...] = ()
        self.output_tokens_max: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._relay is not None and error is None:
            return  # the stream settles itself when it ends
        if error is not None:
            self._end(*end_of(error))
            if isinstance(error, TokenHubError) and self.outcome.attempts:
                error.headers["X-TokenHub-Attempts"] = str(len(self.outcome.attempts))
        try:
            self.settle()
        finally:
            if self._relay is not None:
                self._relay.close()

    def serve(self, request: ChatRequest, policy: Policy) -> Answer:
        """Answer a request whole.

        Raises:
            RoutingError, RequestRefused, VaultLocked: what the caller is told.
        """
        decision = self._decide(request, policy)

        def call(adapter: Adapter, target: Target, asked: ChatRequest) -> Answer:
            return adapter.send(
                target, asked, self._gateway.whole_timeouts, self.outcome.request_id
            )

        answer, made = self._attempt_all(request, decision, call)
        usage = answer.usage or Usage(request.input_tokens, len(answer.body) // 4, is_estimate=True)
        took_ms = self._since(made.began)
        self._add(worked(made, usage, took_ms))
        self._standing.praise(made.candidate, took_ms, took_ms)
        self.dropped = answer.dropped
        self.outcome.response_bytes = len(answer.body)
        self._end(self._success_word(), 200)
        return answer

    def stream(self, request: ChatRequest, policy: Policy) -> Relay:
        """Open a stream; failover ends with its first byte.

        Raises:
            RoutingError, RequestRefused, VaultLocked: what the caller is told, nothing was sent.
        """
        self.outcome.stream = True
        decision = self._decide(request, policy)
        first = (decision.candidates or decision.last_resort)[0]
        if self._money is None:  # else it is told when the money is set aside
            self._open(first.cost_nanousd)

        def call(adapter: Adapter, target: Target, asked: ChatRequest) -> Stream:
            return adapter.stream(
                target, asked, self._gateway.stream_timeouts, self.outcome.request_id
            )

        stream, made = self._attempt_all(request, decision, call)
        self.outcome.ttft_ms = self._since(self._began)
        made.ttft_ms = self._since(made.began)
        self.dropped = stream.dropped

        def on_end(relay: Relay, ending: Ending, error: ProviderError | None) -> None:
            self._end_stream(relay, ending, error, made)

        self._relay = Relay(stream, request, on_end)
        return self._relay

    def settle(self) -> None:
        """Record the outcome; the second and later calls do nothing."""
        if self._is_settled:
            return
        self._is_settled = True
        self._standing.settle()
        outcome = self.outcome
        total = time.monotonic() - self._began
        outcome.latency_ms = round(total * 1000)
        outcome.overhead_us = round((total - self._upstream_secs) * 1e6)
        money = self._money
        try:
            self._gateway.recorder.record(
                outcome,
                was_opened=self._was_opened,
                accounts=() if money is None else money.accounts,
            )
        finally:
            if money is not None:
                money.settle(outcome.cost_nanousd or 0)
            if self._ticket is not None:
                self._ticket.release(outcome.usage.input_tokens + outcome.usage.output_tokens)

    @property
    def attempt_count(self) -> int:
        """Attempts made so far, the one that is answering now included."""
        return len(self.outcome.attempts) + (self._relay is not None)

    @property
    def overhead_ms(self) -> float:
        """What we added so far, without the time that providers took."""
        return (time.monotonic() - self._began - self._upstream_secs) * 1000

    def _end_stream(
        self, relay: Relay, ending: Ending, error: ProviderError | None, made: Try
    ) -> None:
        """A stream is over: bill what was produced, and record."""
        if self._is_settled:
            return
        error_class = error.error_class if error else INTERNAL_ERROR if ending == "cut" else ""
        self._upstream_secs += relay.upstream_secs
        self._end(ending, 200, error_class)
        self.outcome.response_bytes = relay.bytes_sent
        try:
            self._add(worked(made, relay.usage, self._since(made.began), error_class=error_class))
            if error is not None:
                if relay.client_secs < max(SLOW_CLIENT_SECS, relay.upstream_secs):
                    self._blame(made, error)
            elif ending == "answered":
                self.outcome.ending = self._success_word()
                self._standing.praise(made.candidate, made.ttft_ms or 0, self._since(made.began))
        finally:
            self.settle()

    def _decide(self, request: ChatRequest, policy: Policy) -> Decision:
        outcome = self.outcome
        outcome.requested_model = request.model
        outcome.estimated_input_tokens = request.input_tokens
        outcome.mode = policy.mode
        if self._ticket is not None:
            self._ticket.take_tokens(request.input_tokens)
        decision = self._gateway.decide(self._snapshot, request, policy)
        outcome.reason = decision.reason
        outcome.skips = decision.skips
        return decision

    def _attempt_all(
        self,
        request: ChatRequest,
        decision: Decision,
        call: Callable[[Adapter, Target, ChatRequest], T],
    ) -> tuple[T, Try]:
        """Try candidates until one answers; returns the answer and the attempt that gave it.

        Raises:
            UpstreamRefused: a provider found the caller at fault; nobody else was asked.
            AllAttemptsFailed: nobody answered.
            VaultError, Untranslatable, QuotaExceeded: nobody could be asked.
        """
        course = Course(decision, request, admit=self._admit, rng=self._gateway.rng)
        not_asked: TokenHubError | None = None
        while (step := course.next_step()) is not None:
            made = self._begin_try(step)
            asked = _as_reduced(request, step)
            try:
                asked = self._hold(step, asked)
                step, adapter, target = self._target_of(step)
                answer = call(adapter, target, asked)
            except (VaultError, RequestRefused) as error:
                not_asked = not_asked or error
                if isinstance(error, RequestRefused) and step.reason == ROUTED_AS_NAMED:
                    break  # who names a model wants that one, and shall know why it cannot be had
            except ProviderError as error:
                error.body = without_key(error.body, target.api_key)
                self._add(failed(made, error, request, self._since(made.began)))
                self._take_failure(course, step, made, error)
            except BaseException as error:
                self._add(broken_off(made, error, request, self._since(made.began)))
                raise
            else:
                self._choose(step, asked if asked is not request else None)
                return answer, made
            finally:
                self._upstream_secs += time.monotonic() - made.began
        if not_asked is not None and not course.failures:
            raise not_asked
        raise last_word([error for _, error in course.failures])

    def _begin_try(self, step: Step) -> Try:
        if step.pause_secs:
            gevent.sleep(step.pause_secs)
        return Try(step.candidate, time.monotonic(), self._since(self._began))

    def _take_failure(self, course: Course, step: Step, made: Try, error: ProviderError) -> None:
        """Whose fault was it, and who is next?

        Raises:
            UpstreamRefused: the caller's.
        """
        self._standing.blame_endpoint(step, error)
        if len(step.urls) > 1 and error.error_class in OF_THE_ENDPOINT:
            course.fail_at_endpoint(step, error)
            return
        self._blame(made, error)
        if error.next_step == "stop":
            raise UpstreamRefused(error.status or 400, error.body) from None
        course.fail(step, error)

    def _admit(self, candidate: Candidate) -> bool:
        is_admitted = self._standing.admit(candidate)
        if not is_admitted:
            self.outcome.skips = {**self.outcome.skips, candidate.model.id: RECOVERING}
        return is_admitted

    def _blame(self, made: Try, error: ProviderError) -> None:
        self._standing.blame(made.candidate, error, self._since(made.began))

    def _choose(self, step: Step, limited: ChatRequest | None) -> None:
        """Note who answers, why it was this one, and with what limit of ours."""
        outcome, model = self.outcome, step.candidate.model
        outcome.model_id, outcome.provider_id = model.id, model.provider_id
        outcome.reason = step.reason
        self.output_tokens_max = None if limited is None else limited.output_tokens_max
        self._standing.praise_endpoint(step)

    def _target_of(self, step: Step) -> tuple[Step, Adapter, Target]:
        """Where to ask, and the step with its endpoints once they are known."""
        model = step.candidate.model
        provider = self._snapshot.providers[model.provider_id]
        if provider.endpoints and not step.urls:
            urls = (provider.base_url, *provider.endpoints)
            order = self._gateway.board.endpoints.order(provider.id, urls)
            step = step._replace(urls=tuple(order[:ENDPOINTS_MAX]))
        target = Target(
            provider_id=provider.id,
            base_url=step.urls[0] if step.urls else provider.base_url,
            model=model.upstream_model,
            api_key=self._gateway.secret_of(provider),
        )
        return step, self._gateway.adapters[provider.type], target

    def _find_money(self) -> Money | None:
        """What the request draws on, if a hard budget limits it."""
        outcome, budgets = self.outcome, self._snapshot.budgets
        if not budgets:
            return None
        subjects = (("key", outcome.key_id), ("team", outcome.team_id))
        accounts = hard_accounts(budgets, subjects, outcome.started_at)
        if not accounts:
            return None

        def write_opening(expected_nanousd: int, reserved_nanousd: int) -> None:
            self._open(expected_nanousd, accounts=accounts, reserved_nanousd=reserved_nanousd)

        return Money(self._gateway.escrow, accounts, write_opening)

    def _hold(self, step: Step, request: ChatRequest) -> ChatRequest:
        if self._money is None:
            return request
        spent = sum(attempt.cost_nanousd or 0 for attempt in self.outcome.attempts)
        return self._money.hold(step.candidate, request, spent)

    def _open(self, cost_nanousd: int | None, **held: Any) -> None:
        self._gateway.recorder.open(self.outcome, cost_nanousd, **held)
        self._was_opened = True

    def _add(self, attempt: Attempt) -> None:
        self.outcome.attempts.append(attempt)
        self.outcome.model_id = attempt.model_id
        self.outcome.provider_id = attempt.provider_id

    def _end(self, ending: Ending, status: int, error_class: str = "") -> None:
        self.outcome.ending = ending
        self.outcome.status = status
        self.outcome.error_class = error_class

    def _success_word(self) -> Ending:
        return "answered" if len(self.outcome.attempts) == 1 else "rescued"

    def _since(self, began: float) -> int:
        return round((time.monotonic() - began) * 1000)


def _as_reduced(request: ChatRequest, step: Step) -> ChatRequest:
    """The request with the shorter answer that a step may ask for."""
    if step.output_tokens_max is None:
        return request
    return with_output_limit(request, step.output_tokens_max)

"""One request from the moment its key was accepted to its record.

An `Exchange` ends in exactly one record, whoever ends it: the answer, an error, the caller leaving.
Here is the only loop over candidates; what follows a failure is read from the error's `next_step`,
never from a status code.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

import gevent

from tokenhub.board.board import unix_ms
from tokenhub.catalog import Snapshot
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
    ClientClosed,
    ProviderError,
    RequestRefused,
    TokenHubError,
    UpstreamRefused,
    VaultError,
)
from tokenhub.gateway.gateway import Gateway
from tokenhub.gateway.relay import Relay
from tokenhub.gateway.verdict import find_recovering, last_word, without_key
from tokenhub.health import RATE_LIMIT_COOLDOWN_SECONDS
from tokenhub.pricing import cost_of
from tokenhub.providers.base import Adapter, Answer, Stream, Target
from tokenhub.routing import ROUTED_AS_LAST_RESORT

ATTEMPTS_MAX = 5
RETRIES_MAX = 2
RETRY_SECS = 0.1

CONTEXT_OVERFLOW = "context_overflow"

CLIENT_CLOSED_STATUS = 499  # nginx's word for it; nobody receives it
INTERNAL_ERROR = "internal_error"

SLOW_CLIENT_SECS = 5.0
"""A stream that waited longer for its reader than this, and than for its provider, says nothing
about the provider when it breaks."""

T = TypeVar("T")
log = logging.getLogger("tokenhub.gateway")


def begin(gateway: Gateway, caller: Caller, snapshot: Snapshot, endpoint: str) -> Exchange:
    """A new exchange for an admitted caller; use it as a context manager."""
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
        ),
    )


@dataclass(frozen=True, slots=True)
class _Served:
    """Who answered, since when, and how soon."""

    candidate: Candidate
    began: float
    ttft_ms: int | None


class Exchange:
    """One request on its way from an accepted key to its record."""

    def __init__(self, gateway: Gateway, snapshot: Snapshot, outcome: Outcome) -> None:
        self._gateway = gateway
        self._snapshot = snapshot
        self.outcome = outcome
        self._began = time.monotonic()
        self._upstream_secs = 0.0
        self._was_opened = False
        self._is_settled = False
        self._relay: Relay | None = None

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
            self._note_end(error)
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

        def call(adapter: Adapter, target: Target) -> Answer:
            return adapter.send(
                target, request, self._gateway.whole_timeouts, self.outcome.request_id
            )

        answer, candidate, began = self._attempt_all(request, decision, call)
        usage = answer.usage or Usage(request.input_tokens, len(answer.body) // 4, is_estimate=True)
        self._add_worked(_Served(candidate, began, None), usage)
        took_ms = self._since(began)
        self._praise(candidate, took_ms, took_ms)
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
        first = (*decision.candidates, *decision.last_resort)[0]
        self._gateway.recorder.open(self.outcome, first.cost_nanousd)
        self._was_opened = True

        def call(adapter: Adapter, target: Target) -> Stream:
            return adapter.stream(
                target, request, self._gateway.stream_timeouts, self.outcome.request_id
            )

        stream, candidate, began = self._attempt_all(request, decision, call)
        self.outcome.ttft_ms = self._since(self._began)
        ttft_ms = self._since(began)

        def on_end(relay: Relay, ending: Ending, error: ProviderError | None) -> None:
            self._end_stream(relay, ending, error, _Served(candidate, began, ttft_ms))

        self._relay = Relay(stream, request, on_end)
        return self._relay

    def settle(self) -> None:
        """Record the outcome; the second and later calls do nothing."""
        if self._is_settled:
            return
        self._is_settled = True
        outcome = self.outcome
        total = time.monotonic() - self._began
        outcome.latency_ms = round(total * 1000)
        outcome.overhead_us = round((total - self._upstream_secs) * 1e6)
        self._gateway.recorder.record(outcome, was_opened=self._was_opened)

    @property
    def attempt_count(self) -> int:
        """Attempts made so far, the one that is answering now included."""
        return len(self.outcome.attempts) + (self._relay is not None)

    @property
    def overhead_ms(self) -> float:
        """What we added so far, without the time that providers took."""
        return (time.monotonic() - self._began - self._upstream_secs) * 1000

    def _end_stream(
        self, relay: Relay, ending: Ending, error: ProviderError | None, served: _Served
    ) -> None:
        """A stream is over: bill what was produced, and record."""
        if self._is_settled:
            return
        error_class = error.error_class if error else INTERNAL_ERROR if ending == "cut" else ""
        self._upstream_secs += relay.upstream_secs
        self._end(ending, 200, error_class)
        self.outcome.response_bytes = relay.bytes_sent
        try:
            self._add_worked(served, relay.usage, error_class)
            if error is not None:
                if relay.client_secs < max(SLOW_CLIENT_SECS, relay.upstream_secs):
                    self._blame(served.candidate, error)
            elif ending == "answered":
                self.outcome.ending = self._success_word()
                self._praise(served.candidate, served.ttft_ms or 0, self._since(served.began))
        finally:
            self.settle()

    def _decide(self, request: ChatRequest, policy: Policy) -> Decision:
        outcome = self.outcome
        outcome.requested_model = request.model
        outcome.estimated_input_tokens = request.input_tokens
        outcome.mode = policy.mode
        decision = self._gateway.decide(self._snapshot, request, policy)
        outcome.reason = decision.reason
        outcome.skips = decision.skips
        return decision

    def _attempt_all(
        self,
        request: ChatRequest,
        decision: Decision,
        call: Callable[[Adapter, Target], T],
    ) -> tuple[T, Candidate, float]:
        """Try candidates until one answers; returns the answer, who gave it, and when it began.

        Raises:
            UpstreamRefused: a provider found the caller at fault; nobody else was asked.
            AllAttemptsFailed, VaultError: nobody answered.
        """
        failures: list[tuple[Candidate, ProviderError]] = []
        locked: VaultError | None = None
        for candidate in self._order(decision, failures):
            try:
                adapter, target = self._target_of(candidate)
            except VaultError as error:
                locked = locked or error
                continue
            began = time.monotonic()
            try:
                answer = call(adapter, target)
            except ProviderError as error:
                self._add_failure(candidate, began, error.error_class, error.status)
                error.body = without_key(error.body, target.api_key)
                self._blame(candidate, error)
                failures.append((candidate, error))
                if error.next_step == "stop":
                    raise UpstreamRefused(error.status or 400, error.body) from None
            except BaseException as error:
                self._add_broken_off(_Served(candidate, began, None), request, error)
                raise
            else:
                self._choose(candidate, decision)
                return answer, candidate, began
            finally:
                self._upstream_secs += time.monotonic() - began
        if locked is not None and not failures:
            raise locked
        raise last_word([error for _, error in failures])

    def _choose(self, candidate: Candidate, decision: Decision) -> None:
        """Note who answers, and why it was this one."""
        outcome, model = self.outcome, candidate.model
        outcome.model_id, outcome.provider_id = model.id, model.provider_id
        if candidate in decision.last_resort:
            outcome.reason = ROUTED_AS_LAST_RESORT
        elif candidate is not decision.candidates[0]:
            outcome.reason = f"routed-weight-{model.weight}"

    def _order(
        self, decision: Decision, failures: list[tuple[Candidate, ProviderError]]
    ) -> Iterator[Candidate]:
        """Candidates, then the last resort, then once more who may have recovered; five at most."""
        for candidate in (*decision.candidates, *decision.last_resort):
            if len(failures) == ATTEMPTS_MAX:
                return
            yield candidate
        for retry in range(RETRIES_MAX):
            again = find_recovering(failures)
            if again is None or len(failures) >= ATTEMPTS_MAX:
                return
            gevent.sleep(RETRY_SECS * 2**retry * self._gateway.rng.uniform(0.5, 1.5))
            yield again

    def _target_of(self, candidate: Candidate) -> tuple[Adapter, Target]:
        model = candidate.model
        provider = self._snapshot.providers[model.provider_id]
        target = Target(
            provider_id=provider.id,
            base_url=provider.base_url,
            model=model.upstream_model,
            api_key=self._gateway.secret_of(provider),
        )
        return self._gateway.adapters[provider.type], target

    def _praise(self, candidate: Candidate, latency_ms: int, age_ms: int) -> None:
        board = self._gateway.board
        board.vitals.succeed(candidate.model.id, latency_ms, board.slot, age_ms=age_ms)

    def _blame(self, candidate: Candidate, error: ProviderError) -> None:
        """Count a failure against the model. Rate limits and the like make it rest at once."""
        if error.error_class == CONTEXT_OVERFLOW or error.next_step == "stop":
            return  # too long for it, or refused in mid-stream: that is no fault of the model
        rest = error.retry_after_seconds
        if error.next_step == "cooldown" and rest is None:
            rest = RATE_LIMIT_COOLDOWN_SECONDS
        board = self._gateway.board
        board.vitals.fail(candidate.model.id, error.error_class, board.slot, cooldown_seconds=rest)
        log.info(
            "attempt failed",
            extra={
                "request_id": self.outcome.request_id,
                "model_id": candidate.model.id,
                "error_class": error.error_class,
                "status": error.status,
            },
        )

    def _add_failure(
        self, candidate: Candidate, began: float, error_class: str, status: int | None = None
    ) -> None:
        """An attempt that gave nothing and costs nothing."""
        model = candidate.model
        self._add(
            Attempt(
                model_id=model.id,
                provider_id=model.provider_id,
                started_ms=round((began - self._began) * 1000),
                duration_ms=self._since(began),
                status=status,
                error_class=error_class,
            )
        )

    def _add_broken_off(self, served: _Served, request: ChatRequest, error: BaseException) -> None:
        """An attempt that ended by no doing of the provider's."""
        if isinstance(error, Exception):  # a bug of ours is on nobody's bill
            self._add_failure(served.candidate, served.began, INTERNAL_ERROR)
        else:  # the caller left: the provider was at work all the same
            usage = Usage(request.input_tokens, 0, is_estimate=True)
            self._add_worked(served, usage, "client_closed", None)

    def _add_worked(
        self, served: _Served, usage: Usage, error_class: str = "", status: int | None = 200
    ) -> None:
        """An attempt that the provider worked for, to the end or not."""
        model = served.candidate.model
        self._add(
            Attempt(
                model_id=model.id,
                provider_id=model.provider_id,
                started_ms=round((served.began - self._began) * 1000),
                duration_ms=self._since(served.began),
                ttft_ms=served.ttft_ms,
                status=status,
                error_class=error_class,
                usage=usage,
                cost_nanousd=cost_of(model.price, usage),
                price_version=model.price.version,
            )
        )

    def _add(self, attempt: Attempt) -> None:
        self.outcome.attempts.append(attempt)
        self.outcome.model_id = attempt.model_id
        self.outcome.provider_id = attempt.provider_id

    def _note_end(self, error: BaseException) -> None:
        match error:
            case ClientClosed():
                self._end("client_closed", CLIENT_CLOSED_STATUS)
            case gevent.GreenletExit():  # the worker is going
                self._end("interrupted", CLIENT_CLOSED_STATUS)
            case RequestRefused() | UpstreamRefused():
                self._end("refused", error.status, error.code)
            case TokenHubError():
                self._end("failed", error.status, error.code)
            case _:
                self._end("failed", 500, INTERNAL_ERROR)

    def _end(self, ending: Ending, status: int, error_class: str = "") -> None:
        self.outcome.ending = ending
        self.outcome.status = status
        self.outcome.error_class = error_class

    def _success_word(self) -> Ending:
        return "answered" if len(self.outcome.attempts) == 1 else "rescued"

    def _since(self, began: float) -> int:
        return round((time.monotonic() - began) * 1000)

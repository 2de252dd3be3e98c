"""One request from the moment its key was accepted to its record.

An `Exchange` ends in exactly one record, whoever ends it: the answer, an error, the caller leaving.
It may call models several times until then; who is asked for each call is `attempts`' business.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self, TypeVar

from tokenhub.board.board import unix_ms
from tokenhub.catalog import Snapshot
from tokenhub.domain import Caller, ChatRequest, Decision, Ending, Outcome, Policy
from tokenhub.errors import DeadlineExceeded, ProviderError, TokenHubError
from tokenhub.gateway.attempts import Attempts, Send, TimeIsUp, Turn, usage_of, word_for
from tokenhub.gateway.books import Books
from tokenhub.gateway.called import Called, called_of, limit_of
from tokenhub.gateway.gateway import Gateway
from tokenhub.gateway.ledger import INTERNAL_ERROR, NO_FAILURE, broken_off, worked
from tokenhub.gateway.race import Race
from tokenhub.gateway.relay import Pass, Relay
from tokenhub.gateway.told import Steps, Told
from tokenhub.gateway.verdict import end_of
from tokenhub.limiter import Ticket
from tokenhub.providers.base import Adapter, Answer, Headers, Stream, Target
from tokenhub.tracing import note_answer, note_stream

SLOW_CLIENT_SECS = 5.0
"""A stream that waited longer for its reader than this, and than for its provider, says nothing
about the provider when it breaks."""

T = TypeVar("T", Answer, Stream)


def begin(
    gateway: Gateway,
    caller: Caller,
    snapshot: Snapshot,
    endpoint: str,
    *,
    ticket: Ticket | None = None,
) -> Exchange:
    """A new exchange for an admitted caller; use it as a context manager. It releases the ticket,
    which is what the caller holds of the limits of its key and team."""
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
            trace_id="" if caller.trace is None else caller.trace.id,
            trace=caller.trace,
        ),
        ticket=ticket,
    )


class Exchange:
    """One request on its way from an accepted key to its record.

    Attributes:
        dropped: what the caller asked for and the answering provider's dialect cannot say.
        output_tokens_max: the limit of the answer, where the caller's did not fit the context.
        headers: those of the provider's that its caller gets too.
    """

    def __init__(
        self, gateway: Gateway, snapshot: Snapshot, outcome: Outcome, *, ticket: Ticket | None
    ) -> None:
        self._gateway = gateway
        self._ticket = ticket
        self._snapshot = snapshot
        self.outcome = outcome
        self._books = Books(gateway, snapshot, outcome)
        self._calls = 0
        self._is_settled = False
        self._relay: Relay | Told | None = None
        self._streaming: Attempts[Stream] | None = None
        self.dropped: tuple[str, ...] = ()
        self.output_tokens_max: int | None = None
        self.headers: Headers = ()

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
        if error is not None and isinstance(error, TokenHubError) and self.outcome.attempts:
            error.headers["X-TokenHub-Attempts"] = str(len(self.outcome.attempts))
        relay = self._relay
        try:
            self._break_off(error)
        finally:
            if relay is not None:
                relay.close()

    def serve(self, request: ChatRequest, policy: Policy) -> Answer:
        """Answer a request whole.

        Raises:
            RoutingError, RequestRefused, VaultLocked: what the caller is told.
        """
        called = self.call(request, policy)
        self.finish(called)
        return called.answer

    def call(self, request: ChatRequest, policy: Policy) -> Called:
        """Have one question answered whole, as one of as many as the request takes: `finish` when
        it is answered itself. Several greenlets may call at once; end them before the exchange. All
        is in the one outcome, and the policy's deadline counts from when the request came.

        Raises:
            RoutingError, RequestRefused, VaultLocked: nobody answers it. Its attempts are booked.
        """

        timeouts, request_id = self._gateway.whole_timeouts, self.outcome.request_id

        def send(adapter: Adapter, target: Target, asked: ChatRequest) -> Answer:
            return adapter.send(target, asked, timeouts, request_id)

        attempts = self._begin_call(request, policy, self._decide(request, policy), send)
        answer, turn = self._run(attempts, request, policy)
        took_ms = self._since(turn.began)
        turn.response_bytes = answer.response_bytes
        if turn.span is not None:
            note_answer(turn.span, answer.parsed)
        attempts.finish(turn, worked(turn, usage_of(answer, request), took_ms))
        attempts.standing.praise(turn.candidate, took_ms, took_ms)
        attempts.standing.settle()
        if turn.speech is not None:
            answer = turn.speech.understand(answer)
        return called_of(answer, turn, request, attempts, took_ms)

    def finish(self, called: Called) -> None:
        """The request is answered, with what this call has come to."""
        outcome = self.outcome
        outcome.model_id, outcome.provider_id = called.model_id, called.provider_id
        outcome.reason = called.reason
        outcome.response_bytes = len(called.answer.body)
        self.dropped, self.headers = called.answer.dropped, called.answer.headers
        self.output_tokens_max = called.output_tokens_max
        self._end(self._success_word(), 200)

    def foresee(self, request: ChatRequest, policy: Policy) -> Decision:
        """Who would be asked, in order, if this were the request. Nothing is counted or changed.

        Raises:
            RoutingError, RequestRefused: nobody would.
        """
        return self._gateway.decide(
            self._snapshot, request, policy, key_id=self.outcome.key_id, is_trial=True
        )

    def stream(self, request: ChatRequest, policy: Policy, stages: Sequence[Pass] = ()) -> Relay:
        """Open a stream; failover ends with its first byte.

        Args:
            stages: what the chunks of a chat completion go through on their way to the caller.

        Raises:
            RoutingError, RequestRefused, VaultLocked: what the caller is told, nothing was sent.
        """
        self.outcome.stream = True
        decision = self._decide(request, policy)
        first = (decision.candidates or decision.last_resort)[0]
        if self._books.money is None:  # else it is told when the money is set aside
            self._books.open(first.cost_nanousd)

        timeouts, request_id = self._gateway.stream_timeouts, self.outcome.request_id

        def send(adapter: Adapter, target: Target, asked: ChatRequest) -> Stream:
            return adapter.stream(target, asked, timeouts, request_id)

        attempts = self._streaming = self._begin_call(request, policy, decision, send)
        stream, turn = self._run(attempts, request, policy)
        try:
            return self._relay_of(stream, turn, request, stages)
        except BaseException as error:  # it is nobody's then
            took_ms = self._since(turn.began)
            turn.response_bytes = stream.response_bytes
            attempts.finish(turn, broken_off(turn, word_for(error), request, took_ms))
            stream.close()
            raise

    def tell(self, steps: Steps, say_error: Callable[[TokenHubError], bytes]) -> Told:
        """Answer step by step, with as many calls as it takes; the exchange lasts as long.

        Args:
            steps: see Told; it finishes and settles the exchange before its last one.
        """
        self.outcome.stream = True
        self._relay = told = Told(steps, say_error, self._break_off)
        return told

    def settle(self) -> None:
        """Record the outcome; the second and later calls do nothing."""
        if self._is_settled:
            return
        self._is_settled = True
        if self._streaming is not None:
            self._streaming.standing.settle()
        self._relay = None  # it holds us: nobody would be freed without the garbage collector
        outcome, books = self.outcome, self._books
        total = time.monotonic() - books.began
        outcome.latency_ms = round(total * 1000)
        outcome.overhead_us = round((total - books.upstream_secs) * 1e6)
        books.put_in_order()
        recorder, money = self._gateway.recorder, books.money
        try:
            recorder.record(
                outcome,
                was_opened=books.was_opened,
                accounts=() if money is None else money.accounts,
            )
        finally:
            for _ in range(1, self._calls):
                recorder.free_room()
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
        return (time.monotonic() - self._books.began - self._books.upstream_secs) * 1000

    def _break_off(self, error: BaseException | None) -> None:
        """It is over: for this reason, unless it was answered."""
        if error is not None and not self._is_settled:
            self._end(*end_of(error))
        self.settle()

    def _relay_of(
        self, stream: Stream, turn: Turn, request: ChatRequest, stages: Sequence[Pass]
    ) -> Relay:
        """What hands on the stream that was opened, and ends the exchange when it ends."""
        self.outcome.ttft_ms = self._since(self._books.began)
        turn.ttft_ms = self._since(turn.began)
        self.dropped, self.headers = stream.dropped, stream.headers
        if turn.speech is not None:
            self.dropped += turn.speech.dropped
            stages = [*turn.speech.stages(), *stages]
        self.output_tokens_max = limit_of(turn, request)

        def on_end(relay: Relay, ending: Ending, error: ProviderError | None) -> None:
            self._end_stream(relay, ending, error, turn)

        self._relay = relay = Relay(stream, request, on_end, stages)
        return relay

    def _end_stream(
        self, relay: Relay, ending: Ending, error: ProviderError | None, turn: Turn
    ) -> None:
        """A stream is over: bill what was produced, and record."""
        attempts = self._streaming
        if self._is_settled or attempts is None:
            return
        error_class = error.error_class if error else INTERNAL_ERROR if ending == "cut" else ""
        self._books.upstream_secs += relay.upstream_secs
        self._end(ending, 200, error_class)
        self.outcome.response_bytes = relay.bytes_sent
        took_ms = self._since(turn.began)
        turn.response_bytes = relay.response_bytes
        if turn.span is not None:
            note_stream(turn.span, relay.finish_reason)
        next_step = error.next_step if error else ""
        try:
            attempts.finish(
                turn,
                worked(turn, relay.usage, took_ms, error_class=error_class, next_step=next_step),
            )
            if error is not None:
                if relay.client_secs < max(SLOW_CLIENT_SECS, relay.upstream_secs):
                    attempts.standing.blame(turn.candidate, error, took_ms)
            elif ending == "answered":
                self.outcome.ending = self._success_word()
                attempts.standing.praise(turn.candidate, turn.ttft_ms or 0, took_ms)
        finally:
            self.settle()

    def _decide(self, request: ChatRequest, policy: Policy) -> Decision:
        """Who may answer. The outcome says of the first call what was asked for, and why who was
        left out."""
        outcome = self.outcome
        if self._calls:
            self._gateway.recorder.make_room()
        else:
            outcome.requested_model, outcome.mode, outcome.policy = (
                request.model, policy.mode, policy,
            )  # fmt: skip
        self._calls += 1
        outcome.estimated_input_tokens += request.input_tokens
        if self._ticket is not None:
            self._ticket.take_tokens(request.input_tokens)
        decision = self._gateway.decide(self._snapshot, request, policy, key_id=outcome.key_id)
        if self._calls == 1:
            outcome.alias_from, outcome.reason = decision.alias_from, decision.reason
            outcome.skips, outcome.candidates = decision.skips, decision.candidates
        return decision

    def _begin_call(
        self, request: ChatRequest, policy: Policy, decision: Decision, send: Send[T]
    ) -> Attempts[T]:
        return Attempts(
            self._books,
            request,
            decision,
            send,
            gateway=self._gateway,
            snapshot=self._snapshot,
            ticket=self._ticket,
            has_fallbacks=bool(policy.fallbacks),
        )

    def _run(self, attempts: Attempts[T], request: ChatRequest, policy: Policy) -> tuple[T, Turn]:
        """Have somebody answer, within the caller's time if that is limited.

        Raises:
            DeadlineExceeded: the time is over; whoever was at work was stopped, and is booked.
        """
        run = attempts.run
        if self._gateway.hedge_after_secs:
            run = Race(attempts, request, policy, self._gateway).run
        try:
            if not (policy.latency_is_hard and policy.max_latency_ms):
                return run()
            left_secs = self._books.began + policy.max_latency_ms / 1000 - time.monotonic()
            if left_secs > 0:
                with TimeIsUp(left_secs):
                    return run()
            raise _too_late(policy)
        except BaseException as error:
            attempts.standing.settle()
            if isinstance(error, TimeIsUp):
                raise _too_late(policy) from None
            raise

    def _end(self, ending: Ending, status: int, error_class: str = "") -> None:
        self.outcome.ending = ending
        self.outcome.status = status
        self.outcome.error_class = error_class

    def _success_word(self) -> Ending:
        attempts = self.outcome.attempts
        if len(attempts) == 1 or all(each.error_class in NO_FAILURE for each in attempts):
            return "answered"
        return "rescued"

    def _since(self, began: float) -> int:
        return round((time.monotonic() - began) * 1000)


def _too_late(policy: Policy) -> DeadlineExceeded:
    return DeadlineExceeded(f"no answer within the {policy.max_latency_ms} ms that were given")

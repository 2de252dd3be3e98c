"""One call: who is asked, what an attempt is, and what follows when it fails.

Here is the only loop over candidates; what follows a failure is read from the error's `next_step`,
never from a status code. Knows nothing of HTTP, nor of the request's end; `race` asks several at
once with what is here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import gevent

from tokenhub.catalog import Snapshot
from tokenhub.dialects import DIALECTS
from tokenhub.domain import (
    Attempt,
    Candidate,
    ChatRequest,
    Decision,
    Dialect,
    Model,
    Provider,
    Usage,
)
from tokenhub.errors import (
    ProviderError,
    RateLimited,
    RequestRefused,
    TokenHubError,
    UpstreamRefused,
    VaultError,
)
from tokenhub.gateway.books import Books
from tokenhub.gateway.course import ENDPOINTS_MAX, Course, Step
from tokenhub.gateway.gateway import Gateway
from tokenhub.gateway.ledger import (
    CLIENT_CLOSED,
    DEADLINE,
    INTERNAL_ERROR,
    NOT_NEEDED,
    Try,
    broken_off,
    failed,
    worked,
)
from tokenhub.gateway.money import Held
from tokenhub.gateway.speech import Speech, find_speech
from tokenhub.gateway.standing import Standing
from tokenhub.gateway.verdict import OF_THE_ENDPOINT, last_word, sooner, without_key
from tokenhub.limiter import Hold, Ticket
from tokenhub.providers.base import Adapter, Answer, Target
from tokenhub.routing import RATE_LIMITED, RECOVERING, ROUTED_AS_NAMED
from tokenhub.tracing import new_span, trace_lines

_NO_MORE: frozenset[Dialect] = frozenset()
_RESPONSES_TOO: frozenset[Dialect] = frozenset({"responses"})
_COMPLETIONS_TOO: frozenset[Dialect] = frozenset({"completions"})
_BOTH_TOO = _RESPONSES_TOO | _COMPLETIONS_TOO

T = TypeVar("T")

Send = Callable[[Adapter, Target, ChatRequest], T]
"""Asks a provider; raises what adapters raise."""


class TimeIsUp(gevent.Timeout):  # type: ignore[misc]  # gevent has no types
    """The caller's time is over. Thrown into whoever waits; no adapter may swallow it."""


class NotNeeded(gevent.GreenletExit):  # type: ignore[misc]  # gevent has no types
    """Nobody waits for this call any more; for who kills a greenlet that makes one."""


@dataclass(slots=True, kw_only=True)
class Turn(Try):
    """An attempt on its way.

    Args:
        step: with its endpoints once they are known.
        asked: the request as the provider is asked it: with another limit, perhaps.
        target: None until it is about to be asked; who is stopped before that costs nothing.
        held: the money that is set aside for it.
        place: what it has of the limits of its model.
        tokens: what it has used, once that is written down.
        speech: the model's own ways, if it has any.
    """

    step: Step
    asked: ChatRequest | None = None
    target: Target | None = None
    held: Held | None = None
    place: Hold | None = None
    tokens: int = 0
    speech: Speech | None = None


class Attempts(Generic[T]):
    """The attempts of one call.

    Args:
        ticket: what the request holds of its key's limits.
        has_fallbacks: the request says who may answer in the place of whom it names.

    Attributes:
        standing: what the call knows of models; settle it when there is a verdict on the answer.
        cost_nanousd: what they cost so far; None = a price is unknown.
        count: how many have ended.
    """

    __slots__ = ("_alias", "_books", "_brought_by", "_gateway", "_has_fallbacks", "_is_over",
                 "_not_asked", "_request", "_send", "_snapshot", "_ticket", "_trace",
                 "cost_nanousd", "count", "course", "standing")  # fmt: skip

    def __init__(
        self,
        books: Books,
        request: ChatRequest,
        decision: Decision,
        send: Send[T],
        *,
        gateway: Gateway,
        snapshot: Snapshot,
        ticket: Ticket | None,
        has_fallbacks: bool,
    ) -> None:
        self._books = books
        self._request = request
        self._send = send
        self._gateway = gateway
        self._snapshot = snapshot
        self._ticket = ticket
        self._trace = books.outcome.trace
        self._alias, self._brought_by = decision.alias_from, decision.brought_by
        self._has_fallbacks = has_fallbacks
        self._not_asked: TokenHubError | None = None
        self._is_over = False
        self.standing = standing = Standing(gateway.board, gateway.rng, books.outcome.request_id)

        def admit(candidate: Candidate) -> bool:
            # No method: the course must not hold us, or only the garbage collector frees a request.
            is_admitted = standing.admit(candidate)
            if not is_admitted:
                books.skip(candidate.model.id, RECOVERING)
            return is_admitted

        self.course = Course(decision, request, admit=admit, rng=gateway.rng)
        self.cost_nanousd: int | None = 0
        self.count = 0

    def run(self) -> tuple[T, Turn]:
        """Try candidates until one answers; returns the answer and the attempt that gave it.

        Raises:
            UpstreamRefused: a provider found the caller at fault; nobody else was asked.
            AllAttemptsFailed: nobody answered.
            VaultError, Untranslatable, QuotaExceeded, RateLimited: nobody could be asked.
        """
        while (step := self.next_step()) is not None:
            turn = self.begin(step)
            try:
                answer = self.ask(turn)
            except (ProviderError, VaultError, RequestRefused) as error:
                self.take_failure(turn, error)
            except BaseException as error:
                self.break_off(turn, word_for(error))
                raise
            else:
                self.choose(turn)
                return answer, turn
        raise self.last_word()

    def next_step(self) -> Step | None:
        """Whose turn it is when nobody is at work."""
        return None if self._is_over else self.course.next_step()

    def next_beside(self, providers: frozenset[str], count: int) -> Step | None:
        """Whose turn it is while so many are at work, at those providers."""
        return None if self._is_over else self.course.next_beside(providers, count)

    def begin(self, step: Step) -> Turn:
        """Somebody's turn begins, after a pause where the step wants one."""
        if step.pause_secs:
            gevent.sleep(step.pause_secs)
        now = time.monotonic()
        self._books.begin_work(now)
        turn = Turn(
            step.candidate, now, _ms(now - self._books.began), reason=step.reason, step=step
        )
        if self._trace is not None:
            turn.span = new_span(self._gateway.rng)
        return turn

    def ask(self, turn: Turn) -> T:
        """Ask it whose turn it is; ends with `choose`, `take_failure` or `break_off`.

        Raises:
            VaultError, RequestRefused: it could not be asked; nothing was sent.
            ProviderError: it did not answer.
        """
        request = _as_reduced(self._request, turn.step)
        if self._ticket is not None and self._ticket.is_by_model:
            id_ = turn.candidate.model.id
            names = (id_, self._alias, self._brought_by.get(id_, ""))
            turn.place = self._ticket.take_model(names, request.input_tokens)
        money = self._books.money
        if money is not None:
            turn.held = money.hold(turn.candidate, request)
            request = turn.held.request
        adapter, target = self._target_of(turn)
        turn.asked = request
        turn.speech = find_speech(turn.candidate.model, request)
        if turn.speech is not None:
            request = turn.speech.request
        turn.target = target
        return self._send(adapter, target, request)

    def choose(self, turn: Turn) -> None:
        """Note who answers, and why it was this one; `finish` it when it is known what it used."""
        self._books.end_work()
        outcome, model = self._books.outcome, turn.candidate.model
        outcome.model_id, outcome.provider_id = model.id, model.provider_id
        outcome.reason = turn.step.reason
        self.standing.praise_endpoint(turn.step)
        if self._ticket is not None and turn.place is not None:
            self._ticket.tell_of(turn.place)

    def take_failure(self, turn: Turn, error: TokenHubError | ProviderError) -> None:
        """It could not be asked, or did not answer. Whose fault was it, and who is next?

        Raises:
            UpstreamRefused: the caller's.
        """
        if isinstance(error, ProviderError):
            self._fail(turn, error)
            return
        self._end(turn)
        self._not_asked = sooner(self._not_asked, error)
        if isinstance(error, RateLimited):
            self._books.skip(turn.candidate.model.id, RATE_LIMITED)
        if self._has_fallbacks or turn.candidate.model.fallbacks:
            return
        if isinstance(error, RequestRefused) and turn.step.reason == ROUTED_AS_NAMED:
            self._is_over = True  # who names a model wants that one, and shall know why it cannot

    def break_off(self, turn: Turn, error_class: str) -> None:
        """It was ended by no doing of the provider's. Who was not asked yet made no attempt."""
        if turn.target is not None:
            took_ms = _ms(time.monotonic() - turn.began)
            self._write(turn, broken_off(turn, error_class, self._request, took_ms))
        self._end(turn)

    def finish(self, turn: Turn, attempt: Attempt) -> None:
        """Write down what the attempt came to that was chosen."""
        self._write(turn, attempt)
        self.let_go(turn)

    def lose(self, turn: Turn, usage: Usage, error_class: str) -> None:
        """It has answered, when another had already been chosen."""
        took_ms = _ms(time.monotonic() - turn.began)
        self._write(turn, worked(turn, usage, took_ms, error_class=error_class))
        self._end(turn)

    def let_go(self, turn: Turn) -> None:
        """It is not in flight any more, for the money and the limits that it holds."""
        place, turn.place = turn.place, None
        if place is not None:
            place.release(turn.tokens)
        money, held, turn.held = self._books.money, turn.held, None
        if money is not None and held is not None:
            money.release(held)

    def last_word(self) -> TokenHubError:
        """Why nobody answered."""
        failures = self.course.failures
        if self._not_asked is not None and not failures:
            return self._not_asked
        return last_word([error for _, error in failures])

    def _fail(self, turn: Turn, error: ProviderError) -> None:
        step, took_ms = turn.step, _ms(time.monotonic() - turn.began)
        error.body = without_key(error.body, turn.target.api_key if turn.target else None)
        self._write(turn, failed(turn, error, self._request, took_ms))
        self._end(turn)
        self.standing.blame_endpoint(step, error)
        if len(step.urls) > 1 and error.error_class in OF_THE_ENDPOINT:
            self.course.fail_at_endpoint(step, error)
            return
        self.standing.blame(step.candidate, error, took_ms)
        if error.next_step == "stop":
            raise UpstreamRefused(error.status or 400, error.body) from None
        self.course.fail(step, error)

    def _end(self, turn: Turn) -> None:
        self._books.end_work()
        self.let_go(turn)

    def _write(self, turn: Turn, attempt: Attempt) -> None:
        self._books.add(attempt, turn.began)
        turn.tokens = attempt.usage.input_tokens + attempt.usage.output_tokens
        self.count += 1
        if self.cost_nanousd is not None:
            cost = attempt.cost_nanousd
            self.cost_nanousd = None if cost is None else self.cost_nanousd + cost

    def _target_of(self, turn: Turn) -> tuple[Adapter, Target]:
        """Where to ask; the step has its endpoints after that."""
        step, model = turn.step, turn.candidate.model
        provider = self._snapshot.providers[model.provider_id]
        if provider.endpoints and not step.urls:
            urls = (provider.base_url, *provider.endpoints)
            order = self._gateway.board.endpoints.order(provider.id, urls)
            turn.step = step = step._replace(urls=tuple(order[:ENDPOINTS_MAX]))
        target = Target(
            provider_id=provider.id,
            base_url=step.urls[0] if step.urls else provider.base_url,
            model=model.upstream_model,
            api_key=self._gateway.secret_of(provider),
            speaks=_spoken_by(provider, model),
        )
        if self._trace is not None and turn.span is not None:
            target = replace(target, trace=trace_lines(self._trace, turn.span.id))
        return self._gateway.adapters[provider.type], target


def usage_of(answer: Answer, request: ChatRequest) -> Usage:
    """What a whole answer used, as the provider said or as we guess."""
    written = len(answer.body) // 4 if request.choices else 0  # embeddings are no output
    return answer.usage or Usage(request.input_tokens, written, is_estimate=True)


def word_for(error: BaseException) -> str:
    """What the attempts are booked as that an error broke off."""
    if isinstance(error, TimeIsUp):
        return DEADLINE
    if isinstance(error, NotNeeded):
        return NOT_NEEDED
    return INTERNAL_ERROR if isinstance(error, Exception) else CLIENT_CLOSED


def _ms(secs: float) -> int:
    return round(secs * 1000)


def _spoken_by(provider: Provider, model: Model) -> frozenset[Dialect]:
    """What they take besides what all providers of that type do."""
    if provider.native_responses:
        return _RESPONSES_TOO if "completions" not in model.capabilities else _BOTH_TOO
    return _COMPLETIONS_TOO if "completions" in model.capabilities else _NO_MORE


def _as_reduced(request: ChatRequest, step: Step) -> ChatRequest:
    """The request with the shorter answer that a step may ask for."""
    if step.output_tokens_max is None:
        return request
    return DIALECTS[request.dialect].limit_output(request, step.output_tokens_max)

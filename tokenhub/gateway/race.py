"""Hedging: when nobody has answered for a while, somebody else is asked as well.

Each attempt runs in a greenlet of its own, a lane; who waits for them launches the next when its
time has come or one has failed, takes the first answer, and gives the others up. It alone writes
into the books, so that nothing has to be waited for when it ends. Knows nothing of what an attempt
is, nor of what an answer is but how to close it.
"""

from __future__ import annotations

import time
from queue import Empty
from typing import Generic, TypeVar

import gevent
from gevent.queue import SimpleQueue

from tokenhub.domain import ChatRequest, Policy
from tokenhub.errors import (
    ProviderError,
    QuotaExceeded,
    RateLimited,
    RequestRefused,
    Unavailable,
    VaultError,
)
from tokenhub.gateway.attempts import Attempts, Turn, usage_of, word_for
from tokenhub.gateway.course import Step
from tokenhub.gateway.gateway import Gateway
from tokenhub.gateway.ledger import HEDGE_LOST
from tokenhub.providers.base import Answer, Stream

HEDGED = "hedged"

T = TypeVar("T", Answer, Stream)


class Lane(Generic[T]):
    """One attempt under way.

    Attributes:
        answer, error: what it has come to; None while it is under way.
        is_beside: it was launched while others were under way.
    """

    def __init__(
        self, attempts: Attempts[T], turn: Turn, ended: SimpleQueue[Lane[T]], *, is_beside: bool
    ) -> None:
        self._attempts: Attempts[T] = attempts
        self._ended = ended
        self._is_given_up = False
        self.turn = turn
        self.is_beside = is_beside
        self.answer: T | None = None
        self.error: BaseException | None = None
        self._greenlet = gevent.spawn(self._run)

    def give_up(self) -> None:
        """Stop it as soon as it lets us. Nobody waits for it any more."""
        self._is_given_up = True
        if self.answer is None and self.error is None:
            self._greenlet.kill(block=False)
        else:
            self._discard()

    def _run(self) -> None:
        try:
            self.answer = self._attempts.ask(self.turn)
        except BaseException as error:  # noqa: BLE001 - it is the one's who waits for this lane
            self.error = error
        if self._is_given_up:  # too late to be stopped
            self._discard()
        else:
            self._ended.put(self)

    def _discard(self) -> None:
        self._attempts.let_go(self.turn)
        if isinstance(self.answer, Stream):
            self.answer.close()


class Race(Generic[T]):
    """The attempts of one call, several at a time.

    Args:
        policy: those that are at work at once may cost no more than its budget, if that is hard.
        gateway: when the next is launched beside the others, and how many at most.
    """

    def __init__(
        self, attempts: Attempts[T], request: ChatRequest, policy: Policy, gateway: Gateway
    ) -> None:
        self._attempts: Attempts[T] = attempts
        self._request = request
        self._hedge_secs = gateway.hedge_after_secs
        self._lanes_max = gateway.hedged_max
        self._budget_nanousd = policy.max_budget_nanousd if policy.budget_is_hard else None
        self._lanes: list[Lane[T]] = []
        self._ended: SimpleQueue[Lane[T]] = SimpleQueue()
        self._hedge_at: float | None = None  # monotonic; None = nobody is left for that

    def run(self) -> tuple[T, Turn]:
        """As `Attempts.run`."""
        try:
            while self._launch_next():
                winner = self._find_winner()
                if winner is not None:
                    return winner
        except BaseException as error:
            # Who was at work for a request that ended like this has worked, whoever's fault it is.
            self._give_up_all(HEDGE_LOST if isinstance(error, Exception) else word_for(error))
            raise
        raise self._attempts.last_word()

    def _launch_next(self) -> bool:
        """Nobody is at work: whose turn is it?"""
        step = self._attempts.next_step()
        if step is not None:
            self._launch(step)
        return step is not None

    def _find_winner(self) -> tuple[T, Turn] | None:
        """Wait until somebody answers, or all have failed."""
        while self._lanes:
            lane = self._wait()
            if lane is None:
                self._launch_beside(HEDGED)
                continue
            self._lanes.remove(lane)
            if lane.answer is not None:
                self._give_up_all(HEDGE_LOST)
                self._attempts.choose(lane.turn)
                return lane.answer, lane.turn
            self._take_failure(lane)
        return None

    def _take_failure(self, lane: Lane[T]) -> None:
        attempts, turn, error = self._attempts, lane.turn, lane.error
        if isinstance(error, ProviderError | VaultError | RequestRefused):
            if isinstance(error, QuotaExceeded | RateLimited | Unavailable) and lane.is_beside:
                attempts.course.defer(turn.step)  # what the others hold may be free later
            attempts.take_failure(turn, error)
            if self._lanes:  # what stands in for a hedge is one
                self._launch_beside(HEDGED if turn.step.reason == HEDGED else "")
        elif error is not None:
            attempts.break_off(turn, word_for(error))
            raise error

    def _wait(self) -> Lane[T] | None:
        """The next lane that ends; None when it is time for another one."""
        longest_secs = None
        if self._hedge_at is not None and len(self._lanes) < self._lanes_max:
            longest_secs = max(0.0, self._hedge_at - time.monotonic())
        try:
            lane: Lane[T] = self._ended.get(timeout=longest_secs)
        except Empty:
            return None
        return lane

    def _launch_beside(self, reason: str) -> None:
        """Ask one more while others are at work, if there is one."""
        providers = frozenset(lane.turn.candidate.model.provider_id for lane in self._lanes)
        step = self._attempts.next_beside(providers, len(self._lanes))
        if step is not None and not self._affords(step):
            self._attempts.course.defer(step)
            step = None
        if step is None:
            self._hedge_at = None
        else:
            self._launch(step._replace(reason=reason or step.reason))

    def _affords(self, step: Step) -> bool:
        """Whether it may be asked on top of those that are at work. What failed has cost too."""
        if self._budget_nanousd is None:
            return True
        at_work = [step.candidate, *(lane.turn.candidate for lane in self._lanes)]
        expected = sum(each.cost_nanousd or 0 for each in at_work)
        return (self._attempts.cost_nanousd or 0) + expected <= self._budget_nanousd

    def _launch(self, step: Step) -> None:
        turn = self._attempts.begin(step)
        lane = Lane(self._attempts, turn, self._ended, is_beside=bool(self._lanes))
        self._lanes.append(lane)
        self._hedge_at = time.monotonic() + self._hedge_secs

    def _give_up_all(self, error_class: str) -> None:
        """End whoever is still at work, and book what that was."""
        for lane in self._lanes:
            if isinstance(lane.answer, Answer):  # it came in second
                usage = usage_of(lane.answer, self._request)
                lane.turn.response_bytes = lane.answer.response_bytes
                self._attempts.lose(lane.turn, usage, error_class)
            else:
                self._attempts.break_off(lane.turn, error_class)
            lane.give_up()
        self._lanes.clear()

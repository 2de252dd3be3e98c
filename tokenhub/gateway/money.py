"""The money of one request: set aside before each attempt, settled once when it is recorded.

What was set aside only grows while the request lasts, and covers what was spent and what all
attempts in flight may cost at most. Each time, the journal is told before the provider is: if this
worker dies, what the host's share loses and what the ledger gives back are the same. Knows nothing
of where the money comes from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from tokenhub.budgets import Account
from tokenhub.dialects import DIALECTS
from tokenhub.domain import Candidate, ChatRequest
from tokenhub.errors import InvalidRequest, QuotaExceeded, Unavailable
from tokenhub.escrow import Reservation
from tokenhub.pricing import OUTPUT_TOKENS_UNLIMITED, upper_bound_cost


class Source(Protocol):
    """Where the money comes from: `tokenhub.escrow.Escrow`."""

    def reserve(self, accounts: tuple[Account, ...], amount_nanousd: int) -> Reservation: ...

    def settle(self, reservation: Reservation, cost_nanousd: int) -> None: ...


class Held(NamedTuple):
    """What is set aside for one attempt in flight.

    Args:
        request: what may be asked for that: with a limit of its answer if it had none, for without
            one there is no most that it may cost.
    """

    request: ChatRequest
    most_nanousd: int
    expected_nanousd: int


class Money:
    """What a request draws on. Attempts may be in flight, and wait for money, at the same time.

    Args:
        accounts: the hard budgets of the key and its team.
        spent_nanousd: what the attempts that have ended cost.
        write_opening: puts down that the request has begun: what it is expected to cost, and what
            is set aside for it.
    """

    def __init__(
        self,
        escrow: Source,
        accounts: tuple[Account, ...],
        spent_nanousd: Callable[[], int],
        write_opening: Callable[[int, int], None],
    ) -> None:
        self._escrow = escrow
        self._spent_nanousd = spent_nanousd
        self._write_opening = write_opening
        self._reservations: list[Reservation] = []
        self._held_nanousd = 0
        self._awaited_nanousd = 0  # asked for, and neither granted nor refused yet
        self._most_nanousd = 0  # of all attempts in flight, those that wait for money included
        self._expected_nanousd = 0
        self._too_much: QuotaExceeded | None = None
        self._refused_nanousd = 0
        self._is_settled = False
        self.accounts = accounts

    def hold(self, candidate: Candidate, request: ChatRequest) -> Held:
        """Set aside what an attempt may cost at most; pair with `release`.

        Whoever waits here counts as in flight, and what it waits for as set aside: the others can
        neither use it nor ask for it again.

        Raises:
            QuotaExceeded: the budgets do not allow for it. A dearer model is not asked for after.
            InvalidRequest: `price_unknown`.
            Unavailable: the database has to be asked and is away.
        """
        held = _held_for(candidate, request)
        self._most_nanousd += held.most_nanousd
        self._expected_nanousd += held.expected_nanousd
        try:
            covered_nanousd = self._held_nanousd + self._awaited_nanousd
            lacking_nanousd = self._spent_nanousd() + self._most_nanousd - covered_nanousd
            if lacking_nanousd > 0:
                self._reserve(lacking_nanousd)
                expected_nanousd = self._spent_nanousd() + self._expected_nanousd
                self._write_opening(expected_nanousd, self._held_nanousd)
        except BaseException:
            self.release(held)
            raise
        return held

    def release(self, held: Held) -> None:
        """An attempt is not in flight any more; what it cost is among what was spent."""
        self._most_nanousd -= held.most_nanousd
        self._expected_nanousd -= held.expected_nanousd

    def settle(self, cost_nanousd: int) -> None:
        """Give back what was not used, after the record of the request is safe."""
        self._is_settled = True
        for reservation in self._reservations:
            self._escrow.settle(reservation, cost_nanousd)
            cost_nanousd = 0
        self._reservations.clear()

    def _reserve(self, lacking_nanousd: int) -> None:
        if self._too_much is not None and lacking_nanousd >= self._refused_nanousd:
            raise self._too_much
        self._awaited_nanousd += lacking_nanousd
        try:
            reservation = self._escrow.reserve(self.accounts, lacking_nanousd)
        except QuotaExceeded as error:
            self._too_much, self._refused_nanousd = error, lacking_nanousd
            raise
        finally:
            self._awaited_nanousd -= lacking_nanousd
        if self._is_settled:  # it was given up while it waited
            self._escrow.settle(reservation, 0)
            raise Unavailable("the request is over")
        self._reservations.append(reservation)
        self._held_nanousd += lacking_nanousd


def _held_for(candidate: Candidate, request: ChatRequest) -> Held:
    model = candidate.model
    if request.output_tokens_max is None:
        limit = model.max_output_tokens or OUTPUT_TOKENS_UNLIMITED
        request = DIALECTS[request.dialect].limit_output(request, limit)
    most_nanousd = upper_bound_cost(model.price, request)
    if most_nanousd is None:
        raise InvalidRequest(
            f"the price of {model.id} is unknown, and the key has a hard budget",
            code="price_unknown",
            param="model",
        )
    return Held(request, most_nanousd, candidate.cost_nanousd or 0)

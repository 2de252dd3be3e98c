"""The money of one request: set aside before each attempt, settled once when it is recorded.

What was set aside only grows while the request lasts. Each time, the journal is told before the
provider is: if this worker dies, what the host's share loses and what the ledger gives back are the
same. Knows nothing of where the money comes from.
"""

from __future__ import annotations

from collections.abc import Callable

from tokenhub.budgets import Account
from tokenhub.dialects.openai import with_output_limit
from tokenhub.domain import Candidate, ChatRequest
from tokenhub.errors import InvalidRequest, QuotaExceeded
from tokenhub.escrow import Escrow, Reservation
from tokenhub.pricing import OUTPUT_TOKENS_UNLIMITED, upper_bound_cost


class Money:
    """What a request draws on.

    Args:
        accounts: the hard budgets of the key and its team.
        write_opening: puts down that the request has begun: what it is expected to cost, and what
            is set aside for it.
    """

    def __init__(
        self,
        escrow: Escrow,
        accounts: tuple[Account, ...],
        write_opening: Callable[[int, int], None],
    ) -> None:
        self._escrow = escrow
        self._write_opening = write_opening
        self._reservations: list[Reservation] = []
        self._held_nanousd = 0
        self._too_much: QuotaExceeded | None = None
        self._refused_nanousd = 0
        self.accounts = accounts

    def hold(self, candidate: Candidate, request: ChatRequest, spent_nanousd: int) -> ChatRequest:
        """Set aside what an attempt may cost at most.

        Args:
            spent_nanousd: what the attempts before it have cost.

        Returns: the request, with a limit of its answer if it had none: without one there is no
            most that it may cost.

        Raises:
            QuotaExceeded: the budgets do not allow for it. A dearer model is not asked for after.
            InvalidRequest: `price_unknown`.
            Unavailable: the database has to be asked and is away.
        """
        model = candidate.model
        if request.output_tokens_max is None:
            limit = model.max_output_tokens or OUTPUT_TOKENS_UNLIMITED
            request = with_output_limit(request, limit)
        most_nanousd = upper_bound_cost(model.price, request)
        if most_nanousd is None:
            raise InvalidRequest(
                f"the price of {model.id} is unknown, and the key has a hard budget",
                code="price_unknown",
                param="model",
            )
        lacking_nanousd = spent_nanousd + most_nanousd - self._held_nanousd
        if lacking_nanousd > 0:
            self._reserve(lacking_nanousd)
            expected_nanousd = spent_nanousd + (candidate.cost_nanousd or 0)
            self._write_opening(expected_nanousd, self._held_nanousd)
        return request

    def settle(self, cost_nanousd: int) -> None:
        """Give back what was not used, after the record of the request is safe."""
        for reservation in self._reservations:
            self._escrow.settle(reservation, cost_nanousd)
            cost_nanousd = 0
        self._reservations.clear()

    def _reserve(self, lacking_nanousd: int) -> None:
        if self._too_much is not None and lacking_nanousd >= self._refused_nanousd:
            raise self._too_much
        try:
            self._reservations.append(self._escrow.reserve(self.accounts, lacking_nanousd))
        except QuotaExceeded as error:
            self._too_much, self._refused_nanousd = error, lacking_nanousd
            raise
        self._held_nanousd += lacking_nanousd

"""Money set aside for requests: from this host's share, or from the database.

A request under a hard budget reserves what it may cost at most before a provider is asked, and
settles what it did cost once its record is safe in the journal. What this host's share lacks is
leased from the database: exactly as much, for all who wait at once. Knows nothing of requests; a
`Steward` gives back what is not used.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import gevent
from gevent.event import AsyncResult
from sqlalchemy import Connection

from tokenhub import store
from tokenhub.board import Board
from tokenhub.board.board import unix_ms
from tokenhub.board.purse import PurseFull
from tokenhub.board.rates import fingerprint_of
from tokenhub.budgets import Account, period_end
from tokenhub.db import Database, DatabaseAway
from tokenhub.errors import QuotaExceeded, TokenHubError, Unavailable
from tokenhub.pricing import usd

WAIT_SECS = 0.25
"""How long a request waits for what other hosts may give back before it is refused."""

DATABASE_SECS = 2.0
"""How long the database may take for a lease, the turns of others included."""

ASK_AGAIN_SECS = 0.05
"""Between two looks at whether other hosts have given back what they do not need."""

REMEMBER_SECS = 0.1
"""How long a refusal stands for all that want as much: they need not ask the database again."""

LATE_SECS = 2.5
"""A lease that took so long is not used: it may have been taken for forgotten by now."""

FULL = "too many budgets are in use on this host"

BATCH_MAX = 256
"""Requests on the same accounts that are served by one lease."""

LEASES_MAX = 16
"""Leases in one transaction: the more, the cheaper each, and the longer others wait for them."""

log = logging.getLogger("tokenhub.escrow")


class Reservation(NamedTuple):
    """Money set aside in every account."""

    accounts: tuple[Account, ...]
    names: tuple[int, ...]
    amount_nanousd: int


@dataclass(slots=True, eq=False)
class _Waiter:
    """A request that waits for money: `came` is the monotonic time since when."""

    amount: int
    came: float
    verdict: AsyncResult[Reservation] = field(default_factory=AsyncResult)

    @property
    def is_late(self) -> bool:
        return time.monotonic() - self.came > WAIT_SECS


@dataclass(slots=True, eq=False)
class _Queue:
    """Who waits for money of the same accounts.

    Args:
        rests_until: when (monotonic) it is worth asking again.
    """

    accounts: tuple[Account, ...]
    waiters: list[_Waiter] = field(default_factory=list)
    rests_until: float = 0.0


Verdict = Callable[[int], TokenHubError]
"""Makes the error of one request, for so much money: each has its own, for each is raised somewhere
else."""


@dataclass(slots=True)
class _Refusal:
    verdict: Verdict
    amount: int
    until: float


def name_of(account: Account) -> int:
    """What the board knows an account by."""
    return fingerprint_of(*map(str, account))


class Escrow:
    """One worker's way to money.

    Args:
        host_id: whose share of it this is.
    """

    def __init__(self, *, database: Database, board: Board, host_id: str) -> None:
        self._database = database
        self._board = board
        self._host_id = host_id
        self._queues: dict[tuple[Account, ...], _Queue] = {}
        self._is_serving = False
        self._refused: dict[tuple[Account, ...], _Refusal] = {}

    def reserve(self, accounts: Sequence[Account], amount_nanousd: int) -> Reservation:
        """Set money aside in every account, or in none; pair with `settle`.

        Raises:
            QuotaExceeded: `insufficient_quota`, or `budget_in_flight`.
            Unavailable: `budget_unavailable`: this host's share does not do, and the database does
                not answer.
        """
        try:
            return self._reserve(tuple(accounts), amount_nanousd)
        except TokenHubError as error:
            self._board.purse.note_refusal(error.code)
            raise

    def settle(self, reservation: Reservation, cost_nanousd: int) -> None:
        """End a reservation with what it did cost. Exactly once, after the record is safe: a worker
        that dies in between leaves the host with less than it has, never with more."""
        self._board.purse.settle(
            reservation.names, reservation.amount_nanousd, cost_nanousd, self._board.slot
        )

    def _reserve(self, wanted: tuple[Account, ...], amount_nanousd: int) -> Reservation:
        found = self._take(wanted, amount_nanousd)
        if found is not None:
            return found
        refused = self._refused.get(wanted)
        if refused is not None:
            if amount_nanousd >= refused.amount and time.monotonic() < refused.until:
                raise refused.verdict(amount_nanousd)
            del self._refused[wanted]
        return self._wait(wanted, _Waiter(amount_nanousd, time.monotonic()))

    def _take(self, accounts: tuple[Account, ...], amount: int) -> Reservation | None:
        """From this host's share, if that does."""
        names = tuple(map(name_of, accounts))
        try:
            lacks = self._board.purse.reserve(names, amount, self._board.slot)
        except PurseFull:
            raise _unavailable(FULL)(amount) from None
        return None if lacks else Reservation(accounts, names, amount)

    def _wait(self, accounts: tuple[Account, ...], waiter: _Waiter) -> Reservation:
        queue = self._queues.get(accounts)
        if queue is None:
            queue = self._queues[accounts] = _Queue(accounts)
        queue.waiters.append(waiter)
        if not self._is_serving:
            self._is_serving = True
            gevent.spawn(self._serve)
        try:
            found: Reservation = waiter.verdict.get()
        except BaseException:
            # Its caller left: what was set aside for it meanwhile is nobody's.
            if waiter in queue.waiters:
                queue.waiters.remove(waiter)
            elif waiter.verdict.successful():
                self.settle(waiter.verdict.get(), 0)
            raise
        return found

    def _serve(self) -> None:
        """Lease for all who wait, until nobody does."""
        try:
            while self._queues:
                self._serve_some()
        except Exception as error:  # those who wait must not do so for ever
            log.exception("money could not be leased")
            self._tell_all(self._queues.values(), type(error).__name__)
            self._queues.clear()
        finally:
            self._is_serving = False

    def _serve_some(self) -> None:
        now, due = time.monotonic(), []
        for queue in [*self._queues.values()]:
            self._serve_from_share(queue)
            if not queue.waiters:
                del self._queues[queue.accounts]
            elif queue.rests_until <= now:
                due.append(queue)
        if due:
            self._lease(due[:LEASES_MAX])
        elif self._queues:
            wakes_at = min(queue.rests_until for queue in self._queues.values())
            gevent.sleep(max(0.0, min(wakes_at - now, ASK_AGAIN_SECS)))

    def _serve_from_share(self, queue: _Queue) -> None:
        """What this host has may do by now: others have settled."""
        while queue.waiters:
            try:
                found = self._take(queue.accounts, queue.waiters[0].amount)
            except Unavailable as error:
                queue.waiters.pop(0).verdict.set_exception(error)
                continue
            if found is None:
                return
            queue.waiters.pop(0).verdict.set(found)

    def _lease(self, queues: Sequence[_Queue]) -> None:
        """One transaction for the first of those who wait in each queue; serves or refuses them, or
        lets them wait for what other hosts may give back."""
        began = time.monotonic()
        asked = [[each.amount for each in queue.waiters[:BATCH_MAX]] for queue in queues]
        try:
            leases = self._lease_all(queues, asked)
        except DatabaseAway:
            self._tell_all(queues, "the database is away")
            return
        if time.monotonic() - began > LATE_SECS:
            self._tell_all(queues, "the database was slow")
            return
        for queue, leased, amounts in zip(queues, leases, asked, strict=True):
            self._take_lease(queue, leased, amounts)
        resting = [each for queue in queues if queue.rests_until > began for each in queue.accounts]
        if resting:
            self._ask_back(resting)

    def _lease_all(
        self, queues: Sequence[_Queue], asked: Sequence[Sequence[int]]
    ) -> list[store.Leased]:
        accounts = sorted({account for queue in queues for account in queue.accounts})
        have = {account: self._free(account) for account in accounts}
        wants = [{account: have[account] for account in queue.accounts} for queue in queues]

        def work(connection: Connection) -> list[store.Leased]:
            store.begin_leases(connection, accounts)
            return [
                store.lease_money(connection, self._host_id, each, amounts)
                for each, amounts in zip(wants, asked, strict=True)
            ]

        self._board.purse.note_lease()
        return self._database.write(work, timeout_secs=DATABASE_SECS)

    def _take_lease(self, queue: _Queue, leased: store.Leased, amounts: Sequence[int]) -> None:
        """Serve whom a lease was for. If there is not enough for somebody, but may be soon, they
        wait, else all who want as much are told; it is the others' turn after that."""
        if any(leased.amounts):
            self._board.purse.deposit(tuple(map(name_of, queue.accounts)), leased.amounts)
            self._serve_from_share(queue)
        if leased.short is None or not queue.waiters:
            return
        amount, (ledger, limit) = amounts[leased.served], leased.short
        has_hope = leased.elsewhere_nanousd > 0
        told = [
            each
            for each in queue.waiters
            if each.amount >= amount
            and (not has_hope or each.is_late or each.amount > ledger.spendable(limit))
        ]
        if told:
            self._tell(queue, told, partial(_refusal, ledger, limit))
        elif has_hope:
            queue.rests_until = time.monotonic() + ASK_AGAIN_SECS

    def _ask_back(self, accounts: Sequence[Account]) -> None:
        try:
            self._database.write(
                lambda connection: store.ask_back(connection, accounts, unix_ms()),
                timeout_secs=DATABASE_SECS,
            )
        except DatabaseAway:
            log.debug("other hosts were not asked")

    def _tell_all(self, queues: Iterable[_Queue], reason: str) -> None:
        for queue in queues:
            self._tell(queue, queue.waiters[:], _unavailable(reason))

    def _tell(self, queue: _Queue, told: Sequence[_Waiter], verdict: Verdict) -> None:
        """Refuse some, and for a moment all who want as much."""
        if not told:
            return
        if len(self._refused) > BATCH_MAX:
            self._refused.clear()
        least = min(each.amount for each in told)
        until = time.monotonic() + REMEMBER_SECS
        self._refused[queue.accounts] = _Refusal(verdict, least, until)
        for waiter in told:
            queue.waiters.remove(waiter)
            waiter.verdict.set_exception(verdict(waiter.amount))

    def _free(self, account: Account) -> int:
        holding = self._board.purse.look(name_of(account))
        return 0 if holding is None else holding.available_nanousd - holding.reserved_nanousd


def _refusal(ledger: store.Ledger, limit_nanousd: int, amount_nanousd: int) -> QuotaExceeded:
    """Why there is no money: it is spent, or only reserved by requests in flight."""
    account = ledger.account
    resets_at = period_end(account.period, account.start_at)
    details = {
        "subject": f"{account.subject_kind}:{account.subject_id}",
        "period": account.period,
        "limit_usd": usd(limit_nanousd),
        "spent_usd": usd(ledger.spent_nanousd - ledger.credited_nanousd),
        "resets_at": resets_at,
    }
    whose = "key's" if account.subject_kind == "key" else "team's"
    if amount_nanousd > ledger.spendable(limit_nanousd):
        return QuotaExceeded(
            f"the {whose} budget for the {account.period} does not allow for this request"
            if account.period != "total"
            else f"the {whose} total budget does not allow for this request",
            headers={"x-should-retry": "false"},
            details=details,
        )
    return QuotaExceeded(
        f"what is left of the {whose} budget is reserved by requests in flight",
        code="budget_in_flight",
        headers={"Retry-After": "1", "x-should-retry": "true"},
        details=details,
    )


def _unavailable(reason: str) -> Callable[[int], Unavailable]:
    return lambda _: Unavailable(
        f"the budget cannot be checked now: {reason}",
        code="budget_unavailable",
        headers={"Retry-After": "1"},
    )

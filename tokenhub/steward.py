"""Keeps this host's share of everybody's money small: what is not used goes back. The leader's.

Whatever it leaves undone is done by the next leader; money that was taken off the board and did not
reach the database is found again as a share that nobody holds. Knows nothing of requests.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence

from sqlalchemy import Connection

from tokenhub import store
from tokenhub.board import Board
from tokenhub.budgets import Account
from tokenhub.db import Database
from tokenhub.escrow import name_of

TICK_SECS = 0.1
IDLE_SECS = 1.0
"""Money that nobody asked for so long goes back."""

WANTED_SECS = 2.0
"""A call to give back is heard for so long."""

STRANDED_SECS = 3.0
"""A share that stays as it is for so long, while the board has nothing of it and the journal tells
of nothing, is nobody's: a lease is put on the board, or given up, sooner than that."""

REST_FACTOR = 3
"""With very many shares a look takes a while; the next one waits so many times as long."""

LOOK_SECS = 10.0
"""How long after somebody has asked for money the database is asked whether any came."""

CHANGES_MAX = 200
"""Shares that are changed in one transaction."""

log = logging.getLogger("tokenhub.steward")

Shares = Mapping[Account, tuple[int, int]]


class Steward:
    """What the leader of a host does about its shares.

    Args:
        caught_up_at: when (monotonic seconds) the journal was last wholly in the database; from
            then on a share holds nothing that is merely not entered yet.
        now: monotonic seconds.
    """

    def __init__(
        self,
        *,
        database: Database,
        board: Board,
        host_id: str,
        caught_up_at: Callable[[], float],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._board = board
        self._host_id = host_id
        self._caught_up_at = caught_up_at
        self._now = now
        self._leases = -1  # there may be shares of a past run
        self._look_until = 0.0
        self._may_hold = True
        self._heard: dict[Account, tuple[int, float]] = {}
        self._stranded: dict[Account, tuple[int, float]] = {}

    def tick(self) -> float:
        """Give back what is not used; returns the seconds to wait before the next time.

        Raises:
            DatabaseAway: try again later.
        """
        leases = self._board.purse.leases
        if leases != self._leases:
            self._leases, self._look_until = leases, self._now() + LOOK_SECS
        if not self._may_hold and self._now() >= self._look_until:
            return TICK_SECS
        began = self._now()
        shares = self._read_shares()
        self._may_hold = bool(shares)
        self._return_idle(shares)
        self._release_stranded(shares)
        return max(TICK_SECS, (self._now() - began) * REST_FACTOR)

    def leave(self) -> None:
        """Give back all that no request has set aside: this host ends.

        Raises:
            DatabaseAway: it is found when the host is started again.
        """
        if self._may_hold or self._board.purse.leases != self._leases:
            self._give_back(list(self._read_shares()))

    def _read_shares(self) -> Shares:
        return self._database.read(lambda found: store.list_shares(found, self._host_id))

    def _return_idle(self, shares: Shares) -> None:
        purse = self._board.purse
        self._hear(shares)
        due = []
        for account in shares:
            holding = purse.look(name_of(account))
            if holding is None:
                continue
            is_wanted = self._now() - self._heard[account][1] < WANTED_SECS
            if holding.idle_secs >= IDLE_SECS or is_wanted:
                due.append(account)
        self._give_back(due)

    def _give_back(self, accounts: Sequence[Account]) -> None:
        """Take what is free off the board, and then off this host's shares."""
        for start in range(0, len(accounts), CHANGES_MAX):
            some = accounts[start : start + CHANGES_MAX]
            taken = {each: self._board.purse.withdraw(name_of(each)) for each in some}
            amounts = {account: amount for account, amount in taken.items() if amount}
            if amounts:
                self._write_back(amounts)

    def _write_back(self, amounts: Mapping[Account, int]) -> None:
        self._database.write(
            lambda connection: store.give_back_money(connection, self._host_id, amounts)
        )

    def _hear(self, shares: Shares) -> None:
        """Note when each account was first seen to be wanted anew: by our clock, for nobody knows
        how the others' are set."""
        now = self._now()
        for account, (_, wanted_at) in shares.items():
            if self._heard.get(account, (0, 0.0))[0] != wanted_at:
                self._heard[account] = (wanted_at, now)
            self._heard.setdefault(account, (0, float("-inf")))
        for account in self._heard.keys() - shares.keys():
            del self._heard[account]

    def _release_stranded(self, shares: Shares) -> None:
        """Give up what nobody has: its worker died, or it was lost on its way."""
        stranded = {account: each for account, each in shares.items() if self._is_nowhere(account)}
        seen, now = self._stranded, self._now()
        self._stranded = {
            account: known
            if (known := seen.get(account)) and known[0] == granted
            else (granted, now)
            for account, (granted, _) in stranded.items()
        }
        due = [
            (account, granted)
            for account, (granted, since) in sorted(self._stranded.items())
            if now - since >= STRANDED_SECS and self._caught_up_at() >= since
        ]
        if due:
            self._release(due[:CHANGES_MAX])

    def _is_nowhere(self, account: Account) -> bool:
        """Whether the board has nothing of an account, and all that it had is in the database."""
        holding = self._board.purse.look(name_of(account))
        if holding is None:
            return self._caught_up_at() > float("-inf")
        if holding.available_nanousd or holding.reserved_nanousd:
            return False
        return self._caught_up_at() > self._now() - holding.idle_secs

    def _release(self, due: Sequence[tuple[Account, int]]) -> None:
        def work(connection: Connection) -> int:
            return sum(
                granted
                for account, granted in due
                if store.release_share(connection, self._host_id, account, granted)
            )

        released_nanousd = self._database.write(work)
        if released_nanousd:
            log.info("stranded money released", extra={"nanousd": released_nanousd})

"""The money that this host may spend without asking: what each account has, and what is reserved.

What a worker has reserved is in a column of its slot, so that it can be taken off the account when
the worker dies: whether the provider will charge for what was in flight, nobody here can know.
Nothing here knows whose an account is or where its money comes from.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tokenhub.board.memory import Memory
from tokenhub.board.places import REACH, Places

ACCOUNTS = 1 << 14
"""Most accounts with money or reservations at a time; beyond that reservations are refused."""

REFUSALS = ("insufficient_quota", "budget_in_flight", "budget_unavailable")
"""Why a request gets no money."""

KEEP_NS = 60 * 10**9
"""An account keeps its row so long after its last use; with money in it, for as long as it has."""


class PurseFull(Exception):
    """There is no row left for another account."""


class Holding(NamedTuple):
    """What an account has on this host, and how long ago anything of it was moved."""

    available_nanousd: int
    reserved_nanousd: int
    idle_secs: float


class Purse:
    """Accounts in shared memory, by fingerprint (64 bits, not 0).

    Args:
        now_ns: a clock that all processes of this host share, and that never goes back.
    """

    def __init__(
        self, memory: Memory, *, slots: int, now_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._memory = memory
        self._words = memory.words
        self._slots = slots
        self._now_ns = now_ns
        self._leases = memory.reserve(1)
        self._refused = memory.reserve(len(REFUSALS))
        self._places = Places(memory, ACCOUNTS, self._is_held)
        rows = ACCOUNTS + REACH
        self._available = memory.reserve(rows)
        self._touched_ns = memory.reserve(rows)
        # Slot by slot, so that a dead worker's can be found at once.
        self._reserved = memory.reserve(rows * slots)
        self._rows = rows

    @property
    def leases(self) -> int:
        """How often money was asked for; a host that never did has none to give back."""
        return self._words[self._leases]

    def note_lease(self) -> None:
        """Money is about to be asked for; whether or not it arrives, somebody should look."""
        with self._memory.lock():
            self._words[self._leases] += 1

    def note_refusal(self, code: str) -> None:
        """Count a request that gets no money; one of REFUSALS."""
        with self._memory.lock():
            self._words[self._refused + REFUSALS.index(code)] += 1

    def refusals(self) -> dict[str, int]:
        """How many requests got no money, by the reason."""
        return {code: self._words[self._refused + at] for at, code in enumerate(REFUSALS)}

    def reserve(self, accounts: Sequence[int], amount: int, slot: int) -> list[int]:
        """Set `amount` aside in every account, or in none.

        Returns: nothing if it was done; else what each account lacks (0 for those that do not).

        Raises:
            PurseFull: an account has no row and there is none left.
        """
        with self._memory.lock():
            rows = [self._row_of(account) for account in accounts]
            lacks = [max(0, amount - self._free(row)) for row in rows]
            if any(lacks):
                return lacks
            for row in rows:
                self._words[self._reserved + slot * self._rows + row] += amount
                self._touch(row)
        return []

    def deposit(self, accounts: Sequence[int], amounts: Sequence[int]) -> None:
        """Put in what the database has granted.

        Raises:
            PurseFull: as `reserve`; then nothing was put in anywhere.
        """
        with self._memory.lock():
            rows = [self._row_of(account) for account in accounts]
            for row, amount in zip(rows, amounts, strict=True):
                self._words[self._available + row] += amount
                self._touch(row)

    def settle(self, accounts: Sequence[int], amount: int, cost: int, slot: int) -> None:
        """End a reservation: `amount` is free again, less what it has really cost.

        The cost may be more than was reserved: then others find less, or even less than nothing.
        """
        with self._memory.lock():
            for account in accounts:
                row = self._row_of(account)
                # In this order: who is killed in between leaves less than there is, never more.
                self._words[self._available + row] -= cost
                self._words[self._reserved + slot * self._rows + row] -= amount
                self._touch(row)

    def withdraw(self, account: int) -> int:
        """Take out what is not reserved. Negative when more was spent than there was."""
        with self._memory.lock():
            row = self._places.find(account)
            if row is None:
                return 0
            reserved = self._reserved_in(row)
            free = self._words[self._available + row] - reserved
            taken = max(0, free) if reserved else free
            self._words[self._available + row] -= taken
        return taken

    def look(self, account: int) -> Holding | None:
        """What an account has, or None if it has no row."""
        row = self._places.find(account)
        if row is None:
            return None
        idle_ns = self._now_ns() - self._words[self._touched_ns + row]
        return Holding(self._words[self._available + row], self._reserved_in(row), idle_ns / 1e9)

    def clear_slot(self, slot: int) -> None:
        """A worker is gone: what it had reserved counts as spent."""
        start = self._reserved + slot * self._rows
        with self._memory.lock():
            for row, amount in enumerate(self._words[start : start + self._rows].tolist()):
                if amount:
                    self._words[start + row] = 0
                    self._words[self._available + row] -= amount
                    self._touch(row)

    def _touch(self, row: int) -> None:
        """Note that money was moved; who asks in vain moves none."""
        self._words[self._touched_ns + row] = self._now_ns()

    def _row_of(self, account: int) -> int:
        """The row of an account, taken for it if need be."""
        now_ns = self._now_ns()
        row = self._places.find(account)
        if row is None:
            row = self._places.take(account, now_ns, until_ns=now_ns + KEEP_NS)
            if row is None:
                raise PurseFull
            self._touch(row)
        self._places.keep(row, now_ns + KEEP_NS)
        return row

    def _free(self, row: int) -> int:
        return self._words[self._available + row] - self._reserved_in(row)

    def _reserved_in(self, row: int) -> int:
        start = self._reserved + row
        return sum(self._words[start + slot * self._rows] for slot in range(self._slots))

    def _is_held(self, row: int) -> bool:
        return self._words[self._available + row] != 0 or self._reserved_in(row) != 0


def words_for(slots: int) -> int:
    """How many words a `Purse` needs; most are never touched."""
    return 1 + len(REFUSALS) + (ACCOUNTS + REACH) * (4 + slots)

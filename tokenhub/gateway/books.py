"""What one request writes down while it lasts: its attempts, its openings, whose time it took.

All calls of the request share it, those that run at the same time too: nothing here yields but for
money. Knows nothing of who is asked next.
"""

from __future__ import annotations

import time
from typing import Any

from tokenhub.budgets import hard_accounts
from tokenhub.catalog import Snapshot
from tokenhub.domain import Attempt, Outcome
from tokenhub.gateway.gateway import Gateway
from tokenhub.gateway.money import Money


class Books:
    """One request's.

    Attributes:
        began: when it came, in monotonic seconds.
        upstream_secs: how long a provider was at work for it, or several at once.
        was_opened: an opening record was written.
        money: what it draws on, if a hard budget limits it.
    """

    __slots__ = ("_at_work", "_recorder", "_since", "_starts", "began", "money", "outcome",
                 "upstream_secs", "was_opened")  # fmt: skip

    def __init__(self, gateway: Gateway, snapshot: Snapshot, outcome: Outcome) -> None:
        self._recorder = gateway.recorder
        self.outcome = outcome
        self.began = time.monotonic()
        self.upstream_secs = 0.0
        self.was_opened = False
        self._at_work = 0
        self._since = 0.0
        self._starts: list[float] = []  # of the attempts, as they are written down
        self.money = self._find_money(gateway, snapshot) if snapshot.budgets else None

    def begin_work(self, now: float) -> None:
        """A provider is about to be asked, at the monotonic time `now`."""
        if not self._at_work:
            self._since = now
        self._at_work += 1

    def end_work(self) -> None:
        """One of those that were asked is done."""
        self._at_work -= 1
        if not self._at_work:
            self.upstream_secs += time.monotonic() - self._since

    def add(self, attempt: Attempt, began: float) -> None:
        """Write down an attempt that began at this monotonic time."""
        outcome = self.outcome
        outcome.attempts.append(attempt)
        self._starts.append(began)
        outcome.model_id = attempt.model_id
        outcome.provider_id = attempt.provider_id

    def skip(self, model_id: str, reason: str) -> None:
        """Write down why a model was not asked after all."""
        self.outcome.skips = {**self.outcome.skips, model_id: reason}

    def put_in_order(self) -> None:
        """The attempts as they began: of those that were at work at once, another may have ended
        first."""
        attempts = self.outcome.attempts
        if len(attempts) > 1:
            order = sorted(range(len(attempts)), key=self._starts.__getitem__)
            attempts[:] = [attempts[number] for number in order]

    def open(self, cost_nanousd: int | None, **held: Any) -> None:
        """Write down that the request has begun; see `Recorder.open`."""
        self._recorder.open(self.outcome, cost_nanousd, **held)
        self.was_opened = True

    def _find_money(self, gateway: Gateway, snapshot: Snapshot) -> Money | None:
        outcome = self.outcome
        subjects = (("key", outcome.key_id), ("team", outcome.team_id))
        accounts = hard_accounts(snapshot.budgets, subjects, outcome.started_at)
        if not accounts:
            return None

        def spent_nanousd() -> int:
            return sum(attempt.cost_nanousd or 0 for attempt in outcome.attempts)

        def write_opening(expected_nanousd: int, reserved_nanousd: int) -> None:
            self.open(expected_nanousd, accounts=accounts, reserved_nanousd=reserved_nanousd)

        return Money(gateway.escrow, accounts, spent_nanousd, write_opening)

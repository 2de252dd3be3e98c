"""Which budgets a request draws on, and in which period.

A budget is a limit on what a key or a team spends in a day, a month (both by the UTC calendar) or
altogether. An account is one budget in one period: what is reserved, leased and settled is counted
by account. Pure: the time is an argument, and nothing here knows where the money is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

SubjectKind = Literal["key", "team"]
SUBJECT_KINDS: tuple[SubjectKind, ...] = ("key", "team")

Period = Literal["day", "month", "total"]
PERIODS: tuple[Period, ...] = ("day", "month", "total")

BudgetMode = Literal["enforce", "shadow"]
BUDGET_MODES: tuple[BudgetMode, ...] = ("enforce", "shadow")
"""shadow: nobody is refused yet, and operators are told when somebody would be."""

ALERT_PERCENTS = (80, 100)
"""How much of a budget must be spent for an operator to be told."""

Subject = tuple[str, str]
"""kind and id: whose money it is."""


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit on what one subject spends in each period.

    Args:
        is_hard: requests that would pass it are refused; a soft one only alerts.
        mode: of a hard one, whether it is enforced yet.
    """

    subject_kind: SubjectKind
    subject_id: str
    period: Period
    limit_nanousd: int
    is_hard: bool = True
    mode: BudgetMode = "enforce"
    created_at: int = 0
    revision: int = 1

    @property
    def subject(self) -> Subject:
        return (self.subject_kind, self.subject_id)

    @property
    def refuses(self) -> bool:
        """Whether requests are refused for its sake."""
        return self.is_hard and self.mode == "enforce"


class Account(NamedTuple):
    """One subject's money in one period; the key of its ledger."""

    subject_kind: str
    subject_id: str
    period: str
    start_at: int


def period_start(period: str, at: int) -> int:
    """When the period that `at` lies in began; 0 for `total`. Unix milliseconds, UTC."""
    if period == "total":
        return 0
    moment = datetime.fromtimestamp(at / 1000, UTC)
    day = 1 if period == "month" else moment.day
    return int(datetime(moment.year, moment.month, day, tzinfo=UTC).timestamp()) * 1000


def period_end(period: str, at: int) -> int | None:
    """When the next period begins; None for `total`, which never ends."""
    if period == "total":
        return None
    moment = datetime.fromtimestamp(period_start(period, at) / 1000, UTC)
    # Past the end of any month, or of this day alone.
    later = moment + timedelta(days=32 if period == "month" else 1)
    return period_start(period, int(later.timestamp()) * 1000)


def accounts_of(subject_kind: str, subject_id: str, at: int) -> list[Account]:
    """All accounts of a subject at a time, budget or none."""
    return [
        Account(subject_kind, subject_id, period, period_start(period, at)) for period in PERIODS
    ]


def hard_accounts(
    budgets: Mapping[Subject, Sequence[Budget]], subjects: Iterable[Subject], at: int
) -> tuple[Account, ...]:
    """The accounts that must have money before a request of these subjects is sent; sorted, so
    that whoever locks them does so in one order."""
    if not budgets:
        return ()
    found = [
        Account(*budget.subject, budget.period, period_start(budget.period, at))
        for subject in subjects
        for budget in budgets.get(subject, ())
        if budget.refuses
    ]
    return tuple(sorted(found))


def alert_percent(spent_nanousd: int, limit_nanousd: int) -> int:
    """The highest of ALERT_PERCENTS that has been reached; 0 if none."""
    reached = [
        percent for percent in ALERT_PERCENTS if spent_nanousd * 100 >= limit_nanousd * percent
    ]
    return max(reached, default=0)

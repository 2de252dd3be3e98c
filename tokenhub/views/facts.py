"""What there is to judge: read in one transaction, or from memory while the database is away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from sqlalchemy import Connection, RowMapping

from tokenhub import store
from tokenhub.board.vitals import Vitals
from tokenhub.budgets import PERIODS, Budget, period_end, period_start
from tokenhub.catalog import Snapshot
from tokenhub.db.sums_tables import ATTEMPTS, REQUESTS, Family
from tokenhub.forecast import DAY_MS, DAYS, Forecast, forecast, whole_days
from tokenhub.store import HostState, Ledger, spending
from tokenhub.store.series import Point, Query, read_series
from tokenhub.store.snoozes import Snooze, load_snoozes
from tokenhub.store.standing import Standing, list_ill

RECENT_MS = 300_000
"""How far back it is looked for failures."""

HOSTS_MAX = 1000

LOCKED_OUT = "vault_locked"
"""The error class of requests that found the vault locked."""


class HostFact(NamedTuple):
    """A host, as it was last heard of.

    Args:
        seen_at: unix ms by the database's clock.
        state: None = it said nothing.
    """

    id: str
    name: str
    version: str
    started_at: int
    seen_at: int
    is_live: bool
    has_ended: bool
    state: HostState | None


class BudgetFact(NamedTuple):
    """A budget in its running period.

    Args:
        spent_nanousd: what counts against it.
        ahead: by the end of the period, or in a month's time if it has none; None = nobody knows.
    """

    budget: Budget
    name: str
    spent_nanousd: int
    ahead: Forecast | None


@dataclass(frozen=True)
class Facts:
    """All that is judged.

    Args:
        now: unix ms.
        is_away: the database is; the rest is what this host remembers.
        attempts: of the last minutes, by model and provider, then by error class ("" = none).
        lost: requests of the last minutes that came to nothing, by the provider that failed last.
        unpriced: attempts of the last day without a price, by model.
        locked_out: requests of the last day that found the vault locked.
        prices_due_ms: how old the price table may be; 0 = nobody refreshes it.
    """

    now: int
    snapshot: Snapshot
    hosts: Sequence[HostFact]
    ill: Sequence[Standing]
    is_away: bool = False
    attempts: Mapping[tuple[str, str], Mapping[str, int]] = field(default_factory=dict)
    lost: Mapping[str, int] = field(default_factory=dict)
    unpriced: Mapping[str, int] = field(default_factory=dict)
    locked_out: int = 0
    budgets: Sequence[BudgetFact] = ()
    snoozes: Mapping[str, Snooze] = field(default_factory=dict)
    prices_due_ms: int = 0

    @cached_property
    def live(self) -> list[HostFact]:
        """The hosts that live."""
        return [each for each in self.hosts if each.is_live]

    def host_name(self, host_id: str) -> str:
        """What people call a host."""
        return next((each.name for each in self.hosts if each.id == host_id), host_id)


def read(connection: Connection, snapshot: Snapshot, now: int, prices_due_ms: int) -> Facts:
    """Everything, from the database."""
    rows, _ = store.list_hosts(connection, HOSTS_MAX, 0)
    hosts = [_host(each) for each in rows]
    started = {each.id: each.started_at for each in hosts if each.is_live}
    is_locked = any(each.is_live and each.state and each.state.vault_locked for each in hosts)
    return Facts(
        now=now,
        snapshot=snapshot,
        hosts=hosts,
        ill=list_ill(connection, started),
        attempts=_attempts(connection, now),
        lost=_lost(connection, now),
        unpriced=_unpriced(connection, now),
        locked_out=_locked_out(connection, now) if is_locked else 0,
        budgets=read_budgets(connection, now),
        snoozes=load_snoozes(connection, now),
        prices_due_ms=prices_due_ms,
    )


def remember(
    vitals: Vitals, snapshot: Snapshot, host: HostFact, now: int, prices_due_ms: int
) -> Facts:
    """What this host knows without the database."""
    ill = [
        Standing(host.id, each.kind, each.id, "down", each.breaker, each.last_error,
                 each.last_failure_at, each.cooldown_until)
        for each in vitals.list_all()
        if each.state == "down"
    ]  # fmt: skip
    return Facts(now, snapshot, [host], ill, is_away=True, prices_due_ms=prices_due_ms)


def read_budgets(connection: Connection, now: int) -> list[BudgetFact]:
    """All budgets with what was spent and what is to come."""
    starts = {period: period_start(period, now) for period in PERIODS}
    running = spending.list_running(connection, starts)
    if not running:
        return []
    days = spending.daily_spending(connection, starts["day"] - DAYS * DAY_MS)
    owners = spending.find_owners(connection)
    return [
        _budget(budget, ledger, days.get(budget.subject, {}), owners.get(budget.subject), now)
        for budget, ledger in running
    ]


def read_total(connection: Connection, now: int) -> tuple[int, Forecast | None]:
    """What everybody has spent this month, and will have by its end."""
    month, today = period_start("month", now), period_start("day", now)
    week = today - DAYS * DAY_MS
    days = spending.daily_total(connection, min(month, week))
    spent = sum(nanos for at, nanos in days.items() if at >= month)
    first = spending.first_day(connection)
    recent = {at: nanos for at, nanos in days.items() if week <= at < today}
    behind = [] if first is None else whole_days(recent, first, today)
    return spent, forecast(spent, behind, (period_end("month", now) or now) - now)


def _budget(
    budget: Budget,
    ledger: Ledger,
    days: spending.Days,
    owner: tuple[str, int] | None,
    now: int,
) -> BudgetFact:
    today = period_start("day", now)
    name, created_at = owner or (budget.subject_id, now)
    behind = whole_days({at: n for at, n in days.items() if at < today}, created_at, today)
    spent = ledger.spent_nanousd - ledger.credited_nanousd
    # One that never begins anew is looked at a month ahead.
    end = period_end(budget.period, now) or now + 30 * DAY_MS
    return BudgetFact(budget, name, spent, forecast(spent, behind, end - now))


def _host(row: RowMapping) -> HostFact:
    return HostFact(
        row["id"], row["name"], row["version"], row["started_at"], row["seen_at"],
        bool(row["is_live"]), row["ended_at"] is not None, store.host_state_of(row),
    )  # fmt: skip


def _sum(
    connection: Connection,
    family: Family,
    span: tuple[int, int],
    group: tuple[str, ...],
    *values: str,
    **where: tuple[str, ...],
) -> list[Point]:
    """What the time before `span`'s end came to."""
    length_ms, now = span
    query = Query(family, now - length_ms, now, None, group, where, {}, values)
    return read_series(connection, query, now)


def _attempts(connection: Connection, now: int) -> dict[tuple[str, str], dict[str, int]]:
    found: dict[tuple[str, str], dict[str, int]] = {}
    group = ("model_id", "provider_id", "error_class")
    for (model_id, provider_id, word), _, values in _sum(
        connection, ATTEMPTS, (RECENT_MS, now), group, "attempts"
    ):
        found.setdefault((model_id, provider_id), {})[word] = values["attempts"]
    return found


def _lost(connection: Connection, now: int) -> dict[str, int]:
    points = _sum(
        connection, REQUESTS, (RECENT_MS, now), ("provider_id",), "requests",
        ending=("failed", "cut"),
    )  # fmt: skip
    return {provider_id: values["requests"] for (provider_id,), _, values in points}


def _unpriced(connection: Connection, now: int) -> dict[str, int]:
    points = _sum(connection, ATTEMPTS, (DAY_MS, now), ("model_id",), "unpriced")
    return {model_id: values["unpriced"] for (model_id,), _, values in points}


def _locked_out(connection: Connection, now: int) -> int:
    span = (DAY_MS, now)
    points = _sum(connection, REQUESTS, span, (), "requests", error_class=(LOCKED_OUT,))
    return sum(each.values["requests"] for each in points)

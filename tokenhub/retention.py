"""How long things are kept, and the job that lets them go.

A little at a time: each transaction deletes as many rows as take a moment, and others have their
turn in between. What is not reached in its time is next time's; nothing is lost by stopping.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection

from tokenhub.db import Database
from tokenhub.store import hosts, options, retention, rollups
from tokenhub.store.series import BUCKETS_DAYS

DAY_MS = rollups.DAY_MS

EVENTS_DAYS = 30
HOURS_DAYS = 400
CHANGES_DAYS = 7
FAILED_RUNS_DAYS, RUNS_DAYS = 30, 2
SHARES_DAYS = 40
"""Longer than a month, whose shares may be in use to its end."""
HOSTS_DAYS = 90
LOST_DAYS = 400
"""After which the journal of a host that was not seen is not waited for any more."""
PRICES_SPARE_DAYS = 30
"""How much longer than requests their prices are kept: a row may come late."""

ROWS_FIRST, ROWS_MIN, ROWS_MAX = 200, 20, 1000
TURN_SECS = 0.02
"""How long one transaction should take: whoever wants to write waits for it on SQLite."""
PAUSE_SECS = 0.03
RULE_SECS = 30.0
"""How long one table may take at a time."""

SETTLED_MS = 120_000
"""Buckets are rolled up when they are so old: most of what belongs to them has come by then."""
ROLL_UP_SECS = 120.0

log = logging.getLogger("tokenhub.retention")


@dataclass(frozen=True)
class Rule:
    """One thing that is not kept for ever.

    Args:
        prune: deletes what is older than a time.
        days: how old it may become.
        option: what an administrator may have set instead.
    """

    name: str
    prune: retention.Prune
    days: int
    option: str = ""


SERIES = (
    Rule("rollup_hours", retention.prune_hours, HOURS_DAYS, options.TSDB_RETENTION_DAYS),
    Rule("attempt_hours", retention.prune_attempt_hours, HOURS_DAYS, options.TSDB_RETENTION_DAYS),
)
"""What the retention of time series is about: sums by the hour. Those by the day stay, and so does
whatever budgets and spend are reckoned by."""


def rules_of(log_days: int) -> tuple[Rule, ...]:
    """All rules; `docs/operations.md` shows them.

    Args:
        log_days: how long the logs are kept.
    """
    return (
        Rule("request_logs", retention.prune_requests, log_days),
        Rule("audit_logs", retention.prune_audit, log_days),
        Rule("feedback", retention.prune_feedback, log_days),
        Rule("price_versions", retention.prune_prices, log_days + PRICES_SPARE_DAYS),
        Rule("buckets", retention.prune_buckets, BUCKETS_DAYS),
        *SERIES,
        Rule("events", retention.prune_events, EVENTS_DAYS),
        Rule("changes", retention.prune_changes, CHANGES_DAYS),
        Rule("job_runs", retention.prune_job_runs, FAILED_RUNS_DAYS),
        Rule("job_runs_done", retention.prune_good_runs, RUNS_DAYS),
        Rule("admin_sessions", retention.prune_sessions, 0),
        Rule("idempotency_keys", retention.prune_answers, 0),
        Rule("budget_ledgers", retention.prune_ledgers, HOURS_DAYS),
        Rule("budget_alerts", retention.prune_alerts, HOURS_DAYS),
        Rule("budget_shares", retention.prune_shares, SHARES_DAYS),
        Rule("openings", retention.prune_openings, LOST_DAYS),
        Rule("journal_offsets", retention.prune_positions, LOST_DAYS),
        Rule("hosts", retention.prune_hosts, HOSTS_DAYS),
    )


def prune(database: Database, rules: Sequence[Rule]) -> dict[str, int]:
    """Let go of what is too old, by the database's clock; returns how many rows of what.

    Raises:
        DatabaseAway: what was deleted until then stays so.
    """
    now = database.read(hosts.now_ms)
    counts = {}
    for rule in rules:
        days = database.read(partial(_days_of, rule)) if rule.option else rule.days
        work = partial(_apply, rule, now - days * DAY_MS)
        deleted = _in_turns(database, work, RULE_SECS)
        if deleted:
            counts[rule.name] = deleted
    if counts:
        log.info("old rows are gone", extra={"rows": counts})
    return counts


def prune_series(database: Database) -> int:
    """Let go now of the sums by the hour that are too old; returns how many.

    Raises:
        DatabaseAway: what was deleted until then stays so.
    """
    return sum(prune(database, SERIES).values())


def load_series_days(connection: Connection) -> int:
    """How many days sums by the hour are kept."""
    return _days_of(SERIES[0], connection)


def roll_up(database: Database) -> dict[str, int]:
    """Add what has settled to its hour and day; returns how many buckets that were.

    Raises:
        DatabaseAway: what was rolled up until then stays so.
    """

    def work(rows_max: int, connection: Connection) -> int:
        now = hosts.now_ms(connection)
        return rollups.roll_up(connection, settled_at=now - SETTLED_MS, now=now, rows_max=rows_max)

    return {"buckets": _in_turns(database, work, ROLL_UP_SECS)}


def _days_of(rule: Rule, connection: Connection) -> int:
    found = options.find_option(connection, rule.option)
    return rule.days if found is None else int(found)


def _apply(rule: Rule, before: int, rows_max: int, connection: Connection) -> int:
    return rule.prune(connection, before, rows_max)


def _in_turns(database: Database, work: Callable[[int, Connection], int], secs: float) -> int:
    """Have `work` done in transactions of a moment each until it finds less than it may take.

    Args:
        work: given how many rows it may take.
        secs: for how long at most, pauses included.
    """
    ends_at = time.monotonic() + secs
    done, rows_max = 0, ROWS_FIRST
    while time.monotonic() < ends_at:
        began_at = time.monotonic()
        found = database.write(partial(work, rows_max), timeout_secs=30)
        took_secs = time.monotonic() - began_at
        done += found
        if found < rows_max:
            break
        rows_max = _next_size(rows_max, took_secs)
        time.sleep(max(PAUSE_SECS, took_secs))
    return done


def _next_size(rows: int, took_secs: float) -> int:
    """As many rows as take a turn, but no more than twice as many as the last time."""
    fitting = int(rows * TURN_SECS / max(took_secs, 1e-6))
    return max(ROWS_MIN, min(ROWS_MAX, 2 * rows, fitting))

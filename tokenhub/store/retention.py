"""What leaves the tables, a few rows at a time.

Each function deletes at most so many rows, the oldest first, by an index, and says how many; less
than it was allowed means that nothing more is old.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Select,
    Table,
    and_,
    delete,
    exists,
    or_,
    select,
    tuple_,
)

from tokenhub.db.admin_tables import admin_sessions
from tokenhub.db.budget_tables import budget_alerts, budget_ledgers, budget_shares
from tokenhub.db.catalog_tables import audit_logs, changes, price_versions
from tokenhub.db.columns import metadata
from tokenhub.db.sums_tables import FAMILIES, attempt_hours, rollup_hours
from tokenhub.db.traffic_tables import (
    attempts,
    events,
    feedback,
    hosts,
    idempotency_keys,
    job_runs,
    journal_offsets,
    openings,
    request_logs,
)
from tokenhub.store.idempotency import IN_FLIGHT
from tokenhub.store.logs import IDENTITY
from tokenhub.store.rollups import DAY_MS, find_oldest_unrolled

ASKED_MS = 600_000
"""How long after the death of its owner somebody may still ask what became of a request."""

Prune = Callable[[Connection, int, int], int]
"""Deletes what is older than a time, at most so many rows; returns how many."""


def prune_requests(connection: Connection, before: int, rows_max: int) -> int:
    """Requests with their attempts, but none that its hour has not counted yet."""
    unrolled = find_oldest_unrolled(connection)
    if unrolled is not None:
        before = min(before, unrolled)
    identity = [request_logs.c[name] for name in IDENTITY]
    order = (request_logs.c.started_at, request_logs.c.id)
    old = select(*identity).where(order[0] < before).order_by(*order).limit(rows_max)
    theirs = tuple_(*(attempts.c[name] for name in IDENTITY)).in_(old)
    connection.execute(delete(attempts).where(theirs))
    return _delete(connection, request_logs, order[0] < before, rows_max, *order)


def prune_audit(connection: Connection, before: int, rows_max: int) -> int:
    """Who changed what."""
    order = (audit_logs.c.at, audit_logs.c.id)
    return _delete(connection, audit_logs, audit_logs.c.at < before, rows_max, *order)


def prune_feedback(connection: Connection, before: int, rows_max: int) -> int:
    """What was said of answers."""
    return _delete_by(connection, feedback.c.at, before, rows_max)


def prune_events(connection: Connection, before: int, rows_max: int) -> int:
    """What has happened besides requests."""
    return _delete_by(connection, events.c.at, before, rows_max)


def prune_buckets(connection: Connection, before: int, rows_max: int) -> int:
    """Buckets that their hour has counted."""
    counts = []
    for family in FAMILIES:
        row = metadata.tables[family.buckets].c
        is_old = and_(row.start_at < before, row.rolled_at > 0)
        counts.append(_delete(connection, row.start_at.table, is_old, rows_max, row.start_at))
    return max(counts)


def prune_hours(connection: Connection, before: int, rows_max: int) -> int:
    """Sums of requests by the hour, whole days of them; the days keep what they say."""
    return _delete_by(connection, rollup_hours.c.start_at, _midnight(before), rows_max)


def prune_attempt_hours(connection: Connection, before: int, rows_max: int) -> int:
    """Likewise of attempts."""
    return _delete_by(connection, attempt_hours.c.start_at, _midnight(before), rows_max)


def prune_changes(connection: Connection, before: int, rows_max: int) -> int:
    """The change log: whoever is further behind loads everything."""
    return _delete(connection, changes, changes.c.at < before, rows_max, changes.c.version)


def prune_job_runs(connection: Connection, before: int, rows_max: int) -> int:
    """What the jobs of the cluster have done, but the last of each, which says what is due."""
    is_old = and_(job_runs.c.started_at < before, _has_later_run())
    return _delete(connection, job_runs, is_old, rows_max, job_runs.c.started_at)


def prune_good_runs(connection: Connection, before: int, rows_max: int) -> int:
    """Likewise, but none that has failed."""
    is_good = and_(job_runs.c.error.is_(None), job_runs.c.finished_at.is_not(None))
    is_old = and_(job_runs.c.started_at < before, is_good, _has_later_run())
    return _delete(connection, job_runs, is_old, rows_max, job_runs.c.started_at)


def prune_sessions(connection: Connection, before: int, rows_max: int) -> int:
    """Browser sessions that have expired."""
    expires_at = admin_sessions.c.expires_at
    return _delete_by(connection, expires_at, before, rows_max)


def prune_answers(connection: Connection, before: int, rows_max: int) -> int:
    """Answers that are not sent again, and requests whose owner nobody has asked after."""
    row = idempotency_keys.c
    is_old = or_(
        and_(row.state != IN_FLIGHT, row.expires_at < before), row.expires_at < before - ASKED_MS
    )
    return _delete(connection, idempotency_keys, is_old, rows_max, row.expires_at)


def prune_prices(connection: Connection, before: int, rows_max: int) -> int:
    """Prices that had a successor by then: no request that is kept was charged by them."""
    later = price_versions.alias("later")
    is_replaced = exists().where(
        later.c.model_id == price_versions.c.model_id,
        later.c.version > price_versions.c.version,
        later.c.effective_at < before,
    )
    return _delete(connection, price_versions, is_replaced, rows_max, price_versions.c.version)


def prune_hosts(connection: Connection, before: int, rows_max: int) -> int:
    """Hosts that were not seen since, hold no money and have left nothing that may still come."""
    holding = select(budget_shares.c.host_id).where(budget_shares.c.granted_nanousd != 0)
    is_gone = and_(
        hosts.c.seen_at < before,
        hosts.c.id.not_in(select(journal_offsets.c.host_id)),
        hosts.c.id.not_in(select(openings.c.host_id)),
        hosts.c.id.not_in(holding),
    )
    return _delete(connection, hosts, is_gone, rows_max, hosts.c.seen_at)


def prune_ledgers(connection: Connection, before: int, rows_max: int) -> int:
    """What was spent on a day; months and the total are kept."""
    is_old = and_(
        budget_ledgers.c.period == "day",
        budget_ledgers.c.start_at < before,
        budget_ledgers.c.leased_nanousd == 0,
    )
    return _delete(connection, budget_ledgers, is_old, rows_max, budget_ledgers.c.start_at)


def prune_shares(connection: Connection, before: int, rows_max: int) -> int:
    """Hosts' shares of which nothing is left, when their period or their host is over."""
    share = budget_shares.c
    is_over = or_(
        and_(share.period != "total", share.start_at < before),
        share.host_id.not_in(select(hosts.c.id)),
    )
    is_old = and_(share.granted_nanousd == 0, is_over)
    return _delete(connection, budget_shares, is_old, rows_max, *budget_shares.primary_key)


def prune_alerts(connection: Connection, before: int, rows_max: int) -> int:
    """That a budget's day or month came to its end; one without an end is told of only once."""
    is_old = and_(budget_alerts.c.period != "total", budget_alerts.c.start_at < before)
    return _delete(connection, budget_alerts, is_old, rows_max, budget_alerts.c.start_at)


def prune_openings(connection: Connection, before: int, rows_max: int) -> int:
    """Requests whose end nobody will tell, because their host is lost."""
    is_lost = openings.c.host_id.in_(_lost(before))
    return _delete(connection, openings, is_lost, rows_max, openings.c.request_id)


def prune_positions(connection: Connection, before: int, rows_max: int) -> int:
    """How far the journals of hosts were read that are lost."""
    is_lost = journal_offsets.c.host_id.in_(_lost(before))
    return _delete(connection, journal_offsets, is_lost, rows_max, *journal_offsets.primary_key)


def _has_later_run() -> ColumnElement[bool]:
    later = job_runs.alias("later")
    return exists().where(later.c.job == job_runs.c.job, later.c.slot > job_runs.c.slot)


def _midnight(at: int) -> int:
    return at // DAY_MS * DAY_MS


def _lost(before: int) -> Select[Any]:
    return select(hosts.c.id).where(hosts.c.seen_at < before)


def _delete_by(connection: Connection, time: Column[int], before: int, rows_max: int) -> int:
    return _delete(connection, time.table, time < before, rows_max, time)


def _delete(
    connection: Connection,
    table: Table,
    is_old: ColumnElement[bool],
    rows_max: int,
    *order: ColumnElement[Any],
) -> int:
    key = [*table.primary_key]
    oldest = select(*key).where(is_old).order_by(*order).limit(rows_max)
    row = key[0] if len(key) == 1 else tuple_(*key)
    return connection.execute(delete(table).where(row.in_(oldest))).rowcount

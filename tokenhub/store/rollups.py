"""Buckets are added to their hour and their day, each once.

In one transaction the sums grow and the buckets are marked, so that a crash repeats nothing and
skips nothing, and hours, days and the buckets that are marked always say the same. Whatever comes
later, however old, is a bucket that is not marked yet: what happened in a time is its hour and its
unmarked buckets together.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from tokenhub.db.traffic_tables import HISTOGRAM, rollup_days, rollup_hours
from tokenhub.store.ingest import BUCKET_SUMS

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

ROLLUP_KEY = ("model_id", "provider_id", "api_key_id", "mode", "ending", "team_id")
"""What hours and days are kept apart by, besides the time; by UTC."""

_SPANS = {rollup_hours.name: HOUR_MS, rollup_days.name: DAY_MS}
_SUMS = (*BUCKET_SUMS, *(f"h{number}" for number in range(HISTOGRAM)))

# `rolled_at = 0` word for word, as the index has it: a parameter would not use it.
_FIND_END = """
SELECT start_at FROM buckets WHERE rolled_at = 0 AND start_at < :until
ORDER BY start_at LIMIT 1 OFFSET :rows_max
"""
_ADD = """
INSERT INTO {table} (start_at, {key}, {sums})
SELECT start_at / {span_ms} * {span_ms} AS span_at, {key}, {summed} FROM buckets
WHERE rolled_at = 0 AND start_at < :until
GROUP BY span_at, {key}
ON CONFLICT (start_at, {key}) DO UPDATE SET {added}
"""
_MARK = "UPDATE buckets SET rolled_at = :now WHERE rolled_at = 0 AND start_at < :until"
_FIND_OLDEST = "SELECT min(start_at) FROM buckets WHERE rolled_at = 0"


def roll_up(connection: Connection, *, settled_at: int, now: int, rows_max: int) -> int:
    """Roll up the oldest buckets that began before `settled_at` and were not rolled up.

    Args:
        now: marks them; another one each time.
        rows_max: about how many; those of one moment go together.

    Returns: how many there were.
    """
    bounds = {"until": settled_at, "rows_max": rows_max}
    last: int | None = connection.scalar(text(_FIND_END), bounds)
    until = settled_at if last is None else last + 1
    for table, span_ms in _SPANS.items():
        connection.execute(text(_add_sql(table, span_ms)), {"until": until})
    return connection.execute(text(_MARK), {"now": now, "until": until}).rowcount


def find_oldest_unrolled(connection: Connection) -> int | None:
    """When the oldest bucket begins that was not rolled up."""
    oldest: int | None = connection.scalar(text(_FIND_OLDEST))
    return oldest


def _add_sql(table: str, span_ms: int) -> str:
    return _ADD.format(
        table=table,
        span_ms=span_ms,
        key=", ".join(ROLLUP_KEY),
        sums=", ".join(_SUMS),
        summed=", ".join(f"SUM({name})" for name in _SUMS),
        added=", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in _SUMS),
    )

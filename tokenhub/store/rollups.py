"""Buckets are added to their hour, their day and their week, each once.

In one transaction the sums grow and the buckets are marked, so that a crash repeats nothing and
skips nothing, and hours, days, weeks and the buckets that are marked always say the same. Whatever
comes later, however old, is a bucket that is not marked yet: what happened in a time is its hour
and its unmarked buckets together.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from tokenhub.db.sums_tables import FAMILIES, Family

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
WEEK_MS = 7 * DAY_MS

# `rolled_at = 0` word for word, as the index has it: a parameter would not use it.
_FIND_END = """
SELECT start_at FROM {buckets} WHERE rolled_at = 0 AND start_at < :until
ORDER BY start_at LIMIT 1 OFFSET :rows_max
"""
_ADD = """
INSERT INTO {table} (start_at, {columns})
SELECT start_at / {span_ms} * {span_ms} AS span_at, {read} FROM {buckets}
WHERE rolled_at = 0 AND start_at < :until
GROUP BY span_at, {key}
ON CONFLICT (start_at, {key}) DO UPDATE SET {changed}
"""
_MARK = "UPDATE {buckets} SET rolled_at = :now WHERE rolled_at = 0 AND start_at < :until"
_FIND_OLDEST = "SELECT min(start_at) FROM {buckets} WHERE rolled_at = 0"


def roll_up(connection: Connection, *, settled_at: int, now: int, rows_max: int) -> int:
    """Roll up the oldest buckets that began before `settled_at` and were not rolled up.

    Args:
        now: marks them; another one each time.
        rows_max: about how many of a family; those of one moment go together.

    Returns: how many there were in the family that had most.
    """
    return max(_roll_up(connection, each, settled_at, now, rows_max) for each in FAMILIES)


def find_oldest_unrolled(connection: Connection) -> int | None:
    """When the oldest bucket begins that was not rolled up."""
    oldest = [
        connection.scalar(text(_FIND_OLDEST.format(buckets=each.buckets))) for each in FAMILIES
    ]
    return min((each for each in oldest if each is not None), default=None)


def changed(family: Family, table: str) -> str:
    """How a row of sums grows by another one, in SQL; the other is `excluded`."""
    # SQLite's MAX of two values is Postgres's GREATEST; CASE is both.
    larger = (
        f"{name} = CASE WHEN excluded.{name} > {table}.{name} THEN excluded.{name}"
        f" ELSE {table}.{name} END"
        for name in family.maxima
    )
    grown = (f"{name} = {table}.{name} + excluded.{name}" for name in family.added)
    return ", ".join((*grown, *larger))


def _roll_up(
    connection: Connection, family: Family, settled_at: int, now: int, rows_max: int
) -> int:
    find = text(_FIND_END.format(buckets=family.buckets))
    last: int | None = connection.scalar(find, {"until": settled_at, "rows_max": rows_max})
    until = settled_at if last is None else last + 1
    spans = ((family.hours, HOUR_MS), (family.days, DAY_MS), (family.weeks, WEEK_MS))
    for table, span_ms in spans:
        connection.execute(text(_add_sql(family, table, span_ms)), {"until": until})
    mark = text(_MARK.format(buckets=family.buckets))
    return connection.execute(mark, {"now": now, "until": until}).rowcount


def _add_sql(family: Family, table: str, span_ms: int) -> str:
    key = ", ".join(family.key)
    read = (f"MAX({name})" if name in family.maxima else f"SUM({name})" for name in family.values)
    return _ADD.format(
        table=table,
        buckets=family.buckets,
        span_ms=span_ms,
        key=key,
        columns=", ".join((key, *family.values)),
        read=", ".join((key, *read)),
        changed=changed(family, table),
    )

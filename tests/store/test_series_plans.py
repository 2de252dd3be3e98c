"""Among 200,000 rows of sums an index leads to those of a time, on both databases."""

from __future__ import annotations

import re
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from tests.store.large_kit import large_database
from tokenhub.db import Database
from tokenhub.db.sums_tables import REQUESTS
from tokenhub.store.rollups import DAY_MS, HOUR_MS, WEEK_MS
from tokenhub.store.series import BUCKET_MS, Query, read_series

ROWS = 200_000
NOW = 1_700_000_000_000 // DAY_MS * DAY_MS + 15 * HOUR_MS + 1_234_000
GROUPS = 10
"""Rows of the same moment."""

# Built by the database itself: a hundred times faster than handing it the rows.
_NUMBERS = {
    "sqlite": "WITH RECURSIVE numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE "
    "n < {count} - 1) ",
    "postgresql": "WITH numbers(n) AS (SELECT generate_series(0, {count} - 1)) ",
}


def fill(connection: Connection) -> None:
    """Buckets of 2.3 days, the last 7 minutes of which wait; hours, days and weeks of before."""
    few = ROWS // 10
    tables = {REQUESTS.buckets: (BUCKET_MS, ROWS), REQUESTS.hours: (HOUR_MS, few),
              REQUESTS.days: (DAY_MS, few), REQUESTS.weeks: (WEEK_MS, few)}  # fmt: skip
    for table, (span, count) in tables.items():
        at = f"({NOW} / {span} - n / {GROUPS}) * {span}"
        values: dict[str, Any] = dict.fromkeys(REQUESTS.values, 1)
        values |= dict.fromkeys(REQUESTS.key, "''")
        values |= {"start_at": at, "model_id": f"'m' || (n % {GROUPS})"}
        if table == REQUESTS.buckets:
            rolled = f"CASE WHEN {at} < {NOW - 420_000} THEN 1 ELSE 0 END"
            values |= {"host_id": "'host-1'", "rolled_at": rolled}
        told = ", ".join(map(str, values.values()))
        numbers = _NUMBERS[connection.dialect.name].format(count=count)
        connection.execute(
            text(f"INSERT INTO {table} ({', '.join(values)}) {numbers}SELECT {told} FROM numbers")
        )


large = large_database(fill)


def plans_of(database: Database, query: Query) -> list[str]:
    """How the database comes by each part of a query."""

    def work(connection: Connection) -> list[str]:
        asked: list[tuple[str, Any]] = []

        def note(*args: Any) -> None:
            asked.append((args[2], args[3]))

        event.listen(connection, "before_cursor_execute", note)
        read_series(connection, query, NOW)
        event.remove(connection, "before_cursor_execute", note)
        how = "EXPLAIN QUERY PLAN " if connection.dialect.name == "sqlite" else "EXPLAIN "
        return [
            "\n".join(str(row[-1]) for row in connection.exec_driver_sql(how + sql, parameters))
            for sql, parameters in asked
        ]

    return database.read(work)


@pytest.mark.parametrize(
    ("ago_ms", "step_ms", "where"),
    [
        (60_000, None, {}),
        (HOUR_MS, BUCKET_MS, {}),
        (HOUR_MS, 60_000, {"model_id": ["m3"]}),
        (DAY_MS, None, {}),
        (7 * DAY_MS, HOUR_MS, {"model_id": ["m3", "m4"]}),
        (90 * DAY_MS, DAY_MS, {}),
        (90 * DAY_MS, None, {}),
    ],
)
def test_no_table_is_read_through(large, ago_ms, step_ms, where):
    query = Query(REQUESTS, NOW - ago_ms, NOW, step_ms, ("model_id",), where)
    plans = plans_of(large, query)
    assert plans
    for plan in plans:
        # Postgres may take the few that match by way of a bitmap; SQLite says SCAN or SEARCH.
        assert re.search(r"USING (COVERING )?INDEX|Index (Only )?Scan", plan), plan
        assert not re.search(r"Seq Scan|^SCAN \w+$", plan, re.MULTILINE), plan


def test_what_waits_is_found_by_the_index_of_what_waits(large):
    plans = plans_of(large, Query(REQUESTS, NOW - DAY_MS, NOW, None, (), {}))
    assert any("ix_buckets_unrolled" in plan for plan in plans)


def test_postgres_reads_with_one_core_and_compiles_nothing(large):
    if large.dialect != "postgresql":
        pytest.skip("Postgres only")
    names = ("jit", "max_parallel_workers_per_gather", "random_page_cost")

    def work(connection: Connection) -> list[str]:
        return [str(connection.scalar(text(f"SHOW {name}"))) for name in names]

    assert large.read(work) == ["off", "0", "1.1"]
    assert large.write(work) != ["off", "0", "1.1"], "of one transaction alone"

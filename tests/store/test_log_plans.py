"""On 200,000 requests an index leads to whatever is looked for, on both databases."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from tests.store.large_kit import large_database
from tests.store.test_ingest import log_row
from tokenhub import store
from tokenhub.store.log_sums import Span, count_by_step

ROWS = 200_000
NOW = 1_700_000_000_000

# Built by the database itself: a hundred times faster than handing it the rows.
_NUMBERS = {
    "sqlite": (
        "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < "
        f"{ROWS}) "
    ),
    "postgresql": f"WITH numbers(n) AS (SELECT generate_series(1, {ROWS})) ",
}
_TELLING = {
    "host_id": "'host-1'",
    "segment": "1",
    "position": "n",
    "request_id": "'req_' || n",
    "started_at": f"{NOW} + n * 100",
    "api_key_id": "'key_' || (n % 100)",
    "model_id": "'m' || (n % 97)",
    "provider_id": "'p' || (n % 89)",
    "ending": "CASE WHEN n % 50 = 0 THEN 'failed' ELSE 'answered' END",
    "status_code": "CASE WHEN n % 50 = 0 THEN 502 ELSE 200 END",
    "client_request_id": "CASE WHEN n % 100 = 0 THEN 'theirs-' || n ELSE '' END",
    "latency_ms": "n % 1000",
}


def literal(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).upper()
    return "NULL" if value is None else repr(value)


def fill(connection: Connection) -> None:
    names = ("host_id", "segment", "position", *store.LOG_COLUMNS)
    row = log_row(1, requested_model="m", client_ip="", output_tokens=1)
    values = {name: literal(each) for name, each in zip(names, row, strict=True)} | _TELLING
    numbers = _NUMBERS[connection.dialect.name]
    told = f"{numbers}SELECT {', '.join(values.values())} FROM numbers"
    connection.execute(text(f"INSERT INTO request_logs ({', '.join(values)}) {told}"))


large = large_database(fill)


@contextmanager
def plans_of(connection: Connection) -> Iterator[list[str]]:
    """Fills up with the plan of each statement, as it is run."""
    prefix = "EXPLAIN QUERY PLAN " if connection.dialect.name == "sqlite" else "EXPLAIN "
    found: list[str] = []

    def explain(conn: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        cursor.execute(prefix + statement, parameters)
        found.append("\n".join(str(row[-1]) for row in cursor.fetchall()))

    event.listen(connection, "before_cursor_execute", explain)
    yield found
    event.remove(connection, "before_cursor_execute", explain)


def used_indexes(plans: list[str]) -> set[str]:
    return set(re.findall(r"(ix_request_logs_\w+|PRIMARY KEY|\w+_pkey)", "\n".join(plans)))


def is_read_through(plan: str) -> bool:
    """Whether the whole table is."""
    return bool(re.search(r"Seq Scan on request_logs|SCAN request_logs(?! USING)", plan))


BY_KEY = "ix_request_logs_api_key_id_started_at"
BY_TIME = "ix_request_logs_started_at_id"
TROUBLED = "ix_request_logs_troubled"
Words = dict[str, tuple[str, ...]]
CASES: dict[str, tuple[store.LogFilters, set[str]]] = {
    "all": (store.LogFilters(from_at=0), {BY_TIME}),
    "a time": (store.LogFilters(NOW + 1_000_000, NOW + 2_000_000), {BY_TIME}),
    "a key": (
        store.LogFilters(words={"api_key_id": ("key_7",)}), {BY_KEY}
    ),
    "a model": (
        store.LogFilters(words={"model_id": ("m7",)}), {"ix_request_logs_model_id_started_at"}
    ),
    "a provider": (
        store.LogFilters(words={"provider_id": ("p3",)}), {"ix_request_logs_provider_id_started_at"}
    ),
    "a key that was slow": (
        store.LogFilters(words={"api_key_id": ("key_7",)}, min_latency_ms=5000),
        {BY_KEY},
    ),
    "a key and a provider": (
        store.LogFilters(words={"api_key_id": ("key_7",), "provider_id": ("p4",)}),
        {BY_KEY},
    ),
    "failures of a key": (
        store.LogFilters(words={"api_key_id": ("key_7",), "ending": ("failed",)}),
        {"ix_request_logs_key_troubled"},
    ),
    "failures": (store.LogFilters(words={"ending": ("failed",)}), {TROUBLED}),
    "errors of a model": (
        store.LogFilters(statuses=((500, 599),), words={"model_id": ("m0",)}), {TROUBLED}
    ),
    "slow ones": (store.LogFilters(min_latency_ms=5000), {BY_TIME}),
    "one by its id": (store.LogFilters(request_id="theirs-5000"), set()),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_an_index_leads_to_what_is_looked_for(large, name):
    filters, indexes = CASES[name]
    looks = iter([False, False, True] + [True] * 100)

    def work(connection: Connection) -> list[str]:
        with plans_of(connection) as plans:
            late = partial(next, looks)
            found = store.find_logs(connection, filters, store.Part(100), is_late=late)
            if found.next is not None:
                after = store.Part(100, after=found.next)
                store.find_logs(connection, filters, after, is_late=lambda: True)
            store.count_logs(connection, filters, most=10_000, is_late=lambda: True)
        return plans

    plans = large.read(work, timeout_secs=30)
    assert [plan for plan in plans if is_read_through(plan)] == []
    assert indexes <= used_indexes(plans)
    others = {each for each in used_indexes(plans) if each.startswith("ix_request_logs")} - indexes
    if name == "one by its id":
        assert others == {"ix_request_logs_request_id", "ix_request_logs_named"}
    else:
        assert others == set(), plans
    assert not [plan for plan in plans if "TEMP B-TREE FOR ORDER BY" in plan and indexes], plans


def test_a_request_and_its_attempts_are_found_by_an_index(large):
    def work(connection: Connection) -> list[str]:
        with plans_of(connection) as plans:
            assert store.find_request(connection, "req_777") is not None
            store.list_attempts(connection, "req_777")
            store.find_rewards(
                connection, store.RewardFilters(), store.Part(50), is_late=lambda: False
            )
        return plans

    plans = large.read(work, timeout_secs=30)
    assert [plan for plan in plans if is_read_through(plan)] == []


def test_counting_in_the_log_stops_when_it_is_late(large):
    span = Span(NOW, NOW + ROWS * 100, 1_000_000)
    filters = store.LogFilters(stream=True)

    def work(connection: Connection) -> Any:
        with plans_of(connection) as plans:
            return count_by_step(connection, filters, span, is_late=lambda: True), plans

    found, plans = large.read(work, timeout_secs=30)
    assert 0 < sum(found.counts.values()) <= store.searching.STRETCH
    assert found.searched_to > NOW
    assert used_indexes(plans) == {BY_TIME}

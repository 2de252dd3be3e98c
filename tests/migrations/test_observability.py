"""Sums and log rows come through migration 0011 in both directions, added up where need be."""

from __future__ import annotations

from typing import Any

import pytest
from alembic import command
from sqlalchemy import create_engine, text

from tests.conftest import alembic_config
from tokenhub.db.sums_tables import REQUESTS

OLD, NEW = "0010_dialects", "0011_observability"
OLD_SUMS = ("requests", "input_tokens", "output_tokens", "cost_nanousd", "unpriced",
            "latency_ms_sum", "ttft_ms_sum", "ttft_count",
            *(f"h{each}" for each in range(16)))  # fmt: skip


def run(dsn: str, sql: str, rows: list[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
    engine = create_engine(dsn)
    try:
        with engine.begin() as connection:
            found = connection.execute(text(sql), rows or {})
            return [dict(row) for row in found.mappings()] if found.returns_rows else []
    finally:
        engine.dispose()


def insert(dsn: str, table: str, *rows: dict[str, Any]) -> None:
    columns = ", ".join(rows[0])
    marks = ", ".join(f":{name}" for name in rows[0])
    run(dsn, f"INSERT INTO {table} ({columns}) VALUES ({marks})", list(rows))


@pytest.fixture
def old_dsn(empty_dsn: str) -> str:
    """A database of the version before, with sums in all three tables."""
    command.upgrade(alembic_config(empty_dsn), OLD)
    words = {"model_id": "m", "provider_id": "p", "api_key_id": "k", "mode": "normal",
             "ending": "answered", "team_id": "t"}  # fmt: skip
    sums = {name: number for number, name in enumerate(OLD_SUMS, 1)}
    insert(
        empty_dsn,
        "buckets",
        *(
            {"host_id": "h", "start_at": 10_000, "endpoint": endpoint, "rolled_at": rolled,
             **words, **sums}
            for endpoint, rolled in (("chat", 0), ("messages", 7))
        ),
    )  # fmt: skip
    insert(empty_dsn, "rollup_hours", {"start_at": 0, **words, **sums})
    insert(empty_dsn, "rollup_days", {"start_at": 0, **words, **sums})
    return empty_dsn


def test_sums_of_before_are_kept_and_what_was_not_counted_is_nothing(old_dsn):
    command.upgrade(alembic_config(old_dsn), NEW)
    buckets = run(old_dsn, "SELECT * FROM buckets ORDER BY endpoint")
    assert [(each["endpoint"], each["rolled_at"]) for each in buckets] == [
        ("chat", 0), ("messages", 7),
    ]  # fmt: skip
    for row in (*buckets, *run(old_dsn, "SELECT * FROM rollup_hours"),
                *run(old_dsn, "SELECT * FROM rollup_days")):  # fmt: skip
        assert {name: row[name] for name in OLD_SUMS} == {
            name: number for number, name in enumerate(OLD_SUMS, 1)
        }
        assert {row[name] for name in REQUESTS.values if name not in OLD_SUMS} == {0}
        assert (row["team_id"], row["error_class"], row["alias_from"]) == ("t", "", "")
    assert run(old_dsn, "SELECT * FROM attempt_buckets") == []


def test_going_back_adds_up_what_is_not_told_apart_any_more(old_dsn):
    command.upgrade(alembic_config(old_dsn), NEW)
    for table in ("buckets", "rollup_hours", "rollup_days"):
        row = run(old_dsn, f"SELECT * FROM {table} WHERE endpoint <> 'messages'")[0]
        copies = ({**row, "error_class": each} for each in ("timeout", "server_error"))
        insert(old_dsn, table, *copies)
    command.downgrade(alembic_config(old_dsn), OLD)
    chat = run(old_dsn, "SELECT * FROM buckets WHERE endpoint = 'chat'")
    assert len(chat) == 1
    counts = {
        table: run(old_dsn, f"SELECT SUM(requests) AS n, SUM(h3) AS h FROM {table}")
        for table in ("buckets", "rollup_hours", "rollup_days")
    }
    assert {table: (int(n["n"]), int(n["h"])) for table, [n] in counts.items()} == {
        "buckets": (4, 48), "rollup_hours": (3, 36), "rollup_days": (3, 36),
    }  # fmt: skip
    command.upgrade(alembic_config(old_dsn), "head")
    assert len(run(old_dsn, "SELECT * FROM rollup_days")) == 1


def test_requests_of_before_have_nothing_to_say_of_their_decision(old_dsn):
    columns = run(old_dsn, "SELECT * FROM request_logs")
    assert columns == []
    words = ("request_id", "api_key_id", "endpoint", "mode", "ending", "error_class",
             "requested_model", "alias_from", "model_id", "provider_id", "reason", "client_ip",
             "client_request_id", "team_id", "host_id")  # fmt: skip
    numbers = ("segment", "position", "started_at", "status_code", "snapshot_version",
               "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens",
               "reasoning_tokens", "price_version", "latency_ms", "overhead_us",
               "estimated_input_tokens", "response_bytes", "attempt_count")  # fmt: skip
    row: dict[str, Any] = {**dict.fromkeys(words, "w"), **dict.fromkeys(numbers, 1)}
    row |= {"stream": False, "usage_is_estimate": False, "skips": "{}"}
    insert(old_dsn, "request_logs", row)
    command.upgrade(alembic_config(old_dsn), NEW)
    [found] = run(old_dsn, "SELECT * FROM request_logs")
    assert (found["decision"], found["trace_id"], found["latency_budget_ms"]) == ("{}", "", 0)
    assert found["request_id"] == "w"
    command.downgrade(alembic_config(old_dsn), OLD)
    [found] = run(old_dsn, "SELECT * FROM request_logs")
    assert "decision" not in found

"""Tables that running gateways fill: hosts, the journal's position, requests and their sums.

A bucket is 10 seconds of one host. Rolled up, it has also been added to its hour and its day, which
are of all hosts; what comes later for the same 10 seconds is a bucket of its own.

`migrations/` makes them and a test compares the two. Runs no statement.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, String, Table, Text, UniqueConstraint
from sqlalchemy import text as sql

from tokenhub.db.columns import AnyColumn, binary, boolean, integer, metadata, serial, text

HISTOGRAM = 16
"""Latency classes of a bucket, columns h0 to h15; their edges are the writer's."""

hosts = Table(
    "hosts",
    metadata,
    text("id", primary_key=True),
    text("name"),
    text("version"),
    Column("workers", BigInteger, nullable=False, server_default="0"),
    integer("started_at"),
    integer("seen_at"),
    integer("ended_at", nullable=True),
)

leases = Table(
    "leases",
    metadata,
    text("name", primary_key=True),
    text("holder"),
    integer("fence"),
    integer("expires_at"),
)

job_runs = Table(
    "job_runs",
    metadata,
    text("job", primary_key=True),
    integer("slot", primary_key=True),
    text("host_id"),
    Column("fence", BigInteger, nullable=False, server_default="0"),
    Column("tries", BigInteger, nullable=False, server_default="1"),
    Column("started_at", BigInteger, nullable=False, index=True),
    integer("finished_at", nullable=True),
    Column("error", Text, nullable=True),
)

journal_offsets = Table(
    "journal_offsets",
    metadata,
    text("host_id", primary_key=True),
    integer("segment", primary_key=True),
    integer("position"),
)

openings = Table(
    "openings",
    metadata,
    text("request_id", primary_key=True),
    text("host_id"),
    Column("writer", String, nullable=False, index=True),
    integer("segment"),
    integer("position"),
    integer("opened_at"),
    binary("payload"),
)

request_logs = Table(
    "request_logs",
    metadata,
    serial("id"),
    text("host_id"),
    integer("segment"),
    integer("position"),
    text("request_id"),
    integer("started_at"),
    text("api_key_id"),
    text("endpoint"),
    text("mode"),
    boolean("stream"),
    text("ending"),
    integer("status_code"),
    text("error_class"),
    text("requested_model"),
    text("alias_from"),
    text("model_id"),
    text("provider_id"),
    text("reason"),
    integer("snapshot_version"),
    integer("input_tokens"),
    integer("output_tokens"),
    integer("cache_read_tokens"),
    integer("cache_write_tokens"),
    integer("reasoning_tokens"),
    boolean("usage_is_estimate"),
    integer("cost_nanousd", nullable=True),
    integer("price_version"),
    integer("latency_ms"),
    integer("ttft_ms", nullable=True),
    integer("overhead_us"),
    integer("estimated_input_tokens"),
    integer("response_bytes"),
    integer("attempt_count"),
    text("client_ip"),
    text("client_request_id"),
    Column("skips", Text, nullable=False),  # JSON
    Column("team_id", String, nullable=False, server_default=sql("''")),
    UniqueConstraint("host_id", "segment", "position"),
    Index(None, "started_at", "id"),
    Index(None, "api_key_id", "started_at"),
    Index(None, "model_id", "started_at"),
    Index(None, "request_id"),
)

attempts = Table(
    "attempts",
    metadata,
    text("host_id", primary_key=True),
    integer("segment", primary_key=True),
    integer("position", primary_key=True),
    integer("seq", primary_key=True),
    text("request_id"),  # no index of its own: a request's attempts share its log row's identity
    text("model_id"),
    text("provider_id"),
    integer("started_ms"),
    integer("duration_ms"),
    integer("ttft_ms", nullable=True),
    integer("status", nullable=True),
    text("error_class"),
    integer("input_tokens"),
    integer("output_tokens"),
    integer("cache_read_tokens"),
    integer("cache_write_tokens"),
    integer("reasoning_tokens"),
    boolean("usage_is_estimate"),
    integer("cost_nanousd", nullable=True),
    integer("price_version"),
)

reward_logs = Table(
    "reward_logs",
    metadata,
    serial("id"),
    Column("at", BigInteger, nullable=False, index=True),
    text("request_id"),
    text("model_id"),
    text("provider_id"),
    text("mode"),
    integer("estimated_tokens"),
    text("token_bucket"),
    integer("latency_budget_ms"),
    integer("latency_ms"),
    integer("cost_nanousd", nullable=True),
    boolean("success"),
    text("error_class"),
    Column("reward", Float, nullable=False),
)

tsdb_points = Table(
    "tsdb_points",
    metadata,
    serial("id"),
    Column("at", BigInteger, nullable=False, index=True),
    text("metric"),
    text("model_id"),
    text("provider_id"),
    Column("value", Float, nullable=False),
    Index(None, "metric", "at"),
    Index(None, "metric", "model_id", "provider_id", "at"),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    text("name", primary_key=True),
    text("state"),
    text("owner"),
    text("request_id"),
    binary("digest"),
    integer("expires_at"),  # of one in flight: the lease of its owner
    integer("size"),
    binary("answer"),
    Index(None, "expires_at"),
)


def _sums() -> tuple[AnyColumn, ...]:
    names = (
        "requests", "input_tokens", "output_tokens", "cost_nanousd", "unpriced", "latency_ms_sum",
        "ttft_ms_sum", "ttft_count", *(f"h{number}" for number in range(HISTOGRAM)),
    )  # fmt: skip
    return tuple(integer(name) for name in names)


buckets = Table(
    "buckets",
    metadata,
    text("host_id", primary_key=True),
    integer("start_at", primary_key=True),
    text("model_id", primary_key=True),
    text("provider_id", primary_key=True),
    text("api_key_id", primary_key=True),
    text("mode", primary_key=True),
    text("endpoint", primary_key=True),
    text("ending", primary_key=True),
    text("team_id", primary_key=True),
    Column(  # when it was rolled up; 0 = not yet
        "rolled_at",
        BigInteger,
        primary_key=True,
        nullable=False,
        autoincrement=False,
        server_default="0",
    ),
    *_sums(),
    Index(None, "start_at"),
    Index(
        "ix_buckets_unrolled",
        "start_at",
        sqlite_where=sql("rolled_at = 0"),
        postgresql_where=sql("rolled_at = 0"),
    ),
)


def _rollup(name: str) -> Table:
    return Table(
        name,
        metadata,
        integer("start_at", primary_key=True),
        text("model_id", primary_key=True),
        text("provider_id", primary_key=True),
        text("api_key_id", primary_key=True),
        text("mode", primary_key=True),
        text("ending", primary_key=True),
        text("team_id", primary_key=True),
        *_sums(),
    )


rollup_hours = _rollup("rollup_hours")
rollup_days = _rollup("rollup_days")

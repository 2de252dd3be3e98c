"""Tables that running gateways fill: hosts, the journal's position, requests, events.

`migrations/` makes them and a test compares the two. Runs no statement.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, String, Table, Text, UniqueConstraint
from sqlalchemy import text as sql

from tokenhub.db.columns import binary, boolean, integer, metadata, serial, text

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
    # What only its own memory knows, JSON: see `store.hosts.HostState`.
    Column("state", Text, nullable=False, server_default="{}"),
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
    Column("latency_budget_ms", BigInteger, nullable=False, server_default="0"),
    Column("trace_id", String, nullable=False, server_default=sql("''")),
    Column("decision", Text, nullable=False, server_default="{}"),  # JSON
    UniqueConstraint("host_id", "segment", "position"),
    Index(None, "started_at", "id"),
    Index(None, "api_key_id", "started_at"),
    Index(None, "model_id", "started_at"),
    Index(None, "provider_id", "started_at"),
    Index(None, "request_id"),
    # What is looked for most is rare: what did not just succeed, and what callers named themselves.
    Index(
        "ix_request_logs_troubled",
        "started_at",
        "id",
        sqlite_where=sql("ending <> 'answered'"),
        postgresql_where=sql("ending <> 'answered'"),
    ),
    Index(
        "ix_request_logs_key_troubled",
        "api_key_id",
        "started_at",
        sqlite_where=sql("ending <> 'answered'"),
        postgresql_where=sql("ending <> 'answered'"),
    ),
    Index(
        "ix_request_logs_named",
        "client_request_id",
        sqlite_where=sql("client_request_id <> ''"),
        postgresql_where=sql("client_request_id <> ''"),
    ),
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
    Column("reason", String, nullable=False, server_default=sql("''")),
    Column("next_step", String, nullable=False, server_default=sql("''")),
    Column("response_bytes", BigInteger, nullable=False, server_default="0"),
)

events = Table(
    "events",
    metadata,
    serial("id"),
    text("host_id"),
    integer("at"),
    text("type"),
    text("api_key_id"),
    Column("fields", Text, nullable=False),  # JSON
    Index(None, "at", "id"),
    Index(None, "type", "at"),
)

feedback = Table(
    "feedback",
    metadata,
    serial("id"),
    integer("at"),
    text("request_id"),
    text("api_key_id"),  # of who gave it; "" = an administrator
    text("actor"),
    Column("score", Float, nullable=False),
    text("label"),
    # When its event was written; 0 = not yet, or it does not count.
    Column("told_at", BigInteger, nullable=False, server_default="0"),
    Index(None, "request_id"),
    Index(None, "at", "id"),
    Index(
        "ix_feedback_untold",
        "at",
        sqlite_where=sql("told_at = 0"),
        postgresql_where=sql("told_at = 0"),
    ),
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

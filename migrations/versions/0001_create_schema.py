"""Create the schema: everything that the gateway keeps."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001_create_schema"
down_revision = None

INT = sa.BigInteger()
# SQLite numbers rows by itself only in a column that is exactly INTEGER PRIMARY KEY.
SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

TABLES = (
    "providers", "models", "price_versions", "model_aliases", "routing_config", "api_keys",
    "vault", "vault_entries", "generation", "changes", "audit_logs", "hosts", "leases",
    "job_runs", "journal_offsets", "openings", "request_logs", "attempts", "reward_logs",
    "tsdb_points", "buckets",
)  # fmt: skip


def upgrade() -> None:
    _create_catalog()
    _create_routing()
    _create_keys_and_vault()
    _create_history()
    _create_cluster()
    _create_requests()
    _create_attempts()
    _create_series()


def downgrade() -> None:
    for table in reversed(TABLES):
        op.drop_table(table)


def _prices() -> list[sa.Column[int]]:
    """Nano-dollars per million tokens."""
    kinds = ("input", "output", "cache_read", "cache_write")
    return [sa.Column(f"{kind}_per_mtok", INT, nullable=True) for kind in kinds]


def _usage() -> list[sa.Column[int] | sa.Column[bool]]:
    """Tokens, and whether we counted them ourselves."""
    kinds = ("input", "output", "cache_read", "cache_write", "reasoning")
    tokens = [sa.Column(f"{kind}_tokens", INT, nullable=False) for kind in kinds]
    return [*tokens, sa.Column("usage_is_estimate", sa.Boolean(), nullable=False)]


def _create_catalog() -> None:
    """What may be routed to, and at what price."""
    op.create_table(
        "providers",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("base_url", sa.String(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("cred_store", sa.String(), nullable=False),
        sa.Column("demo", sa.Boolean(), nullable=False),
        sa.Column("revision", INT, nullable=False),
        sa.Column("created_at", INT, nullable=False),
        sa.Column("updated_at", INT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_providers"),
    )
    op.create_table(
        "models",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("provider_id", sa.String(), nullable=False),
        sa.Column("upstream_model", sa.String(), nullable=False),
        sa.Column("weight", INT, nullable=False),
        sa.Column("max_context_tokens", INT, nullable=False),
        *_prices(),
        sa.Column("price_version", INT, nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("pricing_source", sa.String(), nullable=False),
        sa.Column("capabilities", sa.Text(), server_default="[]", nullable=False),
        sa.Column("tool_name_map", sa.Text(), server_default="{}", nullable=False),
        sa.Column("gemma4_output", sa.Boolean(), nullable=False),
        sa.Column("revision", INT, nullable=False),
        sa.Column("created_at", INT, nullable=False),
        sa.Column("updated_at", INT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_models"),
        sa.ForeignKeyConstraint(
            ["provider_id"],
            ["providers.id"],
            name="fk_models_provider_id_providers",
            ondelete="CASCADE",
        ),
    )
    op.create_index("ix_models_provider_id", "models", ["provider_id"])


def _create_routing() -> None:
    """What things cost and how they are chosen."""
    op.create_table(
        "price_versions",
        sa.Column("version", SERIAL, autoincrement=True, nullable=False),
        sa.Column("model_id", sa.String(), nullable=False),
        *_prices(),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("effective_at", INT, nullable=False),
        sa.PrimaryKeyConstraint("version", name="pk_price_versions"),
    )
    op.create_index(
        "ix_price_versions_model_id_effective_at", "price_versions", ["model_id", "effective_at"]
    )
    op.create_table(
        "model_aliases",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("variants", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("sticky_by", sa.String(), nullable=False),
        sa.Column("created_at", INT, nullable=False),
        sa.Column("updated_at", INT, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_model_aliases"),
    )
    op.create_table(
        "routing_config",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("default_mode", sa.String(), nullable=False),
        sa.Column("default_max_budget_nanousd", INT, nullable=False),
        sa.Column("default_max_latency_ms", INT, nullable=False),
        sa.Column("updated_at", INT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_routing_config"),
        sa.CheckConstraint("id = 1", name=op.f("ck_routing_config_only_row")),
    )


def _create_keys_and_vault() -> None:
    """Who may ask, and the secrets."""
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("key_prefix", sa.String(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(32), nullable=True),
        sa.Column("bcrypt_hash", sa.String(), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("created_at", INT, nullable=False),
        sa.Column("rotated_at", INT, nullable=True),
        sa.Column("last_used_at", INT, nullable=True),
        sa.Column("expires_at", INT, nullable=True),
        sa.Column("rotation_days", INT, nullable=False),
        sa.Column("monthly_budget_nanousd", INT, nullable=False),
        sa.Column("budget_reset_at", INT, nullable=True),
        sa.Column("rate_limit_rps", INT, nullable=False),
        sa.Column("revision", INT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("sha256", name="uq_api_keys_sha256"),
    )
    op.create_index("ix_api_keys_created_at_id", "api_keys", ["created_at", "id"])
    op.create_index("ix_api_keys_key_prefix", "api_keys", ["key_prefix"])
    op.create_table(
        "vault",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("vault_id", sa.String(), nullable=False),
        sa.Column("salt", sa.LargeBinary(), nullable=False),
        sa.Column("kdf", sa.Text(), nullable=False),
        sa.Column("wrapped_key", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", INT, nullable=False),
        sa.Column("generation", INT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_vault"),
        sa.CheckConstraint("id = 1", name=op.f("ck_vault_only_row")),
    )
    op.create_table(
        "vault_entries",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("updated_at", INT, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_vault_entries"),
    )


def _create_history() -> None:
    """What was changed: for workers to catch up and for people to read."""
    op.create_table(
        "generation",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("value", INT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_generation"),
        sa.CheckConstraint("id = 1", name=op.f("ck_generation_only_row")),
    )
    op.execute("INSERT INTO generation (id, value) VALUES (1, 0)")
    op.create_table(
        "changes",
        sa.Column("version", INT, autoincrement=False, nullable=False),
        sa.Column("at", INT, nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("entity_id", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("version", name="pk_changes"),
    )
    op.create_table(
        "audit_logs",
        sa.Column("id", SERIAL, autoincrement=True, nullable=False),
        sa.Column("at", INT, nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("client_ip", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("resource", sa.String(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("request_id", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_logs"),
    )
    op.create_index("ix_audit_logs_at_id", "audit_logs", ["at", "id"])


def _create_cluster() -> None:
    """Who is running and how far each has read its journal."""
    op.create_table(
        "hosts",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("started_at", INT, nullable=False),
        sa.Column("seen_at", INT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_hosts"),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("holder", sa.String(), nullable=False),
        sa.Column("fence", INT, nullable=False),
        sa.Column("expires_at", INT, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_leases"),
    )
    op.create_table(
        "job_runs",
        sa.Column("job", sa.String(), nullable=False),
        sa.Column("slot", INT, nullable=False),
        sa.Column("host_id", sa.String(), nullable=False),
        sa.Column("started_at", INT, nullable=False),
        sa.Column("finished_at", INT, nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("job", "slot", name="pk_job_runs"),
    )
    op.create_table(
        "journal_offsets",
        sa.Column("host_id", sa.String(), nullable=False),
        sa.Column("segment", INT, nullable=False),
        sa.Column("position", INT, nullable=False),
        sa.PrimaryKeyConstraint("host_id", "segment", name="pk_journal_offsets"),
    )
    op.create_table(
        "openings",
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("host_id", sa.String(), nullable=False),
        sa.Column("writer", sa.String(), nullable=False),
        sa.Column("segment", INT, nullable=False),
        sa.Column("position", INT, nullable=False),
        sa.Column("opened_at", INT, nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("request_id", name="pk_openings"),
    )
    op.create_index("ix_openings_writer", "openings", ["writer"])


def _create_requests() -> None:
    """Every request, as the journal has it."""
    op.create_table(
        "request_logs",
        sa.Column("id", SERIAL, autoincrement=True, nullable=False),
        sa.Column("host_id", sa.String(), nullable=False),
        sa.Column("segment", INT, nullable=False),
        sa.Column("position", INT, nullable=False),
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("started_at", INT, nullable=False),
        sa.Column("api_key_id", sa.String(), nullable=False),
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("mode", sa.String(), nullable=False),
        sa.Column("stream", sa.Boolean(), nullable=False),
        sa.Column("ending", sa.String(), nullable=False),
        sa.Column("status_code", INT, nullable=False),
        sa.Column("error_class", sa.String(), nullable=False),
        sa.Column("requested_model", sa.String(), nullable=False),
        sa.Column("alias_from", sa.String(), nullable=False),
        sa.Column("model_id", sa.String(), nullable=False),
        sa.Column("provider_id", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("snapshot_version", INT, nullable=False),
        *_usage(),
        sa.Column("cost_nanousd", INT, nullable=True),
        sa.Column("price_version", INT, nullable=False),
        sa.Column("latency_ms", INT, nullable=False),
        sa.Column("ttft_ms", INT, nullable=True),
        sa.Column("overhead_us", INT, nullable=False),
        sa.Column("estimated_input_tokens", INT, nullable=False),
        sa.Column("response_bytes", INT, nullable=False),
        sa.Column("attempt_count", INT, nullable=False),
        sa.Column("client_ip", sa.String(), nullable=False),
        sa.Column("client_request_id", sa.String(), nullable=False),
        sa.Column("skips", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_request_logs"),
        sa.UniqueConstraint(
            "host_id", "segment", "position", name="uq_request_logs_host_id_segment_position"
        ),
    )
    op.create_index(
        "ix_request_logs_api_key_id_started_at", "request_logs", ["api_key_id", "started_at"]
    )
    op.create_index(
        "ix_request_logs_model_id_started_at", "request_logs", ["model_id", "started_at"]
    )
    op.create_index("ix_request_logs_request_id", "request_logs", ["request_id"])
    op.create_index("ix_request_logs_started_at_id", "request_logs", ["started_at", "id"])


def _create_attempts() -> None:
    """Every call to a provider, and what it was worth."""
    op.create_table(
        "attempts",
        sa.Column("host_id", sa.String(), nullable=False),
        sa.Column("segment", INT, nullable=False),
        sa.Column("position", INT, nullable=False),
        sa.Column("seq", INT, nullable=False),
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("model_id", sa.String(), nullable=False),
        sa.Column("provider_id", sa.String(), nullable=False),
        sa.Column("started_ms", INT, nullable=False),
        sa.Column("duration_ms", INT, nullable=False),
        sa.Column("ttft_ms", INT, nullable=True),
        sa.Column("status", INT, nullable=True),
        sa.Column("error_class", sa.String(), nullable=False),
        *_usage(),
        sa.Column("cost_nanousd", INT, nullable=True),
        sa.Column("price_version", INT, nullable=False),
        sa.PrimaryKeyConstraint("host_id", "segment", "position", "seq", name="pk_attempts"),
    )
    op.create_table(
        "reward_logs",
        sa.Column("id", SERIAL, autoincrement=True, nullable=False),
        sa.Column("at", INT, nullable=False),
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("model_id", sa.String(), nullable=False),
        sa.Column("provider_id", sa.String(), nullable=False),
        sa.Column("mode", sa.String(), nullable=False),
        sa.Column("estimated_tokens", INT, nullable=False),
        sa.Column("token_bucket", sa.String(), nullable=False),
        sa.Column("latency_budget_ms", INT, nullable=False),
        sa.Column("latency_ms", INT, nullable=False),
        sa.Column("cost_nanousd", INT, nullable=True),
        sa.Column("success", sa.Boolean(), nullable=False),
        sa.Column("error_class", sa.String(), nullable=False),
        sa.Column("reward", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_reward_logs"),
    )
    op.create_index("ix_reward_logs_at", "reward_logs", ["at"])


def _create_series() -> None:
    """Sums over time."""
    op.create_table(
        "tsdb_points",
        sa.Column("at", INT, nullable=False),
        sa.Column("metric", sa.String(), nullable=False),
        sa.Column("model_id", sa.String(), nullable=False),
        sa.Column("provider_id", sa.String(), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
    )
    op.create_index("ix_tsdb_points_metric_at", "tsdb_points", ["metric", "at"])
    op.create_index(
        "ix_tsdb_points_metric_model_id_provider_id_at",
        "tsdb_points",
        ["metric", "model_id", "provider_id", "at"],
    )
    op.create_table(
        "buckets",
        sa.Column("host_id", sa.String(), nullable=False),
        sa.Column("start_at", INT, nullable=False),
        sa.Column("model_id", sa.String(), nullable=False),
        sa.Column("provider_id", sa.String(), nullable=False),
        sa.Column("api_key_id", sa.String(), nullable=False),
        sa.Column("mode", sa.String(), nullable=False),
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("ending", sa.String(), nullable=False),
        sa.Column("requests", INT, nullable=False),
        sa.Column("input_tokens", INT, nullable=False),
        sa.Column("output_tokens", INT, nullable=False),
        sa.Column("cost_nanousd", INT, nullable=False),
        sa.Column("unpriced", INT, nullable=False),
        sa.Column("latency_ms_sum", INT, nullable=False),
        sa.Column("ttft_ms_sum", INT, nullable=False),
        sa.Column("ttft_count", INT, nullable=False),
        *(sa.Column(f"h{number}", INT, nullable=False) for number in range(16)),
        sa.PrimaryKeyConstraint(
            "host_id",
            "start_at",
            "model_id",
            "provider_id",
            "api_key_id",
            "mode",
            "endpoint",
            "ending",
            name="pk_buckets",
        ),
    )
    op.create_index("ix_buckets_start_at", "buckets", ["start_at"])

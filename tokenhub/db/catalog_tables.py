"""Tables that an administrator fills: what may be routed to, by whom, at what price.

`migrations/` makes them and a test compares the two. Runs no statement.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    Table,
    Text,
    false,
)
from sqlalchemy import text as sql

from tokenhub.db.columns import binary, boolean, integer, metadata, only_row, prices, serial, text

providers = Table(
    "providers",
    metadata,
    text("id", primary_key=True),
    text("type"),
    text("base_url"),
    boolean("enabled"),
    text("cred_store"),
    boolean("demo"),
    Column("endpoints", Text, nullable=False, server_default="[]"),  # JSON
    Column("native_responses", Boolean, nullable=False, server_default=false()),
    integer("revision"),
    integer("created_at"),
    integer("updated_at"),
)

models = Table(
    "models",
    metadata,
    text("id", primary_key=True),
    Column(
        "provider_id",
        String,
        ForeignKey("providers.id", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    text("upstream_model"),
    integer("weight"),
    integer("max_context_tokens"),
    Column("max_output_tokens", BigInteger, nullable=False, server_default="0"),
    *prices(),
    integer("price_version"),
    boolean("enabled"),
    text("pricing_source"),
    Column("pricing_origin", String, nullable=False, server_default=sql("''")),
    Column("capabilities", Text, nullable=False, server_default="[]"),  # JSON
    Column("tool_name_map", Text, nullable=False, server_default="{}"),  # JSON
    boolean("gemma4_output"),
    integer("revision"),
    integer("created_at"),
    integer("updated_at"),
    Column("tags", Text, nullable=False, server_default="[]"),  # JSON
    Column("fallbacks", Text, nullable=False, server_default="[]"),  # JSON
)

price_versions = Table(
    "price_versions",
    metadata,
    serial("version"),
    text("model_id"),  # no foreign key: what a request cost stays explained without the model
    *prices(),
    text("source"),
    integer("effective_at"),
    Index(None, "model_id", "effective_at"),
)

api_keys = Table(
    "api_keys",
    metadata,
    text("id", primary_key=True),
    text("name"),
    Column("key_prefix", String, nullable=False, index=True),
    Column("sha256", LargeBinary(32), nullable=True, unique=True),
    text("bcrypt_hash"),
    Column("scopes", Text, nullable=False),  # JSON
    boolean("enabled"),
    integer("created_at"),
    integer("rotated_at", nullable=True),
    integer("expires_at", nullable=True),
    integer("rotation_days"),
    integer("rate_limit_rps"),
    integer("revision"),
    # The secret before the last rotation, while both open.
    Column("previous_sha256", LargeBinary(32), nullable=True),
    Column("previous_bcrypt_hash", String, nullable=False, server_default=sql("''")),
    integer("previous_until", nullable=True),
    Column("owner", String, nullable=False, server_default=sql("''")),
    # No foreign key: "" = of no team. Changes take turns, so a team with keys cannot go.
    Column("team_id", String, nullable=False, server_default=sql("''"), index=True),
    Column("tags", Text, nullable=False, server_default="[]"),  # JSON
    Column("models", Text, nullable=False, server_default="[]"),  # JSON
    Column("networks", Text, nullable=False, server_default="[]"),  # JSON
    Column("directives", Boolean, nullable=False, server_default=false()),
    Column("policy", Text, nullable=False, server_default="{}"),  # JSON
    Column("rpm", BigInteger, nullable=False, server_default="0"),
    Column("tpm", BigInteger, nullable=False, server_default="0"),
    Column("max_parallel", BigInteger, nullable=False, server_default="0"),
    Column("model_limits", Text, nullable=False, server_default="{}"),  # JSON
    Index(None, "created_at", "id"),
)

key_uses = Table(
    "key_uses",
    metadata,
    text("key_id", primary_key=True),
    integer("last_used_at"),
)

teams = Table(
    "teams",
    metadata,
    text("id", primary_key=True),
    Column("name", String, nullable=False, unique=True),
    boolean("enabled"),
    Column("models", Text, nullable=False),  # JSON
    integer("rate_limit_rps"),
    integer("rpm"),
    integer("tpm"),
    integer("max_parallel"),
    integer("revision"),
    integer("created_at"),
    integer("updated_at"),
)

vault = Table(
    "vault",
    metadata,
    *only_row(),
    text("vault_id"),
    binary("salt"),
    Column("kdf", Text, nullable=False),  # JSON
    binary("wrapped_key"),
    integer("created_at"),
    integer("generation"),
)

vault_entries = Table(
    "vault_entries",
    metadata,
    text("name", primary_key=True),
    binary("sealed"),
    integer("updated_at"),
)

routing_config = Table(
    "routing_config",
    metadata,
    *only_row(),
    text("default_mode"),
    integer("default_max_budget_nanousd"),
    integer("default_max_latency_ms"),
    integer("updated_at"),
)

model_aliases = Table(
    "model_aliases",
    metadata,
    text("name", primary_key=True),
    Column("variants", Text, nullable=False),  # JSON
    boolean("enabled"),
    text("sticky_by"),
    integer("created_at"),
    integer("updated_at"),
    Column("revision", BigInteger, nullable=False, server_default="1"),
)

credentials_file = Table(
    "credentials_file",
    metadata,
    text("kind", primary_key=True),  # provider | model | autoloaded
    text("entity_id", primary_key=True),
    Column("fields", Text, nullable=False),  # JSON: the values that were last applied, no secrets
    boolean("is_listed"),  # whether the file still has it
    integer("applied_at"),
)

generation = Table("generation", metadata, *only_row(), integer("value"))

changes = Table(
    "changes",
    metadata,
    integer("version", primary_key=True),
    integer("at"),
    text("kind"),
    text("entity_id"),
)

audit_logs = Table(
    "audit_logs",
    metadata,
    serial("id"),
    integer("at"),
    text("actor"),
    text("client_ip"),
    text("action"),
    text("resource"),
    Column("detail", Text, nullable=False),
    text("request_id"),
    Index(None, "at", "id"),
)

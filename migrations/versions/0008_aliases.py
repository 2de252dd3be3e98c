"""Aliases that tell whether they were changed; models' tags and fallbacks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008_aliases"
down_revision = "0007_hosts"


def upgrade() -> None:
    for name in ("tags", "fallbacks"):
        column = sa.Column(name, sa.Text(), nullable=False, server_default="[]")
        op.add_column("models", column)
    # Nothing has written or read an alias so far.
    version = sa.Column("revision", sa.BigInteger(), nullable=False, server_default="1")
    op.add_column("model_aliases", version)


def downgrade() -> None:
    op.drop_column("model_aliases", "revision")
    for name in ("fallbacks", "tags"):
        op.drop_column("models", name)

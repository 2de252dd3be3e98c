"""Sums by the hour and the day, which buckets are in them, and what jobs have done."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006_rollups"
down_revision = "0005_admin_access"

INT = sa.BigInteger()
SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

ROLLUP_KEY = ("start_at", "model_id", "provider_id", "api_key_id", "mode", "ending", "team_id")
BUCKET_KEY = (
    "host_id", "start_at", "model_id", "provider_id", "api_key_id", "mode", "endpoint", "ending",
)  # fmt: skip
SUMS = (
    "requests", "input_tokens", "output_tokens", "cost_nanousd", "unpriced", "latency_ms_sum",
    "ttft_ms_sum", "ttft_count", *(f"h{number}" for number in range(16)),
)  # fmt: skip


def upgrade() -> None:
    op.add_column("job_runs", sa.Column("fence", INT, nullable=False, server_default="0"))
    op.add_column("job_runs", sa.Column("tries", INT, nullable=False, server_default="1"))
    op.create_index("ix_job_runs_started_at", "job_runs", ["started_at"])
    _make_points(sa.Column("id", SERIAL, autoincrement=True, nullable=False),
                 sa.PrimaryKeyConstraint("id", name="pk_tsdb_points"))  # fmt: skip
    op.create_index("ix_tsdb_points_at", "tsdb_points", ["at"])
    _set_aside()
    team_id = sa.Column("team_id", sa.String(), nullable=False)
    rolled_at = sa.Column("rolled_at", INT, nullable=False, server_default="0")
    _make_buckets(team_id, rolled_at)
    op.create_index("ix_buckets_unrolled", "buckets", ["start_at"],
                    sqlite_where=sa.text("rolled_at = 0"),
                    postgresql_where=sa.text("rolled_at = 0"))  # fmt: skip
    _put_back(team_id="''")
    for name in ("rollup_hours", "rollup_days"):
        op.create_table(
            name,
            *_columns(ROLLUP_KEY),
            *_columns(SUMS),
            sa.PrimaryKeyConstraint(*ROLLUP_KEY, name=f"pk_{name}"),
        )


def downgrade() -> None:
    op.drop_table("rollup_days")
    op.drop_table("rollup_hours")
    _set_aside()
    _make_buckets()
    _put_back()
    _make_points()
    op.drop_index("ix_job_runs_started_at", "job_runs")
    op.drop_column("job_runs", "tries")
    op.drop_column("job_runs", "fence")


def _columns(names: tuple[str, ...]) -> list[sa.Column[object]]:
    """Numbers, but for ids and words."""
    words = {*BUCKET_KEY, "team_id"} - {"start_at"}
    return [sa.Column(name, sa.String() if name in words else INT, nullable=False) for name in names]


def _make_buckets(*also: sa.Column[str] | sa.Column[int]) -> None:
    """With these columns in the key as well."""
    op.create_table(
        "buckets",
        *_columns(BUCKET_KEY),
        *also,
        *_columns(SUMS),
        sa.PrimaryKeyConstraint(*BUCKET_KEY, *(each.name for each in also), name="pk_buckets"),
    )
    op.create_index("ix_buckets_start_at", "buckets", ["start_at"])


def _set_aside() -> None:
    """Keep the buckets elsewhere, those of the same 10 seconds as one: their key changes, and
    SQLite cannot change a key."""
    key = ", ".join(BUCKET_KEY)
    sums = ", ".join(f"SUM({name}) AS {name}" for name in SUMS)
    op.execute(f"CREATE TABLE buckets_aside AS SELECT {key}, {sums} FROM buckets GROUP BY {key}")
    op.drop_table("buckets")


def _put_back(**also: str) -> None:
    """With these columns and what they are, in SQL."""
    names = ", ".join((*BUCKET_KEY, *SUMS))
    columns, values = ", ".join((names, *also)), ", ".join((names, *also.values()))
    op.execute(f"INSERT INTO buckets ({columns}) SELECT {values} FROM buckets_aside")
    op.drop_table("buckets_aside")


def _make_points(*extra: sa.Column[int] | sa.PrimaryKeyConstraint) -> None:
    """Made anew: nothing has been written into it so far."""
    op.drop_table("tsdb_points")
    op.create_table(
        "tsdb_points",
        *extra,
        sa.Column("at", INT, nullable=False),
        sa.Column("metric", sa.String(), nullable=False),
        sa.Column("model_id", sa.String(), nullable=False),
        sa.Column("provider_id", sa.String(), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
    )
    op.create_index("ix_tsdb_points_metric_at", "tsdb_points", ["metric", "at"])
    op.create_index("ix_tsdb_points_metric_model_id_provider_id_at", "tsdb_points",
                    ["metric", "model_id", "provider_id", "at"])  # fmt: skip

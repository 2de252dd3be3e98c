"""Budgets, what was spent of them, and what each host holds of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004_budgets"
down_revision = "0003_teams_and_keys"

INT = sa.BigInteger()
TEXT = sa.String()
SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
ACCOUNT = (("subject_kind", TEXT), ("subject_id", TEXT), ("period", TEXT), ("start_at", INT))


def upgrade() -> None:
    op.add_column(
        "request_logs",
        sa.Column("team_id", TEXT, nullable=False, server_default=sa.text("''")),
    )
    # A key's monthly budget is a budget like any other.
    op.drop_column("api_keys", "monthly_budget_nanousd")
    op.drop_column("api_keys", "budget_reset_at")
    _make_budgets()
    op.create_table(
        "budget_ledgers",
        *_account(),
        *_columns(
            "spent_nanousd", "credited_nanousd", "leased_nanousd", "requests", "wanted_at",
        ),
        _key("budget_ledgers"),
    )  # fmt: skip
    op.create_index("ix_budget_ledgers_period_start_at", "budget_ledgers", ["period", "start_at"])
    op.create_table(
        "budget_shares",
        sa.Column("host_id", TEXT, nullable=False),
        *_account(),
        *_columns("granted_nanousd", "released_nanousd"),
        _key("budget_shares", "host_id"),
    )
    op.create_index(
        "ix_budget_shares_subject_kind_subject_id_period_start_at",
        "budget_shares",
        [name for name, _ in ACCOUNT],
    )
    op.create_table(
        "budget_credits",
        sa.Column("id", SERIAL, autoincrement=True, nullable=False),
        *_columns("at"),
        *_account(),
        *_columns("amount_nanousd"),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("actor", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_budget_credits"),
    )
    op.create_index(
        "ix_budget_credits_subject_kind_subject_id_at",
        "budget_credits",
        ["subject_kind", "subject_id", "at"],
    )
    op.create_table(
        "budget_alerts",
        *_account(),
        *_columns("percent", "at", "spent_nanousd", "limit_nanousd"),
        sa.PrimaryKeyConstraint(*(name for name, _ in ACCOUNT), "percent", name="pk_budget_alerts"),
    )


def downgrade() -> None:
    for table in (
        "budget_alerts", "budget_credits", "budget_shares", "budget_ledgers", "budgets",
    ):  # fmt: skip
        op.drop_table(table)
    op.drop_column("request_logs", "team_id")
    op.add_column(
        "api_keys",
        sa.Column("monthly_budget_nanousd", INT, nullable=False, server_default="0"),
    )
    op.add_column("api_keys", sa.Column("budget_reset_at", INT, nullable=True))


def _make_budgets() -> None:
    op.create_table(
        "budgets",
        *(sa.Column(name, kind, nullable=False) for name, kind in ACCOUNT[:3]),
        sa.Column("limit_nanousd", INT, nullable=False),
        sa.Column("is_hard", sa.Boolean(), nullable=False),
        sa.Column("mode", TEXT, nullable=False),
        *_columns("created_at", "updated_at", "revision"),
        sa.PrimaryKeyConstraint("subject_kind", "subject_id", "period", name="pk_budgets"),
    )


def _account() -> list[sa.Column[object]]:
    return [sa.Column(name, kind, nullable=False) for name, kind in ACCOUNT]


def _columns(*names: str) -> list[sa.Column[object]]:
    return [sa.Column(name, INT, nullable=False) for name in names]


def _key(table: str, *first: str) -> sa.PrimaryKeyConstraint:
    return sa.PrimaryKeyConstraint(*first, *(name for name, _ in ACCOUNT), name=f"pk_{table}")

"""Tables of money: what may be spent, what was, and what each host holds of the rest.

`migrations/` makes them and a test compares the two. Runs no statement.
"""

from __future__ import annotations

from sqlalchemy import Index, Table

from tokenhub.db.columns import AnyColumn, boolean, integer, metadata, serial, text


def _account() -> tuple[AnyColumn, ...]:
    """The key of an account: whose, which period, and when it began (0 for `total`)."""
    return (
        text("subject_kind", primary_key=True),
        text("subject_id", primary_key=True),
        text("period", primary_key=True),
        integer("start_at", primary_key=True),
    )


budgets = Table(
    "budgets",
    metadata,
    text("subject_kind", primary_key=True),
    text("subject_id", primary_key=True),
    text("period", primary_key=True),
    integer("limit_nanousd"),
    boolean("is_hard"),
    text("mode"),
    integer("created_at"),
    integer("updated_at"),
    integer("revision"),
)

budget_ledgers = Table(
    "budget_ledgers",
    metadata,
    *_account(),
    integer("spent_nanousd"),
    integer("credited_nanousd"),
    integer("leased_nanousd"),  # the sum of the shares
    integer("requests"),
    integer("wanted_at"),  # a host lacked money: the others should give back what they can
    Index(None, "period", "start_at"),
)

budget_shares = Table(
    "budget_shares",
    metadata,
    text("host_id", primary_key=True),
    *_account(),
    integer("granted_nanousd"),
    integer("released_nanousd"),  # taken back by hand; its bills may still come
    # A share is looked up by its account when it is released.
    Index(None, "subject_kind", "subject_id", "period", "start_at"),
)

budget_credits = Table(
    "budget_credits",
    metadata,
    serial("id"),
    integer("at"),
    text("subject_kind"),
    text("subject_id"),
    text("period"),
    integer("start_at"),
    integer("amount_nanousd"),
    text("reason"),
    text("actor"),
    Index(None, "subject_kind", "subject_id", "at"),
)

budget_alerts = Table(
    "budget_alerts",
    metadata,
    *_account(),
    integer("percent", primary_key=True),
    integer("at"),
    integer("spent_nanousd"),
    integer("limit_nanousd"),
)

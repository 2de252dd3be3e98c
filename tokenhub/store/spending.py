"""How the money goes: budgets with their books, and what was spent day by day.

Read from the ledgers, which have a row for each subject and day, however many requests there were.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Select, and_, case, func, select, tuple_

from tokenhub.budgets import Account, Budget, Period, Subject
from tokenhub.db.budget_tables import budget_ledgers, budgets
from tokenhub.db.catalog_tables import api_keys, teams
from tokenhub.store.budgets import budget_from
from tokenhub.store.ledgers import LEDGER_SUMS, Ledger

_ACCOUNT = Account._fields

Days = dict[int, int]
"""Nano-dollars by the beginning of the UTC day, unix ms; days without any are left out."""


def list_running(
    connection: Connection, starts: Mapping[Period, int]
) -> list[tuple[Budget, Ledger]]:
    """All budgets with their books of the running period.

    Args:
        starts: when the running period of each kind began.
    """
    columns = budget_ledgers.c
    began = case(starts, value=budgets.c.period)
    same = and_(
        *(columns[name] == budgets.c[name] for name in _ACCOUNT[:3]), columns.start_at == began
    )
    sums = (func.coalesce(columns[name], 0).label(name) for name in LEDGER_SUMS)
    query: Select[Any] = select(budgets, *sums).join(budget_ledgers, same, isouter=True)
    found = []
    for row in connection.execute(query.order_by(*budgets.primary_key)).mappings():
        budget = budget_from(row)
        account = Account(*budget.subject, budget.period, starts[budget.period])
        found.append((budget, Ledger(account, *(row[name] for name in LEDGER_SUMS))))
    return found


def daily_spending(connection: Connection, from_at: int) -> dict[Subject, Days]:
    """What each subject that has a budget has spent on each day since.

    Args:
        from_at: the beginning of a UTC day, unix ms.
    """
    columns = budget_ledgers.c
    limited = select(budgets.c.subject_kind, budgets.c.subject_id)
    query = select(
        columns.subject_kind, columns.subject_id, columns.start_at, columns.spent_nanousd
    ).where(
        columns.period == "day",
        columns.start_at >= from_at,
        tuple_(columns.subject_kind, columns.subject_id).in_(limited),
    )
    found: dict[Subject, Days] = {}
    for row in connection.execute(query):
        found.setdefault((row.subject_kind, row.subject_id), {})[row.start_at] = row.spent_nanousd
    return found


def daily_total(connection: Connection, from_at: int) -> Days:
    """What all keys together have spent on each day since: every request is some key's."""
    columns = budget_ledgers.c
    query = (
        select(columns.start_at, func.sum(columns.spent_nanousd).label("spent"))
        .where(columns.period == "day", columns.start_at >= from_at, columns.subject_kind == "key")
        .group_by(columns.start_at)
    )
    return {row.start_at: int(row.spent) for row in connection.execute(query)}


def first_day(connection: Connection) -> int | None:
    """The beginning of the first day that anything is known of; None = nothing is."""
    query = select(func.min(budget_ledgers.c.start_at)).where(budget_ledgers.c.period == "day")
    found: int | None = connection.scalar(query)
    return found


def find_owners(connection: Connection) -> dict[Subject, tuple[str, int]]:
    """The name of each subject that has a budget, and when it was made, unix ms."""
    found: dict[Subject, tuple[str, int]] = {}
    for kind, table in (("key", api_keys), ("team", teams)):
        limited = select(budgets.c.subject_id).where(budgets.c.subject_kind == kind)
        rows = connection.execute(
            select(table.c.id, table.c.name, table.c.created_at).where(table.c.id.in_(limited))
        )
        found |= {(kind, row.id): (row.name, row.created_at) for row in rows}
    return found

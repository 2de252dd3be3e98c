"""Budgets as rows: what may be spent, what was credited on top, who was told that it is spent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    Connection,
    RowMapping,
    Select,
    Table,
    and_,
    delete,
    insert,
    select,
    tuple_,
)

from tokenhub.budgets import Account, Budget, Period, Subject
from tokenhub.db.budget_tables import (
    budget_alerts,
    budget_credits,
    budget_ledgers,
    budgets,
)
from tokenhub.store.ledgers import LEDGER_SUMS, Ledger, find_ledgers, ledger_from
from tokenhub.store.statements import insert_into, insert_new, page_of, upsert

_ACCOUNT = Account._fields


def load_budgets(connection: Connection) -> dict[Subject, tuple[Budget, ...]]:
    """All budgets by their subject."""
    found: dict[Subject, list[Budget]] = {}
    for row in connection.execute(select(budgets).order_by(budgets.c.period)).mappings():
        budget = budget_from(row)
        found.setdefault(budget.subject, []).append(budget)
    return {subject: tuple(each) for subject, each in found.items()}


def find_budgets(connection: Connection, subject: Subject) -> tuple[Budget, ...]:
    """One subject's budgets."""
    query = select(budgets).where(*_subject_is(budgets, subject)).order_by(budgets.c.period)
    return tuple(map(budget_from, connection.execute(query).mappings()))


def find_budget(connection: Connection, subject: Subject, period: str) -> Budget | None:
    """A subject's budget for a period."""
    query = select(budgets).where(*_subject_is(budgets, subject), budgets.c.period == period)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else budget_from(row)


def list_budgets(
    connection: Connection, subject: Subject | None, limit: int, offset: int
) -> tuple[list[Budget], int]:
    """A page of the budgets, of all subjects or of one."""
    query = select(budgets).order_by(*budgets.primary_key)
    if subject is not None:
        query = query.where(*_subject_is(budgets, subject))
    rows, total = page_of(connection, query, limit, offset)
    return list(map(budget_from, rows)), total


def save_budget(connection: Connection, budget: Budget, at: int) -> None:
    """Create or replace a budget."""
    values = {
        "limit_nanousd": budget.limit_nanousd,
        "is_hard": budget.is_hard,
        "mode": budget.mode,
        "updated_at": at,
    }
    key = {
        "subject_kind": budget.subject_kind,
        "subject_id": budget.subject_id,
        "period": budget.period,
    }
    statement = insert_into(connection, budgets).values(**key, **values, created_at=at, revision=1)
    changed = {**values, "revision": budgets.c.revision + 1}
    connection.execute(statement.on_conflict_do_update(index_elements=[*key], set_=changed))


def delete_budget(connection: Connection, subject: Subject, period: str) -> bool:
    """Delete a budget; its ledgers stay. False if there was none."""
    where = (*_subject_is(budgets, subject), budgets.c.period == period)
    return connection.execute(delete(budgets).where(*where)).rowcount > 0


def delete_budgets(connection: Connection, subject: Subject) -> None:
    """Delete all budgets of a subject that is no more."""
    connection.execute(delete(budgets).where(*_subject_is(budgets, subject)))


def credit_ledger(connection: Connection, account: Account, amount: int, at: int, *, reason: str,
           actor: str) -> None:  # fmt: skip
    """Allow `amount` more to be spent in this period, and write down why."""
    ledger = find_ledgers(connection, [account])[account]
    values = {"credited_nanousd": ledger.credited_nanousd + amount}
    kept = {
        "spent_nanousd": ledger.spent_nanousd,
        "leased_nanousd": ledger.leased_nanousd,
        "requests": ledger.requests,
        "wanted_at": ledger.wanted_at,
    }
    upsert(connection, budget_ledgers, account._asdict(), {**kept, **values})
    connection.execute(
        insert(budget_credits).values(
            **account._asdict(), at=at, amount_nanousd=amount, reason=reason, actor=actor
        )
    )


def list_credits(
    connection: Connection, subject: Subject, limit: int, offset: int
) -> tuple[list[RowMapping], int]:
    """A page of what was credited to a subject, newest first."""
    query = select(budget_credits).where(*_subject_is(budget_credits, subject))
    query = query.order_by(budget_credits.c.at.desc(), budget_credits.c.id.desc())
    rows, total = page_of(connection, query, limit, offset)
    return list(rows), total


def list_due_alerts(
    connection: Connection, starts: Mapping[Period, int], percent: int
) -> list[tuple[Budget, Ledger]]:
    """Budgets of which so much is spent in the running period and nobody was told.

    Args:
        starts: when the running period of each kind began.
    """
    columns = budget_ledgers.c
    same = and_(*(columns[name] == budgets.c[name] for name in _ACCOUNT[:3]))
    told = and_(
        *(budget_alerts.c[name] == columns[name] for name in _ACCOUNT),
        budget_alerts.c.percent == percent,
    )
    query: Select[Any] = (
        select(budgets, *(columns[name] for name in ("start_at", *LEDGER_SUMS)))
        .join(budget_ledgers, same)
        .join(budget_alerts, told, isouter=True)
        .where(
            tuple_(columns.period, columns.start_at).in_(list(starts.items())),
            # Divided first: a hundred times the largest amount does not fit 64 bits.
            columns.spent_nanousd - columns.credited_nanousd
            >= budgets.c.limit_nanousd // 100 * percent,
            budget_alerts.c.at.is_(None),
        )
    )
    return [(budget_from(row), ledger_from(row)) for row in connection.execute(query).mappings()]


def note_alert(
    connection: Connection, budget: Budget, ledger: Ledger, percent: int, at: int
) -> bool:
    """Write down that somebody was told; False if another host was faster."""
    return insert_new(
        connection,
        budget_alerts,
        **ledger.account._asdict(),
        percent=percent,
        at=at,
        spent_nanousd=ledger.spent_nanousd,
        limit_nanousd=budget.limit_nanousd,
    )


def budget_from(row: RowMapping) -> Budget:
    """A budget from its row."""
    names = ("subject_kind", "subject_id", "period", "limit_nanousd", "is_hard", "mode",
             "created_at", "revision")  # fmt: skip
    return Budget(**{name: row[name] for name in names})


def _subject_is(table: Table, subject: Subject) -> tuple[Any, Any]:
    return table.c.subject_kind == subject[0], table.c.subject_id == subject[1]

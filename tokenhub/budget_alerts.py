"""Tells operators, once, when a budget is nearly or wholly spent in its period.

A soft budget does nothing else, and of a hard one in shadow it says from when on requests would be
refused. Knows no request: it reads the ledgers.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial

from sqlalchemy import Connection

from tokenhub import store
from tokenhub.board.board import unix_ms
from tokenhub.budgets import ALERT_PERCENTS, PERIODS, Budget, Period, period_start
from tokenhub.db import Database
from tokenhub.events import fields_text

WRITER = "budget_alerts"

log = logging.getLogger("tokenhub.budgets")


def tell(database: Database) -> None:
    """Look at all budgets, and tell of those that have reached a mark since the last time.

    Raises:
        DatabaseAway: try again later.
    """
    now = unix_ms()
    starts = {period: period_start(period, now) for period in PERIODS}
    for percent in ALERT_PERCENTS:
        _tell_of(database, starts, percent, now)


def _tell_of(database: Database, starts: Mapping[Period, int], percent: int, now: int) -> None:
    def find(connection: Connection) -> list[tuple[Budget, store.Ledger]]:
        return store.list_due_alerts(connection, starts, percent)

    for budget, ledger in database.read(find):
        note = partial(_note, budget=budget, ledger=ledger, percent=percent, at=now)
        if database.write(note):  # else another host was faster
            log.warning(
                "budget alert",
                extra={
                    "subject": f"{budget.subject_kind}:{budget.subject_id}",
                    "period": budget.period,
                    "percent": percent,
                    "is_hard": budget.is_hard,
                    "mode": budget.mode,
                },
            )


def _note(
    connection: Connection, *, budget: Budget, ledger: store.Ledger, percent: int, at: int
) -> bool:
    """Write down that this was told, and tell those who listen; False if another was faster."""
    if not store.note_alert(connection, budget=budget, ledger=ledger, percent=percent, at=at):
        return False
    fields = {
        "subject_kind": budget.subject_kind,
        "subject_id": budget.subject_id,
        "period": budget.period,
        "percent": percent,
        "mode": budget.mode,
    }
    store.insert_event(
        connection,
        WRITER,
        at=at,
        type_="budget_alert",
        api_key_id=budget.subject_id if budget.subject_kind == "key" else "",
        fields=fields_text(fields),
    )
    return True

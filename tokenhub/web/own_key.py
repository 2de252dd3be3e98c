"""`GET /v1/key`: what the owner of a key may know about it: what it may do, and what is left."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response
from sqlalchemy import Connection

from tokenhub import store
from tokenhub.board.board import unix_ms
from tokenhub.budgets import Account, Subject, period_end, period_start
from tokenhub.catalog import Snapshot
from tokenhub.domain import ApiKey, Limits
from tokenhub.pricing import usd
from tokenhub.web import guards
from tokenhub.web.answers import answer, read, rfc3339

blueprint = Blueprint("own_key", __name__)


@blueprint.get("/v1/key")
def show() -> Response:
    """The key that asks: its limits, what was spent, what remains and until when.

    Nothing of other keys: of its team the limits and the budgets, which are its own as well.
    """
    hub = guards.services()
    snapshot = hub.catalog.current()
    key = guards.admit(hub, snapshot, None).key
    now = unix_ms()
    team = snapshot.teams.get(key.team_id)
    return answer(
        {
            "id": key.id,
            "name": key.name,
            "key_prefix": key.prefix,
            "owner": key.owner,
            "tags": list(key.tags),
            "team": None if team is None else {"id": team.id, "name": team.name},
            "scopes": sorted(key.scopes),
            "models": sorted(model.id for model in snapshot.seen_by(key).routable),
            "expires_at": rfc3339(key.expires_at),
            "limits": _limits(key.limits),
            "model_limits": {name: _limits(each) for name, each in key.model_limits.items()},
            "team_limits": None if team is None else _limits(team.limits),
            "budgets": read(hub, lambda connection: _budgets(connection, snapshot, key, now)),
            "spend": read(hub, lambda connection: _spend(connection, key, now)),
        }
    )


def _limits(limits: Limits) -> dict[str, Any]:
    """null = no limit."""
    return {
        "rate_limit_rps": limits.rps or None,
        "rpm": limits.rpm or None,
        "tpm": limits.tpm or None,
        "max_parallel": limits.parallel or None,
    }


def _budgets(
    connection: Connection, snapshot: Snapshot, key: ApiKey, now: int
) -> list[dict[str, Any]]:
    subjects: list[Subject] = [("key", key.id), ("team", key.team_id)]
    budgets = [each for subject in subjects for each in snapshot.budgets.get(subject, ())]
    accounts = [
        Account(*each.subject, each.period, period_start(each.period, now)) for each in budgets
    ]
    books = store.find_ledgers(connection, accounts) if accounts else {}
    return [
        {
            "of": budget.subject_kind,
            "period": budget.period,
            "limit_usd": usd(budget.limit_nanousd),
            "hard": budget.refuses,
            "spent_usd": usd(books[account].spent_nanousd - books[account].credited_nanousd),
            "remaining_usd": usd(max(0, books[account].spendable(budget.limit_nanousd))),
            "resets_at": rfc3339(period_end(budget.period, now)),
        }
        for budget, account in zip(budgets, accounts, strict=True)
    ]


def _spend(connection: Connection, key: ApiKey, now: int) -> dict[str, Any]:
    """What the key itself has spent, budget or none."""
    accounts = [
        Account("key", key.id, period, period_start(period, now))
        for period in ("day", "month", "total")
    ]
    books = store.find_ledgers(connection, accounts)
    return {f"{account.period}_usd": usd(books[account].spent_nanousd) for account in accounts}

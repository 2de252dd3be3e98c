"""Budgets of keys and teams: set, look at, allow more, see what was spent.

What was spent is read from the ledgers, never added up from the log.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from flask import Blueprint, Response, request
from sqlalchemy import Connection

from tokenhub import store
from tokenhub.access import needs
from tokenhub.board.board import unix_ms
from tokenhub.budgets import (
    BUDGET_MODES,
    PERIODS,
    SUBJECT_KINDS,
    Account,
    Budget,
    BudgetMode,
    Period,
    Subject,
    SubjectKind,
    alert_percent,
    period_end,
    period_start,
)
from tokenhub.errors import Conflict, InvalidRequest, NotFound
from tokenhub.keys import unix_ms_of
from tokenhub.pricing import nanos_from_usd, usd
from tokenhub.web import access, changes, forms, guards
from tokenhub.web.answers import answer, listing, read, rfc3339

routes = Blueprint("budgets", __name__)

USD_MAX = 1_000_000_000
"""Largest amount of money in one field; sums of many must fit 64 bits."""

CREDITED_MAX_NANOUSD = 2**62
"""Most that one period's books may be credited: with a limit on top it still fits."""

HOST_GONE_SECS = 60
"""A host's share may be taken back by hand when it was not seen for so long."""


@routes.get("/budgets")
def list_all() -> Response:
    """Every budget with its books of the running period; of one subject with `subject_kind` and
    `subject_id`."""
    page, now = forms.read_page("subject_kind", "subject_id"), unix_ms()
    subject = _asked_subject()

    def work(connection: Connection) -> tuple[list[dict[str, Any]], int]:
        found, total = store.list_budgets(connection, subject, *page)
        return shown(connection, found, now), total

    return answer(listing("budgets", *read(guards.services(), work), page))


@routes.put("/budgets/<kind>/<path:subject_id>/<period>")
def put(kind: str, subject_id: str, period: str) -> Response:
    """Set a budget; in force from the next request on."""
    hub = guards.services()
    subject, checked = _subject_in(kind, subject_id), _period_in(period)
    values = forms.read_fields(hub, FIELDS, required=("limit_usd",))
    budget = Budget(
        *subject,
        checked,
        limit_nanousd=values["limit_usd"],
        is_hard=values.get("hard", True),
        mode=values.get("mode", "enforce"),
    )

    def write(connection: Connection, budget: Budget) -> None:
        check_subject(connection, subject)
        _write(connection, budget, unix_ms())

    stored = changes.save(
        hub, _subject(subject, checked), "budget.upsert", alter=lambda _: budget, write=write
    )
    return answer({"ok": True, "budget": _with_books(hub, stored)})


@routes.delete("/budgets/<kind>/<path:subject_id>/<period>")
def delete(kind: str, subject_id: str, period: str) -> Response:
    """Remove a budget; well even if there is none. What was spent stays known."""
    forms.check_query()
    hub = guards.services()
    subject, checked = _subject_in(kind, subject_id), _period_in(period)
    changes.delete(
        hub,
        _subject(subject, checked),
        "budget.delete",
        remove=lambda connection: store.delete_budget(connection, subject, checked),
    )
    return answer({"ok": True})


@routes.post("/budgets/<kind>/<path:subject_id>/paid")
@needs("owner")
def paid(kind: str, subject_id: str) -> Response:
    """Allow a subject to spend more in the running periods: what it has spent, or an amount."""
    return _credit(_subject_in(kind, subject_id), "budget.paid")


@routes.post("/apikeys/<path:key_id>/paid")
@needs("owner")
def key_paid(key_id: str) -> Response:
    """As `paid`, at the original's path."""
    return _credit(("key", forms.path_id(key_id)), "apikey.budget_paid")


@routes.get("/budgets/<kind>/<path:subject_id>/credits")
def credits(kind: str, subject_id: str) -> Response:
    """What a subject was allowed besides its budgets, newest first: when, why and by whom."""
    subject, page = _subject_in(kind, subject_id), forms.read_page()
    rows, total = read(
        guards.services(), lambda connection: store.list_credits(connection, subject, *page)
    )
    found = [
        {
            "timestamp": rfc3339(row["at"]),
            "period": row["period"],
            "period_start": rfc3339(row["start_at"]),
            "amount_usd": usd(row["amount_nanousd"]),
            "reason": row["reason"],
            "actor": row["actor"],
        }
        for row in rows
    ]
    return answer(listing("credits", found, total, page))


@routes.post("/budgets/release")
@needs("owner")
def release() -> Response:
    """Take back what a host holds that is gone for good.

    Only of one that was not seen for a minute. If it comes back, what it has spent is charged all
    the same, on top of what others may have spent by then.
    """
    hub = guards.services()
    host_id = forms.read_fields(hub, RELEASE_FIELDS, required=("host_id",))["host_id"]

    def work(connection: Connection) -> dict[Account, int]:
        if store.is_host_seen(connection, host_id, HOST_GONE_SECS):
            raise Conflict(
                "the host was seen less than a minute ago", code="host_alive", param="host_id"
            )
        return store.release_host(connection, host_id)

    detail = {"before": {"host": host_id}, "after": None}
    change = changes.change_of(hub, "budget", "", action="budget.release", detail=detail)
    released = hub.catalog.apply(change, work)
    return answer(
        {"ok": True, "released": len(released), "released_usd": usd(sum(released.values()))}
    )


@routes.get("/spend")
def spend() -> Response:
    """What was spent, from the ledgers: by key or team, by day, month or altogether."""
    page = forms.read_page("by", "period", "id", "from", "to")
    kind = _query("by", SUBJECT_KINDS, "key")
    period = _query("period", PERIODS, "month")
    from_at, to_at = _moment("from"), _moment("to")
    subject_id = _asked_id("id")

    def work(connection: Connection) -> tuple[list[store.Ledger], int]:
        return store.list_ledgers(
            connection,
            kind,
            period,
            page,
            subject_id=subject_id,
            from_at=from_at or 0,
            to_at=2**62 if to_at is None else to_at,
        )

    rows, total = read(guards.services(), work)
    return answer(listing("spend", list(map(_spent, rows)), total, page))


def shown(connection: Connection, budgets: list[Budget], now: int) -> list[dict[str, Any]]:
    """Budgets as the API shows them, each with its books of the running period."""
    accounts = {budget: _running(budget, now) for budget in budgets}
    books = store.find_ledgers(connection, list(accounts.values())) if budgets else {}
    return [record(budget, books[account], now) for budget, account in accounts.items()]


def record(budget: Budget, ledger: store.Ledger, now: int) -> dict[str, Any]:
    """A budget as the API shows it.

    `spent_usd` is what counts against it: what was spent less what was credited.
    """
    spent = ledger.spent_nanousd - ledger.credited_nanousd
    percent = alert_percent(spent, budget.limit_nanousd)
    return {
        **_setting(budget),
        "spent_usd": usd(spent),
        "reserved_usd": usd(ledger.leased_nanousd),
        "remaining_usd": usd(max(0, budget.limit_nanousd - spent - ledger.leased_nanousd)),
        "period_start": rfc3339(ledger.account.start_at),
        "resets_at": rfc3339(period_end(budget.period, now)),
        "status": {0: "ok", 80: "alert"}.get(percent, "exceeded"),
    }


def check_subject(connection: Connection, subject: Subject) -> None:
    """Raises: NotFound: there is no such key or team."""
    kind, id_ = subject
    find = store.find_key_row if kind == "key" else store.find_team
    if find(connection, id_) is None:
        raise NotFound(f"there is no such {kind}", param="subject_id")


def limit(name: str, value: Any) -> int:
    """Dollars as nano-dollars."""
    return nanos_from_usd(forms.number(0, USD_MAX)(name, value))


def write_monthly(connection: Connection, key_id: str, limit_nanousd: int) -> None:
    """Make a key's budget for the month what its `monthly_budget_usd` says; 0 = none."""
    subject = ("key", key_id)
    before = store.find_budget(connection, subject, "month")
    if (0 if before is None else before.limit_nanousd) == limit_nanousd:
        return
    now = unix_ms()
    if limit_nanousd:
        budget = before or Budget("key", key_id, "month", 0)
        _write(connection, replace(budget, limit_nanousd=limit_nanousd), now)
    else:
        store.delete_budget(connection, subject, "month")
    store.record_change(connection, "budget", f"key:{key_id}", now)


def drop(connection: Connection, subject: Subject) -> None:
    """Remove all budgets of a subject that is being deleted."""
    if store.find_budgets(connection, subject):
        store.delete_budgets(connection, subject)
        store.record_change(connection, "budget", ":".join(subject), unix_ms())


def _write(connection: Connection, budget: Budget, now: int) -> None:
    store.save_budget(connection, budget, now)
    # A lower limit holds for what hosts have not spent yet.
    store.ask_back(connection, [_running(budget, now)], now)


def _credit(subject: Subject, action: str) -> Response:
    hub = guards.services()
    values = forms.read_fields(hub, PAID_FIELDS, may_be_empty=True)
    asked: str | None = values.get("period")
    amount: int | None = values.get("amount_usd")
    now, actor = unix_ms(), access.current_admin().actor

    def work(connection: Connection) -> None:
        check_subject(connection, subject)
        accounts = [
            Account(*subject, period, period_start(period, now))
            for period in ([asked] if asked else PERIODS)
        ]
        for account, ledger in store.find_ledgers(connection, accounts).items():
            spent = ledger.spent_nanousd - ledger.credited_nanousd
            credited = max(0, spent) if amount is None else amount
            if ledger.credited_nanousd + credited > CREDITED_MAX_NANOUSD:
                raise InvalidRequest("amount_usd: too much in all", param="amount_usd")
            if credited or asked:
                store.credit_ledger(
                    connection, account, credited, now,
                    reason=values.get("reason", ""), actor=actor,
                )  # fmt: skip

    credit = {
        "period": asked or "all",
        "amount_usd": "spent" if amount is None else usd(amount),
        "reason": values.get("reason", ""),
    }
    detail, name = {"before": None, "after": credit}, ":".join(subject)
    hub.catalog.apply(changes.change_of(hub, "budget", name, action=action, detail=detail), work)
    return answer({"ok": True})


def _with_books(hub: Any, budget: Budget) -> dict[str, Any]:
    now = unix_ms()
    [found] = read(hub, lambda connection: shown(connection, [budget], now))
    return found


def _setting(budget: Budget) -> dict[str, Any]:
    return {
        "subject_kind": budget.subject_kind,
        "subject_id": budget.subject_id,
        "period": budget.period,
        "limit_usd": usd(budget.limit_nanousd),
        "hard": budget.is_hard,
        "mode": budget.mode,
    }


def _spent(ledger: store.Ledger) -> dict[str, Any]:
    account = ledger.account
    return {
        "subject_kind": account.subject_kind,
        "subject_id": account.subject_id,
        "period": account.period,
        "period_start": rfc3339(account.start_at),
        "spent_usd": usd(ledger.spent_nanousd),
        "credited_usd": usd(ledger.credited_nanousd),
        "reserved_usd": usd(ledger.leased_nanousd),
        "requests": ledger.requests,
    }


def _running(budget: Budget, now: int) -> Account:
    return Account(*budget.subject, budget.period, period_start(budget.period, now))


def _subject(subject: Subject, period: Period) -> changes.Subject[Budget]:
    return changes.Subject(
        kind="budget",
        id=":".join(subject),
        find=lambda connection: store.find_budget(connection, subject, period),
        show=_setting,
    )


def _subject_in(kind: str, subject_id: str) -> tuple[SubjectKind, str]:
    if kind not in SUBJECT_KINDS:
        raise NotFound("budgets belong to a key or a team")
    return kind, forms.path_id(subject_id)


def _period_in(period: str) -> Period:
    if period not in PERIODS:
        raise NotFound("a budget is for a day, a month or total")
    return period


def _asked_subject() -> Subject | None:
    id_ = _asked_id("subject_id")
    if not id_ and "subject_kind" not in request.args:
        return None
    kind = _query("subject_kind", SUBJECT_KINDS, "key")
    if not id_:
        raise InvalidRequest("subject_id is required", code="missing_field", param="subject_id")
    return kind, id_


def _asked_id(name: str) -> str:
    found: str = forms.text()(name, request.args.get(name, ""))
    return found


def _query(name: str, words: tuple[str, ...], default: str) -> str:
    found: str = forms.one_of(*words)(name, request.args.get(name, default))
    return found


def _moment(name: str) -> int | None:
    given = request.args.get(name)
    if given is None:
        return None
    is_number = given.isascii() and given.isdecimal() and len(given) <= forms.DIGITS_MAX + 3
    return unix_ms_of(int(given) if is_number else given, name)


def _read_mode(name: str, value: Any) -> BudgetMode:
    return cast(BudgetMode, forms.one_of(*BUDGET_MODES)(name, value))


FIELDS: dict[str, forms.Reader] = {
    "limit_usd": limit,
    "hard": forms.flag,
    "mode": _read_mode,
}
PAID_FIELDS: dict[str, forms.Reader] = {
    "amount_usd": limit,
    "reason": forms.text(),
    "period": forms.one_of(*PERIODS),
}
RELEASE_FIELDS: dict[str, forms.Reader] = {"host_id": forms.label}

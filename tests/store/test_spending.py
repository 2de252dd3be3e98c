"""How the money goes, and how models stand, as the views read it from either database."""

from __future__ import annotations

from functools import partial

import orjson
import pytest

from tests.store.test_ingest import make_batch
from tokenhub import store
from tokenhub.budgets import PERIODS, Budget, Period, SubjectKind, accounts_of, period_start
from tokenhub.domain import Team
from tokenhub.store import HostState, spending
from tokenhub.store.snoozes import (
    Snooze,
    delete_snooze,
    find_snooze,
    load_snoozes,
    save_snooze,
)
from tokenhub.store.standing import list_ill

DAY_MS = 86_400_000
NOW = 1_763_900_000_123
TODAY = period_start("day", NOW)
STARTS = {period: period_start(period, NOW) for period in PERIODS}


@pytest.fixture
def read(database):
    return lambda function, *args: database.read(lambda connection: function(connection, *args))


@pytest.fixture
def spend(database):
    def work(kind: str, id_: str, nanousd: int, at: int) -> None:
        charges = dict.fromkeys(accounts_of(kind, id_, at), store.Charge(nanousd, 0, 1))
        database.write(partial(store.charge_ledgers, host_id="h", charges=charges))

    return work


def limit(database, kind: SubjectKind, id_: str, period: Period) -> None:
    budget = Budget(kind, id_, period, 10**9)
    database.write(lambda connection: store.save_budget(connection, budget, NOW))


def test_every_budget_is_found_with_its_books_of_now(database, read, spend):
    assert read(spending.list_running, STARTS) == []
    for period in PERIODS:
        limit(database, "key", "a", period)
    limit(database, "team", "t", "day")
    spend("key", "a", 5, NOW)
    spend("key", "a", 7, TODAY - 1)
    spend("key", "b", 9, NOW)
    found = {
        (budget.subject_id, budget.period): ledger.spent_nanousd
        for budget, ledger in read(spending.list_running, STARTS)
    }
    assert found == {("a", "day"): 5, ("a", "month"): 12, ("a", "total"): 12, ("t", "day"): 0}


def test_spending_by_day_is_of_those_with_budgets_and_in_total_of_all_keys(database, read, spend):
    assert (read(spending.daily_total, 0), read(spending.first_day)) == ({}, None)
    limit(database, "key", "a", "month")
    for ago, key_id in ((0, "a"), (1, "a"), (9, "a"), (1, "b")):
        spend("key", key_id, 10**12, NOW - ago * DAY_MS)
    spend("team", "t", 1, NOW)
    week = TODAY - 7 * DAY_MS
    days = {TODAY: 10**12, TODAY - DAY_MS: 10**12}
    assert read(spending.daily_spending, week) == {("key", "a"): days}
    assert read(spending.daily_total, week) == days | {TODAY - DAY_MS: 2 * 10**12}
    assert read(spending.first_day) == TODAY - 9 * DAY_MS


def test_owners_of_budgets_have_names(database, read):
    team = Team("t", "Ops", created_at=NOW)
    database.write(lambda connection: store.save_team(connection, team, NOW))
    limit(database, "team", "t", "day")
    limit(database, "team", "gone", "day")
    assert read(spending.find_owners) == {("team", "t"): ("Ops", NOW)}


def change(
    host: str, at: int, state: str, kind: str = "model", **more: object
) -> tuple[object, ...]:
    fields = {"kind": kind, f"{kind}_id": "m", "new_state": state, "breaker": "open", **more}
    return (host, at, "health_change", "", as_json(fields))


def as_json(fields: dict[str, object]) -> str:

    return orjson.dumps(fields).decode()


def test_who_is_ill_is_what_each_living_host_said_last(database, read):
    rows = [
        change("h1", 100, "degraded"), change("h1", 200, "down", until_at=900, reason="timeout"),
        change("h2", 150, "down"), change("h2", 160, "healthy"),
        change("h1", 210, "disabled", kind="provider"), change("h1", 220, "x", kind="admin"),
        change("h3", 230, "down"), change("h1", 50, "down", model_id="older"),
    ]  # fmt: skip
    database.write(partial(store.ingest, batch=make_batch(events=rows)))
    assert read(list_ill, {}) == []
    [found] = read(list_ill, {"h1": 90, "h2": 90})
    assert (found.host_id, found.id, found.state, found.since_at) == ("h1", "m", "down", 100)
    assert (found.until_at, found.reason) == (900, "timeout")
    assert [each.host_id for each in read(list_ill, {"h1": 201, "h3": 0})] == ["h3"]


def test_snoozes_end_and_old_ones_go(database, read):
    for subject, until_at in (("a", NOW - 5), ("b", NOW + 5)):
        snooze = Snooze(subject, until_at, "admin")
        database.write(partial(save_snooze, snooze=snooze, now=NOW - 10))
    assert list(read(load_snoozes, NOW)) == ["b"]
    database.write(partial(save_snooze, snooze=Snooze("b", NOW + 9, "other"), now=NOW))
    assert read(find_snooze, "a") is None
    assert read(find_snooze, "b") == Snooze("b", NOW + 9, "other")
    database.write(partial(delete_snooze, subject="b"))
    assert read(load_snoozes, NOW) == {}


def test_a_host_tells_how_it_stands_and_one_of_another_version_need_not(database, read):
    state = HostState(lag_secs=1.5, set_aside=2, vault_locked=True)
    for id_, said in (("new", state), ("old", None)):
        beat = partial(store.beat_host, host_id=id_, name="n", version="1", workers=1, started_at=1)
        database.write(partial(beat, state=said))
    rows, _ = read(store.list_hosts, 10, 0)
    assert {row["id"]: store.host_state_of(row) for row in rows} == {"new": state, "old": None}

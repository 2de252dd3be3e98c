"""What was spent and what was credited through the admin API, and shares of hosts that are gone."""

from __future__ import annotations

import pytest

from tests.web.money_kit import Money
from tests.web.test_admin_budgets import DAY_MS, PERIODS, at
from tokenhub import store
from tokenhub.board.board import unix_ms
from tokenhub.budgets import Account

SOME_DAY = at("2026-03-31T23:59:59+00:00")


@pytest.fixture
def environ(environ, database_dsn):
    return {**environ, "TOKENHUB_DB_DSN": database_dsn}


@pytest.fixture
def money(app, admin) -> Money:
    return Money(app, admin)


@pytest.fixture
def key_id(money: Money) -> str:
    return money.key()


@pytest.mark.parametrize("path", ["budgets/key/{}/paid", "apikeys/{}/paid"])
def test_paid_lets_all_running_periods_begin_afresh(money, admin, key_id, path):
    for period in PERIODS:
        money.put("key", key_id, period, limit_usd=10)
    money.spend("key", key_id, 9)
    assert admin.find("apikeys", key_id)["budget_reset_at"] is None
    assert admin.ok("POST", path.format(key_id)) == {"ok": True}
    for budget in money.find("key", key_id).values():
        assert (budget["spent_usd"], budget["remaining_usd"]) == (0, 10)
        assert (budget["limit_usd"], budget["status"]) == (10, "ok")
    assert abs(at(admin.find("apikeys", key_id)["budget_reset_at"]) - unix_ms()) < 60_000
    listed = admin.ok("GET", f"budgets/key/{key_id}/credits")
    assert {row["period"]: row["amount_usd"] for row in listed["credits"]} == dict.fromkeys(
        PERIODS, 9
    )
    admin.ok("POST", path.format(key_id))  # nothing is spent any more: nothing to credit
    assert admin.ok("GET", f"budgets/key/{key_id}/credits")["total"] == 3


def test_an_amount_is_credited_to_the_period_that_is_named(money, admin, key_id):
    for period in PERIODS:
        money.put("key", key_id, period, limit_usd=10)
    money.spend("key", key_id, 4)
    body = {"amount_usd": 2.5, "reason": "invoice 7", "period": "day"}
    admin.ok("POST", f"budgets/key/{key_id}/paid", body)
    spent = {period: found["spent_usd"] for period, found in money.find("key", key_id).items()}
    assert spent == {"day": 1.5, "month": 4, "total": 4}
    [row] = admin.ok("GET", f"budgets/key/{key_id}/credits")["credits"]
    assert abs(at(row.pop("timestamp")) - unix_ms()) < 60_000
    start = row.pop("period_start")
    assert start == money.find("key", key_id)["day"]["period_start"]
    assert row == {"period": "day", "amount_usd": 2.5, "reason": "invoice 7", "actor": "admin"}


def test_a_credit_may_come_before_anything_is_spent(money, admin):
    team_id = money.team()
    money.put("team", team_id, "total", limit_usd=1)
    admin.ok("POST", f"budgets/team/{team_id}/paid", {"amount_usd": 5})
    found = money.find("team", team_id)["total"]
    assert (found["spent_usd"], found["remaining_usd"]) == (-5, 6)


def test_credits_are_listed_newest_first_in_pages_and_outlive_their_key(money, admin, key_id):
    other = money.key()
    for number in range(4):
        body = {"amount_usd": 1, "period": "total", "reason": str(number)}
        admin.ok("POST", f"apikeys/{key_id}/paid", body)
    admin.ok("POST", f"apikeys/{other}/paid", {"amount_usd": 1})
    path = f"budgets/key/{key_id}/credits"
    admin.ok("DELETE", f"apikeys/{key_id}")
    assert [row["reason"] for row in admin.ok("GET", path)["credits"]] == list("3210")
    page = admin.ok("GET", f"{path}?limit=2&offset=1")
    assert [row["reason"] for row in page["credits"]] == ["2", "1"]
    assert page["total"] == 4
    assert admin.refused("GET", f"{path}?limit=0") == (400, "invalid_request", "limit")


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"amount_usd": -1}, "invalid_request", "amount_usd"),
        ({"amount_usd": "1"}, "invalid_request", "amount_usd"),
        ({"amount_usd": None}, "invalid_request", "amount_usd"),
        ({"reason": 1}, "invalid_request", "reason"),
        ({"reason": "a\nb"}, "invalid_request", "reason"),
        ({"reason": "x" * 201}, "invalid_request", "reason"),
        ({"period": "week"}, "invalid_request", "period"),
        ({"period": None}, "invalid_request", "period"),
        ({"host_id": "x"}, "unknown_field", "host_id"),
    ],
)
def test_a_wrong_credit_is_refused_by_its_field(money, admin, key_id, body, code, param):
    money.spend("key", key_id, 1)
    assert admin.refused("POST", f"apikeys/{key_id}/paid", body) == (400, code, param)
    assert admin.ok("GET", f"budgets/key/{key_id}/credits")["total"] == 0


def test_credits_end_where_they_could_not_be_counted_any_more(admin, key_id):
    path, body = f"apikeys/{key_id}/paid", {"amount_usd": 1e9, "period": "total"}
    for _ in range(4):
        admin.ok("POST", path, body)
    assert admin.refused("POST", path, body) == (400, "invalid_request", "amount_usd")


def test_spending_is_listed_by_key_team_and_period_the_dearest_first(money, admin):
    keys, team_id = [money.key() for _ in range(3)], money.team()
    for usd, key_id in enumerate(keys, start=1):
        money.spend("key", key_id, usd)
    money.spend("key", keys[0], 1)
    money.spend("team", team_id, 6)
    for period in PERIODS:
        rows = admin.ok("GET", f"spend?period={period}")["spend"]
        assert [(row["subject_id"], row["spent_usd"]) for row in rows] == [
            (keys[2], 3), *sorted([(keys[0], 2), (keys[1], 2)])
        ]  # fmt: skip
        [row] = admin.ok("GET", f"spend?by=team&period={period}")["spend"]
        assert (row["subject_kind"], row["subject_id"], row["spent_usd"]) == ("team", team_id, 6)
    listed = admin.ok("GET", "spend")
    assert (listed["total"], {row["period"] for row in listed["spend"]}) == (3, {"month"})
    page = admin.ok("GET", "spend?limit=1&offset=1")
    assert page["spend"] == listed["spend"][1:2]
    [own] = admin.ok("GET", f"spend?id={keys[0]}")["spend"]
    assert (own["subject_id"], own["requests"], own["credited_usd"]) == (keys[0], 2, 0)


def test_a_credit_does_not_change_what_was_spent(money, admin, key_id):
    money.spend("key", key_id, 3)
    admin.ok("POST", f"apikeys/{key_id}/paid")
    [row] = admin.ok("GET", "spend")["spend"]
    assert (row["spent_usd"], row["credited_usd"], row["requests"]) == (3, 3, 1)


@pytest.mark.parametrize(
    ("query", "days"),
    [
        ("", [1, 31, 30]),
        ("&from=2026-03-31T00:00:00Z", [1, 31]),
        ("&from=2026-03-31T00:00:00.001Z", [1]),
        ("&to=2026-04-01T00:00:00Z", [31, 30]),
        ("&from=2026-03-31T02:00:00%2B02:00&to=2026-04-01T00:00:00Z", [31]),
        (f"&from={at('2026-04-01T00:00:00+00:00') // 1000}", [1]),
        (f"&to={at('2026-03-31T00:00:00+00:00')}", [30]),
        ("&to=0", []),
    ],
)
def test_spending_is_told_of_the_periods_that_began_in_a_span(money, admin, key_id, query, days):
    for offset in (-DAY_MS, 0, DAY_MS):
        money.spend("key", key_id, 1, SOME_DAY + offset)
    rows = admin.ok("GET", f"spend?period=day&id={key_id}{query}")["spend"]
    assert [int(row["period_start"][8:10]) for row in rows] == days
    months = admin.ok("GET", f"spend?period=month&id={key_id}")["spend"]
    assert [row["spent_usd"] for row in months] == [1, 2]  # April is a month of its own
    [total] = admin.ok("GET", f"spend?period=total&id={key_id}")["spend"]
    assert (total["spent_usd"], total["period_start"]) == (3, None)


@pytest.mark.parametrize(
    ("query", "param"),
    [("by=model", "by"), ("period=week", "period"), ("from=yesterday", "from"),
     ("to=2026-02-30T00:00:00Z", "to"), ("from=-1", "from"), ("to=99999999999999", "to"),
     ("id=a%00b", "id"), ("limit=1001", "limit")],
)  # fmt: skip
def test_a_wrong_question_about_spending_is_refused_by_its_parameter(admin, query, param):
    assert admin.refused("GET", f"spend?{query}") == (400, "invalid_request", param)


def lease(money: Money, host_id: str, accounts: list[Account]) -> None:
    money.app.services.database.write(
        lambda connection: store.lease_money(
            connection, host_id, dict.fromkeys(accounts, 0), [250_000_000]
        )
    )


def test_what_a_lost_host_holds_can_be_given_to_others(money, admin, key_id):
    for period in ("day", "total"):
        money.put("key", key_id, period, limit_usd=1)
    accounts = [
        Account("key", key_id, period, at(found["period_start"]) if found["period_start"] else 0)
        for period, found in sorted(money.find("key", key_id).items())
    ]
    lease(money, "host_gone", accounts)
    lease(money, "host_other", accounts[:1])
    found = admin.ok("POST", "budgets/release", {"host_id": "host_gone"})
    assert found == {"ok": True, "released": 2, "released_usd": 0.5}
    reserved = {period: each["reserved_usd"] for period, each in money.find("key", key_id).items()}
    assert reserved == {"day": 0.25, "total": 0}
    again = admin.ok("POST", "budgets/release", {"host_id": "host_gone"})
    assert (again["released"], again["released_usd"]) == (0, 0)


def test_a_host_that_lives_keeps_what_it_holds(money, admin, key_id):
    money.put("key", key_id, "total", limit_usd=1)
    lease(money, "host_here", [Account("key", key_id, "total", 0)])
    money.app.services.database.write(
        lambda connection: store.beat_host(
            connection, "host_here", name="h", version="1", workers=1, started_at=1
        )
    )
    refused = admin.refused("POST", "budgets/release", {"host_id": "host_here"})
    assert refused == (409, "host_alive", "host_id")
    assert money.find("key", key_id)["total"]["reserved_usd"] == 0.25


@pytest.mark.parametrize("body", [None, {}, {"host_id": ""}, {"host_id": 1}, {"host_id": "a\x00"}])
def test_release_needs_a_host(admin, body):
    assert admin.refused("POST", "budgets/release", body)[0] == 400

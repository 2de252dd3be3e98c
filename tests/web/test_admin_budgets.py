"""Budgets through the admin API: set, seen, credited, and gone with whom they belonged to."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.web.money_kit import Money
from tokenhub import store
from tokenhub.board.board import unix_ms
from tokenhub.budgets import Account, period_end, period_start
from tokenhub.web.answers import rfc3339

DAY_MS = 86_400_000
PERIODS = ("day", "month", "total")


@pytest.fixture
def environ(environ, database_dsn):
    return {**environ, "TOKENHUB_DB_DSN": database_dsn}


@pytest.fixture
def money(app, admin) -> Money:
    return Money(app, admin)


@pytest.fixture
def key_id(money: Money) -> str:
    return money.key()


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).astimezone(UTC).timestamp() * 1000)


@pytest.mark.parametrize("period", PERIODS)
def test_a_budget_is_answered_with_its_books(money, key_id, period):
    money.spend("key", key_id, 1.25)
    now = unix_ms()
    assert money.put("key", key_id, period, limit_usd=10) == {
        "subject_kind": "key",
        "subject_id": key_id,
        "period": period,
        "limit_usd": 10,
        "hard": True,
        "mode": "enforce",
        "spent_usd": 1.25,
        "reserved_usd": 0,
        "remaining_usd": 8.75,
        "period_start": rfc3339(period_start(period, now)),
        "resets_at": rfc3339(period_end(period, now)),
        "status": "ok",
    }


@pytest.mark.parametrize(
    ("spent", "status"), [(7.99, "ok"), (8, "alert"), (9.99, "alert"), (10, "exceeded"),
                          (12, "exceeded")],
)  # fmt: skip
def test_the_status_says_how_far_it_is_spent(money, key_id, spent, status):
    money.spend("key", key_id, spent)
    found = money.put("key", key_id, "month", limit_usd=10)
    assert (found["status"], found["remaining_usd"]) == (status, max(0, round(10 - spent, 9)))


def test_what_hosts_hold_is_reserved_and_does_not_remain(app, money, key_id):
    money.put("key", key_id, "total", limit_usd=1)
    wants = {Account("key", key_id, "total", 0): 0}
    app.services.database.write(
        lambda connection: store.lease_money(connection, "host_x", wants, [250_000_000])
    )
    found = money.find("key", key_id)["total"]
    assert (found["reserved_usd"], found["remaining_usd"], found["spent_usd"]) == (0.25, 0.75, 0)


def test_put_again_replaces_the_whole_budget(money, key_id):
    money.put("key", key_id, "day", limit_usd=1, hard=False, mode="shadow")
    again = money.put("key", key_id, "day", limit_usd=0)
    assert (again["limit_usd"], again["hard"], again["mode"]) == (0, True, "enforce")
    assert list(money.find("key", key_id)) == ["day"]


def test_a_budget_of_a_team_is_not_its_keys(money, admin):
    team_id = money.team()
    money.key(team_id=team_id)
    money.put("team", team_id, "month", limit_usd=5, mode="shadow")
    [row] = admin.ok("GET", "budgets")["budgets"]
    assert (row["subject_kind"], row["subject_id"], row["mode"]) == ("team", team_id, "shadow")
    assert admin.ok("GET", "apikeys")["keys"][0]["monthly_budget_usd"] == 0


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({}, "missing_field", "limit_usd"),
        ({"limit_usd": None}, "invalid_request", "limit_usd"),
        ({"limit_usd": "5"}, "invalid_request", "limit_usd"),
        ({"limit_usd": True}, "invalid_request", "limit_usd"),
        ({"limit_usd": -0.01}, "invalid_request", "limit_usd"),
        ({"limit_usd": 1e9 + 1}, "invalid_request", "limit_usd"),
        ({"limit_usd": 1, "hard": 1}, "invalid_request", "hard"),
        ({"limit_usd": 1, "hard": None}, "invalid_request", "hard"),
        ({"limit_usd": 1, "mode": "off"}, "invalid_request", "mode"),
        ({"limit_usd": 1, "period": "day"}, "unknown_field", "period"),
        ([], "bad_json", None),
    ],
)
def test_a_wrong_field_is_refused_by_its_name(money, admin, key_id, body, code, param):
    found = admin.refused("PUT", f"budgets/key/{key_id}/day", body)
    assert found == (400, code, param)
    assert money.find("key", key_id) == {}


@pytest.mark.parametrize(
    "path",
    ["key/nobody/day", "team/{key}/day", "host/{key}/day", "key/{key}/week", "key/a%00b/day"],
)
def test_what_nobody_has_is_404(admin, key_id, path):
    asked = path.format(key=key_id)
    assert admin.refused("PUT", f"budgets/{asked}", {"limit_usd": 1})[0] == 404
    assert admin.ok("GET", "budgets")["budgets"] == []


@pytest.mark.parametrize(("kind", "status"), [("key", 404), ("team", 404), ("host", 404)])
def test_nobody_cannot_be_credited(admin, kind, status):
    assert admin.refused("POST", f"budgets/{kind}/nobody/paid")[0] == status
    assert admin.refused("POST", "apikeys/nobody/paid")[0] == status


def test_deleting_is_well_twice_and_keeps_what_was_spent(money, admin, key_id):
    money.put("key", key_id, "day", limit_usd=1)
    money.put("key", key_id, "month", limit_usd=2)
    money.spend("key", key_id, 0.5)
    for _ in range(2):
        assert admin.ok("DELETE", f"budgets/key/{key_id}/day") == {"ok": True}
    assert list(money.find("key", key_id)) == ["month"]
    [row] = admin.ok("GET", "spend?period=day")["spend"]
    assert (row["subject_id"], row["spent_usd"]) == (key_id, 0.5)


def test_the_list_is_of_all_or_of_one_and_comes_in_pages(money, admin):
    keys = [money.key() for _ in range(3)]
    for key_id in keys:
        for period in ("day", "month"):
            money.put("key", key_id, period, limit_usd=1)
    listed = admin.ok("GET", "budgets")
    assert listed["total"] == len(listed["budgets"]) == 6
    page = admin.ok("GET", "budgets?limit=2&offset=3")
    assert page["budgets"] == listed["budgets"][3:5]
    assert (page["total"], page["limit"], page["offset"]) == (6, 2, 3)
    assert set(money.find("key", keys[1])) == {"day", "month"}
    assert admin.ok("GET", f"budgets?subject_id={keys[1]}")["total"] == 2
    assert money.find("team", keys[1]) == {}


@pytest.mark.parametrize(
    ("query", "param"),
    [("limit=0", "limit"), ("offset=x", "offset"), ("subject_kind=host", "subject_kind"),
     ("subject_kind=key", "subject_id"), ("subject_id=a%00b", "subject_id")],
)  # fmt: skip
def test_a_wrong_question_is_refused_by_its_parameter(admin, query, param):
    status, _, named = admin.refused("GET", f"budgets?{query}")
    assert (status, named) == (400, param)


def test_a_keys_monthly_budget_is_its_budget_for_the_month(money, admin):
    key_id = money.key(monthly_budget_usd=12.5)
    assert money.find("key", key_id)["month"]["limit_usd"] == 12.5
    path = f"apikeys/{key_id}"
    said = admin.ok("PATCH", path, {"monthly_budget_usd": 20})["apikey"]
    assert said["monthly_budget_usd"] == money.find("key", key_id)["month"]["limit_usd"] == 20
    money.put("key", key_id, "month", limit_usd=3)
    assert admin.find("apikeys", key_id)["monthly_budget_usd"] == 3
    assert admin.ok("PATCH", path, {"name": "x"})["apikey"]["monthly_budget_usd"] == 3
    admin.ok("DELETE", f"budgets/key/{key_id}/month")
    assert admin.find("apikeys", key_id)["monthly_budget_usd"] == 0


@pytest.mark.parametrize("none", [0, None])
def test_no_monthly_budget_means_none(money, admin, none):
    key_id = money.key(monthly_budget_usd=5)
    admin.ok("PATCH", f"apikeys/{key_id}", {"monthly_budget_usd": none})
    assert money.find("key", key_id) == {}
    assert admin.find("apikeys", key_id)["monthly_budget_usd"] == 0


def test_another_monthly_limit_leaves_the_rest_of_the_budget_alone(money, admin, key_id):
    money.put("key", key_id, "month", limit_usd=5, hard=False)
    admin.ok("PATCH", f"apikeys/{key_id}", {"name": "x", "monthly_budget_usd": 6})
    found = money.find("key", key_id)["month"]
    assert (found["limit_usd"], found["hard"]) == (6, False)


def test_a_key_and_a_team_that_are_deleted_take_their_budgets_along(money, admin, app, key_id):
    team_id = money.team()
    for kind, id_ in (("key", key_id), ("team", team_id)):
        money.put(kind, id_, "day", limit_usd=1)
        money.put(kind, id_, "month", limit_usd=1)
    assert len(app.services.catalog.current().budgets) == 2
    admin.ok("DELETE", f"apikeys/{key_id}")
    assert set(app.services.catalog.current().budgets) == {("team", team_id)}
    admin.ok("DELETE", f"teams/{team_id}")
    assert app.services.catalog.current().budgets == {}
    assert admin.ok("GET", "budgets")["total"] == 0


def test_every_worker_knows_of_a_budget_at_once(make_app, money, key_id):
    other = make_app().services.catalog
    assert other.current().budgets == {}
    money.put("key", key_id, "day", limit_usd=1)
    [budget] = other.current().budgets["key", key_id]
    assert (budget.period, budget.limit_nanousd) == ("day", 10**9)
    money.admin.ok("DELETE", f"budgets/key/{key_id}/day")
    assert other.current().budgets == {}


def test_only_an_owner_allows_more_than_a_budget(money, key_id):
    team_id = money.team()
    paths = [f"budgets/key/{key_id}/paid", f"budgets/team/{team_id}/paid",
             f"apikeys/{key_id}/paid"]  # fmt: skip
    for role in ("viewer", "operator"):
        somebody = money.as_role(role)
        for path in (*paths, "budgets/release"):
            found = somebody.refused("POST", path, {"host_id": "host_x"})
            assert found == (403, "insufficient_role", None)
    owner = money.as_role("owner")
    for path in paths:
        assert owner.ok("POST", path, {"amount_usd": 1}) == {"ok": True}
    listed = owner.ok("GET", f"budgets/key/{key_id}/credits")["credits"]
    assert {each["actor"] for each in listed} == {"the-owner"}


def test_a_viewer_sees_and_an_operator_sets(money, key_id):
    path, body = f"budgets/key/{key_id}/day", {"limit_usd": 1}
    viewer, operator = money.as_role("viewer"), money.as_role("operator")
    for method in ("PUT", "DELETE"):
        assert viewer.refused(method, path, body)[0] == 403
    assert operator.ok("PUT", path, body)["ok"]
    for page in ("budgets", "spend", f"budgets/key/{key_id}/credits"):
        assert viewer.send("GET", page).status_code == 200
    assert operator.ok("DELETE", path)["ok"]


def test_changes_are_in_the_audit_with_what_was_and_what_is(money, admin, key_id):
    money.put("key", key_id, "day", limit_usd=1)
    money.put("key", key_id, "day", limit_usd=2)
    admin.ok("POST", f"budgets/key/{key_id}/paid", {"amount_usd": 3, "reason": "a gift"})
    admin.ok("DELETE", f"budgets/key/{key_id}/day")
    admin.ok("POST", "budgets/release", {"host_id": "host_gone"})
    rows = [row for row in admin.ok("GET", "audit")["logs"] if row["action"].startswith("budget.")]
    actions = ["release", "delete", "paid", "upsert", "upsert"]
    assert [row["action"] for row in rows] == [f"budget.{action}" for action in actions]
    assert all(row["resource"] == f"key:{key_id}" for row in rows[1:])
    released, deleted, paid, changed, made = (row["detail"] for row in rows)
    assert "host_gone" in str(released)
    assert '"after":null' in str(deleted).replace(" ", "")
    assert "a gift" in str(paid)
    for word in ('"limit_usd":1.0', '"limit_usd":2.0'):
        assert word in str(changed)
    assert '"before":null' in str(made)

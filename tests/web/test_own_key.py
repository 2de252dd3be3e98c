"""`GET /v1/key`: the owner of a key sees what it may do and what is left, and nobody else's."""

from __future__ import annotations

from typing import Any

import pytest

from tests.web.money_kit import Money
from tokenhub.board.board import unix_ms
from tokenhub.budgets import period_end
from tokenhub.web.answers import rfc3339

NO_LIMITS = {"rate_limit_rps": None, "rpm": None, "tpm": None, "max_parallel": None}


@pytest.fixture
def environ(environ, database_dsn):
    return {**environ, "TOKENHUB_DB_DSN": database_dsn}


@pytest.fixture
def money(app, admin) -> Money:
    return Money(app, admin)


class Owner:
    """Whoever has the key."""

    def __init__(self, client: Any, issued: dict[str, str]) -> None:
        self._client = client
        self.id, self.token = issued["id"], issued["key"]

    def send(self) -> Any:
        return self._client.get("/v1/key", headers={"Authorization": f"Bearer {self.token}"})

    def look(self) -> dict[str, Any]:
        response = self.send()
        assert response.status_code == 200, response.text
        assert response.headers["Cache-Control"] == "no-store"
        found: dict[str, Any] = response.get_json()
        return found


@pytest.fixture
def owner_of(admin, client):
    def make(**fields: object) -> Owner:
        return Owner(client, admin.ok("POST", "apikeys", {"name": "mine", **fields}))

    return make


def test_a_plain_key_has_no_limits_and_no_budgets(admin, owner_of):
    admin.provider()
    admin.model("small")
    admin.model("with/slashes")
    owner = owner_of(scopes=["chat"], owner="Zoë", tags=["a", "b"])
    assert owner.look() == {
        "id": owner.id,
        "name": "mine",
        "key_prefix": owner.token[:17],
        "owner": "Zoë",
        "tags": ["a", "b"],
        "team": None,
        "scopes": ["chat"],
        "models": ["small", "with/slashes"],
        "expires_at": None,
        "limits": NO_LIMITS,
        "model_limits": {},
        "team_limits": None,
        "budgets": [],
        "spend": {"day_usd": 0, "month_usd": 0, "total_usd": 0},
    }


def test_its_limits_and_its_teams_are_told_apart(admin, owner_of):
    team = admin.ok("POST", "teams", {"name": "Ops", "rpm": 100, "models": ["s*"]})["team"]
    admin.provider()
    admin.model("small")
    admin.model("large")
    expiry = "2099-01-01T00:00:00.000Z"
    found = owner_of(team_id=team["id"], rate_limit_rps=5, tpm=1000, max_parallel=2,
                     expires_at=expiry, model_limits={"small": {"rpm": 7}}).look()  # fmt: skip
    assert found["team"] == {"id": team["id"], "name": "Ops"}
    assert found["limits"] == {**NO_LIMITS, "rate_limit_rps": 5, "tpm": 1000, "max_parallel": 2}
    assert found["model_limits"] == {"small": {**NO_LIMITS, "rpm": 7}}
    assert found["team_limits"] == {**NO_LIMITS, "rpm": 100}
    assert (found["models"], found["expires_at"]) == (["small"], expiry)


def test_budgets_say_what_is_left_and_until_when(money, owner_of):
    team_id = money.team()
    owner = owner_of(team_id=team_id, monthly_budget_usd=10)
    money.put("key", owner.id, "day", limit_usd=1, mode="shadow")
    money.put("team", team_id, "total", limit_usd=100)
    money.spend("key", owner.id, 0.25)
    money.spend("team", team_id, 40)
    now = unix_ms()
    found = owner.look()

    def shown(of, period, limit, hard, spent):
        ends = rfc3339(period_end(period, now))
        return {"of": of, "period": period, "limit_usd": limit, "hard": hard, "spent_usd": spent,
                "remaining_usd": limit - spent, "resets_at": ends}  # fmt: skip

    assert found["budgets"] == [
        shown("key", "day", 1, False, 0.25),
        shown("key", "month", 10, True, 0.25),
        shown("team", "total", 100, True, 40),
    ]
    assert found["budgets"][2]["resets_at"] is None
    assert found["spend"] == {"day_usd": 0.25, "month_usd": 0.25, "total_usd": 0.25}


def test_what_was_credited_is_left_again_and_was_spent_all_the_same(money, admin, owner_of):
    owner = owner_of(monthly_budget_usd=10)
    money.spend("key", owner.id, 12)
    assert owner.look()["budgets"][0]["remaining_usd"] == 0
    admin.ok("POST", f"apikeys/{owner.id}/paid")
    found = owner.look()
    assert (found["budgets"][0]["spent_usd"], found["budgets"][0]["remaining_usd"]) == (0, 10)
    assert found["spend"]["month_usd"] == 12


def test_nothing_of_other_keys_is_told(money, owner_of):
    team_id = money.team()
    owner = owner_of(team_id=team_id)
    others = [
        owner_of(name="somebody", owner="Nobody's business", tags=["hidden"], team_id=team_id,
                 monthly_budget_usd=31337.25),
        owner_of(name="stranger"),
    ]  # fmt: skip
    for other in others:
        money.spend("key", other.id, 3)
        money.put("key", other.id, "total", limit_usd=41414.75)
    text = owner.send().text
    for word in ("somebody", "stranger", "business", "hidden", "31337.25", "41414.75"):
        assert word not in text
    assert [each for each in others if each.id in text or each.token[:17] in text] == []
    found = owner.look()
    assert found["budgets"] == []
    assert found["spend"] == {"day_usd": 0, "month_usd": 0, "total_usd": 0}


def test_any_key_that_is_good_may_ask_and_no_other(admin, client, owner_of):
    owner = owner_of(scopes=[])
    assert (owner.look()["scopes"], owner.look()["models"]) == ([], [])
    admin.ok("PATCH", f"apikeys/{owner.id}", {"enabled": False})
    assert owner.send().status_code == 401
    assert client.get("/v1/key").get_json()["error"]["code"] == "missing_api_key"
    assert client.get("/v1/key", headers=admin.headers).status_code == 401


def test_a_key_of_a_disabled_team_is_told_so(money, admin, owner_of):
    team_id = money.team()
    owner = owner_of(team_id=team_id)
    admin.ok("PATCH", f"teams/{team_id}", {"enabled": False})
    refused = owner.send()
    assert (refused.status_code, refused.get_json()["error"]["code"]) == (403, "team_disabled")


def test_without_the_database_it_is_said_that_nobody_knows(owner_of, database_away):
    owner = owner_of()
    owner.look()
    database_away("read")
    refused = owner.send()
    assert (refused.status_code, refused.get_json()["error"]["code"]) == (503, "database_away")

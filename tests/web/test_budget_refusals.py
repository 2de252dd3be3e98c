"""What clients are told whose budget does not allow for a request, and what OpenAI's SDK makes of
it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import gevent
import httpx2
import openai
import pytest

from tests.unit.gateway_kit import answer
from tests.web.money_kit import Money
from tests.web.openapi_cases import CHAT
from tests.web.test_chat import MESSAGES, Chat
from tests.web.test_openapi_answers import check
from tokenhub.board.board import unix_ms
from tokenhub.budgets import Account, period_end
from tokenhub.db import DatabaseAway
from tokenhub.escrow import REMEMBER_SECS
from tokenhub.web.answers import rfc3339


@pytest.fixture
def money(app, admin) -> Money:
    return Money(app, admin)


@pytest.fixture
def key(admin) -> dict[str, str]:
    found: dict[str, str] = admin.ok("POST", "apikeys", {"name": "spender"})
    return found


@pytest.fixture
def chat(app, client, admin, key) -> Chat:
    admin.provider()
    admin.model("small", input_per_1k=0.001, output_per_1k=0.002)
    made = Chat(app, client, key["key"])
    made.script(small=[answer()] * 10)
    return made


class Sdk:
    """The official client, connected to the app without a network."""

    def __init__(self, app: Any, token: str) -> None:
        self.asked = 0
        self.before_retry: Any = lambda: None
        # Its WSGI types are its own.
        transport = httpx2.WSGITransport(app=cast(Any, app), raise_app_exceptions=False)
        self.http = httpx2.Client(transport=transport, event_hooks={"request": [self._count]})
        self.client = openai.OpenAI(
            api_key=token, base_url="http://gateway/v1", http_client=self.http, max_retries=1
        )

    def _count(self, _: httpx2.Request) -> None:
        self.asked += 1
        if self.asked == 2:
            self.before_retry()

    def ask(self) -> Any:
        messages: Any = MESSAGES
        return self.client.chat.completions.create(model="small", messages=messages, max_tokens=5)


@pytest.fixture
def sdk(app, key) -> Iterator[Sdk]:
    made = Sdk(app, key["key"])
    yield made
    made.http.close()


def reserve(app, key, usd_nano: int) -> Any:
    """What other requests in flight have set aside."""
    account = Account("key", key["id"], "total", 0)
    return app.services.gateway.escrow.reserve((account,), usd_nano)


@pytest.mark.parametrize("period", ["day", "month", "total"])
def test_a_spent_budget_is_said_to_be_spent_and_when_it_is_not(chat, money, key, period):
    money.put("key", key["id"], period, limit_usd=1.5)
    assert chat.post(max_tokens=5).status_code == 200
    money.spend("key", key["id"], 1.5)
    refused = chat.post(max_tokens=5, model="small")
    error = refused.get_json()["error"]
    assert refused.status_code == 429
    assert refused.headers["x-should-retry"] == "false"
    assert "Retry-After" not in refused.headers
    assert (error["type"], error["code"]) == ("insufficient_quota", "insufficient_quota")
    assert error["subject"] == f"key:{key['id']}"
    assert (error["period"], error["limit_usd"], error["spent_usd"]) == (period, 1.5, 1.5)
    assert error["resets_at"] == rfc3339(period_end(period, unix_ms()))
    check(f"POST {CHAT}", refused)


def test_after_a_credit_requests_are_served_and_refusals_count_from_there(chat, money, admin, key):
    money.put("key", key["id"], "total", limit_usd=0.00001)
    money.spend("key", key["id"], 0.5)
    assert chat.post(max_tokens=100).get_json()["error"]["spent_usd"] == 0.5
    admin.ok("POST", f"apikeys/{key['id']}/paid")
    gevent.sleep(REMEMBER_SECS)
    error = chat.post(max_tokens=100).get_json()["error"]
    assert (error["limit_usd"], error["spent_usd"]) == (0.00001, 0)
    money.put("key", key["id"], "total", limit_usd=1)
    gevent.sleep(REMEMBER_SECS)
    assert chat.post(max_tokens=100).status_code == 200


def test_a_teams_budget_refuses_its_keys_by_the_teams_name(chat, money, admin, key):
    team_id = money.team()
    admin.ok("PATCH", f"apikeys/{key['id']}", {"team_id": team_id})
    money.put("key", key["id"], "day", limit_usd=5)
    money.put("team", team_id, "day", limit_usd=0)
    error = chat.post().get_json()["error"]
    assert (error["code"], error["subject"]) == ("insufficient_quota", f"team:{team_id}")
    admin.ok("DELETE", f"budgets/team/{team_id}/day")
    assert chat.post().status_code == 200


@pytest.mark.parametrize("how", [{"hard": False}, {"mode": "shadow"}])
def test_who_is_only_watched_is_served(chat, money, key, how):
    money.put("key", key["id"], "day", limit_usd=0, **how)
    assert chat.post().status_code == 200


def test_money_in_flight_is_worth_another_try(app, chat, money, key):
    money.put("key", key["id"], "total", limit_usd=1)
    held = reserve(app, key, 10**9 - 1)
    refused = chat.post(model="small")
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
    assert refused.headers["x-should-retry"] == "true"
    assert refused.get_json()["error"]["code"] == "budget_in_flight"
    check(f"POST {CHAT}", refused)
    app.services.gateway.escrow.settle(held, 0)
    assert chat.post(model="small").status_code == 200


def test_a_model_without_a_price_is_not_for_who_has_a_hard_budget(chat, money, admin, key):
    admin.model("dear")
    chat.script(small=[answer()], dear=[answer()])
    money.put("key", key["id"], "total", limit_usd=1)
    refused = chat.post(model="dear")
    assert refused.status_code == 400
    assert refused.get_json()["error"]["code"] == "price_unknown"
    check(f"POST {CHAT}", refused)
    assert chat.post().headers["X-Negotiated-Model"] == "small"


def test_without_the_database_only_this_hosts_share_is_spent(app, chat, money, key, monkeypatch):
    money.put("key", key["id"], "total", limit_usd=1)

    def away(*_: object, **__: object) -> None:
        raise DatabaseAway("the database is away")

    monkeypatch.setattr(app.services.database, "write", away)
    refused = chat.post(model="small")
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    assert refused.get_json()["error"]["code"] == "budget_unavailable"
    check(f"POST {CHAT}", refused)


def test_the_sdk_gives_up_at_once_when_the_money_is_spent(chat, money, key, sdk):
    money.put("key", key["id"], "month", limit_usd=0)
    with pytest.raises(openai.RateLimitError) as raised:
        sdk.ask()
    assert sdk.asked == 1
    assert raised.value.code == raised.value.type == "insufficient_quota"
    body = cast(dict[str, Any], raised.value.body)
    assert body["resets_at"] == rfc3339(period_end("month", unix_ms()))


def test_the_sdk_waits_for_money_that_is_in_flight(app, chat, money, key, sdk):
    money.put("key", key["id"], "total", limit_usd=1)
    held = reserve(app, key, 10**9 - 1)
    sdk.before_retry = lambda: app.services.gateway.escrow.settle(held, 0)
    assert sdk.ask().usage.completion_tokens == 5
    assert sdk.asked == 2

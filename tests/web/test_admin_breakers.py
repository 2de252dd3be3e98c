"""Breakers and drains: who is held back, how operators forgive, drain and ask, and who is told."""

from __future__ import annotations

import json

import pytest

from tests.web.conftest import Admin
from tokenhub.board.board import unix_ms
from tokenhub.errors import NoEligibleModel
from tokenhub.web.admin import breakers, health

WHY = {"reason": "they are moving their servers"}


@pytest.fixture
def two(admin):
    admin.provider()
    admin.model("a")
    admin.model("b/c", weight=2)


def row(admin, kind, id_):
    rows = admin.ok("GET", "breakers")["breakers"]
    return next(each for each in rows if (each["kind"], each["id"]) == (kind, id_))


def first(admin, **body):
    said = admin.ok("POST", "routing/simulate", {"mode": "high_confidence", **body})
    return said["decision"]["model_id"], said["decision"]["reason"]


def last_change(admin):
    found = admin.ok("GET", "audit?limit=1")["logs"][0]
    return found["action"], found["resource"], json.loads(found["detail"])


def test_everybody_is_listed_also_before_anybody_was_tried(admin, two, app):
    said = admin.ok("GET", "breakers")
    assert [(each["kind"], each["id"]) for each in said["breakers"]] == [
        ("model", "a"), ("model", "b/c"), ("provider", "acme"),
    ]  # fmt: skip
    assert (said["host"], said["total"]) == (app.services.host_id, 3)
    assert {each["breaker"] for each in said["breakers"]} == {"closed"}
    assert admin.ok("GET", "breakers?held=true")["breakers"] == []
    assert admin.ok("GET", "breakers?held=false&limit=1&offset=2")["total"] == 3
    assert admin.refused("GET", "breakers?held=maybe") == (400, "invalid_request", "held")


def test_who_is_worst_off_is_listed_first_until_it_is_forgiven(admin, two, app):
    app.services.board.vitals.fail(
        "b/c", "acme", "forbidden", 0, cooldown_seconds=60.0, is_provider_wide=False
    )
    worst = admin.ok("GET", "breakers")["breakers"][0]
    assert (worst["id"], worst["breaker"], worst["held"]) == ("b/c", "open", True)
    assert admin.ok("POST", "breakers/model:b%2Fc/clear", WHY) == {"ok": True}
    assert row(admin, "model", "b/c")["breaker"] == "closed"
    action, resource, detail = last_change(admin)
    assert (action, resource, detail["reason"]) == ("breaker.clear", "b/c", WHY["reason"])
    assert detail["before"]["held_back"] == ["model b/c"]


@pytest.mark.parametrize("scope", ["model:a", "provider:acme"])
def test_what_is_drained_is_asked_only_when_nobody_else_can(make_app, scope):
    apps = [make_app(), make_app()]
    one, other = (Admin(app.test_client()) for app in apps)
    one.provider()
    one.model("a")
    one.provider("spare")
    one.model("b", provider_id="spare", weight=2)
    assert first(other)[0] == "a"
    said = one.ok("POST", f"breakers/{scope}/cool", {"secs": 3600, **WHY})
    for admin in (one, other):  # every worker of the host
        assert first(admin)[0] == "b"
        kind, _, id_ = scope.partition(":")
        seen = row(admin, kind, id_)
        assert (seen["state"], seen["share"], seen["held"]) == ("down", 0, True)
        assert seen["drained_until"] == seen["cooldown_until"] == said["until"]
        assert 3500 < seen["cooldown_secs_left"] <= 3600
        assert (seen["drain_reason"], seen["drained_by"]) == (WHY["reason"], "admin")
    one.ok("PATCH", "models/b", {"enabled": False})
    assert first(other) == ("a", "last-resort-fallback")
    third = Admin(make_app().test_client())  # which has read all of it anew
    assert first(third) == ("a", "last-resort-fallback")
    other.ok("POST", f"breakers/{scope}/clear")
    assert first(one) == ("a", "routed-weight-5")
    assert last_change(one)[0] == "breaker.clear"


def test_a_drain_shows_in_the_health_report(admin, two):
    admin.ok("POST", "breakers/provider:acme/cool", WHY)
    [provider] = admin.ok("GET", "health")["providers"]
    assert (provider["state"], provider["breaker"]) == ("down", "closed")
    assert provider["drained_until"] == provider["cooldown_until"]
    assert admin.ok("POST", "health/acme/clear") == {"ok": True}
    assert admin.ok("GET", "health")["providers"][0]["state"] == "unknown"
    assert last_change(admin)[2]["before"]["drained"] == ["provider acme"]


def test_a_drain_is_over_when_its_time_is_and_goes_with_its_thing(admin, two, app, monkeypatch):
    admin.ok("POST", "breakers/model:a/cool", {"secs": 10, **WHY})
    assert first(admin)[0] == "b/c"
    later = unix_ms() + 11_000
    for module in (breakers, health):
        monkeypatch.setattr(module, "unix_ms", lambda: later)
    monkeypatch.setattr("tokenhub.gateway.gateway.unix_ms", lambda: later)
    assert first(admin)[0] == "a"
    assert row(admin, "model", "a")["held"] is False
    monkeypatch.undo()
    admin.ok("POST", "breakers/model:a/cool", WHY)
    admin.ok("DELETE", "models/a")
    admin.model("a")
    assert first(admin)[0] == "a"
    admin.ok("POST", "breakers/model:b%2Fc/cool", WHY)
    admin.ok("DELETE", "providers/acme")
    assert app.services.catalog.current().drains == {}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "reason"),
        ({"reason": ""}, "reason"),
        ({"reason": 1}, "reason"),
        ({"secs": 0, **WHY}, "secs"),
        ({"secs": 86_401, **WHY}, "secs"),
        ({"secs": "60", **WHY}, "secs"),
        ({"minutes": 1, **WHY}, "minutes"),
    ],
)
def test_a_wrong_drain_is_refused_by_its_field(admin, two, body, param):
    status, _, named = admin.refused("POST", "breakers/model:a/cool", body)
    assert (status, named) == (400, param)
    assert row(admin, "model", "a")["held"] is False


@pytest.mark.parametrize("scope", ["a", "model:acme", "provider:a", "host:x", "model:", "none"])
def test_who_is_not_there_cannot_be_drained_or_forgiven(admin, two, scope):
    assert admin.refused("POST", f"breakers/{scope}/cool", WHY)[0] == 404
    assert admin.refused("POST", f"breakers/{scope}/clear")[0] == 404


def test_a_probe_by_hand_counts_and_is_written_down(admin, app, simulator):
    admin.provider(base_url=simulator.url)
    admin.provider("gone", base_url="http://127.0.0.1:9", enabled=False)
    said = admin.ok("POST", "providers/acme/probe", WHY)
    assert (said["alive"], said["noted"]) == (True, True)
    assert [each["url"] for each in said["endpoints"]] == [simulator.url]
    assert row(admin, "provider", "acme")["probe"]["alive"] is True
    assert last_change(admin)[:2] == ("provider.probe", "acme")
    said = admin.ok("POST", "providers/gone/probe")
    assert (said["alive"], said["status"], said["noted"]) == (False, None, False)
    assert row(admin, "provider", "gone")["probe"] is None
    assert admin.refused("POST", "providers/none/probe")[0] == 404


def test_nobody_is_asked_where_all_are_drained_and_excluded(admin, two):
    admin.ok("POST", "breakers/provider:acme/cool", WHY)
    said = admin.ok("POST", "routing/simulate", {"exclude": ["acme"]})
    assert said["code"] == NoEligibleModel.code

"""API keys through the admin API: the secret is shown once, and changes hold at once."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tokenhub.keys import digest_of


@pytest.fixture
def status_of(client):
    def ask(token):
        headers = {"Authorization": f"Bearer {token}"}
        return client.get("/v1/models", headers=headers).status_code

    return ask


def at(text: str) -> datetime:
    assert text.endswith("Z")
    return datetime.fromisoformat(text)


def test_a_key_is_answered_as_in_the_original_and_lets_its_owner_in(admin, status_of):
    made = admin.ok("POST", "apikeys", {"name": "ci"})
    assert made["ok"] is True
    assert made["prefix"] == made["key"][:17]
    assert (made["name"], made["scopes"]) == ("ci", '["chat","embeddings","plan"]')
    assert made["warning"]
    assert status_of(made["key"]) == 200
    row = admin.find("apikeys", made["id"])
    assert abs(datetime.now(UTC) - at(row.pop("created_at"))) < timedelta(seconds=30)
    assert row == {
        "id": made["id"],
        "key_prefix": made["prefix"],
        "name": "ci",
        "owner": "",
        "team_id": None,
        "tags": [],
        "scopes": made["scopes"],
        "models": [],
        "allowed_ips": [],
        "directives": False,
        "policy": {},
        "rotated_at": None,
        "previous_until": None,
        "last_used_at": None,
        "expires_at": None,
        "rotation_days": 0,
        "rotation_due_at": None,
        "monthly_budget_usd": 0,
        "budget_reset_at": None,
        "rate_limit_rps": 0,
        "rpm": 0,
        "tpm": 0,
        "max_parallel": 0,
        "model_limits": {},
        "enabled": True,
        "revision": 1,
    }


def test_a_secret_and_its_hashes_are_in_no_later_answer_and_no_audit_row(admin, app):
    made = admin.ok("POST", "apikeys", {"name": "ci"})
    rotated = admin.ok("POST", f"apikeys/{made['id']}/rotate")
    admin.ok("PATCH", f"apikeys/{made['id']}", {"name": "ci2"})
    secrets = []
    for token in (made["key"], rotated["key"]):
        digest = digest_of(token)
        assert digest is not None
        secrets += [token, token[17:], digest.hex()]
    (row,) = app.services.catalog.current().keys.values()
    secrets.append(row.bcrypt_hash)
    for path in ("apikeys", "audit", "logs", "info"):
        text = admin.send("GET", path).text
        assert [secret for secret in secrets if secret in text] == []


@pytest.mark.parametrize("given", ['["plan","chat"]', ["chat", "plan", "chat"]])
def test_scopes_are_taken_as_text_or_list_and_given_as_text(admin, given):
    made = admin.ok("POST", "apikeys", {"name": "ci", "scopes": given})
    assert json.loads(made["scopes"]) == ["chat", "plan"]


@pytest.mark.parametrize("given", ["[]", [], ""])
def test_no_scopes_means_none(admin, status_of, given):
    made = admin.ok("POST", "apikeys", {"name": "ci", "scopes": given})
    assert made["scopes"] == "[]"
    assert status_of(made["key"]) == 403


def test_an_expiry_may_be_a_span_or_a_moment(admin):
    made = admin.ok("POST", "apikeys", {"name": "a", "expires_in": "720h"})
    left = at(made["expires_at"]) - datetime.now(UTC)
    assert timedelta(hours=719) < left <= timedelta(hours=720)
    made = admin.ok("POST", "apikeys", {"name": "b", "expires_at": "2099-01-31T01:00:00+01:00"})
    assert made["expires_at"] == "2099-01-31T00:00:00.000Z"


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"name": ""}, "invalid_request", "name"),
        ({"name": "  "}, "invalid_request", "name"),
        ({"name": 1}, "invalid_request", "name"),
        ({"name": "a\x00b"}, "invalid_request", "name"),
        ({"name": "x" * 201}, "invalid_request", "name"),
        ({"scopes": ["root"]}, "invalid_request", "scopes"),
        ({"scopes": "chat"}, "invalid_request", "scopes"),
        ({"scopes": {}}, "invalid_request", "scopes"),
        ({"expires_in": "-1h"}, "invalid_request", "expires_in"),
        ({"expires_in": 5}, "invalid_request", "expires_in"),
        ({"expires_at": "2001-01-01T00:00:00Z"}, "invalid_request", "expires_at"),
        ({"expires_at": True}, "invalid_request", "expires_at"),
        ({"expires_at": "2099-01-01T00:00:00Z", "expires_in": "1h"}, "invalid_request",
         "expires_at"),
        ({"monthly_budget_usd": -1}, "invalid_request", "monthly_budget_usd"),
        ({"monthly_budget_usd": "5"}, "invalid_request", "monthly_budget_usd"),
        ({"rate_limit_rps": -2}, "invalid_request", "rate_limit_rps"),
        ({"rate_limit_rps": 1.5}, "invalid_request", "rate_limit_rps"),
        ({"rpm": "60"}, "invalid_request", "rpm"),
        ({"tpm": -1}, "invalid_request", "tpm"),
        ({"max_parallel": True}, "invalid_request", "max_parallel"),
        ({"model_limits": []}, "invalid_request", "model_limits"),
        ({"model_limits": {" ": {"rpm": 1}}}, "invalid_request", "model_limits"),
        ({"model_limits": {"m": 5}}, "invalid_request", "model_limits.m"),
        ({"model_limits": {"m": {"speed": 1}}}, "invalid_request", "model_limits.m"),
        ({"model_limits": {"m": {"rpm": "60"}}}, "invalid_request", "model_limits.m.rpm"),
        ({"rotation_days": -1}, "invalid_request", "rotation_days"),
        ({"owner": 1}, "invalid_request", "owner"),
        ({"team_id": 1}, "invalid_request", "team_id"),
        ({"team_id": "nobody"}, "invalid_request", "team_id"),
        ({"tags": "a"}, "invalid_request", "tags"),
        ({"tags": ["a", 1]}, "invalid_request", "tags"),
        ({"tags": ["  "]}, "invalid_request", "tags"),
        ({"models": {}}, "invalid_request", "models"),
        ({"models": ["gpt-*-mini"]}, "invalid_request", "models"),
        ({"allowed_ips": ["10.0.0.1/8"]}, "invalid_request", "allowed_ips"),
        ({"allowed_ips": ["example.com"]}, "invalid_request", "allowed_ips"),
        ({"allowed_ips": "10.0.0.0/8"}, "invalid_request", "allowed_ips"),
        ({"directives": 1}, "invalid_request", "directives"),
        ({"policy": []}, "invalid_request", "policy"),
        ({"policy": {"speed": 1}}, "invalid_request", "policy"),
        ({"policy": {"mode": "turbo"}}, "invalid_request", "policy.mode"),
        ({"policy": {"min_weight": 11}}, "invalid_request", "policy.min_weight"),
        ({"budget": 1}, "unknown_field", "budget"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_refused_by_its_name(admin, change, code, param):
    assert admin.refused("POST", "apikeys", {"name": "ci"} | change) == (400, code, param)
    assert admin.ok("GET", "apikeys")["keys"] == []


def test_a_key_needs_a_name(admin):
    assert admin.refused("POST", "apikeys", {}) == (400, "missing_field", "name")


def test_limits_of_zero_ask_for_none(admin):
    limits = {"monthly_budget_usd": 0, "rate_limit_rps": -1, "rotation_days": 0.0, "rpm": None}
    made = admin.ok("POST", "apikeys", {"name": "ci", **limits})
    row = admin.find("apikeys", made["id"])
    assert {name: row[name] for name in limits} == dict.fromkeys(limits, 0)


def test_of_limits_for_models_those_that_limit_nothing_are_none(admin):
    given = {"a": {"rpm": 3}, "b": {}, "c": {"rpm": 0, "rate_limit_rps": -1, "tpm": None}}
    made = admin.ok("POST", "apikeys", {"name": "ci", "model_limits": given})
    none = dict.fromkeys(("rate_limit_rps", "rpm", "tpm", "max_parallel"), 0)
    assert admin.find("apikeys", made["id"])["model_limits"] == {"a": none | {"rpm": 3}}
    path = f"apikeys/{made['id']}"
    nothing: dict[str, Any] | None
    for nothing in ({}, None):
        admin.ok("PATCH", path, {"model_limits": given})
        patched = admin.ok("PATCH", path, {"model_limits": nothing})["apikey"]
        assert patched["model_limits"] == {}


def test_a_patch_answers_with_what_is_stored_and_holds_at_once(admin, status_of):
    made = admin.ok("POST", "apikeys", {"name": "ci"})
    path = f"apikeys/{made['id']}"
    said = admin.ok("PATCH", path, {"name": "deploy", "scopes": ["chat"], "enabled": False})
    assert said == {"ok": True, "apikey": admin.find("apikeys", made["id"])}
    assert (said["apikey"]["name"], said["apikey"]["scopes"]) == ("deploy", '["chat"]')
    assert status_of(made["key"]) == 401
    admin.ok("PATCH", path, {"enabled": True})
    assert status_of(made["key"]) == 200
    admin.ok("PATCH", path, {"scopes": []})
    assert status_of(made["key"]) == 403


WORDS = {
    "owner": "Zoë", "tags": ["prod", "eu"], "models": ["small", "gpt-*"], "directives": True,
    "allowed_ips": ["192.0.2.7/32", "2001:db8::/32"], "rotation_days": 90, "enabled": False,
    "policy": {"mode": "cheap", "max_budget_usd": 0.25, "max_latency_ms": 900, "min_weight": 3},
    "rate_limit_rps": 5, "rpm": 100, "tpm": 10**6, "max_parallel": 4,
    "model_limits": {
        "small": {"rate_limit_rps": 0, "rpm": 6, "tpm": 0, "max_parallel": 2},
        "an/alias": {"rate_limit_rps": 7, "rpm": 0, "tpm": 800, "max_parallel": 0},
    },
}  # fmt: skip


def test_every_field_can_be_given_at_once_and_later_and_be_taken_back(admin):
    team = admin.ok("POST", "teams", {"name": "Ops"})["team"]["id"]
    given = {**WORDS, "team_id": team}
    made = admin.ok("POST", "apikeys", {"name": "ci", **given})
    row = admin.find("apikeys", made["id"])
    assert {name: row[name] for name in given} == given
    due_in = at(row["rotation_due_at"]) - at(row["created_at"])
    assert due_in == timedelta(days=90)
    other = admin.ok("POST", "apikeys", {"name": "ci"})
    plain = admin.find("apikeys", other["id"])
    patched = admin.ok("PATCH", f"apikeys/{other['id']}", given)["apikey"]
    assert {name: patched[name] for name in given} == given
    back = {name: plain[name] for name in given}
    assert admin.ok("PATCH", f"apikeys/{other['id']}", back)["apikey"] == plain | {"revision": 3}


def test_a_patch_leaves_alone_what_it_does_not_name(admin):
    made = admin.ok("POST", "apikeys", {"name": "ci", **WORDS})
    before = admin.find("apikeys", made["id"])
    after = admin.ok("PATCH", f"apikeys/{made['id']}", {"rpm": 7})["apikey"]
    assert after == before | {"rpm": 7, "revision": 2}


def test_an_ipv4_network_is_one_however_it_is_written(admin):
    given = ["::ffff:192.0.2.7", "::ffff:10.0.0.0/104", "192.0.2.7", "::/0"]
    made = admin.ok("POST", "apikeys", {"name": "ci", "allowed_ips": given})
    row = admin.find("apikeys", made["id"])
    assert row["allowed_ips"] == ["192.0.2.7/32", "10.0.0.0/8", "::/0"]


def test_an_address_alone_is_a_network_of_one(admin):
    made = admin.ok("POST", "apikeys", {"name": "ci", "allowed_ips": ["192.0.2.7", "::1"]})
    row = admin.find("apikeys", made["id"])
    assert row["allowed_ips"] == ["192.0.2.7/32", "::1/128"]


def test_an_expiry_can_be_set_and_taken_away(admin):
    made = admin.ok("POST", "apikeys", {"name": "ci"})
    path = f"apikeys/{made['id']}"
    left = at(admin.ok("PATCH", path, {"expires_in": "2h"})["apikey"]["expires_at"])
    assert timedelta(hours=1.9) < left - datetime.now(UTC) <= timedelta(hours=2)
    said = admin.ok("PATCH", path, {"expires_at": "2099-01-01T00:00:00Z"})
    assert said["apikey"]["expires_at"] == "2099-01-01T00:00:00.000Z"
    assert admin.ok("PATCH", path, {"name": "x"})["apikey"]["expires_at"] is not None
    assert admin.ok("PATCH", path, {"expires_at": None})["apikey"]["expires_at"] is None


@pytest.mark.parametrize(
    ("change", "param"),
    [({"name": ""}, "name"), ({"name": None}, "name"), ({"scopes": 1}, "scopes"),
     ({"enabled": "no"}, "enabled"), ({"enabled": 0}, "enabled"), ({"expires_at": "soon"},
     "expires_at"), ({"expires_in": "soon"}, "expires_in"), ({"rotation_days": "1"},
     "rotation_days"), ({"team_id": "nobody"}, "team_id"), ({"key": "x"}, "key")],
)  # fmt: skip
def test_patching_with_a_wrong_value_changes_nothing(admin, change, param):
    made = admin.ok("POST", "apikeys", {"name": "ci"})
    before = admin.find("apikeys", made["id"])
    status, _, named = admin.refused("PATCH", f"apikeys/{made['id']}", change)
    assert (status, named) == (400, param)
    assert admin.find("apikeys", made["id"]) == before


def test_rotating_gives_a_new_secret_to_the_same_key(admin, status_of):
    made = admin.ok("POST", "apikeys", {"name": "ci", "scopes": ["chat"]})
    assert status_of(made["key"]) == 200
    rotated = admin.ok("POST", f"apikeys/{made['id']}/rotate")
    assert (rotated["id"], rotated["ok"]) == (made["id"], True)
    assert rotated["key"] != made["key"]
    assert (status_of(made["key"]), status_of(rotated["key"])) == (401, 200)
    (row,) = admin.ok("GET", "apikeys")["keys"]
    assert row["key_prefix"] == rotated["key"][:17] == rotated["prefix"]
    assert row["rotated_at"] is not None
    assert (row["name"], row["scopes"]) == ("ci", '["chat"]')


def test_a_deleted_key_is_worth_nothing_from_the_next_request_on(admin, status_of, make_key):
    token = make_key()
    assert status_of(token) == 200
    (row,) = admin.ok("GET", "apikeys")["keys"]
    for _ in range(2):
        assert admin.ok("DELETE", f"apikeys/{row['id']}") == {"ok": True}
    assert status_of(token) == 401


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("PATCH", "apikeys/nobody", {"name": "x"}), ("POST", "apikeys/nobody/rotate", None)],
)
def test_an_unknown_key_is_404(admin, method, path, body):
    assert admin.refused(method, path, body)[0] == 404


def test_keys_are_listed_newest_first(admin):
    for name in ("a", "b", "c"):
        admin.ok("POST", "apikeys", {"name": name})
    times = [row["created_at"] for row in admin.ok("GET", "apikeys")["keys"]]
    assert times == sorted(times, reverse=True)

"""What a key and its team are allowed holds for every request, and a key that may not costs no
bcrypt."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tokenhub import keys
from tokenhub.board.board import unix_ms
from tokenhub.host import journal_directory
from tokenhub.ingest import Ingester
from tokenhub.schedule import upkeep_jobs
from tokenhub.web import guards
from tokenhub.web.answers import rfc3339

HOUR_MS = 3_600_000
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def ask(client):
    """Asks with a token; returns the status and the error's code, or the models that are shown."""

    def send(token, path="/v1/models", address="127.0.0.1", **body):
        response = client.open(
            path,
            method="POST" if body else "GET",
            headers={"Authorization": f"Bearer {token}"},
            environ_base={"REMOTE_ADDR": address},
            json=body or None,
        )
        found = response.get_json()
        if response.status_code != 200:
            return response.status_code, found["error"]["code"]
        return 200, response.headers.get("X-Negotiated-Model")

    return send


@pytest.fixture
def later(monkeypatch):
    """Moves the clock that requests are judged by."""

    def move(hours):
        now = unix_ms()
        monkeypatch.setattr(guards, "unix_ms", lambda: now + int(hours * HOUR_MS))

    return move


@pytest.fixture
def bcrypts(monkeypatch):
    """Counts how often bcrypt has looked at a token."""
    ran: list[str] = []
    look = keys._matches

    def counted(*args):
        ran.append(args[2])
        return look(*args)

    monkeypatch.setattr(keys, "_matches", counted)
    return ran


def issue(admin, **fields):
    made = admin.ok("POST", "apikeys", {"name": "test", **fields})
    return made["key"], f"apikeys/{made['id']}"


def test_both_secrets_open_until_the_grace_is_over(admin, ask, later):
    old, path = issue(admin)
    rotated = admin.ok("POST", f"{path}/rotate", {"grace": "24h"})
    row = admin.ok("GET", "apikeys")["keys"][0]
    assert row["previous_until"] == rotated["previous_until"]
    assert [ask(each)[0] for each in (old, rotated["key"])] == [200, 200]
    later(23.9)
    assert ask(old)[0] == 200
    later(24.1)
    assert ask(old) == (401, "expired_api_key")
    assert ask(rotated["key"])[0] == 200


def test_a_second_rotation_drops_the_oldest_secret_and_one_without_grace_both(admin, ask):
    tokens, path = [None], ""
    tokens[0], path = issue(admin)
    for grace in ("24h", "720h", None):
        body = {} if grace is None else {"grace": grace}
        tokens.append(admin.ok("POST", f"{path}/rotate", body)["key"])
        expected = [401] * (len(tokens) - 2) + [200 if grace else 401, 200]
        assert [ask(each)[0] for each in tokens] == expected
    assert ask(tokens[2]) == (401, "invalid_api_key")


@pytest.mark.parametrize("grace", ["721h", "-1h", 24, "soon", ["1h"]])
def test_a_grace_that_is_none_is_refused_and_nothing_is_rotated(admin, ask, grace):
    token, path = issue(admin)
    refused = admin.refused("POST", f"{path}/rotate", {"grace": grace})
    assert refused == (400, "invalid_request", "grace")
    assert ask(token)[0] == 200


def test_disabling_and_deleting_end_both_secrets(admin, ask):
    old, path = issue(admin)
    new = admin.ok("POST", f"{path}/rotate", {"grace": "24h"})["key"]
    admin.ok("PATCH", path, {"enabled": False})
    assert [ask(each) for each in (old, new)] == [(401, "invalid_api_key")] * 2
    admin.ok("PATCH", path, {"enabled": True})
    assert [ask(each)[0] for each in (old, new)] == [200, 200]
    admin.ok("DELETE", path)
    assert [ask(each) for each in (old, new)] == [(401, "invalid_api_key")] * 2


def test_a_key_whose_rotation_is_overdue_is_closed_until_it_is_rotated(admin, ask, later):
    token, path = issue(admin, rotation_days=30)
    later(30 * 24 - 1)
    assert ask(token)[0] == 200
    later(30 * 24)
    assert ask(token) == (401, "rotation_overdue")
    fresh = admin.ok("POST", f"{path}/rotate")["key"]
    later(30 * 24 - 1)  # counted from the rotation, which was just now
    assert ask(fresh)[0] == 200


def test_a_key_that_expires_before_its_rotation_is_due_has_expired(admin, ask, later):
    token, _ = issue(admin, rotation_days=30, expires_in="2h")
    later(3)
    assert ask(token) == (401, "expired_api_key")


@pytest.mark.parametrize(
    ("address", "status"),
    [("192.0.2.9", 200), ("::ffff:192.0.2.9", 200), ("2001:db8::9", 200), ("192.0.3.1", 403),
     ("::1", 403), ("", 403)],
)  # fmt: skip
def test_a_key_is_good_only_from_its_networks(admin, ask, address, status):
    token, path = issue(admin, allowed_ips=["192.0.2.0/24", "2001:db8::/32"])
    found = ask(token, address=address)
    assert found[0] == status
    assert status == 200 or found[1] == "ip_not_allowed"
    admin.ok("PATCH", path, {"allowed_ips": []})
    assert ask(token, address=address)[0] == 200


def test_a_disabled_teams_keys_are_refused(admin, ask):
    team = admin.ok("POST", "teams", {"name": "Ops"})["team"]
    token, path = issue(admin, team_id=team["id"])
    assert ask(token)[0] == 200
    admin.ok("PATCH", f"teams/{team['id']}", {"enabled": False})
    assert ask(token) == (403, "team_disabled")
    admin.ok("PATCH", path, {"team_id": None})
    assert ask(token)[0] == 200


@pytest.fixture
def models(admin, simulator):
    """Three that anybody may route to."""
    admin.provider(base_url=simulator.url)
    for name in ("big", "small", "small-2"):
        admin.model(name, upstream_model="sim-fast", weight=9 if name == "big" else 1)


def shown(client, token):
    headers = {"Authorization": f"Bearer {token}"}
    listed = client.get("/v1/models", headers=headers).get_json()["data"]
    return [model["id"] for model in listed]


CHAT = "/v1/chat/completions"


def test_only_allowed_models_are_shown_named_or_chosen(admin, ask, client, models):
    token, path = issue(admin, models=["small*"], policy={"mode": "high_confidence"})
    assert shown(client, token) == ["small", "small-2"]
    assert ask(token, "/v1/models/small")[0] == 200
    assert ask(token, "/v1/models/big") == (404, "model_not_found")
    assert ask(token, CHAT, model="small-2", messages=HELLO) == (200, "small-2")
    for name in ("big", "acme/big"):
        assert ask(token, CHAT, model=name, messages=HELLO) == (403, "model_not_allowed")
    assert ask(token, CHAT, model="none", messages=HELLO) == (404, "model_not_found")
    status, used = ask(token, CHAT, messages=HELLO)
    assert status == 200 and used in ("small", "small-2")
    admin.ok("PATCH", path, {"models": []})
    assert ask(token, CHAT, messages=HELLO) == (200, "big")


def test_the_teams_models_bound_those_of_its_keys(admin, ask, client, models):
    team = admin.ok("POST", "teams", {"name": "Ops", "models": ["big", "small"]})["team"]
    token, _ = issue(admin, models=["small*"], team_id=team["id"])
    assert shown(client, token) == ["small"]
    assert ask(token, CHAT, model="small-2", messages=HELLO) == (403, "model_not_allowed")
    admin.ok("PATCH", f"teams/{team['id']}", {"models": ["big"]})
    assert shown(client, token) == []
    assert ask(token, CHAT, messages=HELLO) == (503, "no_eligible_model")


def test_a_keys_own_policy_ranks_where_the_request_says_nothing(admin, ask, models):
    admin.ok("PUT", "routing-config", {"default_mode": "high_confidence"})
    for name, price in (("big", 0.01), ("small", 0.0001), ("small-2", 0.02)):
        admin.ok("PATCH", f"models/{name}", {"input_per_1k": price, "output_per_1k": price})
    plain, _ = issue(admin)
    thrifty, path = issue(admin, policy={"mode": "cheap"})
    assert ask(plain, CHAT, messages=HELLO) == (200, "big")
    assert ask(thrifty, CHAT, messages=HELLO) == (200, "small")
    # A budget that nothing meets is a wish: it does not refuse.
    admin.ok("PATCH", path, {"policy": {"max_budget_usd": 1e-9}})
    assert ask(thrifty, CHAT, messages=HELLO)[0] == 200
    admin.ok("PATCH", path, {"policy": {"mode": "cheap", "min_weight": 5}})
    assert ask(thrifty, CHAT, messages=HELLO) == (200, "big")


def test_keys_that_are_wrong_or_may_not_cost_no_bcrypt(admin, app, ask, later, bcrypts):
    team = admin.ok("POST", "teams", {"name": "Ops", "enabled": False})["team"]["id"]
    rotated, path = issue(admin)
    admin.ok("POST", f"{path}/rotate", {"grace": "1h"})
    replaced, path = issue(admin)
    admin.ok("POST", f"{path}/rotate")
    deleted, path = issue(admin)
    admin.ok("DELETE", path)
    tokens = {
        "tokenhub_" + "0" * 64: "invalid_api_key",
        "tokenhub_short": "invalid_api_key",
        "sk-somebody-else-s": "invalid_api_key",
        "tokenhub_" + "é" * 64: "invalid_api_key",
        replaced: "invalid_api_key",
        deleted: "invalid_api_key",
        issue(admin, enabled=False)[0]: "invalid_api_key",
        issue(admin, expires_in="1h")[0]: "expired_api_key",
        issue(admin, expires_in="1h", rotation_days=1)[0]: "expired_api_key",
        issue(admin, rotation_days=1)[0]: "rotation_overdue",
        rotated: "expired_api_key",
        issue(admin, team_id=team)[0]: "team_disabled",
        issue(admin, allowed_ips=["192.0.2.1"])[0]: "ip_not_allowed",
        issue(admin, scopes=[])[0]: "insufficient_scope",
    }
    right, _ = issue(admin)
    later(25)
    for token, code in tokens.items():
        for _ in range(2):
            assert ask(token.encode().decode("latin-1"))[1] == code
    assert bcrypts == []
    assert [ask(right)[0] for _ in range(3)] == [200] * 3
    assert len(bcrypts) == 1


def test_a_key_of_a_team_that_nobody_knows_is_refused(admin, app, ask, monkeypatch):
    token, _ = issue(admin)
    now = app.services.catalog.current()
    orphans = {digest: replace(key, team_id="gone") for digest, key in now.keys.items()}
    monkeypatch.setattr(app.services.catalog, "current", lambda: replace(now, keys=orphans))
    assert ask(token) == (403, "team_disabled")


def test_when_a_key_was_last_used_is_told_after_the_job_has_looked(admin, app, ask, models):
    hub = app.services
    token, _ = issue(admin)
    issue(admin)
    began = unix_ms() // 10_000 * 10_000
    assert ask(token, CHAT, messages=HELLO)[0] == 200
    Ingester(
        database=hub.database,
        board=hub.board,
        directory=journal_directory(hub.settings),
        host_id=hub.host_id,
    ).step()
    jobs = {job.name: job for job in upkeep_jobs(hub.settings, hub.database, hub.catalog)}
    jobs["key uses"].run()
    unused, used = [row["last_used_at"] for row in admin.ok("GET", "apikeys")["keys"]]
    assert unused is None
    assert rfc3339(began) <= used <= rfc3339(unix_ms())

"""What the admin API shows: info, logs, audit, and what can be routed to."""

import json
import os
from datetime import datetime

import pytest

from tests.web.conftest import METRICS_TOKEN
from tokenhub import __version__
from tokenhub.domain import Attempt, Outcome, Usage
from tokenhub.host import journal_directory
from tokenhub.ingest import Ingester

COST = 1_500_000


def record(app, **fields):
    """A request that has come and gone, in the database."""
    usage = Usage(input_tokens=100, output_tokens=20)
    attempt = Attempt("small", "acme", 1, 40, 12, 200, "", usage, fields.pop("cost", COST), 1)
    outcome = Outcome(
        **{
            "request_id": "req_1",
            "key_id": "key_1",
            "endpoint": "/v1/chat/completions",
            "mode": "cheap",
            "stream": True,
            "started_at": 1_763_900_000_123,
            "client_ip": "192.0.2.7",
            "client_request_id": "theirs",
            "requested_model": "*",
            "ending": "answered",
            "status": 200,
            "model_id": "small",
            "provider_id": "acme",
            "reason": "routed-weight-5",
            "attempts": [attempt],
            "latency_ms": 42,
            "ttft_ms": 12,
            "skips": {"big": "cooldown"},
            **fields,
        }
    )
    app.services.recorder.admit()
    app.services.recorder.record(outcome)
    ingester = Ingester(
        database=app.services.database,
        board=app.services.board,
        directory=journal_directory(app.services.settings),
        host_id=app.services.host_id,
    )
    while ingester.step():
        pass


def test_info_says_which_gateway_this_is_and_how_the_vault_stands(admin, app):
    said = admin.ok("GET", "info")
    assert said == {
        "tokenhub": "admin",
        "vault_locked": True,
        "vault_initialized": False,
        "version": __version__,
        "host_id": app.services.host_id,
        "worker": {"pid": os.getpid(), "slot": 0},
        "workers": [],
        "catalog_version": 0,
    }
    admin.unlock()
    admin.provider()
    said = admin.ok("GET", "info")
    assert (said["vault_locked"], said["vault_initialized"]) == (False, True)


def test_a_request_is_logged_in_the_originals_fields_and_more(admin, app):
    record(app)
    (row,) = admin.ok("GET", "logs")["logs"]
    expected = {
        "timestamp": "2025-11-23T12:13:20.123Z",
        "request_id": "req_1",
        "api_key_id": "key_1",
        "model_id": "small",
        "provider_id": "acme",
        "mode": "cheap",
        "estimated_cost_usd": 0.0015,
        "cost_known": True,
        "latency_ms": 42,
        "ttft_ms": 12,
        "status_code": 200,
        "error_class": "",
        "input_tokens": 100,
        "output_tokens": 20,
        "total_tokens": 120,
        "alias_from": "",
        "outcome": "answered",
        "attempts": 1,
        "stream": True,
        "endpoint": "/v1/chat/completions",
        "requested_model": "*",
        "reason": "routed-weight-5",
        "client_ip": "192.0.2.7",
        "client_request_id": "theirs",
        "skips": {"big": "cooldown"},
    }
    assert {name: row[name] for name in expected} == expected


def test_an_unknown_cost_is_null_and_never_zero(admin, app):
    record(app, cost=None)
    (row,) = admin.ok("GET", "logs")["logs"]
    assert (row["estimated_cost_usd"], row["cost_known"]) == (None, False)


def test_logs_and_audit_begin_with_the_newest_and_come_in_pages(admin):
    for number in range(4):
        admin.provider(f"p{number}")
    rows = admin.ok("GET", "audit?limit=2&offset=1")
    assert [row["resource"] for row in rows["logs"]] == ["p2", "p1"]
    assert (rows["limit"], rows["offset"]) == (2, 1)
    assert admin.ok("GET", "audit")["limit"] == 100
    assert admin.ok("GET", "logs") == {
        "logs": [], "total": 0, "total_is_capped": False, "limit": 100, "offset": 0,
        "next_cursor": None, "searched_to": None,
    }  # fmt: skip


def test_the_audit_says_who_did_what_from_where_and_what_it_was_before(admin):
    admin.provider()
    response = admin.send("PATCH", "providers/acme", {"enabled": False})
    row = admin.ok("GET", "audit")["logs"][0]
    assert (row["action"], row["resource"], row["actor"]) == ("provider.patch", "acme", "admin")
    assert row["client_ip"] == "127.0.0.1"
    assert row["request_id"] == response.headers["X-Request-Id"]
    assert datetime.fromisoformat(row["timestamp"]).utcoffset() is not None
    detail = json.loads(row["detail"])
    assert (detail["before"]["enabled"], detail["after"]["enabled"]) == (True, False)


def test_every_change_has_the_originals_action(admin):
    admin.unlock()
    admin.provider(api_key="sk")
    admin.ok("PATCH", "providers/acme", {})
    admin.model("a/b")
    admin.ok("PATCH", "models/a/b", {})
    key = admin.ok("POST", "apikeys", {"name": "k"})["id"]
    admin.ok("PATCH", f"apikeys/{key}", {})
    admin.ok("POST", f"apikeys/{key}/rotate")
    admin.ok("DELETE", f"apikeys/{key}")
    admin.ok("PUT", "routing-config", {})
    admin.ok("DELETE", "models/a/b")
    admin.ok("DELETE", "providers/acme")
    admin.ok("POST", "vault/lock")
    rows = admin.ok("GET", "audit")["logs"]
    assert [(row["action"], row["resource"]) for row in reversed(rows)] == [
        ("vault.unlock", ""),
        ("provider.upsert", "acme"),
        ("provider.patch", "acme"),
        ("model.upsert", "a/b"),
        ("model.patch", "a/b"),
        ("apikey.create", key),
        ("apikey.update", key),
        ("apikey.rotate", key),
        ("apikey.revoke", key),
        ("routing-config.update", ""),
        ("model.delete", "a/b"),
        ("provider.delete", "acme"),
        ("vault.lock", ""),
    ]
    assert json.loads(rows[-2]["detail"])["after"]["api_key"] == "***"


def test_a_refused_change_leaves_no_audit_row(admin):
    admin.refused("POST", "providers", {"id": "x", "base_url": "nonsense"})
    admin.refused("PATCH", "models/nobody", {"weight": 1})
    assert admin.ok("GET", "audit")["logs"] == []


@pytest.fixture
def two_models(admin):
    admin.provider()
    admin.provider("quiet")
    admin.model("a")
    admin.model("b")


def test_engine_models_are_those_that_can_be_routed_to(admin, two_models):
    admin.provider("shut", enabled=False)
    admin.model("c", provider_id="shut")
    admin.ok("PATCH", "models/b", {"enabled": False})
    said = admin.ok("GET", "engine/models")
    assert [row["id"] for row in said["models"]] == ["a"]
    assert said["adapters"] == ["acme", "quiet"]
    assert said["adapter_info"][0] == {
        "id": "acme", "health_endpoint": "https://api.example.com/v1/models",
    }  # fmt: skip


def test_no_admin_answer_may_be_kept(admin):
    assert admin.send("GET", "info").headers["Cache-Control"] == "no-store"


def test_the_metrics_token_opens_no_admin_route(client):
    headers = {"Authorization": f"Bearer {METRICS_TOKEN}"}
    assert client.get("/admin/v1/info", headers=headers).status_code == 401

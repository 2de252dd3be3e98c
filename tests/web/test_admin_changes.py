"""Changes that meet: two at once, two workers, a database that is away."""

from dataclasses import replace

import pytest
from flask import g

from tests.web.conftest import Admin
from tokenhub import store
from tokenhub.access import Admin as Administrator
from tokenhub.errors import Conflict
from tokenhub.web import changes

SMALL = changes.Subject(
    kind="model",
    id="small",
    find=lambda connection: store.find_model(connection, "small"),
    show=lambda model: {"weight": model.weight},
)


def save(app, alter):
    with app.test_request_context():
        g.admin = Administrator(app.services.root)
        return changes.save(
            app.services,
            SMALL,
            "model.patch",
            alter=alter,
            write=lambda connection, model: store.save_model(connection, model, 1),
        )


def test_of_two_changes_at_once_neither_is_lost(admin, app):
    admin.provider()
    admin.model()
    seen = []

    def alter(before):
        seen.append(before.weight)
        if len(seen) == 1:  # somebody else is faster
            admin.ok("PATCH", "models/small", {"weight": 6})
        return replace(before, gemma4_output=True)

    stored = save(app, alter)
    assert seen == [5, 6]
    assert (stored.weight, stored.gemma4_output) == (6, True)
    audit = [row["detail"] for row in admin.ok("GET", "audit?limit=1")["logs"]]
    assert audit == ['{"before":{"weight":6},"after":{"weight":6}}']


def test_whoever_is_overtaken_again_and_again_is_told(admin, app):
    admin.provider()
    admin.model()

    def alter(before):
        admin.ok("PATCH", "models/small", {"weight": (before.weight + 1) % 10})
        return before

    with pytest.raises(Conflict):
        save(app, alter)


def test_what_one_worker_changes_another_uses_from_its_next_request_on(make_app):
    one, other = make_app(), make_app()
    here, there = Admin(one.test_client()), Admin(other.test_client())
    here.provider()
    here.model("a/b", max_context_tokens=9)
    token = here.ok("POST", "apikeys", {"name": "k"})["key"]
    headers = {"Authorization": f"Bearer {token}"}

    def models():
        response = other.test_client().get("/v1/models", headers=headers)
        return response.status_code, [each["id"] for each in response.get_json().get("data", ())]

    assert models() == (200, ["a/b"])
    assert there.ok("GET", "engine/models")["models"] == here.ok("GET", "models")["items"]
    here.ok("PATCH", "models/a/b", {"enabled": False})
    assert models() == (200, [])
    here.ok("PUT", "routing-config", {"default_mode": "cheap"})
    assert there.ok("GET", "routing-config")["default_mode"] == "cheap"
    (key,) = there.ok("GET", "apikeys")["keys"]
    here.ok("DELETE", f"apikeys/{key['id']}")
    assert models()[0] == 401
    here.unlock()
    assert there.ok("GET", "info")["vault_locked"] is False
    here.provider(api_key="sk-first")
    secret_of = other.services.gateway.secret_of
    assert secret_of(other.services.catalog.current().providers["acme"]) == "sk-first"
    here.ok("PATCH", "providers/acme", {"api_key": "sk-second"})
    assert secret_of(other.services.catalog.current().providers["acme"]) == "sk-second"
    there.ok("POST", "vault/lock")
    assert here.ok("GET", "info")["vault_locked"] is True


WRITES = [
    ("POST", "providers", {"id": "acme", "base_url": "https://b.example.com"}),
    ("PATCH", "providers/acme", {"enabled": False}),
    ("DELETE", "providers/acme", None),
    ("POST", "models", {"id": "small", "provider_id": "acme", "weight": 1}),
    ("PATCH", "models/small", {"weight": 1}),
    ("DELETE", "models/small", None),
    ("POST", "apikeys", {"name": "k"}),
    ("PUT", "routing-config", {"default_mode": "cheap"}),
]
READS = ["providers", "models", "apikeys", "routing-config", "logs", "audit"]


def test_without_its_database_the_admin_api_says_so_and_changes_nothing(
    admin, app, database_away, monkeypatch
):
    admin.provider()
    admin.model()
    lists = [admin.ok("GET", path) for path in READS]
    for ways in (("write",), ("read", "write")):
        with monkeypatch.context():
            database_away(*ways)
            for method, path, body in WRITES:
                assert admin.refused(method, path, body) == (503, "database_away", None)
    for path in READS:
        assert admin.refused("GET", path) == (503, "database_away", None)
    for path in ("info", "health", "engine/models"):
        assert admin.send("GET", path).status_code == 200
    assert admin.ok("GET", "info")["vault_initialized"] is None
    monkeypatch.undo()
    assert [admin.ok("GET", path) for path in READS] == lists

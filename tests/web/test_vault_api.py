"""Unlocking and locking the vault through the admin API."""

import logging

import pytest

from tests.web.conftest import PASSWORD, PROVIDER_KEY, Admin
from tokenhub import store

SECRETS = [
    ("GET", "vault/secrets", None),
    ("GET", "vault/secrets/smtp", None),
    ("PUT", "vault/secrets/smtp", {"value": "v"}),
    ("DELETE", "vault/secrets/smtp", None),
]


def actions(admin) -> list[str]:
    return [row["action"] for row in admin.ok("GET", "audit")["logs"]]


def test_the_first_password_sets_the_vault_up_and_opens_it(admin):
    assert admin.unlock() == {"ok": True}
    said = admin.ok("GET", "info")
    assert (said["vault_locked"], said["vault_initialized"]) == (False, True)
    assert actions(admin) == ["vault.unlock"]


@pytest.mark.parametrize("is_open", [True, False])
def test_a_wrong_password_is_401_and_changes_nothing(admin, app, is_open):
    admin.unlock()
    admin.provider(api_key=PROVIDER_KEY)
    if not is_open:
        admin.ok("POST", "vault/lock")
    row = app.services.database.read(store.find_vault)
    audit = admin.ok("GET", "audit")
    body = {"admin_password": PASSWORD + "!"}
    assert admin.refused("POST", "vault/unlock", body) == (401, "wrong_password", None)
    assert app.services.database.read(store.find_vault) == row
    assert admin.ok("GET", "audit") == audit
    assert admin.ok("GET", "info")["vault_locked"] is not is_open
    admin.unlock()
    provider = app.services.catalog.current().providers["acme"]
    assert app.services.gateway.secret_of(provider) == PROVIDER_KEY


def test_a_password_of_less_than_eight_bytes_is_401_and_sets_nothing_up(admin):
    assert admin.refused("POST", "vault/unlock", {"admin_password": "1234567"})[:2] == (
        401, "password_too_short",
    )  # fmt: skip
    assert admin.ok("GET", "info")["vault_initialized"] is False
    assert admin.unlock()["ok"]


@pytest.mark.parametrize(
    ("body", "param"),
    [({}, "admin_password"), ({"admin_password": ""}, "admin_password"),
     ({"admin_password": 12345678}, "admin_password"), ({"admin_password": None},
     "admin_password"), ({"admin_password": "x" * 1025}, "admin_password"),
     ({"password": PASSWORD}, "password")],
)  # fmt: skip
def test_a_body_that_makes_no_sense_is_400(admin, body, param):
    status, _, named = admin.refused("POST", "vault/unlock", body)
    assert (status, named) == (400, param)


def test_a_body_that_is_not_json_is_400(client, admin):
    response = client.post("/admin/v1/vault/unlock", data="{", headers=admin.headers)
    assert response.status_code == 400


def test_locking_says_whether_it_was_locked_and_is_audited_once(admin):
    assert admin.ok("POST", "vault/lock") == {"ok": True, "already_locked": True}
    admin.unlock()
    assert admin.unlock() == {"ok": True, "already_unlocked": True}
    assert admin.ok("POST", "vault/lock") == {"ok": True}
    assert admin.ok("POST", "vault/lock") == {"ok": True, "already_locked": True}
    assert actions(admin) == ["vault.lock", "vault.unlock"]


def test_a_vault_that_is_switched_off_is_never_locked_and_takes_no_keys(make_app):
    app = make_app(TOKENHUB_VAULT_ENABLED="false")
    admin = Admin(app.test_client())
    assert admin.ok("GET", "info")["vault_locked"] is False
    assert admin.unlock()["ok"]
    assert admin.ok("POST", "vault/lock")["already_locked"]
    body = {"old_password": PASSWORD, "new_password": PASSWORD}
    assert admin.refused("POST", "vault/rotate", body) == (400, "vault_disabled", None)
    for method, path, sent in SECRETS:
        assert admin.refused(method, path, sent) == (503, "vault_disabled", None)
    for name, value in (("api_key", "sk"), ("cred_store", "vault")):
        body = {"id": "acme", "base_url": "https://api.example.com", name: value}
        assert admin.refused("POST", "providers", body) == (400, "vault_disabled", name)
    for cred_store in ("file", "none"):
        admin.provider(cred_store=cred_store)
    assert admin.refused("PATCH", "providers/acme", {"api_key": "sk"})[1] == "vault_disabled"
    assert admin.ok("GET", "audit?limit=1")["logs"][0]["action"] == "provider.upsert"


def test_without_a_database_the_vault_opens_and_says_that_it_is_not_audited(
    admin, database_away, caplog, monkeypatch
):
    admin.unlock()
    admin.ok("POST", "vault/lock")
    logger = logging.getLogger("tokenhub")
    logger.addHandler(caplog.handler)
    try:
        database_away("write")
        assert admin.unlock() == {"ok": True, "audited": False}
        assert admin.ok("GET", "info")["vault_locked"] is False
        database_away("read")
        assert admin.ok("POST", "vault/lock") == {"ok": True, "audited": False}
        assert admin.ok("GET", "info")["vault_locked"] is True
    finally:
        logger.removeHandler(caplog.handler)
    said = [vars(each).get("action") for each in caplog.records if "audit" in each.message]
    assert said == ["vault.unlock", "vault.lock"]
    assert PASSWORD not in caplog.text


def test_a_password_is_in_no_answer_and_no_audit_row(admin):
    admin.unlock()
    admin.ok("POST", "vault/lock")
    for path in ("audit", "info", "logs"):
        assert PASSWORD not in admin.send("GET", path).text

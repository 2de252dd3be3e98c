"""Operators' own secrets: in and out through the admin API, never without a row in the audit."""

from __future__ import annotations

import orjson
import pytest

from tests.web.conftest import PASSWORD, PROVIDER_KEY, Admin
from tokenhub import store
from tokenhub.web.vault import VALUE_CHARS_MAX

VALUE = "hunter2\n\0ä"


@pytest.fixture
def admin(admin):
    admin.unlock()
    return admin


def put(admin, key, value=VALUE):
    return admin.ok("PUT", f"vault/secrets/{key}", {"value": value})


def audit(admin):
    return [
        (row["action"], row["resource"])
        for row in admin.ok("GET", "audit")["logs"]
        if row["action"].startswith("vault.secret.")
    ]


def test_what_was_put_is_listed_read_replaced_and_deleted(admin):
    assert admin.ok("GET", "vault/secrets")["secrets"] == []
    assert put(admin, "smtp") == {"ok": True, "key": "smtp"}
    put(admin, "a/b c")
    assert admin.ok("GET", "vault/secrets")["secrets"] == ["a/b c", "smtp"]
    assert admin.ok("GET", "vault/secrets/a%2Fb%20c") == {"key": "a/b c", "value": VALUE}
    put(admin, "smtp", "another")
    assert admin.ok("GET", "vault/secrets/smtp")["value"] == "another"
    assert admin.ok("DELETE", "vault/secrets/smtp") == {"ok": True, "key": "smtp"}
    assert admin.ok("GET", "vault/secrets")["secrets"] == ["a/b c"]
    for method in ("GET", "DELETE"):
        assert admin.refused(method, "vault/secrets/smtp") == (404, "not_found", "key")


def test_names_are_listed_in_pages(admin):
    for number in range(5):
        put(admin, f"s{number}")
    page = admin.ok("GET", "vault/secrets?limit=2&offset=3")
    assert page == {"secrets": ["s3", "s4"], "total": 5, "limit": 2, "offset": 3}


def test_each_read_and_each_change_is_in_the_audit_without_the_value(admin):
    put(admin, "smtp", "first value")
    admin.ok("GET", "vault/secrets/smtp")
    put(admin, "smtp", "second value")
    admin.ok("DELETE", "vault/secrets/smtp")
    admin.send("GET", "vault/secrets/smtp")
    actions = ["delete", "set", "read", "set"]
    assert audit(admin) == [(f"vault.secret.{each}", "smtp") for each in actions]
    logs = admin.ok("GET", "audit")["logs"]
    assert "value" not in str(logs).replace('"value":"***"', "")
    masked = {"key": "smtp", "value": "***"}
    assert orjson.loads(logs[1]["detail"]) == {"before": masked, "after": masked}


def test_nobody_reads_a_secret_while_the_audit_cannot_be_written(admin, database_away):
    put(admin, "smtp")
    database_away("write")
    response = admin.send("GET", "vault/secrets/smtp")
    assert (response.status_code, VALUE in response.text) == (503, False)
    assert response.get_json()["error"]["code"] == "database_away"


@pytest.mark.parametrize(
    "key", ["a%00b", "a%0Ab", "x" * 201, "%20a", "a//b", "a/../b", "*", "ä" * 101]
)
def test_a_name_that_makes_no_sense_is_refused(admin, key):
    refused = admin.send("PUT", f"vault/secrets/{key}", {"value": VALUE})
    if refused.status_code in (308, 404):  # the path itself was mended, or leads elsewhere
        assert "/" in key or key == "a%0Ab"
    else:
        error = refused.get_json()["error"]
        assert (refused.status_code, error["param"]) == (400, "key")
    assert admin.send("GET", f"vault/secrets/{key}").status_code in (308, 404)
    assert admin.ok("GET", "vault/secrets")["secrets"] == []


@pytest.mark.parametrize("key", ["x" * 200, "ä" * 100, "provider:acme:api_key", "secret:x", "'"])
def test_any_other_name_is_taken(admin, key):
    put(admin, key)
    assert admin.ok("GET", f"vault/secrets/{key}")["value"] == VALUE


@pytest.mark.parametrize(
    "body",
    [{}, {"value": ""}, {"value": None}, {"value": 7}, {"value": "x" * (VALUE_CHARS_MAX + 1)},
     {"value": "v", "key": "k"}],
)  # fmt: skip
def test_a_value_that_makes_no_sense_is_400(admin, body):
    status, _, param = admin.refused("PUT", "vault/secrets/smtp", body)
    assert (status, param) == (400, "key" if "key" in body else "value")
    put(admin, "smtp", "x" * VALUE_CHARS_MAX)


def test_provider_keys_cannot_be_reached_as_secrets(admin, app):
    admin.provider(api_key=PROVIDER_KEY)
    assert admin.ok("GET", "vault/secrets")["secrets"] == []
    for key in ("provider:acme:api_key", "../provider:acme:api_key", "acme"):
        for method in ("GET", "DELETE"):
            assert admin.send(method, f"vault/secrets/{key}").status_code in (308, 404)
    put(admin, "provider:acme:api_key", "mine")
    provider = app.services.catalog.current().providers["acme"]
    assert app.services.gateway.secret_of(provider) == PROVIDER_KEY


def test_one_that_does_not_open_is_said_to_be_so_and_can_be_deleted_or_replaced(admin, app):
    for _ in range(2):
        put(admin, "smtp")
        app.services.database.write(
            lambda connection: store.save_entry(connection, "secret:smtp", b"nonsense" * 9, 1)
        )
        assert admin.refused("GET", "vault/secrets/smtp")[:2] == (500, "secret_unreadable")
        assert admin.ok("GET", "vault/secrets")["secrets"] == ["smtp"]
        admin.ok("DELETE", "vault/secrets/smtp")


def test_one_that_was_moved_from_another_name_does_not_open(admin, app):
    put(admin, "mine")
    database = app.services.database
    sealed = database.read(lambda connection: store.find_entry(connection, "secret:mine"))
    database.write(lambda connection: store.save_entry(connection, "secret:yours", sealed, 1))
    assert admin.refused("GET", "vault/secrets/yours")[:2] == (500, "secret_unreadable")


def test_another_worker_reads_what_this_one_has_just_written(admin, make_app):
    there = Admin(make_app().test_client())
    for value in ("one", "two"):
        put(admin, "smtp", value)
        assert there.ok("GET", "vault/secrets/smtp")["value"] == value
    admin.ok("DELETE", "vault/secrets/smtp")
    assert there.refused("GET", "vault/secrets/smtp")[0] == 404


def test_a_secret_is_in_no_workers_memory_until_it_is_asked_for(admin, app):
    put(admin, "smtp")
    assert "secret:smtp" not in app.services.catalog.current().sealed


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("GET", "", None), ("GET", "/smtp", None), ("PUT", "/smtp", {"value": "v"}),
     ("DELETE", "/smtp", None)],
)  # fmt: skip
def test_while_the_vault_is_locked_all_of_it_is_503_on_every_worker(
    admin, make_app, method, path, body
):
    there = Admin(make_app().test_client())
    put(admin, "smtp")
    admin.ok("POST", "vault/lock")
    for each in (admin, there):
        assert each.refused(method, f"vault/secrets{path}", body) == (503, "vault_locked", None)
    assert audit(admin) == [("vault.secret.set", "smtp")]
    there.ok("POST", "vault/unlock", {"admin_password": PASSWORD})
    assert admin.send(method, f"vault/secrets{path}", body).status_code == 200

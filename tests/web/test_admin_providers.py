"""Providers through the admin API: what is stored, what is refused, where keys go."""

import logging
import time

import pytest

from tests.web.conftest import PASSWORD, PROVIDER_KEY, Admin
from tokenhub import store
from tokenhub.domain import Model, Provider
from tokenhub.vault import provider_entry
from tokenhub.web.admin.providers import NAME_LOOKUP_SECS

ENTRY = provider_entry("acme")


def entries(app):
    return app.services.database.read(store.list_entries)


def secret(app):
    app.services.catalog.current()
    return app.services.vault.get_secret(ENTRY)


def test_what_is_posted_is_what_is_listed(admin):
    assert admin.provider(enabled=False) == {"ok": True, "cred_store": "none", "revision": 1}
    assert admin.ok("GET", "providers") == {
        "items": [
            {
                "id": "acme",
                "type": "openai",
                "enabled": False,
                "base_url": "https://api.example.com",
                "endpoints": [],
                "native_responses": False,
                "cred_store": "none",
                "demo": False,
                "revision": 1,
            }
        ],
        "total": 1,
        "limit": 1000,
        "offset": 0,
    }


def test_a_provider_is_enabled_and_of_type_openai_unless_it_says_otherwise(admin):
    admin.provider(type="")
    found = admin.find("providers", "acme")
    assert (found["enabled"], found["type"]) == (True, "openai")


@pytest.mark.parametrize(
    "pasted",
    ["https://api.example.com/v1/", "https://api.example.com/", " https://api.example.com"],
)
def test_the_base_url_is_kept_in_normal_form(admin, pasted):
    admin.provider(base_url=pasted)
    assert admin.find("providers", "acme")["base_url"] == "https://api.example.com"


@pytest.mark.parametrize(
    "url",
    ["", "ftp://example.com", "https://", "example.com", "https://user:pass@example.com",
     "https://example.com?x=1", "https://exa mple.com", "http://[::1", "https://x:99999", 5, None],
)  # fmt: skip
def test_a_base_url_that_is_none_is_refused_and_nothing_stored(admin, url):
    body = {"id": "acme", "base_url": url}
    status, _, param = admin.refused("POST", "providers", body)
    assert (status, param) == (400, "base_url")
    assert admin.ok("GET", "providers")["items"] == []


METADATA = [
    "http://169.254.169.254", "http://[fe80::1]", "http://[::ffff:a9fe:a9fe]/v1",
    "https://0xa9fea9fe", "http://metadata.google.internal", "http://METADATA.:80",
]  # fmt: skip
PRIVATE = ["http://127.0.0.1:8000", "http://localhost", "http://[::1]:8000", "http://10.1.2.3"]


@pytest.mark.parametrize("url", [*METADATA, "gopher://example.com", "file:///etc/passwd"])
@pytest.mark.parametrize("field", ["base_url", "endpoints"])
def test_an_address_that_is_never_called_is_not_saved(admin, url, field):
    change = {field: url if field == "base_url" else ["https://b.example.com", url]}
    body = {"id": "acme", "base_url": "https://api.example.com", "type": "vllm"} | change
    status, _, param = admin.refused("POST", "providers", body)
    assert (status, param) == (400, field)
    admin.provider(type="vllm")
    assert admin.refused("PATCH", "providers/acme", change)[::2] == (400, field)
    assert admin.find("providers", "acme")["endpoints"] == []


@pytest.mark.parametrize("url", PRIVATE)
def test_private_addresses_are_saved_when_the_setting_allows_it(admin, make_app, url):
    admin.provider(base_url=url)
    closed = Admin(make_app(TOKENHUB_ALLOW_PRIVATE_PROVIDERS="false").test_client())
    body = {"id": "other", "base_url": url}
    assert closed.refused("POST", "providers", body) == (400, "invalid_request", "base_url")


@pytest.mark.parametrize(
    ("finds", "status"),
    [(["169.254.169.254"], 400), (["fe80::1%eth0", "::"], 400), (["8.8.8.8"], 200),
     (["169.254.169.254", "8.8.8.8"], 200), (["10.0.0.1"], 200)],
)  # fmt: skip
def test_a_name_is_looked_up_when_it_is_saved(admin, monkeypatch, finds, status):
    asked = []

    def resolve(host, longest_secs):
        asked.append(host)
        assert 0 < longest_secs <= NAME_LOOKUP_SECS
        return finds

    monkeypatch.setattr("tokenhub.web.admin.providers.resolve", resolve)
    body = {"id": "acme", "base_url": "https://api.example.com"}
    assert admin.send("POST", "providers", body).status_code == status
    if status == 200:
        admin.ok("PATCH", "providers/acme", {"enabled": False})  # no address: nobody is asked
    assert asked == ["api.example.com"]


def test_all_look_ups_of_one_change_share_their_time(admin, monkeypatch):
    left = []

    def resolve(_host, longest_secs):
        left.append(longest_secs)
        time.sleep(0.02)
        raise TimeoutError

    monkeypatch.setattr("tokenhub.web.admin.providers.resolve", resolve)
    monkeypatch.setattr("tokenhub.web.admin.providers.NAME_LOOKUP_SECS", 0.05)
    names = [f"https://{name}.example.com" for name in "bcdefg"]
    admin.provider(type="vllm", endpoints=names)
    assert left[-1] == 0.01
    assert len(left) == 7


def test_a_provider_that_speaks_responses_is_marked_so(admin, app):
    admin.provider(native_responses=True)
    assert admin.find("providers", "acme")["native_responses"] is True
    assert app.services.catalog.current().providers["acme"].native_responses
    said = admin.ok("PATCH", "providers/acme", {"native_responses": False})
    assert said["provider"]["native_responses"] is False
    refused = admin.refused("PATCH", "providers/acme", {"native_responses": "yes"})
    assert refused == (400, "invalid_request", "native_responses")


def test_endpoints_are_kept_in_order_and_in_normal_form(admin, app):
    endpoints = ["http://10.0.0.2:8000/v1/", " http://10.0.0.3:8000"]
    admin.provider(type="vllm", base_url="http://10.0.0.1:8000", endpoints=endpoints)
    expected = ["http://10.0.0.2:8000", "http://10.0.0.3:8000"]
    assert admin.find("providers", "acme")["endpoints"] == expected
    stored = app.services.catalog.current().providers["acme"]
    assert stored.endpoints == tuple(expected)
    said = admin.ok("PATCH", "providers/acme", {"enabled": False})
    assert said["provider"]["endpoints"] == expected
    admin.ok("PATCH", "providers/acme", {"endpoints": []})
    assert admin.find("providers", "acme")["endpoints"] == []


@pytest.mark.parametrize(
    "endpoints",
    ["http://10.0.0.2", [5], [None], [""], ["nonsense"], ["https://b.example.com"] * 2,
     ["https://b.example.com", "https://b.example.com/v1"], ["https://api.example.com/v1/"],
     [f"http://10.0.1.{number}" for number in range(65)], {"a": "b"}, None],
)  # fmt: skip
def test_endpoints_that_are_none_are_refused(admin, endpoints):
    body = {"id": "acme", "base_url": "https://api.example.com", "type": "vllm"}
    refused = admin.refused("POST", "providers", body | {"endpoints": endpoints})
    assert refused == (400, "invalid_request", "endpoints")
    assert admin.ok("GET", "providers")["total"] == 0


@pytest.mark.parametrize(
    "change", [{"type": "openai"}, {"base_url": "https://b.example.com/v1"}, {"type": ""}]
)
def test_a_change_that_does_not_suit_the_endpoints_is_refused(admin, change):
    admin.provider(type="vllm", endpoints=["https://b.example.com"])
    refused = admin.refused("PATCH", "providers/acme", change)
    assert refused == (400, "invalid_request", "endpoints")


@pytest.mark.parametrize("type_", ["openai", ""])
def test_only_vllm_has_endpoints(admin, type_):
    body = {"id": "acme", "base_url": "https://api.example.com", "type": type_}
    refused = admin.refused("POST", "providers", body | {"endpoints": ["https://b.example.com"]})
    assert refused == (400, "invalid_request", "endpoints")
    admin.ok("POST", "providers", body | {"endpoints": []})


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"id": None}, "id"),
        ({"id": ""}, "id"),
        ({"id": 7}, "id"),
        ({"id": "a/b"}, "id"),
        ({"id": " a"}, "id"),
        ({"id": "a\x00"}, "id"),
        ({"id": "x" * 65}, "id"),
        ({"type": "telepathy"}, "type"),
        ({"type": 1}, "type"),
        ({"enabled": "yes"}, "enabled"),
        ({"enabled": None}, "enabled"),
        ({"cred_store": "pocket"}, "cred_store"),
        ({"api_key": 5}, "api_key"),
        ({"api_key": "two\nlines"}, "api_key"),
        ({"api_key": "schlüssel"}, "api_key"),
        ({"apikey": "sk"}, "apikey"),
    ],
)
def test_a_wrong_field_is_refused_by_its_name(admin, change, param):
    body = {"id": "acme", "base_url": "https://api.example.com"} | change
    status, _, named = admin.refused("POST", "providers", body)
    assert (status, named) == (400, param)
    assert admin.ok("GET", "providers")["total"] == 0


@pytest.mark.parametrize("missing", ["id", "base_url"])
def test_a_missing_field_is_refused_by_its_name(admin, missing):
    body = {"id": "acme", "base_url": "https://api.example.com"}
    del body[missing]
    assert admin.refused("POST", "providers", body) == (400, "missing_field", missing)


def test_an_unknown_field_is_refused_and_told_what_there_is(admin):
    assert admin.refused("POST", "providers", {"nmae": 1}) == (400, "unknown_field", "nmae")


@pytest.mark.parametrize("body", ["[]", "nonsense", "", '{"id":"a","id":"b"}'])
def test_a_body_that_is_no_object_is_refused(client, admin, body):
    response = client.post("/admin/v1/providers", data=body, headers=admin.headers)
    assert response.status_code == 400


def test_a_key_goes_into_the_vault_and_never_comes_out(admin, app):
    admin.unlock()
    assert admin.provider(api_key=f" {PROVIDER_KEY}\n")["cred_store"] == "vault"
    assert secret(app) == PROVIDER_KEY
    said = admin.ok("PATCH", "providers/acme", {"api_key": PROVIDER_KEY + "2"})
    assert said["provider"]["cred_store"] == "vault"
    assert secret(app) == PROVIDER_KEY + "2"
    for path in ("providers", "audit", "info", "engine/models", "logs", "health"):
        assert PROVIDER_KEY not in admin.send("GET", path).text


def test_no_row_of_the_database_holds_a_provider_key(admin, app, environ, tmp_path):
    admin.unlock()
    admin.provider(api_key=PROVIDER_KEY)
    admin.ok("DELETE", "providers/acme")
    for path in (tmp_path / "data").iterdir():
        if path.is_file():
            content = path.read_bytes()
            assert PROVIDER_KEY.encode() not in content
            assert PASSWORD.encode() not in content


@pytest.mark.parametrize("is_new", [True, False])
def test_a_key_posted_while_the_vault_is_locked_stores_nothing(admin, app, is_new):
    admin.unlock()
    if not is_new:
        admin.provider(api_key=PROVIDER_KEY)
    admin.ok("POST", "vault/lock")
    rows = len(admin.ok("GET", "audit")["logs"])
    body = {"id": "acme", "base_url": "https://other.example.com", "api_key": "sk-other"}
    assert admin.refused("POST", "providers", body) == (503, "vault_locked", None)
    if is_new:
        assert admin.find("providers", "acme") is None
        assert entries(app) == []
    else:
        assert admin.refused("PATCH", "providers/acme", {"api_key": "sk"})[1] == "vault_locked"
        assert admin.find("providers", "acme")["base_url"] == "https://api.example.com"
        admin.unlock()
        assert secret(app) == PROVIDER_KEY
    assert len(admin.ok("GET", "audit")["logs"]) == rows + (not is_new)  # the unlocking itself


def test_a_change_while_the_vault_is_locked_keeps_the_key(admin, app):
    admin.unlock()
    admin.provider(api_key=PROVIDER_KEY)
    admin.ok("POST", "vault/lock")
    said = admin.ok("PATCH", "providers/acme", {"enabled": False})
    assert said["provider"]["cred_store"] == "vault"
    assert not said["provider"]["enabled"]
    admin.unlock()
    assert secret(app) == PROVIDER_KEY


@pytest.mark.parametrize("fields", [{}, {"api_key": ""}, {"api_key": None}, {"cred_store": ""},
                                    {"cred_store": "vault"}])  # fmt: skip
def test_posting_again_without_a_key_keeps_the_stored_one(admin, app, fields):
    admin.unlock()
    admin.provider(api_key=PROVIDER_KEY)
    assert admin.provider(base_url="https://b.example.com", **fields)["cred_store"] == "vault"
    assert admin.find("providers", "acme")["base_url"] == "https://b.example.com"
    assert secret(app) == PROVIDER_KEY


@pytest.mark.parametrize("cred_store", ["none", "file"])
@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_another_credential_store_drops_the_key_even_while_locked(admin, app, cred_store, method):
    admin.unlock()
    admin.provider(api_key=PROVIDER_KEY)
    admin.ok("POST", "vault/lock")
    if method == "POST":
        assert admin.provider(cred_store=cred_store)["cred_store"] == cred_store
    else:
        said = admin.ok("PATCH", "providers/acme", {"cred_store": cred_store})
        assert said["provider"]["cred_store"] == cred_store
    assert entries(app) == []
    admin.unlock()
    assert secret(app) is None


def test_the_vault_as_credential_store_needs_a_key_in_it(admin):
    body = {"id": "acme", "base_url": "https://api.example.com", "cred_store": "vault"}
    assert admin.refused("POST", "providers", body) == (400, "invalid_request", "api_key")
    assert admin.find("providers", "acme") is None


def test_a_provider_that_comes_back_does_not_find_its_old_key(admin, app):
    admin.unlock()
    admin.provider(api_key=PROVIDER_KEY)
    assert admin.ok("DELETE", "providers/acme") == {"ok": True}
    assert entries(app) == []
    assert admin.provider()["cred_store"] == "none"
    assert secret(app) is None


def test_deleting_takes_the_models_along_and_may_be_repeated(admin, app):
    admin.provider()
    admin.model()
    for _ in range(2):
        assert admin.ok("DELETE", "providers/acme") == {"ok": True}
    assert admin.ok("GET", "models")["total"] == 0
    assert app.services.catalog.current().models == {}


def test_patching_an_unknown_provider_is_404_and_creates_nothing(admin):
    assert admin.refused("PATCH", "providers/nobody", {"enabled": True})[0] == 404
    assert admin.refused("PATCH", "providers/%00", {"enabled": True})[0] == 404
    assert admin.ok("GET", "providers")["total"] == 0


@pytest.mark.parametrize(
    ("change", "param"),
    [({"enabled": 1}, "enabled"), ({"base_url": ""}, "base_url"), ({"type": "x"}, "type"),
     ({"id": "other"}, "id"), ({"base_url": None}, "base_url")],
)  # fmt: skip
def test_patching_with_a_wrong_value_changes_nothing(admin, change, param):
    admin.provider()
    before = admin.find("providers", "acme")
    status, _, named = admin.refused("PATCH", "providers/acme", change)
    assert (status, named) == (400, param)
    assert admin.find("providers", "acme") == before


def test_a_patch_answers_with_what_is_stored(admin):
    admin.provider()
    said = admin.ok("PATCH", "providers/acme", {"base_url": "https://b.example.com/v1"})
    assert said == {"ok": True, "provider": admin.find("providers", "acme")}
    assert said["provider"]["base_url"] == "https://b.example.com"


def test_demo_providers_vanish_with_the_first_real_one(admin, app):
    def have_demo(connection):
        for name in ("demo-a", "demo-b"):
            demo = Provider(name, "openai", "http://127.0.0.1:1", demo=True)
            store.save_provider(connection, demo, 1)
            store.save_model(connection, Model(f"{name}/m", name, "m"), 1)
            store.record_change(connection, "model", f"{name}/m", 1)
            app_version = store.record_change(connection, "provider", name, 1)
        return app_version

    app.services.board.advance(app.services.database.write(have_demo))
    assert len(app.services.catalog.current().routable) == 2
    assert admin.ok("PATCH", "providers/demo-a", {"enabled": True})["provider"]["demo"]
    assert admin.ok("GET", "providers")["total"] == 2
    admin.provider()
    assert [row["id"] for row in admin.ok("GET", "providers")["items"]] == ["acme"]
    assert admin.ok("GET", "models")["total"] == 0
    snapshot = app.services.catalog.current()
    assert (list(snapshot.providers), list(snapshot.models)) == (["acme"], [])
    said = [(row["action"], row["resource"]) for row in admin.ok("GET", "audit")["logs"]]
    assert sorted(said[:3]) == [
        ("provider.delete", "demo-a"), ("provider.delete", "demo-b"), ("provider.upsert", "acme"),
    ]  # fmt: skip


def test_nothing_is_logged_about_a_key(admin, caplog):
    logging.getLogger("tokenhub").addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.DEBUG):
            admin.unlock()
            admin.provider(api_key=PROVIDER_KEY)
            admin.refused("POST", "providers", {"id": "x", "base_url": 1, "api_key": PROVIDER_KEY})
    finally:
        logging.getLogger("tokenhub").removeHandler(caplog.handler)
    assert PROVIDER_KEY not in str([vars(record) for record in caplog.records])

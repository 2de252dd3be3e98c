"""A stored provider key goes where an owner, or whoever gave it, has said, and nowhere else."""

from __future__ import annotations

import pytest

from tests.web.conftest import PROVIDER_KEY, Admin
from tokenhub.credentials import KeyMissing
from tokenhub.vault import provider_entry

HERE, THERE, EVIL = (f"https://{each}.example.com" for each in ("api", "b", "evil"))
REFUSED = (403, "insufficient_role", "base_url")


@pytest.fixture
def operator(client, admin) -> Admin:
    """The admin API as an operator uses it."""
    found = Admin(client)
    made = admin.ok("POST", "tokens", {"name": "ops", "role": "operator"})
    found.headers = {"Authorization": f"Bearer {made['token']}"}
    return found


def secret(app) -> str | None:
    """The provider's key as requests get it."""
    app.services.catalog.current()
    found: str | None = app.services.vault.get_secret(provider_entry("acme"))
    return found


@pytest.fixture
def with_key(admin) -> None:
    """A provider of two servers whose key an owner has stored."""
    admin.unlock()
    admin.provider(type="vllm", endpoints=[THERE], api_key=PROVIDER_KEY)


MOVES = [
    {"base_url": EVIL},
    {"base_url": HERE + "/other"},
    {"base_url": "http://api.example.com"},
    {"endpoints": [THERE, EVIL]},
    {"type": "openai", "endpoints": []},
    {"cred_store": "file"},
]


@pytest.mark.parametrize("move", MOVES)
def test_an_operator_does_not_send_a_stored_key_elsewhere(app, admin, operator, with_key, move):
    before = admin.find("providers", "acme")
    whole = {"id": "acme", "base_url": HERE, "type": "vllm", "endpoints": [THERE], **move}
    for body in (move, {**move, "api_key": ""}, {**move, "api_key": None}):
        assert operator.refused("PATCH", "providers/acme", body) == REFUSED
    assert operator.refused("POST", "providers", whole) == REFUSED
    assert admin.find("providers", "acme") == before
    assert secret(app) == PROVIDER_KEY


@pytest.mark.parametrize("move", MOVES)
def test_an_owner_may(app, admin, with_key, move):
    admin.ok("PATCH", "providers/acme", move)
    kept = None if "cred_store" in move else PROVIDER_KEY
    assert secret(app) == kept


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_an_operator_may_with_a_key_of_their_own(app, admin, operator, with_key, method):
    body = {"base_url": EVIL, "type": "openai", "endpoints": [], "api_key": "sk-other"}
    if method == "POST":
        operator.ok("POST", "providers", {"id": "acme", **body})
    else:
        operator.ok("PATCH", "providers/acme", body)
    assert secret(app) == "sk-other"


@pytest.mark.parametrize(
    "change",
    [{"enabled": False}, {"endpoints": []}, {"base_url": HERE + "/v1"}, {"cred_store": "vault"},
     {"base_url": THERE, "endpoints": [HERE]}, {"type": "vllm"}],
)  # fmt: skip
def test_what_does_not_move_a_key_needs_no_owner_and_keeps_it(app, operator, with_key, change):
    operator.ok("PATCH", "providers/acme", change)
    whole = {"id": "acme", "base_url": HERE, "type": "vllm", **change}
    operator.ok("POST", "providers", whole)
    assert secret(app) == PROVIDER_KEY


def test_a_key_of_the_file_is_not_had_by_a_provider_that_an_operator_makes(admin, operator):
    body = {"id": "acme", "base_url": EVIL, "cred_store": "file"}
    assert operator.refused("POST", "providers", body) == REFUSED
    operator.provider(base_url=EVIL)
    assert operator.refused("PATCH", "providers/acme", {"cred_store": "file"}) == REFUSED
    admin.ok("PATCH", "providers/acme", {"base_url": HERE, "cred_store": "file"})
    assert operator.refused("PATCH", "providers/acme", {"base_url": EVIL}) == REFUSED
    operator.ok("DELETE", "providers/acme")
    assert operator.refused("POST", "providers", body) == REFUSED


def test_a_provider_without_a_key_is_the_operators_to_move(admin, operator, with_key):
    operator.ok("PATCH", "providers/acme", {"base_url": EVIL, "cred_store": "none"})
    assert admin.find("providers", "acme")["base_url"] == EVIL
    assert operator.refused("PATCH", "providers/acme", {"cred_store": "vault"}) == REFUSED


def test_the_operator_s_session_may_no_more_than_the_token(client, operator, with_key):
    signed_in = client.post("/admin/v1/session", headers=operator.headers).get_json()
    response = client.patch(
        "/admin/v1/providers/acme",
        json={"base_url": EVIL},
        headers={"X-CSRF-Token": signed_in["csrf_token"], "Sec-Fetch-Site": "same-origin"},
    )
    assert (response.status_code, response.get_json()["error"]["code"]) == REFUSED[:2]


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_a_request_under_way_does_not_take_a_new_key_to_an_old_address(app, admin, method):
    hub = app.services
    admin.unlock()
    admin.provider(api_key=PROVIDER_KEY)
    old = hub.catalog.current().providers["acme"]
    assert hub.gateway.secret_of(old) == PROVIDER_KEY
    if method == "DELETE":
        admin.ok("DELETE", "providers/acme")
    admin.provider(base_url=THERE, api_key="sk-new")
    new = hub.catalog.current().providers["acme"]
    assert hub.gateway.secret_of(new) == "sk-new"
    with pytest.raises(KeyMissing) as caught:
        hub.gateway.secret_of(old)
    assert (caught.value.status, caught.value.code) == (503, "catalog_stale")
    admin.ok("PATCH", "providers/acme", {"enabled": False, "api_key": "sk-newer"})
    hub.catalog.current()
    assert hub.gateway.secret_of(new) == "sk-newer"

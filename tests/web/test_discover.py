"""What a provider lists: asked with its own key, told in our words, and registered by nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gevent.pool
import gevent.server
import orjson
import pytest

from tests.providers.conftest import answer, read_request
from tests.web.conftest import PROVIDER_KEY
from tokenhub import discovery
from tokenhub.domain import Provider
from tokenhub.errors import ProviderError
from tokenhub.providers.base import ModelListing, Target, Timeouts

PATH = "providers/acme/discover"
SECRET_TEXT = "the provider's own words"


class Upstream:
    """A provider that answers every request alike, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.reply = b""
        self._server = gevent.server.StreamServer(
            ("127.0.0.1", 0), self._serve, spawn=gevent.pool.Pool()
        )
        self._server.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def says(self, payload: object, status: str = "200 OK", extra: str = "") -> None:
        body = payload if isinstance(payload, bytes) else orjson.dumps(payload)
        self.reply = answer(body, status, extra)

    def stop(self) -> None:
        self._server.stop(timeout=0)

    def _serve(self, sock: Any, _address: object) -> None:
        with sock:
            while request := read_request(sock):
                self.asked.append(request.decode())
                if not self.reply:
                    break
                sock.sendall(self.reply)


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    found = Upstream()
    yield found
    found.stop()


def test_a_list_says_what_is_registered_and_what_is_known(admin, upstream):
    upstream.says(
        {
            "object": "list",
            "data": [
                {"id": "gpt-4o", "owned_by": "system"},
                {"id": "in-house", "max_model_len": 4096},
                {"id": "meta-llama/Llama-3.1-8B-Instruct", "max_model_len": 8192},
            ],
        }
    )
    admin.provider(base_url=upstream.url)
    admin.provider("other", base_url=upstream.url)
    admin.model("mine", upstream_model="in-house")
    admin.model("gpt-4o", provider_id="other")  # another provider's: not this one
    before = admin.ok("GET", "models")
    assert admin.ok("GET", PATH) == {
        "provider_id": "acme",
        "models": [
            {
                "id": "gpt-4o",
                "owned_by": "system",
                "registered": False,
                "capabilities": ["chat", "vision", "tools", "json"],
                "max_context_tokens": 128_000,
                "max_output_tokens": 16_384,
            },
            {
                "id": "in-house",
                "owned_by": "",
                "registered": True,
                "capabilities": [],
                "max_context_tokens": 4096,
                "max_output_tokens": 0,
            },
            {
                "id": "meta-llama/Llama-3.1-8B-Instruct",
                "owned_by": "",
                "registered": False,
                "capabilities": ["chat", "tools", "json"],
                "max_context_tokens": 8192,
                "max_output_tokens": 0,
            },
        ],
        "total": 3,
    }
    assert admin.ok("GET", "models") == before
    assert upstream.asked[0].startswith("GET /v1/models HTTP/1.1\r\n")


@pytest.mark.parametrize("type_", ["openai", "anthropic", "vllm"])
def test_the_simulator_is_discovered_whatever_it_plays(admin, app, simulator, type_):
    if type_ not in app.services.gateway.adapters:
        pytest.skip("no adapter of this type")
    admin.unlock()
    admin.provider(base_url=simulator.url, type=type_, api_key=PROVIDER_KEY, enabled=False)
    found = admin.ok("GET", PATH)
    assert found["total"] == len(found["models"]) > 0
    assert not any(each["registered"] for each in found["models"])


def test_the_key_of_the_vault_goes_along(admin, upstream):
    upstream.says([])
    admin.unlock()
    admin.provider(base_url=upstream.url, api_key=PROVIDER_KEY)
    assert admin.ok("GET", PATH)["total"] == 0
    assert f"authorization: bearer {PROVIDER_KEY}" in upstream.asked[0].lower()


def test_without_a_key_none_is_sent(admin, upstream):
    upstream.says({"data": []})
    admin.provider(base_url=upstream.url)
    admin.ok("GET", PATH)
    assert "authorization" not in upstream.asked[0].lower()


def test_a_locked_vault_is_said_and_nobody_is_asked(admin, upstream):
    admin.unlock()
    admin.provider(base_url=upstream.url, api_key=PROVIDER_KEY)
    admin.ok("POST", "vault/lock")
    assert admin.refused("GET", PATH) == (503, "vault_locked", None)
    assert upstream.asked == []


@pytest.mark.parametrize("provider_id", ["nobody", "a%00b", "acme/x"])
def test_an_unknown_provider_is_404(admin, provider_id):
    admin.provider()
    assert admin.refused("GET", f"providers/{provider_id}/discover")[:2] == (404, "not_found")


def test_nobody_without_the_admin_token_is_answered(client, admin):
    admin.provider()
    assert client.get(f"/admin/v1/{PATH}").status_code == 401


@pytest.mark.parametrize(
    ("status", "code", "error_class"),
    [
        ("401 Unauthorized", "provider_auth_failed", "auth_failed"),
        ("403 Forbidden", "provider_auth_failed", "forbidden"),
        ("402 Payment Required", "provider_auth_failed", "quota_exhausted"),
        ("404 Not Found", "provider_error", "model_not_found"),
        ("400 Bad Request", "provider_error", "client_error"),
        ("429 Too Many Requests", "provider_error", "rate_limited"),
        ("500 Internal Server Error", "provider_error", "server_error"),
        ("307 Temporary Redirect", "provider_error", "redirect"),
    ],
)
def test_the_providers_status_is_never_ours(admin, upstream, status, code, error_class):
    location = "Location: http://169.254.169.254/\r\n"
    upstream.says({"error": {"message": SECRET_TEXT}}, status, location)
    admin.provider(base_url=upstream.url)
    response = admin.send("GET", PATH)
    error = response.get_json()["error"]
    assert (response.status_code, error["code"]) == (502, code)
    assert (error["upstream_status"], error["error_class"]) == (int(status[:3]), error_class)
    assert SECRET_TEXT not in response.text
    assert len(upstream.asked) == 1


@pytest.mark.parametrize(
    "reply", [b"<html>hello</html>", b"", b'{"data": 5}', b'"models"', b'{"models": []}', b"null"]
)
def test_what_is_no_list_is_the_providers_error(admin, upstream, reply):
    upstream.says(reply)
    admin.provider(base_url=upstream.url)
    assert admin.refused("GET", PATH)[:2] == (502, "provider_error")


def test_a_provider_that_is_not_there_is_unreachable(admin, upstream):
    admin.provider(base_url=upstream.url)
    assert admin.refused("GET", PATH)[:2] == (502, "provider_unreachable")  # closes unanswered
    upstream.stop()
    response = admin.send("GET", PATH)
    error = response.get_json()["error"]
    assert (error["code"], error["upstream_status"]) == ("provider_unreachable", None)


def test_an_address_that_is_refused_at_connect_is_said(admin, monkeypatch):
    admin.provider(base_url="http://api.example.com")
    found = [(2, 1, 6, "", ("169.254.169.254", 80))]
    monkeypatch.setattr("gevent.socket.getaddrinfo", lambda *_, **__: found)
    error = admin.send("GET", PATH).get_json()["error"]
    assert (error["code"], error["error_class"]) == ("provider_unreachable", "address_refused")


# What is made of a list


class Lists:
    """An adapter that lists what it is given, and remembers how it was asked."""

    def __init__(self, ask: Callable[[], list[ModelListing]]) -> None:
        self._ask = ask
        self.target: Target | None = None

    def list_models(self, target: Target, timeouts: Timeouts) -> list[ModelListing]:
        assert timeouts.total_secs == discovery.LIST_SECS
        self.target = target
        return self._ask()


def listed(*found: ModelListing) -> list[ModelListing]:
    adapter: Any = Lists(lambda: list(found))
    provider = Provider("acme", "openai", "https://api.example.com")
    try:
        return discovery.list_models(adapter, provider, "sk")
    finally:
        assert adapter.target == Target("acme", "https://api.example.com", "", "sk")


def test_ids_that_no_model_can_have_are_left_out_and_each_is_there_once():
    good = [ModelListing("b"), ModelListing("org/a:free"), ModelListing("a", "x")]
    bad = [
        ModelListing(each) for each in ("", "*", " a", "a\n", "a//b", "../a", "x" * 151, "é" * 76)
    ]
    assert listed(*good, *bad, ModelListing("a", "y")) == good


def test_what_fails_is_the_adapters_error():
    def fail() -> list[ModelListing]:
        raise ProviderError("no", error_class="unreachable")

    adapter: Any = Lists(fail)
    with pytest.raises(ProviderError):
        discovery.list_models(adapter, Provider("p", "openai", "http://x"), None)


def test_an_owner_that_is_no_plain_text_is_not_shown(admin, upstream):
    owners = ["o" * 500, "a\nb", "<b>", 5]
    upstream.says([{"id": str(i), "owned_by": owner} for i, owner in enumerate(owners)])
    admin.provider(base_url=upstream.url)
    shown = [each["owned_by"] for each in admin.ok("GET", PATH)["models"]]
    assert shown == ["o" * 100, "", "<b>", ""]

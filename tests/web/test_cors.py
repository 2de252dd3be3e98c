"""Pages of other origins: which may call the client API, and what they get to see."""

from __future__ import annotations

import pytest

from tests.web.conftest import ADMIN_TOKEN

PAGE = "https://app.example.com"
SENT = (
    "authorization, content-type, x-api-key, anthropic-version, anthropic-beta, "
    "anthropic-dangerous-direct-browser-access, openai-organization, openai-project, "
    "idempotency-key, x-idempotency-key, x-request-id, x-client-request-id, "
    "x-tokenhub-max-budget-usd, x-stainless-retry-count"
)
PATHS = [
    "/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1/completions", "/v1/embeddings",
    "/v1/chat", "/v1/models", "/v1/models/a/b", "/v1/key",
]  # fmt: skip


def preflight(client, path: str = "/v1/chat", origin: str = PAGE, headers: str = SENT):
    return client.options(
        path,
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": headers,
        },
    )


def granted(response) -> dict[str, str]:
    return {
        name.lower().removeprefix("access-control-"): value
        for name, value in response.headers
        if name.lower().startswith("access-control-")
    }


@pytest.fixture
def page(make_app):
    return make_app(TOKENHUB_CORS_ORIGINS=f"{PAGE}/,http://localhost:3000").test_client()


@pytest.mark.parametrize("path", PATHS)
def test_a_page_that_may_is_let_in_without_a_key(page, path):
    response = preflight(page, path)
    assert response.status_code == 204
    assert response.data == b""
    assert granted(response) == {
        "allow-origin": PAGE,
        "allow-methods": "GET, POST, OPTIONS",
        "allow-headers": SENT,
        "max-age": "600",
        "expose-headers": "X-Request-Id" + (", Request-Id" if "messages" in path else ""),
    }
    assert "Origin" in response.headers.getlist("Vary")


def test_headers_that_we_do_not_read_are_not_allowed(page):
    asked = "Content-Type, X-Forwarded-For, cookie, x-tokenhub-a b, x-stainless-é"
    assert granted(preflight(page, headers=asked))["allow-headers"] == "content-type"
    assert "allow-headers" not in granted(preflight(page, headers=""))
    many = ", ".join(f"x-tokenhub-{number}" for number in range(1000))
    assert len(granted(preflight(page, headers=many))["allow-headers"].split(",")) == 100


@pytest.mark.parametrize("origin", ["https://evil.example.com", "null", "", f"{PAGE}.evil.com"])
def test_a_page_that_may_not_is_told_nothing(page, origin):
    assert "allow-origin" not in granted(preflight(page, origin=origin))
    refused = page.post("/v1/chat", headers={"Origin": origin})
    assert granted(refused) == {}
    assert refused.headers.getlist("Vary") == ["Origin"]


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/v1/chat", "POST", 401),
        ("/v1/messages", "POST", 401),
        ("/v1/none", "GET", 404),
        ("/v1/chat", "GET", 405),
    ],
)
def test_refusals_can_be_read_by_the_page(page, path, method, status):
    response = page.open(path, method=method, headers={"Origin": PAGE})
    assert response.status_code == status
    found = granted(response)
    assert found["allow-origin"] == PAGE
    assert "X-Request-Id" in found["expose-headers"]
    assert "allow-credentials" not in found


def test_answers_show_the_page_our_headers(make_app, simulator):
    from tests.web.conftest import Admin

    client = make_app(TOKENHUB_CORS_ORIGINS="*").test_client()
    admin = Admin(client)
    admin.provider(base_url=simulator.url)
    admin.model("small", upstream_model="sim-fast", input_per_1k=1, output_per_1k=1)
    token = admin.ok("POST", "apikeys", {"name": "page", "rpm": 1})["key"]
    headers = {"Authorization": f"Bearer {token}", "Origin": PAGE}
    body = {"messages": [{"role": "user", "content": "Hello"}]}
    answer = client.post("/v1/chat/completions", json=body, headers=headers)
    assert answer.status_code == 200
    assert granted(answer)["allow-origin"] == "*"
    assert "Vary" not in answer.headers
    shown = granted(answer)["expose-headers"].lower().split(", ")
    assert {
        "x-request-id", "x-negotiated-model", "x-tokenhub-provider", "x-tokenhub-cost-usd",
        "x-ratelimit-remaining-requests",
    } <= set(shown)  # fmt: skip
    refused = client.post("/v1/chat/completions", json=body, headers=headers)
    assert refused.status_code == 429
    assert "retry-after" in granted(refused)["expose-headers"].lower()


def test_streams_can_be_read_too(make_app, simulator):
    from tests.web.conftest import Admin

    client = make_app(TOKENHUB_CORS_ORIGINS="*").test_client()
    admin = Admin(client)
    admin.provider(base_url=simulator.url)
    admin.model("small", upstream_model="sim-fast")
    token = admin.ok("POST", "apikeys", {"name": "page"})["key"]
    body = {"messages": [{"role": "user", "content": "Hello"}], "stream": True}
    headers = {"Authorization": f"Bearer {token}", "Origin": "null"}
    answer = client.post("/v1/chat/completions", json=body, headers=headers)
    assert answer.data.endswith(b"data: [DONE]\n\n")
    assert granted(answer)["allow-origin"] == "*"


@pytest.mark.parametrize("path", ["/admin/v1/models", "/metrics", "/readyz", "/openapi.json"])
def test_nothing_but_the_client_api_is_opened(page, path):
    headers = {"Origin": PAGE, "Authorization": f"Bearer {ADMIN_TOKEN}"}
    assert granted(page.get(path, headers=headers)) == {}
    assert granted(preflight(page, path)) == {}


def test_it_is_off_unless_it_is_set(client):
    assert granted(preflight(client)) == {}
    response = client.post("/v1/chat", headers={"Origin": PAGE})
    assert granted(response) == {}
    assert "Vary" not in response.headers

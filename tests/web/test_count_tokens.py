"""Counting tokens before asking: by the provider that can, else by our estimate; for nothing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.web.conftest import Admin
from tokenhub.providers.anthropic import AnthropicAdapter

PATH = "/v1/messages/count_tokens"
HELLO: list[dict[str, Any]] = [{"role": "user", "content": "Hello there, how are you?"}]


@pytest.fixture
def ask(app, simulator):
    client = app.test_client()
    admin = Admin(client)
    admin.provider(base_url=simulator.url)
    admin.provider("claude", base_url=simulator.url, type="anthropic")
    admin.model("gpt", upstream_model="sim-fast")
    admin.model("opus", provider_id="claude", upstream_model="sim-fast")
    token = admin.ok("POST", "apikeys", {"name": "one"})["key"]
    app.services.catalog.current()

    def send(body: Any, **headers: str) -> Any:
        return client.post(PATH, json=body, headers={"x-api-key": token, **headers})

    return send


def test_a_model_of_anthropics_is_asked_and_any_other_estimated(ask, simulator):
    before = simulator.stats.requests
    for model, asked in (("gpt", 0), ("opus", 1)):
        answer = ask({"model": model, "messages": HELLO, "max_tokens": 5})
        assert answer.status_code == 200
        assert list(answer.get_json()) == ["input_tokens"]
        assert answer.get_json()["input_tokens"] > 0
        assert simulator.stats.requests - before == asked


def test_what_the_provider_refuses_to_count_is_refused_in_its_words(ask):
    odd = {"name": "find", "input_schema": {"type": "string"}}
    refused = ask({"model": "opus", "messages": HELLO, "tools": [odd]})
    assert (refused.status_code, refused.get_json()["error"]["type"]) == (
        400, "invalid_request_error"
    )  # fmt: skip
    assert "input_schema" in refused.get_json()["error"]["message"]


def test_what_else_the_provider_says_of_the_count_is_handed_on(ask, monkeypatch):
    told = {"input_tokens": 14, "context_management": {"original_input_tokens": 99}}
    monkeypatch.setattr(AnthropicAdapter, "count_tokens", lambda *_: told)
    assert ask({"model": "opus", "messages": HELLO}).get_json() == told


def test_what_cannot_be_counted_elsewhere_is_estimated(ask, app):
    Admin(app.test_client()).send("PATCH", "providers/claude", {"base_url": "http://127.0.0.1:9"})
    assert ask({"model": "opus", "messages": HELLO}).get_json()["input_tokens"] > 0


def test_refusals_are_in_anthropics_envelope(ask):
    for body, status, kind in (
        ({"messages": []}, 400, "invalid_request_error"),
        ({"model": "none", "messages": HELLO}, 404, "not_found_error"),
        ([], 400, "invalid_request_error"),
    ):
        refused = ask(body)
        assert refused.status_code == status
        assert refused.get_json()["type"] == "error"
        assert refused.get_json()["error"]["type"] == kind
        assert refused.get_json()["request_id"] == refused.headers["X-Request-Id"]

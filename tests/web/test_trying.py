"""A provider is tried out before it is saved: what fails is named, and no secret comes back."""

from __future__ import annotations

import logging

import orjson
import pytest
from gevent.pywsgi import WSGIServer

from tests.web.conftest import PROVIDER_KEY, Admin


def ask(admin, **body):
    return admin.ok("POST", "providers/test", body)


def steps(said):
    return [(each["step"], each["ok"]) for each in said["steps"]]


def test_an_address_that_works_is_told_step_by_step_and_nothing_is_saved(admin, simulator):
    said = ask(admin, base_url=f"{simulator.url}/v1/")
    assert steps(said) == [("address", True), ("dns", True), ("connect", True), ("answer", True)]
    assert (said["ok"], said["failed_step"], said["message"]) == (True, None, "")
    assert said["steps"][1]["addresses"] == ["127.0.0.1"]
    assert said["model_count"] == len(said["models"]) > 0
    assert admin.ok("GET", "providers")["total"] == 0
    assert admin.ok("GET", "audit")["logs"] == []


@pytest.mark.parametrize(
    ("url", "failed_step"),
    [
        ("http://169.254.169.254", "address"),
        ("http://127.0.0.1:9", "connect"),
        ("http://no-such-host.invalid", "dns"),
    ],
)
def test_the_step_that_fails_is_the_last(admin, url, failed_step):
    said = ask(admin, base_url=url)
    assert (said["ok"], said["failed_step"]) == (False, failed_step)
    assert said["message"] == said["steps"][-1]["message"] != ""
    assert said["models"] == []


def test_an_address_that_speaks_no_tls_fails_there(admin, simulator):
    said = ask(admin, base_url=simulator.url.replace("http:", "https:"))
    assert (said["failed_step"], said["steps"][-1]["step"]) == ("tls", "tls")


def test_private_addresses_are_refused_where_they_are_ruled_out(make_app, simulator):
    admin = Admin(make_app(TOKENHUB_ALLOW_PRIVATE_PROVIDERS="false").test_client())
    for url in (simulator.url, "http://localhost:9"):
        assert ask(admin, base_url=url)["failed_step"] == "address"


def test_a_key_that_is_refused_is_told_in_the_providers_words_without_it(admin, caplog):
    words = f"Incorrect API key provided: {PROVIDER_KEY}.\nSee sk-live-0123456789abcdef."

    def refuse(_environ, start_response):
        start_response("401 Unauthorized", [("Content-Type", "application/json")])
        return [orjson.dumps({"error": {"message": words}})]

    provider = WSGIServer(("127.0.0.1", 0), refuse, log=None)
    provider.start()
    try:
        with caplog.at_level(logging.DEBUG):
            url = f"http://127.0.0.1:{provider.server_port}"
            said = ask(admin, base_url=url, api_key=PROVIDER_KEY)
    finally:
        provider.stop()
    last = said["steps"][-1]
    assert (said["ok"], last["status"], last["error_class"]) == (False, 401, "auth_failed")
    assert last["provider_says"].startswith("Incorrect API key provided")
    assert PROVIDER_KEY not in str(said) + caplog.text
    assert "sk-live" not in str(said)


def test_a_stored_key_is_used_where_it_goes_already_and_elsewhere_only_by_owners(admin, simulator):
    admin.unlock()
    admin.provider(base_url=simulator.url, api_key=PROVIDER_KEY)
    assert ask(admin, id="acme", base_url=simulator.url)["ok"] is True
    token = admin.ok("POST", "tokens", {"name": "ops", "role": "operator"})["token"]
    bearer = {"Authorization": f"Bearer {token}"}
    body = {"id": "acme", "base_url": "http://127.0.0.1:9"}
    refused = admin.send("POST", "providers/test", body, **bearer)
    assert (refused.status_code, refused.get_json()["error"]["param"]) == (403, "base_url")
    given = admin.send("POST", "providers/test", {**body, "api_key": "x"}, **bearer)
    assert given.status_code == 200
    assert ask(admin, **body)["failed_step"] == "connect"
    admin.ok("POST", "vault/lock")
    assert admin.refused("POST", "providers/test", body)[:2] == (503, "vault_locked")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "base_url"),
        ({"base_url": "ftp://x"}, "base_url"),
        ({"base_url": "http://x", "type": "none"}, "type"),
        ({"base_url": "http://x", "enabled": True}, "enabled"),
    ],
)
def test_a_wrong_question_is_refused_by_its_field(admin, body, param):
    status, _, named = admin.refused("POST", "providers/test", body)
    assert (status, named) == (400, param)

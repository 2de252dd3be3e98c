"""Aliases, pools and fallbacks as callers meet them: over HTTP, with a provider that answers."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.web.conftest import Admin

HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def ready(admin, simulator):
    """Three models that work, and one whose provider is gone."""
    admin.provider(base_url=simulator.url)
    admin.provider("gone", base_url="http://127.0.0.1:9")
    for name, weight in (("a", 5), ("b", 4), ("c", 9)):
        admin.model(name, upstream_model="sim-fast", weight=weight)
    admin.ok("POST", "models", {"id": "dead", "provider_id": "gone"})


@pytest.fixture
def ask(client, make_key, ready):
    """Asks for a chat; returns the response."""
    token = make_key()

    def send(model, token=token, **body):
        return client.post(
            "/v1/chat/completions",
            json={"model": model, "messages": HELLO, **body},
            headers={"Authorization": f"Bearer {token}"},
        )

    return send


def alias(admin, name, sticky_by="round_robin", **weights):
    variants = [{"model_id": model_id, "weight": weight} for model_id, weight in weights.items()]
    admin.ok("PUT", f"aliases/{name}", {"variants": variants, "sticky_by": sticky_by})


def told(response):
    """Who answered, for whom, and why."""
    assert response.status_code == 200, response.text
    names = ("X-Negotiated-Model", "X-Alias-From", "X-TokenHub-Reason")
    return tuple(response.headers.get(name) for name in names)


def test_requests_take_turns_whole_and_streamed(admin, ask):
    alias(admin, "x", a=2, b=1)
    found = [told(ask("x", stream=number % 2 == 1)) for number in range(6)]
    assert found == [(name, "x", "routed-alias") for name in "aabaab"]
    assert told(ask("a")) == ("a", None, "routed-hint-exact")


def test_a_change_is_in_force_with_the_next_request(admin, ask):
    alias(admin, "x", a=1)
    assert told(ask("x"))[0] == "a"
    alias(admin, "x", b=1)
    assert told(ask("x"))[0] == "b"
    admin.ok("PATCH", "aliases/x", {"enabled": False})
    refused = ask("x")
    assert (refused.status_code, refused.get_json()["error"]["code"]) == (404, "model_not_found")


def test_another_variant_answers_for_one_that_fails(admin, ask):
    alias(admin, "x", dead=100, b=1, a=2)
    found = [told(ask("x")) for _ in range(5)]
    assert found == [("a", "x", "routed-fallback")] * 5
    assert [told(ask("x"))[::2] for _ in range(3)] == [  # the dead one rests now
        (name, "routed-alias") for name in "aba"
    ]


def test_each_key_stays_with_its_variant(admin, ask, make_key):
    alias(admin, "x", "api_key", a=1, b=1)
    found: list[str] = []
    for _ in range(8):
        token = make_key()
        answers = {told(ask("x", token))[0] for _ in range(3)}
        assert len(answers) == 1
        found += answers
    assert set(found) <= {"a", "b"}


def test_aliases_are_listed_among_the_models(admin, client, ask, make_key):
    alias(admin, "b2", a=1)
    alias(admin, "nobody", none=1)
    headers = {"Authorization": f"Bearer {make_key()}"}
    listed = client.get("/v1/models", headers=headers).get_json()["data"]
    assert [each["id"] for each in listed] == ["a", "b", "b2", "c", "dead"]
    one = client.get("/v1/models/b2", headers=headers).get_json()
    assert one == listed[2]
    assert (one["object"], one["owned_by"]) == ("model", "tokenhub")
    assert one["created"] > 0


def test_a_key_sees_and_gets_of_an_alias_what_its_list_allows(admin, client, ask, make_key):
    alias(admin, "x", a=1, b=1)
    by_model, by_alias, neither = (make_key(models=[name]) for name in ("a", "x", "c"))
    assert {told(ask("x", by_model))[0] for _ in range(3)} == {"a"}
    assert {told(ask("x", by_alias))[0] for _ in range(4)} == {"a", "b"}
    assert [ask("x", neither).status_code, ask("a", by_alias).status_code] == [403, 403]
    shown = client.get("/v1/models", headers={"Authorization": f"Bearer {by_alias}"}).get_json()
    assert [each["id"] for each in shown["data"]] == ["x"]


def test_a_request_for_anything_is_spread_over_the_pool(admin, ask):
    assert told(ask("*"))[1:] == (None, "routed-weight-9")
    alias(admin, "*", a=1, b=1)
    found = Counter(told(ask(name)) for name in ("*", "") * 3)
    assert found == {("a", "*", "routed-alias"): 3, ("b", "*", "routed-alias"): 3}


@pytest.mark.parametrize("name", ["*", ""])
def test_the_settings_can_name_the_pool(make_app, simulator, name):
    app = make_app(TOKENHUB_WILDCARD_MODELS="b,nobody,a")
    client = app.test_client()
    admin = Admin(client)
    admin.provider(base_url=simulator.url)
    for each in ("a", "b", "c"):
        admin.model(each, upstream_model="sim-fast")
    token = admin.ok("POST", "apikeys", {"name": "k"})["key"]
    found = [
        client.post(
            "/v1/chat/completions",
            json={"model": name, "messages": HELLO},
            headers={"Authorization": f"Bearer {token}"},
        ).headers["X-Negotiated-Model"]
        for _ in range(4)
    ]
    assert found == ["b", "a", "b", "a"]


def test_a_models_fallbacks_answer_for_it_and_nobody_else(admin, ask):
    admin.ok("PATCH", "models/dead", {"fallbacks": ["b", "a"]})
    assert told(ask("dead")) == ("b", None, "routed-fallback")
    admin.ok("PATCH", "models/dead", {"fallbacks": ["nobody"]})
    assert ask("dead").status_code == 502


def test_the_simulation_tells_an_aliass_choice_and_takes_no_turn(admin, ask):
    alias(admin, "x", a=1, b=1)
    simulated = [
        admin.ok("POST", "routing/simulate", {"model_hint": "x"})["decision"] for _ in range(3)
    ]
    assert [(each["model_id"], each["alias_from"]) for each in simulated] == [("a", "x")] * 3
    assert told(ask("x"))[0] == "a"
    after = admin.ok("POST", "routing/simulate", {"model_hint": "x"})
    assert after["decision"]["model_id"] == "b"
    tagged = admin.ok("POST", "routing/simulate", {"tags": ["eu"], "exclude": ["gone"]})
    assert tagged["code"] == "no_eligible_model"
    assert tagged["skips"] == {"a": "tag", "b": "tag", "c": "tag", "dead": "excluded"}
    only = admin.ok("POST", "routing/simulate", {"model_hint": "a", "fallbacks": ["c"]})
    assert [each["id"] for each in only["eligible"]] == ["a", "c"]

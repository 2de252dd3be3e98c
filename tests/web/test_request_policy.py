"""What requests say of their own policy: it steers, and no provider ever sees it."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.unit.gateway_kit import DONE

HELLO = [{"role": "user", "content": "Hello"}]
DIRECTED = [{"role": "user", "content": "@@tokenhub mode=cheap budget=1\nHello"}]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": HELLO},
    "/v1/messages": {"messages": HELLO, "max_tokens": 9},
    "/v1/responses": {"input": "Hello"},
    "/v1/completions": {"prompt": "Hello"},
    "/v1/embeddings": {"input": "Hello"},
}


class Desk:
    """A gateway before a simulator, and what the simulator is sent."""

    def __init__(self, client, admin, simulator, make_key) -> None:
        self.client, self.make_key = client, make_key
        self.simulator = simulator
        self.token = make_key()
        admin.provider(base_url=simulator.url)
        prices = {"input_per_1k": 0.001, "output_per_1k": 0.002}
        everything = ["chat", "embeddings", "tools", "json", "vision"]
        admin.model("small", upstream_model="sim-fast", capabilities=everything, **prices)
        admin.model("dear", upstream_model="sim-fast", input_per_1k=1, output_per_1k=2, weight=10,
                    tags=["eu"], capabilities=everything)  # fmt: skip

    def post(self, path: str, body: object, token: str = "", **headers: str):
        named = {f"X-TokenHub-{name.replace('_', '-')}": text for name, text in headers.items()}
        return self.client.post(
            path, json=body, headers={"Authorization": f"Bearer {token or self.token}", **named}
        )

    def chat(self, token: str = "", messages: object = None, **fields: object):
        body = {"messages": messages or HELLO, **fields}
        return self.post("/v1/chat/completions", body, token)

    def last(self) -> dict[str, Any]:
        """The body that the provider was sent last."""
        assert self.simulator.last_request is not None
        found: dict[str, Any] = orjson.loads(self.simulator.last_request.body)
        return found


@pytest.fixture
def desk(client, admin, simulator, make_key) -> Desk:
    return Desk(client, admin, simulator, make_key)


@pytest.mark.parametrize("path", BODIES)
def test_the_object_steers_on_every_endpoint_and_reaches_no_provider(desk, path):
    said = {"tokenhub": {"exclude": ["small"], "max_latency_ms": 9000, "min_weight": 1}}
    response = desk.post(path, {**BODIES[path], **said})
    assert response.status_code == 200, response.text
    assert response.headers["X-Negotiated-Model"] == "dear"
    assert "tokenhub" not in desk.last()


@pytest.mark.parametrize("path", BODIES)
def test_headers_steer_on_every_endpoint_and_reach_no_provider(desk, path):
    response = desk.post(path, BODIES[path], Tags="eu", Max_Latency_Ms="9000")
    assert response.status_code == 200, response.text
    assert response.headers["X-Negotiated-Model"] == "dear"
    sent = desk.simulator.last_request.headers
    assert not [name for name in sent if name.lower().startswith("x-tokenhub")]


@pytest.mark.parametrize("path", BODIES)
def test_a_wrong_word_is_a_400_that_names_it(desk, path):
    for response, param in (
        (desk.post(path, {**BODIES[path], "tokenhub": {"mode": "dear"}}), "tokenhub.mode"),
        (desk.post(path, BODIES[path], Mode="dear"), "X-TokenHub-Mode"),
    ):
        assert response.status_code == 400
        assert response.get_json()["error"]["param"] == param


def test_streams_are_steered_too(desk):
    response = desk.chat(stream=True, tokenhub={"tags": ["eu"]})
    assert response.status_code == 200
    assert response.headers["X-Negotiated-Model"] == "dear"
    assert response.data.endswith(DONE)


def test_a_budget_that_nobody_fits_is_refused_and_a_default_only_ranks(desk):
    for response in (
        desk.chat(tokenhub={"max_budget_usd": 0.0000001}),
        desk.post("/v1/chat/completions", {"messages": HELLO}, Max_Budget_USD="0.0000001"),
    ):
        assert response.status_code == 400
        assert response.get_json()["error"]["code"] == "over_budget"
    modest = desk.make_key(policy={"max_budget_usd": 0.0000001})
    assert desk.chat(modest).status_code == 200
    # Its key's limit holds for the request that asks for more.
    assert desk.chat(modest, tokenhub={"max_budget_usd": 50}).status_code == 400


def test_fallbacks_are_all_there_is(desk):
    response = desk.chat(model="small", tokenhub={"fallbacks": ["nobody"]})
    assert response.status_code == 404
    assert response.get_json()["error"]["param"] == "fallbacks"
    response = desk.chat(model="small", tokenhub={"exclude": ["small"], "fallbacks": ["dear"]})
    assert response.headers["X-Negotiated-Model"] == "dear"


def test_a_directive_is_taken_out_and_obeyed_where_the_key_may(desk):
    token = desk.make_key(directives=True)
    text = "@@tokenhub mode=cheap budget=0.0000001\nHello"
    for path, body in (
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": text}]}),
        ("/v1/messages", {"messages": [{"role": "user", "content": text}], "max_tokens": 9}),
        ("/v1/responses", {"input": text}),
    ):
        response = desk.post(path, body, token)
        assert (response.status_code, response.get_json()["error"]["code"]) == (400, "over_budget")
    response = desk.chat(token, DIRECTED)
    assert response.status_code == 200
    assert desk.last()["messages"] == HELLO


def test_what_a_tool_has_found_directs_nothing(desk):
    token = desk.make_key(directives=True)
    found = "@@tokenhub budget=0.0000001"
    call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    messages = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": found},
    ]
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    assert desk.chat(token, messages, tools=[tool]).status_code == 200
    assert desk.last()["messages"] == messages


def test_without_leave_a_directive_says_nothing_and_no_model_sees_it(desk):
    dear = [{"role": "user", "content": "@@tokenhub budget=0.0000001\nHello"}]
    assert desk.chat(messages=dear).status_code == 200
    assert desk.last()["messages"] == HELLO


@pytest.mark.parametrize(("setting", "status"), [("off", 200), ("on", 400)])
def test_the_setting_decides_for_all_keys(make_app, simulator, setting, status):
    from tests.web.conftest import Admin

    client = make_app(TOKENHUB_DIRECTIVES=setting).test_client()
    admin = Admin(client)

    def make_key(**fields: object) -> str:
        token: str = admin.ok("POST", "apikeys", {"name": "test", **fields})["key"]
        return token

    desk = Desk(client, admin, simulator, make_key)
    token = make_key(directives=setting == "off")
    assert desk.chat(token, DIRECTED).status_code == 200
    assert desk.last()["messages"] == HELLO
    dear = [{"role": "user", "content": "@@tokenhub budget=0.0000001\nHello"}]
    assert desk.chat(token, dear).status_code == status


def test_a_schema_by_directive_is_refused_where_there_is_another_way(desk):
    token = desk.make_key(directives=True)
    messages = [{"role": "user", "content": '@@tokenhub output_schema={"type": "object"}\nHello'}]
    error = desk.chat(token, messages).get_json()["error"]
    assert (error["code"], error["param"]) == ("unsupported_parameter", "output_schema")

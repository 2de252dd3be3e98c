"""Anthropic's messages through the app: by every type of provider, whole and streamed."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.unit.messages_kit import TOOL, as_sdk, gathered, result, use
from tests.web.conftest import Admin

PATH = "/v1/messages"
HELLO: list[dict[str, Any]] = [{"role": "user", "content": "hello there"}]
MODELS = ("by-openai", "by-vllm", "by-anthropic")


@pytest.fixture
def ask(app, simulator):
    client = app.test_client()
    admin = Admin(client)
    for kind in ("openai", "vllm", "anthropic"):
        admin.provider(kind, base_url=simulator.url, type=kind)
        admin.model(f"by-{kind}", provider_id=kind, upstream_model="sim-fast",
                    input_per_1k=0.001, output_per_1k=0.002)  # fmt: skip
    token = admin.ok("POST", "apikeys", {"name": "one"})["key"]
    app.services.catalog.current()

    def send(model: str, headers: dict[str, str] | None = None, **fields: Any) -> Any:
        body = {"model": model, "max_tokens": 50, "messages": HELLO, **fields}
        return client.post(PATH, json=body, headers={"x-api-key": token, **(headers or {})})

    return send


@pytest.mark.parametrize("model", MODELS)
def test_a_message_is_answered_metered_and_the_same_in_a_stream(ask, model):
    got = ask(model, system="be brief")
    assert got.status_code == 200
    whole = as_sdk(got.get_json())
    assert (whole["type"], whole["role"], whole["stop_reason"]) == (
        "message", "assistant", "end_turn"
    )  # fmt: skip
    assert got.headers["X-Negotiated-Model"] == model
    assert float(got.headers["X-TokenHub-Cost-USD"]) > 0
    streamed = ask(model, system="be brief", stream=True)
    assert streamed.content_type == "text/event-stream; charset=utf-8"
    told = gathered(streamed.data)
    assert told["content"] == whole["content"]
    counts = ("input_tokens", "output_tokens")
    assert [told["usage"][name] for name in counts] == [whole["usage"][name] for name in counts]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("stream", [False, True])
def test_the_request_s_id_is_where_anthropic_s_sdk_looks_for_it(ask, model, stream):
    got, refused = ask(model, stream=stream), ask("nobody")
    assert got.headers["Request-Id"]
    if model != "by-anthropic":  # which hands on its own
        assert got.headers["Request-Id"] == got.headers["X-Request-Id"]
    assert refused.headers["Request-Id"] == refused.headers["X-Request-Id"]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_is_called_and_its_result_taken(ask, model, stream):
    asked = {"tools": [TOOL], "tool_choice": {"type": "any"}, "stream": stream}
    got = ask(model, **asked)
    first = gathered(got.data) if stream else as_sdk(got.get_json())
    assert first["stop_reason"] == "tool_use"
    call = first["content"][-1]
    assert (call["type"], call["name"], call["input"]) == ("tool_use", "find", {})
    turns = [*HELLO, {"role": "assistant", "content": first["content"]},
             {"role": "user", "content": [result(call["id"], "it is here")]}]  # fmt: skip
    got = ask(model, messages=turns, tools=[TOOL])
    assert got.status_code == 200, got.data
    assert got.get_json()["stop_reason"] == "end_turn"


def test_what_a_chat_cannot_say_is_told(ask):
    got = ask("by-openai", {"anthropic-beta": "new-2026"}, top_k=5)
    assert got.headers["X-TokenHub-Dropped"] == "top_k,anthropic-beta"
    assert "X-TokenHub-Dropped" not in ask("by-anthropic", top_k=5).headers


@pytest.mark.parametrize("model", MODELS)
def test_when_all_are_overloaded_the_caller_is_told_in_anthropic_s_way(ask, model, app):
    admin = Admin(app.test_client())
    for each in MODELS:
        admin.ok("PATCH", f"models/{each}", {"upstream_model": "fault-529"})
    app.services.catalog.current()
    got = ask(model)
    assert (got.status_code, got.get_json()["error"]["type"]) == (529, "overloaded_error")
    assert got.get_json()["error"]["code"] == "overloaded"


def test_headers_that_name_a_workspace_stay_here_and_those_that_name_a_user_do_not(ask, simulator):
    named = {"anthropic-user-profile-id": "uprof_1", "anthropic-workspace-id": "wrkspc_1"}
    got = ask("by-anthropic", named)
    assert got.headers["X-TokenHub-Dropped"] == "anthropic-workspace-id"
    seen = simulator.last_request.headers
    assert seen["anthropic-user-profile-id"] == "uprof_1"
    assert "anthropic-workspace-id" not in seen
    got = ask("by-openai", named)
    assert got.headers["X-TokenHub-Dropped"] == ",".join(named)


LONG = {**TOOL, "name": "mcp__server__" + "x" * 80}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", MODELS)
def test_a_tool_with_a_long_name_is_called_by_it(ask, model, stream):
    got = ask(model, tools=[LONG], tool_choice={"type": "any"}, stream=stream)
    assert got.status_code == 200, got.data
    found = gathered(got.data) if stream else as_sdk(got.get_json())
    assert found["content"][-1]["name"] == LONG["name"]


@pytest.mark.parametrize("model", MODELS)
def test_only_anthropic_reads_a_prompt_without_an_answer(ask, model):
    got = ask(model, max_tokens=0)
    if model == "by-anthropic":
        assert got.status_code == 200
    else:
        assert (got.status_code, got.get_json()["error"]["param"]) == (400, "max_tokens")


BEGUN = [
    [{"type": "text", "text": "\n\n"}, use("t1")],
    [use("functions.find:0")],
    [{"type": "thinking", "thinking": "hm", "signature": ""}, use("t1")],
]


@pytest.mark.parametrize("said", BEGUN)
def test_a_conversation_that_another_began_goes_on_at_anthropic(ask, said):
    turns = [{"role": "assistant", "content": said},
             {"role": "user", "content": [result(said[-1]["id"])]}]  # fmt: skip
    got = ask("by-anthropic", messages=[*HELLO, *turns, *turns], tools=[TOOL], max_tokens=4000,
              thinking={"type": "enabled", "budget_tokens": 1024})  # fmt: skip
    assert got.status_code == 200, got.data
    assert "thinking" in got.headers["X-TokenHub-Dropped"].split(",")


@pytest.mark.parametrize(
    ("model", "fields", "status", "kind", "param"),
    [
        ("by-openai", {"max_tokens": None}, 400, "invalid_request_error", "max_tokens"),
        ("by-openai", {"messages": [{"role": "user", "content": [result()]}]}, 400,
         "invalid_request_error", "messages[0].content[0].tool_use_id"),
        ("by-anthropic", {"messages": [{"role": "user", "content": [use()]}]}, 400,
         "invalid_request_error", None),
        ("unknown", {}, 404, "not_found_error", "model"),
    ],
)  # fmt: skip
def test_refusals_are_in_anthropic_s_envelope(ask, model, fields, status, kind, param):
    got = ask(model, **fields)
    body = orjson.loads(got.data)
    assert (got.status_code, body["type"], body["error"]["type"]) == (status, "error", kind)
    assert body["error"].get("param") == param
    assert body["error"]["message"]
    assert body["request_id"] == got.headers["X-Request-Id"]

"""Whatever JSON is sent to any endpoint: it is answered, or refused in the endpoint's own words.

With providers that are well, nothing that a caller can write is a fault of ours (a 500) or of
theirs (a 502).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.endpoints_kit import (
    CHAT,
    COMPLETION,
    COUNT,
    EMBEDDING,
    ENDPOINTS,
    MESSAGE,
    NATIVE,
    PLAN,
    RESPONSE,
    Endpoint,
    Json,
)  # fmt: skip
from tests.web.world_kit import TYPES, World, model_of, open_world

PIXEL = "iVBORw0KGgo="  # as much of a picture as anybody looks at
SCHEMA: Json = {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"],
    "additionalProperties": False,
}  # fmt: skip
TOOL = {"name": "get_weather", "description": "The weather.", "parameters": SCHEMA}
CALL = {"name": "get_weather", "arguments": '{"city": "Rome"}'}
CHATTED: Json = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [
            {"type": "text", "text": "Look"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
        ]},
        {"role": "assistant", "content": "I call.", "tool_calls": [
            {"id": "call_1", "type": "function", "function": CALL},
        ]},
        {"role": "tool", "tool_call_id": "call_1", "content": "Sunny"},
        {"role": "user", "content": "And now?", "name": "me"},
    ],
}  # fmt: skip
CHAT_FIELDS: Json = {
    "max_tokens": 20, "temperature": 0.5, "top_p": 0.9, "stop": ["END"], "seed": 1, "user": "me",
    "tools": [{"type": "function", "function": TOOL}], "tool_choice": "auto",
    "parallel_tool_calls": True, "reasoning_effort": "low", "n": 1, "logit_bias": {"1": 1},
    "metadata": {"a": "b"}, "stream_options": None, "service_tier": "auto",
    "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}},
}  # fmt: skip
POLICY: Json = {
    "mode": "cheap", "max_budget_usd": 1, "max_latency_ms": 60000, "min_weight": 0, "tags": [],
    "exclude": [],
}  # fmt: skip
RICH: dict[Endpoint, Json] = {
    CHAT: CHATTED | CHAT_FIELDS | {"tokenhub": POLICY},
    MESSAGE: {
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "Look"},
                {"type": "image", "source": {
                    "type": "base64", "media_type": "image/png", "data": PIXEL,
                }},
            ]},
            {"role": "assistant", "content": [
                {"type": "text", "text": "I call."},
                {"type": "tool_use", "id": "toolu_1", "name": "get_weather",
                 "input": {"city": "Rome"}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "is_error": False,
                 "content": [{"type": "text", "text": "Sunny"}]},
            ]},
        ],
        "max_tokens": 2000, "thinking": {"type": "enabled", "budget_tokens": 1024},
        "tools": [{"name": "get_weather", "description": "x", "input_schema": SCHEMA}],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        "stop_sequences": ["END"], "metadata": {"user_id": "me"}, "tokenhub": POLICY,
    },
    COUNT: {
        "system": "Be brief.", "tokenhub": POLICY,
        "tools": [{"name": "get_weather", "description": "x", "input_schema": SCHEMA}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Look"}]}],
    },
    RESPONSE: {
        "instructions": "Be brief.", "store": False, "tokenhub": POLICY,
        "input": [
            {"type": "message", "role": "user", "content": [
                {"type": "input_text", "text": "Look"},
                {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}"},
            ]},
            {"type": "function_call", "call_id": "call_1", **CALL},
            {"type": "function_call_output", "call_id": "call_1", "output": "Sunny"},
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {"role": "assistant", "content": [{"type": "output_text", "text": "Sunny."}]},
            {"role": "user", "content": "And now?"},
        ],
        "tools": [{"type": "function", **TOOL, "strict": True}], "tool_choice": "auto",
        "text": {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}},
        "reasoning": {"effort": "low", "summary": "auto"}, "max_output_tokens": 20,
        "temperature": 1, "include": [], "metadata": {"a": "b"}, "truncation": "disabled",
    },
    COMPLETION: {
        "prompt": ["One"], "max_tokens": 5, "temperature": 0.5, "stop": ["END"], "n": 1,
        "echo": False, "best_of": 1, "logprobs": None, "suffix": "", "tokenhub": POLICY,
        "stream_options": None, "logit_bias": {"1": 1},
    },
    EMBEDDING: {
        "input": ["One", "Two"], "dimensions": 8, "encoding_format": "float", "user": "me",
        "tokenhub": POLICY,
    },
    NATIVE: {
        "request": CHATTED | {
            "parameters": CHAT_FIELDS, "meta": {"a": "b"}, "id": "mine",
            "estimated_input_tokens": 9, "output_schema": SCHEMA,
        },
        "policy": POLICY, "capabilities": {},
        "output_format": {"type": "json", "strip_think": True, "max_tokens": 50},
    },
    PLAN: {
        "request": CHATTED | {"parameters": CHAT_FIELDS, "meta": {"a": "b"}},
        "policy": POLICY,
        "orchestration": {
            "mode": "vote", "iterations": 2, "primary_min_weight": 0, "review_min_weight": 0,
            "primary_model_id": "", "review_model_id": "", "return_plan_only": False,
            "output_schema": "", "quorum": 1, "quorum_wait_ms": 10,
        },
        "output_format": {"type": "markdown"},
    },
}  # fmt: skip
WORDS = (
    "", "auto", "none", "user", "assistant", "tool", "text", "json", "json_object", "function",
    "any", "enabled", "input_text", "tool_use", "of-openai", "vectors", "\ud800", "\x00", "9" * 30,
    "data:image/png;base64,!", "vote", "refine", "adversarial",
)  # fmt: skip
NAMES = (
    "type",
    "text",
    "role",
    "content",
    "name",
    "id",
    "function",
    "schema",
    "url",
    "x",
    "$ref",
    "stream",
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 3), st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(WORDS), st.text(max_size=8),
)  # fmt: skip
JUNK = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    ),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[World]:
    with open_world(tmp_path_factory.mktemp("any"), sqlite_template) as found:
        yield found


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a body, by the names and numbers that lead there."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for name, each in inner:
        yield (*path, name)
        if isinstance(each, (dict, list)):
            yield from places(each, (*path, name))


@st.composite
def bodies(draw: st.DrawFn, endpoint: Endpoint, kind: str) -> Json:
    """A request with some of its fields, and some of those not as they should be."""
    good, rich = endpoint.body(model_of(endpoint, kind)), deepcopy(RICH[endpoint])
    for name in [name for name in rich if name not in good]:
        if draw(st.booleans()):
            del rich[name]
    if endpoint.inner:
        rich["request"]["model_hint"] = good["request"]["model_hint"]
        parameters = rich["request"].get("parameters", {})
        rich["request"]["parameters"] = {
            name: value for name, value in parameters.items() if draw(st.booleans())
        }
    body = good | rich
    if draw(st.booleans()):
        (body[endpoint.inner] if endpoint.inner else body)["stream"] = True
    for _ in range(draw(st.integers(0, 2))):
        *way, last = draw(st.sampled_from(list(places(body))))
        holder: Any = body
        for step in way:
            holder = holder[step]
        if draw(st.integers(0, 3)):
            holder[last] = draw(JUNK)
        else:
            del holder[last]
    return body


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=str)
@settings(
    max_examples=60, deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large,
    ],
)  # fmt: skip
@given(data=st.data())
def test_no_json_at_all_is_a_fault_of_ours(world, endpoint, data):
    body = data.draw(bodies(endpoint, data.draw(st.sampled_from(TYPES))))
    response = world.post(endpoint, json.dumps(body).encode())
    status = response.status_code
    assert status < 500 or is_nobody_there(response), (status, response.text)
    if status != 200:
        endpoint.error_of(status, response.data)
    elif response.content_type.startswith("text/event-stream"):
        assert b"internal_error" not in response.data


def is_nobody_there(response: Any) -> bool:
    """503 is no fault: what was asked for, no model here can do."""
    return bool(response.status_code == 503)

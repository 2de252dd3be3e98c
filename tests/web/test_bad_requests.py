"""What no endpoint can be asked: each refuses it with a 4xx in its own dialect, whatever it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

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

EACH = pytest.mark.parametrize("endpoint", ENDPOINTS, ids=str)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[World]:
    with open_world(tmp_path_factory.mktemp("bad"), sqlite_template) as found:
        yield found


@EACH
def test_the_smallest_good_request_is_answered(world, endpoint):
    for kind in TYPES:
        name = model_of(endpoint, kind)
        response = world.post(endpoint, endpoint.body(name))
        assert response.status_code == 200, response.text
        if endpoint.streams:
            assert world.post(endpoint, endpoint.body(name, stream=True)).data.endswith(b"\n\n")


NO_OBJECTS = (
    b"", b"{", b"null", b"[]", b'"text"', b"1e999", b"\xff\xfe", b"\x00", b'{"a":1}{', b"{'a': 1}",
    b'{"model": "\\ud800"}', b"[" * 5000, b'{"a":' * 5000, b'{"n": 1' + b"0" * 400 + b"}",
)  # fmt: skip


@EACH
@pytest.mark.parametrize("raw", NO_OBJECTS, ids=range(len(NO_OBJECTS)))
def test_a_body_that_is_no_request_is_refused(world, endpoint, raw):
    status, code, _ = world.refused(endpoint, raw)
    assert (status, bool(code)) == (400, True)


@EACH
def test_a_body_that_is_too_large_is_refused_before_it_is_read(world, endpoint):
    body = endpoint.body(model_of(endpoint)) | {"padding": "x" * (1 << 20)}
    assert world.refused(endpoint, body)[:2] == (413, "request_too_large")


@EACH
def test_who_may_not_ask_is_told_in_the_endpoints_own_words(world, endpoint):
    body = endpoint.body(model_of(endpoint))
    assert world.refused(endpoint, body, Authorization="")[:2] == (401, "missing_api_key")
    assert world.refused(endpoint, body, Authorization="Bearer x")[:2] == (401, "invalid_api_key")


@EACH
def test_only_post_is_allowed(world, endpoint):
    response = world.client.get(endpoint.path)
    assert response.status_code == 405
    assert "POST" in response.headers["Allow"]
    assert endpoint.error_of(405, response.data)["code"] == "method_not_allowed"


@EACH
def test_an_unknown_model_is_refused_by_name(world, endpoint):
    found = world.refused(endpoint, endpoint.body("nobody-s"))
    assert found[:2] == (404, "model_not_found")


@EACH
@pytest.mark.parametrize(
    ("header", "value"),
    [("Mode", "best"), ("Max-Budget-USD", "much"), ("Max-Budget-USD", "nan"),
     ("Max-Latency-Ms", "-1"), ("Max-Latency-Ms", "300001"), ("Min-Weight", "11"),
     ("Min-Weight", "1.5")],
)  # fmt: skip
def test_a_policy_header_that_means_nothing_is_refused_by_name(world, endpoint, header, value):
    name = f"X-TokenHub-{header}"
    status, _, param = world.refused(endpoint, endpoint.body(model_of(endpoint)), **{name: value})
    assert (status, (param or "").lower()) == (400, name.lower())


NO_POLICIES: tuple[Any, ...] = (
    1, "x", [], {"mode": 1}, {"mode": "best"}, {"unknown": 1}, {"tags": [1]},
    {"max_budget_usd": True}, {"fallbacks": {}},
)  # fmt: skip


@EACH
@pytest.mark.parametrize("value", NO_POLICIES, ids=str)
def test_a_policy_object_that_means_nothing_is_refused_by_name(world, endpoint, value):
    field = "policy" if endpoint.inner else "tokenhub"
    body = endpoint.body(model_of(endpoint)) | {field: value}
    status, _, param = world.refused(endpoint, body)
    assert status == 400
    assert (param or "").startswith(field)


WRONG: dict[Endpoint, Json] = {
    CHAT: {"model": 1, "messages": "Hello", "stream": "yes", "n": 0, "max_tokens": "x",
           "stream_options": 1},
    MESSAGE: {"model": [], "messages": [{"role": "tool"}], "stream": 1, "max_tokens": 0,
              "system": 1, "tools": {}, "thinking": "hard", "stop_sequences": "x"},
    COUNT: {"model": {}, "messages": {}, "system": 1, "tools": "x"},
    RESPONSE: {"model": 1, "input": 1, "stream": "yes", "tools": {}, "max_output_tokens": "x",
               "previous_response_id": "resp_1", "store": True, "text": 1, "reasoning": 1},
    COMPLETION: {"model": 1, "prompt": {}, "stream": "yes", "n": "x", "max_tokens": -1},
    EMBEDDING: {"model": 1, "input": 1, "dimensions": "x", "encoding_format": "hex",
                "stream": True},
    NATIVE: {"model_hint": 1, "messages": 1, "stream": "yes", "meta": [], "parameters": "x",
             "output_schema": 1, "id": 1},
    PLAN: {"model_hint": 1, "messages": 1, "stream": "yes", "meta": [], "parameters": "x",
           "output_schema": 1, "id": 1},
}  # fmt: skip


@pytest.mark.parametrize(
    ("endpoint", "field"),
    [(endpoint, field) for endpoint, fields in WRONG.items() for field in fields],
    ids=str,
)
def test_a_field_of_the_wrong_type_is_refused_by_name(world, endpoint, field):
    body = endpoint.body(model_of(endpoint), {field: WRONG[endpoint][field]})
    status, _, param = world.refused(endpoint, body)
    where = f"{endpoint.inner}.{field}" if endpoint.inner else field
    assert (status, (param or "")[: len(where)]) == (400, where)


@pytest.mark.parametrize(
    ("field", "value"),
    [("mode", "best"), ("iterations", 11), ("quorum", "x"), ("primary_model_id", 1), ("unknown", 1),
     ("output_schema", "{"), ("return_plan_only", 1), ("quorum_wait_ms", -1)],
)  # fmt: skip
def test_a_plans_orchestration_is_checked_too(world, field, value):
    body = PLAN.body("of-openai") | {"orchestration": {field: value}}
    status, _, param = world.refused(PLAN, body)
    assert (status, (param or "")[: 14 + len(field)]) == (400, f"orchestration.{field}")


def test_nothing_that_is_refused_was_asked_of_a_provider(world):
    before = world.simulator.stats.requests
    for endpoint in ENDPOINTS:
        for field, value in WRONG[endpoint].items():
            world.refused(endpoint, endpoint.body(model_of(endpoint), {field: value}))
    assert world.simulator.stats.requests == before

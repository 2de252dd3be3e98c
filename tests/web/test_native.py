"""The native `POST /v1/chat`: its envelope in, its envelope out, and what it asks of the answer."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.unit.gateway_kit import DONE, STOP, USAGE, ScriptedAdapter, delta
from tokenhub import journal, store
from tokenhub.domain import ChatRequest, Usage
from tokenhub.providers.base import Answer, Stream, Target, Timeouts
from tokenhub.records import parse_request

HELLO = [{"role": "user", "content": "Hello"}]
SCHEMA = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}
WHOLE = [delta("hello"), STOP, USAGE + DONE]


def says(text: str, **more: object) -> Answer:
    message = {"role": "assistant", "content": text, **more}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1000, "completion_tokens": 500}
    body = {"id": "chatcmpl-1", "model": "up", "choices": [choice], "usage": usage}
    return Answer(orjson.dumps(body), body, Usage(1000, 500), 3)


class Recording(ScriptedAdapter):
    """Remembers what it was asked."""

    def __init__(self, scripts: dict[str, list[Any]]) -> None:
        super().__init__(scripts)
        self.requests: list[ChatRequest] = []

    def send(
        self, target: Target, request: ChatRequest, timeouts: Timeouts, request_id: str
    ) -> Answer:
        self.requests.append(request)
        return super().send(target, request, timeouts, request_id)

    def stream(
        self, target: Target, request: ChatRequest, timeouts: Timeouts, request_id: str
    ) -> Stream:
        self.requests.append(request)
        return super().stream(target, request, timeouts, request_id)


class Native:
    """Asks the native endpoint."""

    def __init__(self, app, client, admin, make_key) -> None:
        self.app, self.client, self.admin, self.make_key = app, client, admin, make_key
        self.token = make_key()
        admin.provider()
        admin.model("small", input_per_1k=0.001, output_per_1k=0.002)

    def script(self, **scripts: list[Any]) -> Recording:
        adapter = Recording(scripts)
        self.app.services.gateway.adapters["openai"] = adapter
        return adapter

    def post(self, inner: Any = None, token: str = "", **envelope: object):
        asked = inner if isinstance(inner, list) else {"messages": HELLO, **(inner or {})}
        return self.client.post(
            "/v1/chat",
            json={"request": asked, **envelope},
            headers={"Authorization": f"Bearer {token or self.token}"},
        )

    @property
    def rows(self) -> list[dict[str, Any]]:
        directory = self.app.services.settings.data_dir / "journal"
        assert self.app.services.board.in_flight == 0
        return [
            dict(zip(store.LOG_COLUMNS, parse_request(record.payload)[0], strict=True))
            for segment in journal.list_segments(directory)
            for record in journal.read(segment.path, 0)[0]
            if record.kind == journal.END
        ]


@pytest.fixture
def native(app, client, admin, make_key) -> Native:
    return Native(app, client, admin, make_key)


def test_the_answer_is_the_original_s_envelope(native):
    given = says("hi")
    native.script(small=[given])
    response = native.post()
    assert response.content_type == "application/json"
    assert response.headers["X-Negotiated-Model"] == "small"
    assert response.get_json() == {
        "negotiated_model": "small",
        "estimated_cost_usd": 0.002,
        "routing_reason": "routed-weight-5",
        "response": given.parsed,
    }
    [row] = native.rows
    assert (row["endpoint"], row["ending"], row["status_code"]) == ("/v1/chat", "answered", 200)


def test_an_unknown_price_is_null(native, admin):
    admin.model("mystery")
    native.script(mystery=[says("hi")])
    assert native.post({"model_hint": "mystery"}).get_json()["estimated_cost_usd"] is None


def test_everything_in_the_request_reaches_the_model_and_nothing_else(native):
    adapter = native.script(small=[says("hi")])
    inner = {
        "id": "mine", "model_hint": "small", "meta": {"team": "x"}, "stream": False,
        "estimated_input_tokens": 5000, "parameters": {"temperature": 0.5, "max_tokens": 7},
    }  # fmt: skip
    response = native.post(inner, policy={"mode": "cheap"}, capabilities={"planning": True})
    assert response.status_code == 200
    [asked] = adapter.requests
    assert asked.body.pop("stream") is False
    assert asked.body == {
        "model": "small", "messages": HELLO, "temperature": 0.5, "max_tokens": 7,
    }  # fmt: skip
    assert (asked.sticky_key, asked.input_tokens) == ("mine", 5000)
    assert native.rows[0]["mode"] == "cheap"


def test_too_low_an_estimate_is_not_believed(native):
    adapter = native.script(small=[says("hi")])
    long = [{"role": "user", "content": "x" * 4000}]
    native.post({"messages": long, "estimated_input_tokens": 1})
    assert adapter.requests[0].input_tokens == 1000


@pytest.mark.parametrize(
    ("inner", "envelope", "param"),
    [
        ([], {}, "request"),
        ({"messages": []}, {}, "request.messages"),
        ({"messages": [{"role": "x"}]}, {}, "request.messages[0].role"),
        ({"model_hint": 1}, {}, "request.model_hint"),
        ({"stream": "yes"}, {}, "request.stream"),
        ({"id": 1}, {}, "request.id"),
        ({"id": "x" * 201}, {}, "request.id"),
        ({"meta": []}, {}, "request.meta"),
        ({"parameters": []}, {}, "request.parameters"),
        ({"parameters": {"stream": True}}, {}, "request.parameters.stream"),
        ({"parameters": {"messages": HELLO[:0]}}, {}, "request.parameters.messages"),
        ({"parameters": {"model": "dear"}}, {}, "request.parameters.model"),
        ({"parameters": {"n": 0}}, {}, "request.parameters.n"),
        ({"parameters": {"stream_options": 1}}, {}, "request.parameters.stream_options"),
        ({"estimated_input_tokens": -1}, {}, "request.estimated_input_tokens"),
        ({"estimated_input_tokens": True}, {}, "request.estimated_input_tokens"),
        ({"temperature": 1}, {}, "request.temperature"),
        ({"output_schema": "{"}, {}, "request.output_schema"),
        ({"output_schema": {"type": 1}}, {}, "request.output_schema.type"),
        ({"output_schema": {}}, {"output_format": {"schema": SCHEMA}}, "output_format.schema"),
        ({}, {"output_format": {"type": "xml"}}, "output_format.type"),
        ({}, {"policy": {"mode": "dear"}}, "policy.mode"),
        ({}, {"policy": {"max_budget_usd": 101}}, "policy.max_budget_usd"),
        ({}, {"policy": []}, "policy"),
        ({}, {"capabilities": 1}, "capabilities"),
        ({}, {"tokenhub": {}}, "tokenhub"),
        ({}, {"model": "small"}, "model"),
    ],
)
def test_a_bad_request_is_refused_by_the_field_s_path_before_anybody_is_asked(
    native, inner, envelope, param
):
    adapter = native.script(small=[])
    response = native.post(inner, **envelope)
    error = response.get_json()["error"]
    assert (response.status_code, error["param"]) == (400, param), error
    assert error["type"] == "invalid_request_error"
    assert adapter.asked == []
    assert [row["ending"] for row in native.rows] == ["refused"]


def test_a_budget_in_the_policy_is_hard(native):
    native.script(small=[])
    error = native.post(policy={"max_budget_usd": 0.0000001}).get_json()["error"]
    assert error["code"] == "over_budget"


def test_a_stream_is_chunks_of_a_chat(native):
    native.script(small=[WHOLE])
    response = native.post({"stream": True})
    assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert response.headers["X-Negotiated-Model"] == "small"
    assert response.data == delta("hello") + STOP + DONE


def test_the_answer_is_put_in_shape_and_loses_nothing_else(native):
    given = says('<think>hm</think>Sure:\n```json\n{"a": 1}\n```', tool_calls=[])
    native.script(small=[given])
    response = native.post(output_format={"type": "json", "strip_think": True})
    shaped = response.get_json()["response"]
    assert shaped["choices"][0]["message"]["content"] == '{"a": 1}'
    shaped["choices"][0]["message"]["content"] = given.parsed["choices"][0]["message"]["content"]
    assert shaped == given.parsed


def test_a_stream_is_put_in_shape_as_it_passes(native):
    native.script(small=[[delta("<thi"), delta("nk>hm</think>"), delta("hi"), STOP, USAGE + DONE]])
    response = native.post({"stream": True}, output_format={"strip_think": True})
    assert b"hm" not in response.data
    assert b'"hi"' in response.data
    assert response.data.endswith(DONE)


@pytest.mark.parametrize("place", ["request", "format"])
def test_a_model_that_misses_the_schema_is_asked_again_and_both_calls_are_paid(native, place):
    adapter = native.script(small=[says('{"a": "x"}'), says('{"a": 1}')])
    inner = {"output_schema": SCHEMA} if place == "request" else {}
    envelope = {"output_format": {"schema": SCHEMA}} if place == "format" else {}
    response = native.post({"model_hint": "small", **inner}, **envelope)
    assert response.status_code == 200, response.text
    found = response.get_json()
    assert found["response"]["choices"][0]["message"]["content"] == '{"a": 1}'
    assert found["estimated_cost_usd"] == 0.004
    assert response.headers["X-TokenHub-Attempts"] == "2"
    formats = [asked.body["response_format"]["type"] for asked in adapter.requests]
    assert formats == ["json_schema", "json_schema"]
    assert [row["cost_nanousd"] for row in native.rows] == [4_000_000]


def test_an_answer_that_never_keeps_to_the_schema_is_a_422_that_says_why(native):
    native.script(small=[says("no"), says('{"b": 1}')])
    response = native.post({"model_hint": "small", "output_schema": SCHEMA})
    error = response.get_json()["error"]
    assert (response.status_code, error["code"]) == (422, "schema_unmet")
    assert "'a' is a required property" in str(error["errors"])
    [row] = native.rows
    assert (row["status_code"], row["cost_nanousd"]) == (422, 4_000_000)


def test_a_model_that_knows_no_schemas_is_told_in_words(native, admin):
    admin.model("plain", capabilities=["chat"], input_per_1k=0, output_per_1k=0)
    adapter = native.script(plain=[says('{"a": 1}'), says('{"a": 1}')])
    for hint in ("plain", ""):
        policy = {"exclude": ["small"]}
        response = native.post({"model_hint": hint, "output_schema": SCHEMA}, policy=policy)
        assert response.status_code == 200, response.text
    for asked in adapter.requests:
        assert "response_format" not in asked.body
        assert '"required"' in asked.body["messages"][0]["content"]


@pytest.mark.parametrize(("text", "is_met"), [('{"a": 1}', True), ('{"b": 1}', False)])
def test_a_stream_is_checked_at_its_end(native, text, is_met):
    native.script(small=[[delta(text[:4]), delta(text[4:]), STOP, USAGE + DONE]])
    inner = {"stream": True, "model_hint": "small", "output_schema": SCHEMA}
    data = native.post(inner).data
    assert (b"schema_unmet" in data) is not is_met


def test_a_directive_has_its_say_in_the_envelope(native):
    token = native.make_key(directives=True)
    text = '@@tokenhub\nmode=cheap\noutput_schema={"type": "integer"}\n@@end\nHello'
    messages = [{"role": "user", "content": text}]
    adapter = native.script(small=[says("7"), says('{"a": 1}')])
    inner = {"messages": messages, "model_hint": "small"}
    assert native.post(inner, token, policy={"mode": "normal"}).status_code == 200
    [asked] = adapter.requests
    assert asked.body["messages"] == HELLO
    assert asked.body["response_format"]["json_schema"]["schema"] == {"type": "integer"}
    # A schema of the request's own stays.
    response = native.post({**inner, "output_schema": SCHEMA}, token)
    assert response.status_code == 200
    assert adapter.requests[1].body["response_format"]["json_schema"]["schema"] == SCHEMA
    assert [row["mode"] for row in native.rows] == ["cheap", "cheap"]


def test_a_directive_s_schema_that_is_none_is_refused(native):
    token = native.make_key(directives=True)
    messages = [{"role": "user", "content": '@@tokenhub output_schema={"type":\nHello'}]
    error = native.post({"messages": messages}, token).get_json()["error"]
    assert error["param"] == "output_schema"


def test_an_id_of_the_caller_s_keeps_it_with_its_variant_and_is_not_ours(native, admin):
    admin.model("other", input_per_1k=0, output_per_1k=0)
    variants = [{"model_id": id_, "weight": 1} for id_ in ("small", "other")]
    admin.ok("PUT", "aliases/fast", {"variants": variants})
    native.script(small=[says("a")] * 20, other=[says("b")] * 20)
    found = {
        native.post({"id": "conversation-1", "model_hint": "fast"}).headers["X-Negotiated-Model"]
        for _ in range(8)
    }
    assert len(found) == 1
    response = native.post({"id": "conversation-1", "model_hint": "fast"})
    assert response.headers["X-Alias-From"] == "fast"
    assert response.headers["X-Request-Id"].startswith("req_")


def test_only_a_key_with_the_scope_may_ask(native):
    assert native.post(token="nobody").status_code == 401
    assert native.post(token=native.make_key(scopes=["plan"])).status_code == 403

"""Responses through the app: asked in chat, answered in OpenAI's Responses, whole and streamed."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from openai.types.responses import Response

from tests.unit.gateway_kit import DONE, STOP, USAGE, ScriptedAdapter, answer, delta
from tests.unit.responses_kit import checked
from tokenhub.providers.errors import classify


class Asker:
    """Asks for responses of a scripted provider."""

    def __init__(self, app, client, token: str) -> None:
        self.app, self.client = app, client
        self.headers = {"Authorization": f"Bearer {token}"}

    def post(self, **fields: Any) -> Any:
        raw = orjson.dumps({"model": "small", "input": "hi", **fields})
        return self.client.post("/v1/responses", data=raw, headers=self.headers)

    def script(self, *answers: Any) -> None:
        adapter = ScriptedAdapter({"small": list(answers)})
        self.app.services.gateway.adapters["openai"] = adapter


@pytest.fixture
def asker(app, client, admin, make_key) -> Asker:
    admin.provider()
    admin.model("small", input_per_1k=0.001, output_per_1k=0.002)
    return Asker(app, client, make_key())


def test_a_chat_s_answer_is_said_as_a_response(asker):
    asker.script(answer())
    got = asker.post(instructions="be brief", metadata={"a": "b"})
    assert got.status_code == 200
    body = got.get_json()
    Response.model_validate(body)
    assert (body["object"], body["status"], body["store"]) == ("response", "completed", False)
    assert body["metadata"] == {"a": "b"}
    assert got.headers["X-Negotiated-Model"] == "small"
    assert float(got.headers["X-TokenHub-Cost-USD"]) > 0


def test_a_stream_has_named_events_and_no_mark_at_its_end(asker):
    asker.script([delta("hello"), STOP, USAGE + DONE])
    got = asker.post(stream=True)
    assert got.content_type == "text/event-stream; charset=utf-8"
    told = checked(got.data)
    assert (told[0]["type"], told[-1]["type"]) == ("response.created", "response.completed")
    assert told[-1]["response"]["output"][0]["content"][0]["text"] == "hello"
    assert told[-1]["response"]["usage"]["input_tokens"] > 0
    assert b"[DONE]" not in got.data


def test_an_item_that_the_provider_does_not_know_is_the_caller_s_affair(asker):
    told = orjson.dumps({"error": {
        "message": "Item with id 'rs_1' not found.", "type": "invalid_request_error",
        "param": "input", "code": None,
    }})  # fmt: skip
    asker.script(classify(404, orjson.loads(told), told), answer())
    refused = asker.post()
    assert (refused.status_code, refused.data) == (404, told)
    assert asker.post().status_code == 200  # nobody else has to wait


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"store": True}, "store", "unsupported_parameter"),
        ({"previous_response_id": "resp_1"}, "previous_response_id", "unsupported_parameter"),
        ({"input": 7}, "input", "invalid_request"),
    ],
)
def test_what_cannot_be_served_is_refused_in_openai_s_envelope(asker, fields, param, code):
    got = asker.post(**fields)
    assert got.status_code == 400
    error = got.get_json()["error"]
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)

"""A chat completion for which the request has a JSON schema keeps to it, or is none."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.gateway_kit import DONE, STOP, USAGE, delta
from tests.web.test_native import HELLO, SCHEMA, Native, says


class Chat(Native):
    """Asks for chat completions."""

    def ask(self, schema: Any = SCHEMA, **more: object) -> Any:
        described = {"name": "a", "strict": True, "schema": schema}
        wanted = {"type": "json_schema", "json_schema": described}
        body = {"model": "small", "messages": HELLO, "response_format": wanted, **more}
        headers = {"Authorization": f"Bearer {self.token}"}
        return self.client.post("/v1/chat/completions", json=body, headers=headers)


@pytest.fixture
def chat(app, client, admin, make_key) -> Chat:
    return Chat(app, client, admin, make_key)


def test_an_answer_that_keeps_to_it_comes_byte_for_byte(chat):
    adapter = chat.script(small=[says('{"a": 1}')])
    response = chat.ask()
    assert response.data == says('{"a": 1}').body
    assert len(adapter.requests) == 1
    assert adapter.requests[0].body["response_format"]["json_schema"]["name"] == "a"


def test_one_that_does_not_is_asked_for_again_and_both_are_paid(chat):
    adapter = chat.script(small=[says("no"), says('{"a": 2}')])
    response = chat.ask()
    assert response.get_json()["choices"][0]["message"]["content"] == '{"a": 2}'
    assert (len(adapter.requests), response.headers["X-TokenHub-Attempts"]) == (2, "2")
    assert [row["cost_nanousd"] for row in chat.rows] == [4_000_000]


def test_one_that_never_does_is_a_422_that_says_why(chat):
    chat.script(small=[says('{"a": "x"}'), says('{"a": "x"}')])
    response = chat.ask()
    error = response.get_json()["error"]
    assert (response.status_code, error["code"]) == (422, "schema_unmet")
    assert error["errors"] == ["$.a: 'x' is not of type 'integer'"]


@pytest.mark.parametrize(("text", "is_met"), [('{"a": 1}', True), ('{"a": "x"}', False)])
def test_a_stream_is_checked_at_its_end(chat, text, is_met):
    chat.script(small=[[delta(text), STOP, USAGE + DONE]])
    response = chat.ask(stream=True)
    assert response.status_code == 200
    assert (b"schema_unmet" in response.data) is not is_met


def test_a_schema_that_cannot_be_checked_is_the_providers_business(chat):
    adapter = chat.script(small=[says("no")])
    assert chat.ask({"type": "string", "pattern": "(?=a)"}).status_code == 200
    assert len(adapter.requests) == 1


def test_a_budget_is_that_of_all_rounds(chat):
    adapter = chat.script(small=[says("no"), says('{"a": 1}')])
    response = chat.ask(tokenhub={"max_budget_usd": 0.003}, max_tokens=800)
    assert (response.status_code, response.get_json()["error"]["code"]) == (400, "over_budget")
    assert len(adapter.requests) == 1  # 0.002 are spent, and 0.0016 are wanted
    assert [row["cost_nanousd"] for row in chat.rows] == [2_000_000]

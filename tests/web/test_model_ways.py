"""Models with ways of their own: other names for tools, calls within their text."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.unit.gateway_kit import DONE, STOP, USAGE, delta, event
from tests.web.test_native import HELLO, Native, says

TOOL = {"type": "function", "function": {"name": "read_file", "parameters": {"type": "object"}}}
GEMMA = 'Let me look.<|tool_call>call:read_file{path:<|"|>a.txt<|"|>}<tool_call|>'


class Hub(Native):
    """Asks a model with ways of its own, by any dialect."""

    def ask(self, path: str, **body: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.token}"}
        return self.client.post(path, json={"model": "odd", **body}, headers=headers)


@pytest.fixture
def hub(app, client, admin, make_key) -> Hub:
    found = Hub(app, client, admin, make_key)
    prices = {"input_per_1k": 0, "output_per_1k": 0}
    admin.model("odd", tool_name_map={"Read": "read_file"}, gemma4_output=True, **prices)
    return found


def call(name: str) -> dict[str, Any]:
    return {"id": "call_1", "type": "function", "function": {"name": name, "arguments": "{}"}}


def test_a_tool_has_the_models_name_there_and_the_callers_here(hub):
    adapter = hub.script(odd=[says("", tool_calls=[call("Read")])])
    history = [*HELLO, {"role": "assistant", "tool_calls": [call("read_file")]},
               {"role": "tool", "tool_call_id": "call_1", "content": "x"}]  # fmt: skip
    found = hub.ask("/v1/chat/completions", messages=history, tools=[TOOL], seed=7).get_json()
    asked = adapter.requests[0].body
    assert asked["tools"][0]["function"]["name"] == "Read"
    assert asked["messages"][1]["tool_calls"][0]["function"]["name"] == "Read"
    assert asked["seed"] == 7
    assert found["choices"][0]["message"]["tool_calls"] == [call("read_file")]
    assert found["id"] == "chatcmpl-1"


def test_in_a_stream_too(hub):
    chunk = event(choices=[{"index": 0, "delta": {"tool_calls": [{"index": 0, **call("Read")}]}}])
    hub.script(odd=[[chunk, STOP, USAGE + DONE]])
    data = hub.ask("/v1/chat/completions", messages=HELLO, tools=[TOOL], stream=True).data
    assert b'"read_file"' in data
    assert b'"Read"' not in data
    assert data.endswith(DONE)


def test_calls_within_the_text_become_calls_in_every_dialect(hub):
    adapter = hub.script(odd=[says(GEMMA)] * 3)
    chat = hub.ask("/v1/chat/completions", messages=HELLO, tools=[TOOL]).get_json()
    [choice] = chat["choices"]
    assert choice["message"]["content"] == "Let me look."
    [made] = choice["message"]["tool_calls"]
    assert made["function"] == {"name": "read_file", "arguments": '{"path":"a.txt"}'}
    assert choice["finish_reason"] == "tool_calls"
    tools = [{"name": "read_file", "input_schema": {"type": "object"}}]
    message = hub.ask("/v1/messages", messages=HELLO, tools=tools, max_tokens=9).get_json()
    assert message["content"][-1]["type"] == "tool_use"
    assert message["content"][-1]["input"] == {"path": "a.txt"}
    assert message["stop_reason"] == "tool_use"
    tool = {"type": "function", "name": "read_file", "parameters": {"type": "object"}}
    response = hub.ask("/v1/responses", input="Hello", tools=[tool]).get_json()
    assert response["output"][-1]["type"] == "function_call"
    assert {request.dialect for request in adapter.requests} == {"chat"}


def test_calls_within_a_stream_s_text_become_calls(hub):
    pieces = [delta(GEMMA[at : at + 5]) for at in range(0, len(GEMMA), 5)]
    hub.script(odd=[[*pieces, STOP, USAGE + DONE]])
    tools = [{"name": "read_file", "input_schema": {"type": "object"}}]
    data = hub.ask("/v1/messages", messages=HELLO, tools=tools, max_tokens=9, stream=True).get_data(
        as_text=True
    )
    events = [orjson.loads(line[6:]) for line in data.splitlines() if line.startswith("data: ")]
    begun = [each["content_block"] for each in events if each["type"] == "content_block_start"]
    assert [block["type"] for block in begun] == ["text", "tool_use"]
    assert begun[1]["name"] == "read_file"
    assert "tool_call|" not in data
    assert events[-2]["delta"]["stop_reason"] == "tool_use"

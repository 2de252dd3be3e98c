"""The simulator refuses what the providers refuse, and says so in their words."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.providers.test_simulator import ask
from tokenhub.providers.simulator import Simulator, anthropic_checks, openai_checks
from tokenhub.providers.simulator.client import Client, Request
from tokenhub.providers.simulator.errors import Refused
from tokenhub.providers.simulator.signature import sign

HELLO: list[Any] = [{"role": "user", "content": "hello"}]
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
OLD, NEW = "2023-06-01", "2026-10-21"
TOOL: dict[str, Any] = {"name": "weather", "input_schema": {"type": "object"}}
CALL: dict[str, Any] = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}
CALL_2 = {**CALL, "id": "toolu_2"}
RESULT: dict[str, Any] = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "21"}
TEXT: dict[str, Any] = {"type": "text", "text": "and now?"}
THINKING = {"type": "enabled", "budget_tokens": 2000}
MARK = {"type": "ephemeral"}
STRICT = {"type": "object", "properties": {}, "additionalProperties": False}


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def model(*blocks: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


def image(**source: Any) -> dict[str, Any]:
    base = {"type": "base64", "media_type": "image/png", "data": PNG}
    return user({"type": "image", "source": {**base, **source}})


def linked(url: str, **source: Any) -> dict[str, Any]:
    return user({"type": "image", "source": {"type": "url", "url": url, **source}})


def refusal(version: str = OLD, *, is_beta: bool = False, **fields: Any) -> str:
    """Why Anthropic refuses a request; "" if it does not."""
    body = {"model": "m", "max_tokens": 4000, "messages": HELLO, **fields}
    body = {name: value for name, value in body.items() if value is not ...}
    try:
        anthropic_checks.check(body, version=version, is_beta=is_beta)
    except Refused as refused:
        assert refused.status == 400
        return refused.message
    return ""


# --- Anthropic ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_tokens": ...}, "max_tokens: Field required"),
        ({"model": ...}, "model: Field required"),
        ({"messages": ...}, "messages: Field required"),
        ({"max_tokens": "9"}, "max_tokens: Input should be a valid integer"),
        ({"max_tokens": True}, "max_tokens: Input should be a valid integer"),
        ({"max_tokens": 900_000}, "max_tokens: 900000 > 128000"),
        ({"n": 1}, "n: Extra inputs are not permitted"),
        ({"stop": ["x"]}, "stop: Extra inputs are not permitted"),
        ({"temperature": 1.5}, "temperature: range: 0..1"),
        ({"temperature": None}, "temperature: Input should be a valid number"),
        ({"top_k": -1}, "top_k: "),
        ({"stop_sequences": [" "]}, "stop_sequences: each stop sequence must contain"),
        ({"stop_sequences": "x"}, "stop_sequences: Input should be a valid list"),
        ({"stream": 1}, "stream: Input should be a valid boolean"),
        ({"metadata": {"team": "a"}}, "metadata.team: Extra inputs are not permitted"),
        ({"metadata": {"user_id": 5}}, "metadata.user_id: Input should be a valid string"),
        ({"service_tier": "default"}, "service_tier: "),
        ({"system": None}, "system: Input should be a valid list"),
        ({"system": [{"type": "text", "text": ""}]}, "system: text content blocks must be non-emp"),
        ({"system": [{"type": "image"}]}, "system.0.type: Input should be 'text'"),
        ({"output_format": {}}, "output_format: Extra inputs are not permitted"),
        ({"output_config": {"effort": "huge"}}, "output_config.effort: "),
        ({"output_config": {"format": {"type": "json_object"}}}, "output_config.format.type: "),
        ({"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
         "output_config.format.schema: For 'object' type, 'additionalProperties' must be"),
        ({"thinking": {"type": "on"}}, "thinking: Input tag 'on' found using 'type'"),
        ({"thinking": {"type": "enabled"}}, "thinking.enabled.budget_tokens: Field required"),
        ({"thinking": {**THINKING, "budget_tokens": 1000}},
         "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024"),
        ({"thinking": {**THINKING, "budget_tokens": 4000}},
         "`max_tokens` must be greater than `thinking.budget_tokens`"),
        ({"thinking": THINKING, "temperature": 0.5}, "`temperature` may only be set to 1"),
        ({"thinking": THINKING, "top_k": 5}, "`top_k` must be unset"),
        ({"thinking": THINKING, "top_p": 0.5}, "`top_p` must be greater than or equal to 0.95"),
        ({"thinking": THINKING, "tools": [TOOL], "tool_choice": {"type": "any"}},
         "Thinking may not be enabled when tool_choice forces tool use."),
    ],
)  # fmt: skip
def test_anthropic_refuses_a_field(fields: dict[str, Any], message: str) -> None:
    assert refusal(**fields).startswith(message)


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ([{**TOOL, "name": "a b"}], "tools.0.custom.name: String should match pattern"),
        ([{**TOOL, "name": "a" * 129}], "tools.0.custom.name: String should match pattern"),
        ([{"name": "a"}], "tools.0.custom.input_schema: Field required"),
        ([{**TOOL, "input_schema": {}}], "tools.0.custom.input_schema.type: Field required"),
        ([{**TOOL, "input_schema": {"type": "array"}}],
         "tools.0.custom.input_schema.type: Input should be 'object'"),
        ([{**TOOL, "parameters": {}}], "tools.0.custom.parameters: Extra inputs are not permitted"),
        ([{"type": "function", "function": {}}], "tools.0: Input tag 'function' found"),
        ([TOOL, TOOL], "tools: Tool names must be unique."),
        ([{**TOOL, "description": None}], "tools.0.custom.description: Input should be a valid st"),
    ],
)  # fmt: skip
def test_anthropic_refuses_a_tool(tools: list[Any], message: str) -> None:
    assert refusal(tools=tools).startswith(message)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("auto", "tool_choice: Input should be a valid dictionary"),
        ({"type": "required"}, "tool_choice: Input tag 'required' found"),
        ({"type": "tool"}, "tool_choice.tool.name: Field required"),
        ({"type": "tool", "name": "clock"}, "Tool 'clock' not found in provided tools"),
        ({"type": "none", "disable_parallel_tool_use": True},
         "tool_choice.none.disable_parallel_tool_use: Extra inputs are not permitted"),
    ],
)  # fmt: skip
def test_anthropic_refuses_a_tool_choice(choice: Any, message: str) -> None:
    assert refusal(tools=[TOOL], tool_choice=choice).startswith(message)
    assert refusal(tool_choice={"type": "auto"}).startswith("tool_choice may only be specified")


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "messages: at least one message is required"),
        ("hello", "messages: Input should be a valid list"),
        ([{"role": "system", "content": "x"}], 'messages: Unexpected role "system".'),
        ([{"role": "tool", "content": "x"}], "messages.0.role: Input should be 'user' or"),
        ([{"role": "user"}], "messages.0.content: Field required"),
        ([{**HELLO[0], "name": "Bob"}], "messages.0.name: Extra inputs are not permitted"),
        ([{"role": "user", "content": None}], "messages.0.content: Input should be a valid list"),
        ([{"role": "user", "content": ""}], "messages.0: all messages must have non-empty"),
        ([{"role": "user", "content": " "}], "messages: text content blocks must contain non-wh"),
        ([user({"type": "text", "text": ""})], "messages: text content blocks must be non-empty"),
        ([{"role": "assistant", "content": "hi"}], 'messages: first message must use the "user"'),
        ([*HELLO, {"role": "assistant", "content": "hi "}],
         "messages: final assistant content cannot end with trailing whitespace"),
        ([*HELLO, {"role": "assistant", "content": ""}, *HELLO], "messages.1: all messages must"),
        ([user({"type": "image_url", "image_url": {}})], "messages.0.content.0: Input tag 'image_"),
        ([user(CALL)], "messages.0.content.0: `tool_use` blocks are not allowed in `user` mess"),
        ([image(media_type="image/tiff")],
         "messages.0.content.0.image.source.base64.media_type: Input should be 'image/jpeg'"),
        ([image(data="data:image/png;base64," + PNG)],
         "messages.0.content.0.image.source.base64.data: Invalid base64 data"),
        ([image(type="data")], "messages.0.content.0.image.source: Input tag 'data' found"),
        ([linked("ftp://x")], "messages.0.content.0.image.source.url.url: Only"),
        ([linked("https://x", detail="low")],
         "messages.0.content.0.image.source.url.detail: Extra inputs are not permitted"),
        ([user({**TEXT, "cache_control": {"type": "forever"}})],
         "messages.0.content.0.text.cache_control.type: Input should be 'ephemeral'"),
        ([user(*[{**TEXT, "cache_control": MARK}] * 5)], "A maximum of 4 blocks with cache_cont"),
    ],
)  # fmt: skip
def test_anthropic_refuses_a_message(messages: Any, message: str) -> None:
    assert refusal(messages=messages).startswith(message)


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([model(CALL)], "messages.1: `tool_use` ids were found without `tool_result` blocks imm"),
        ([model(CALL), user(TEXT)], "messages.1: `tool_use` ids were found without"),
        ([model(CALL), user(TEXT, RESULT)], "messages.1: `tool_use` ids were found without"),
        ([model(CALL, CALL_2), user(RESULT)],
         "messages.1: `tool_use` ids were found without `tool_result` blocks immediately after: t"),
        ([model(CALL), user(RESULT, RESULT)],
         "messages.2.content.1: each tool_use must have a single result."),
        ([user(RESULT)], "messages.1.content.0: unexpected `tool_use_id` found in `tool_result`"),
        ([model(CALL, CALL), user(RESULT)], "messages: `tool_use` ids must be unique"),
        ([model({**CALL, "id": "call.1"}), user(RESULT)],
         "messages.1.content.0.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'"),
        ([model({**CALL, "input": "{}"}), user(RESULT)],
         "messages.1.content.0.tool_use.input: Input should be a valid dictionary"),
        ([model({**CALL, "name": ""}), user(RESULT)],
         "messages.1.content.0.tool_use.name: String should match"),
        ([model(CALL), user({**RESULT, "content": [{"type": "text", "text": ""}]})],
         "messages: text content blocks must be non-empty"),
        ([model(CALL), user({**RESULT, "is_error": "no"})],
         "messages.2.content.0.tool_result.is_error: Input should be a valid boolean"),
    ],
)  # fmt: skip
def test_anthropic_refuses_a_turn_about_tools(turns: list[Any], message: str) -> None:
    assert refusal(messages=[*HELLO, *turns], tools=[TOOL]).startswith(message)


def test_anthropic_wants_tools_and_thoughts_with_their_history() -> None:
    turns = [*HELLO, model(CALL), user(RESULT)]
    assert "must define tools" in refusal(messages=turns)
    assert refusal(messages=turns, tools=[TOOL]) == ""
    said = refusal(messages=turns, tools=[TOOL], thinking=THINKING)
    assert said.startswith("messages.1.content.0.type: Expected `thinking` or `redacted_thinking`")
    thought = {"type": "thinking", "thinking": "hm", "signature": sign("hm")}
    turns[1] = model(thought, CALL)
    assert refusal(messages=turns, tools=[TOOL], thinking=THINKING) == ""


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [*HELLO, *HELLO, model(TEXT), model(TEXT), *HELLO]},
        {"messages": [*HELLO, {"role": "assistant", "content": "The answer is"}]},
        {"messages": [*HELLO, {"role": "assistant", "content": ""}]},
        {"messages": [image(), linked("https://x")]},
        {"messages": [*HELLO, model(TEXT, CALL, CALL_2),
                      user(RESULT, {**RESULT, "tool_use_id": "toolu_2"}, TEXT)], "tools": [TOOL]},
        {"messages": [*HELLO, model(CALL), user({"type": "tool_result", "tool_use_id": "toolu_1"}),
                      user(TEXT)], "tools": [TOOL]},
        {"system": "", "temperature": 0, "top_p": 1, "top_k": 0, "stop_sequences": []},
        {"tools": [{**TOOL, "type": "custom", "strict": True, "cache_control": MARK},
                   {"type": "web_search_20250305", "name": "web_search", "max_uses": 2}]},
        {"thinking": {"type": "disabled"}, "metadata": {"user_id": None}},
        {"output_config": {"effort": "low", "format": {"type": "json_schema", "schema": STRICT}}},
    ],
)  # fmt: skip
def test_anthropic_takes_what_its_reference_allows(fields: dict[str, Any]) -> None:
    assert refusal(**fields) == ""


def test_anthropic_takes_beta_fields_with_the_header_and_sampling_before_2026() -> None:
    wanted = {"type": "json_schema", "schema": STRICT}
    assert refusal(is_beta=True, output_format=wanted) == ""
    assert refusal(OLD, temperature=1) == ""
    assert refusal(NEW, temperature=1) == "temperature: Extra inputs are not permitted"


# --- OpenAI -------------------------------------------------------------------------------------

FUNCTION: dict[str, Any] = {"type": "function", "function": {"name": "weather"}}
ASKED: dict[str, Any] = {
    "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"},
}  # fmt: skip
CALLED: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": [ASKED]}
TOLD: dict[str, Any] = {"role": "tool", "tool_call_id": "call_1", "content": "21"}


def part(**fields: Any) -> dict[str, Any]:
    return {"role": "user", "content": [fields]}


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (None, "Missing required parameter: 'messages'."),
        ([5], "Invalid type for 'messages[0]': expected an object, but got an integer"),
        ([{"role": "model", "content": "x"}], "Invalid value: 'model'. Supported values are: "),
        ([{"role": "user"}], "Invalid type for 'messages[0].content'"),
        ([{"role": "user", "content": []}], "Invalid 'messages[0].content': empty array."),
        ([{"role": "assistant"}], "Invalid type for 'messages[0].content': expected a string"),
        ([part(type="image")], "Invalid value: 'image'. Supported values are: 'text', 'image_url'"),
        ([part(type="text")], "Invalid type for 'messages[0].content[0].text'"),
        ([part(type="image_url", image_url="https://x")], "Invalid type for 'messages[0].content["),
        ([part(type="image_url", image_url={"url": "x.png"})], "Invalid 'messages[0].content[0]."),
        ([part(type="image_url", image_url={"url": "data:image/tiff;base64,AA=="})],
         "You uploaded an unsupported image."),
        ([part(type="image_url", image_url={"url": "data:image/png;base64,?"})], "Invalid base64"),
        ([*HELLO, TOLD], "Invalid parameter: messages with role 'tool' must be a response to"),
        ([CALLED, {**TOLD, "tool_call_id": "call_2"}],
         "Invalid parameter: 'tool_call_id' of 'call_2' not found in 'tool_calls'"),
        ([CALLED, TOLD, TOLD], "Invalid parameter: 'tool_call_id' of 'call_1' not found"),
        ([CALLED], "An assistant message with 'tool_calls' must be followed by tool messages"),
        ([CALLED, *HELLO], "An assistant message with 'tool_calls' must be followed by tool mess"),
        ([{**CALLED, "tool_calls": []}], "Invalid 'messages[0].tool_calls': empty array."),
        ([{**CALLED, "tool_calls": [{**ASKED, "id": None}]}],
         "Invalid type for 'messages[0].tool_calls[0].id': expected a string, but got null"),
        ([{**CALLED, "tool_calls": [{**ASKED, "function": {"name": "a", "arguments": {}}}]}],
         "Invalid type for 'messages[0].tool_calls[0].function.arguments': expected a string"),
    ],
)  # fmt: skip
def test_openai_refuses_a_message(messages: Any, message: str) -> None:
    with pytest.raises(Refused) as caught:
        openai_checks.check({"model": "m", "messages": messages})
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": []}, None),
        ({"tools": [{"name": "a", "input_schema": {}}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {"name": "a.b"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "a", "parameters": {"type": "x"}}}]},
         "tools[0].function.parameters"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"tool_choice": "any", "tools": [FUNCTION]}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "b"}}, "tools": [FUNCTION]},
         "tool_choice"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"response_format": {"type": "json"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
         "response_format.json_schema.name"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 5}, None),
        ({"max_tokens": 5, "model": "gpt-5-mini"}, "max_tokens"),
        ({"max_tokens": 5, "model": "o3"}, "max_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": "1"}, "top_p"),
        ({"n": 0}, "n"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": 5}, "stop"),
        ({"reasoning_effort": "some"}, "reasoning_effort"),
    ],
)  # fmt: skip
def test_openai_refuses_a_field(fields: dict[str, Any], param: str | None) -> None:
    with pytest.raises(Refused) as caught:
        openai_checks.check({"model": "m", "messages": HELLO, **fields})
    assert caught.value.param == param


def test_openai_takes_what_its_reference_allows() -> None:
    developer = {"role": "developer", "content": [TEXT]}
    turns = [developer, *HELLO, CALLED, TOLD, {"role": "assistant", "content": [TEXT]}, *HELLO]
    openai_checks.check(
        {
            "model": "m", "messages": turns, "tools": [FUNCTION], "parallel_tool_calls": False,
            "tool_choice": {"type": "function", "function": {"name": "weather"}}, "stop": None,
            "max_completion_tokens": 5, "temperature": 2, "n": None, "reasoning_effort": "high",
            "response_format": {"type": "json_object"}, "stream": True, "top_k": 5,
            "stream_options": {"include_usage": True},
        }
    )  # fmt: skip


def test_a_refusal_is_a_400_in_the_dialect(simulator: Simulator) -> None:
    body = {"model": "sim-fast", "messages": [{"role": "tool", "content": "x"}]}
    status, parsed = ask(simulator, "POST", "/v1/chat/completions", body)
    assert (status, parsed["error"]["param"]) == (400, "messages[0].role")
    status, parsed = ask(simulator, "POST", "/v1/messages", body, anthropic_version=OLD)
    assert (status, parsed["error"]["message"]) == (400, "max_tokens: Field required")
    assert parsed["type"] == "error"


class Deaf(Client):
    """A client that is told, and keeps, nothing but the status."""

    def __init__(self) -> None:
        self.status = 0

    def answer(
        self, status: int, body: bytes, kind: str = "application/json", *, extra: str = ""
    ) -> None:
        self.status = status

    def send(self, data: bytes) -> None:
        self.status = 200


WORDS = st.sampled_from(
    ["text", "image", "image_url", "tool", "tool_use", "tool_result", "thinking", "user", "type",
     "assistant", "role", "content", "name", "id", "url", "source", "base64", "function", "object",
     "tool_calls", "input_schema", "properties", "enum", "$ref", "#", "json_schema", "schema"]
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2000) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    [*sorted(anthropic_checks.FIELDS), "temperature", "n", "stop", "response_format",
     "parallel_tool_calls", "stream_options"]
)  # fmt: skip


@given(
    path=st.sampled_from(["/v1/chat/completions", "/v1/messages", "/v1/messages/count_tokens"]),
    fields=st.dictionaries(FIELDS, JSON, max_size=4),
)
def test_whatever_is_asked_is_answered_or_refused(path: str, fields: dict[str, Any]) -> None:
    whole = {} if path.endswith("tokens") else {"max_tokens": 50}
    body = {"model": "m", "messages": HELLO, **whole, **fields}
    client = Deaf()
    headers = {"anthropic-version": OLD} if "messages" in path else {}
    Simulator()._handle(client, Request("POST", path, headers, orjson.dumps(body)))
    assert client.status in (200, 400)

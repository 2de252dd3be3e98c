"""A Messages request is read once, checked, measured, and kept as it came."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.unit.messages_kit import PNG, TOOL, USER, assistant, body, read, result, text, use, user
from tokenhub.dialects.messages import MESSAGES, count_tokens, read_count
from tokenhub.errors import InvalidRequest


def test_a_request_is_read_with_all_that_routing_needs():
    found = read(max_tokens=50, stream=True, tools=[TOOL], future_field={"x": 1})
    assert (found.dialect, found.model, found.stream) == ("messages", "m", True)
    assert (found.output_tokens_max, found.choices) == (50, 1)
    assert found.needs == {"tools"}
    assert found.body["future_field"] == {"x": 1}


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("model", {"model": 7}),
    ("max_tokens", {"max_tokens": None}),
    ("max_tokens", {"max_tokens": -1}),
    ("max_tokens", {"max_tokens": "many"}),
    ("messages", {"messages": []}),
    ("messages", {"messages": "hi"}),
    ("messages[0]", {"messages": ["hi"]}),
    ("messages[0].role", {"messages": [{"role": 7, "content": "x"}]}),
    ("messages[0].role", {"messages": [{"content": "x"}]}),
    ("messages[0].content", {"messages": [{"role": "user"}]}),
    ("messages[0].content", {"messages": [{"role": "user", "content": None}]}),
    ("messages[0].content[1]", {"messages": [user(text("a"), "b")]}),
    ("messages[0].content[0]", {"messages": [user({"text": "a"})]}),
    ("messages[0].content[0].input", {"messages": [assistant({**use(), "input": "x"})]}),
    ("system", {"system": 7}),
    ("system[0].type", {"system": [{"type": "image", "source": PNG}]}),
    ("system[0].text", {"system": [{"type": "text"}]}),
    ("stream", {"stream": "yes"}),
    ("temperature", {"temperature": 1.5}),
    ("temperature", {"temperature": True}),
    ("top_p", {"top_p": -0.1}),
    ("top_k", {"top_k": 0.5}),
    ("stop_sequences", {"stop_sequences": "END"}),
    ("stop_sequences[1]", {"stop_sequences": ["END", 1]}),
    ("tools", {"tools": {}}),
    ("tools[0]", {"tools": ["find"]}),
    ("tools[0].name", {"tools": [{"input_schema": {}}]}),
    ("tools[0].input_schema", {"tools": [{"name": "find"}]}),
    ("tool_choice", {"tool_choice": "auto"}),
    ("tool_choice.type", {"tool_choice": {"type": None}}),
    ("tool_choice.name", {"tool_choice": {"type": "tool"}}),
    ("tool_choice.disable_parallel_tool_use",
     {"tool_choice": {"type": "auto", "disable_parallel_tool_use": 1}}),
    ("thinking", {"thinking": True}),
    ("thinking.type", {"thinking": {"type": ["deep"]}}),
    ("metadata", {"metadata": "x"}),
    ("metadata.user_id", {"metadata": {"user_id": 7}}),
    ("output_config", {"output_config": []}),
    ("output_config.effort", {"output_config": {"effort": 1}}),
    ("output_config.format", {"output_config": {"format": "json"}}),
    ("service_tier", {"service_tier": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("param", "fields"), WRONG)
def test_what_is_wrong_is_refused_by_its_name(param, fields):
    with pytest.raises(InvalidRequest) as caught:
        MESSAGES.read(orjson.dumps({**body(), **fields}))
    assert (caught.value.status, caught.value.param) == (400, param)


def test_a_conversation_that_we_are_to_hold_is_refused_so_that_the_sdk_sends_it_whole():
    with pytest.raises(InvalidRequest) as caught:
        MESSAGES.read(orjson.dumps({**body(), "thread": {"type": "create"}}))
    told = MESSAGES.error_body(caught.value, "req_1")["error"]
    assert (told["type"], told["param"]) == ("invalid_request_error", "thread")
    assert told["details"]["error_code"] == "thread_unsupported_request"


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b'{"model":"a","model":"b"}'])
def test_what_is_no_json_object_is_refused(raw):
    with pytest.raises(InvalidRequest):
        MESSAGES.read(raw)


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        {"system": []},
        {"thinking": {"type": "adaptive"}},
        {"temperature": None, "tools": None, "metadata": None, "tool_choice": None},
        {"max_tokens": 5.0},
        {"max_tokens": 0},
        {"thinking": {"type": "auto"}},
        {"thinking": {"type": "enabled"}},
        {"tool_choice": {"type": "allowed"}},
        {"messages": [{"role": "developer", "content": "x"}]},
        {"messages": [user({"type": "block_of_tomorrow", "x": 1})]},
        {"messages": [{"role": "system", "content": "x"}, USER]},
    ],
)
def test_what_only_anthropic_can_judge_passes(fields):
    found = MESSAGES.read(orjson.dumps({**body(), **fields}))
    assert found.body == {**body(), **fields}


@pytest.mark.parametrize(
    ("fields", "needs"),
    [
        ({}, set()),
        ({"messages": [user({"type": "image", "source": PNG})]}, {"vision"}),
        ({"messages": [user(result(content=[{"type": "image", "source": PNG}]))]}, {"vision"}),
        ({"output_config": {"format": {"type": "json_schema", "schema": {}}}}, {"json"}),
        ({"output_format": {"type": "json_schema", "schema": {}}}, {"json"}),
        ({"output_config": {"effort": "low"}}, set()),
    ],
)
def test_what_a_model_must_be_able_to_do_is_known(fields, needs):
    assert MESSAGES.read(orjson.dumps({**body(), **fields})).needs == needs


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({"messages": [{"role": "user", "content": "a" * 400}]}, 100),
        ({"messages": [user(text("a" * 200), text("é" * 100))]}, 100),
        ({"messages": [{"role": "user", "content": "a" * 200}], "system": "b" * 200}, 100),
        ({"messages": [user(text("a" * 200))], "system": [text("b" * 200)]}, 100),
        ({"messages": [assistant(use(a="b" * 394))]}, 100),
        ({"messages": [user(result(content="a" * 400))]}, 100),
        ({"messages": [user(result(content=[text("a" * 400)]))]}, 100),
        ({"messages": [user({"type": "image", "source": PNG})]}, 1000),
        ({"messages": [user({"type": "document", "source": {"type": "text", "data": "a" * 400}})]},
         100),
        ({"messages": [assistant({"type": "thinking", "thinking": "a" * 400})]}, 100),
        ({"messages": [{"role": "user", "content": ""}]}, 0),
        ({"messages": [{"role": "user", "content": "a"}]}, 1),
    ],
)  # fmt: skip
def test_tokens_are_estimated_from_all_that_the_model_reads(fields, tokens):
    assert MESSAGES.read(orjson.dumps({**body(), **fields})).input_tokens == tokens


def test_tools_count_too():
    assert read(tools=[TOOL]).input_tokens > read().input_tokens


def test_a_count_needs_no_limit():
    asked = {name: value for name, value in body().items() if name != "max_tokens"}
    found = read_count(orjson.dumps({**asked, "messages": [{"role": "user", "content": "a" * 40}]}))
    assert (found.output_tokens_max, count_tokens(found)) == (None, 10)
    with pytest.raises(InvalidRequest):
        read_count(b'{"model":"m"}')


@pytest.mark.parametrize(
    ("tokens", "thinking"),
    [
        (6000, {"type": "enabled", "budget_tokens": 5000}),
        (5000, {"type": "enabled", "budget_tokens": 2500}),
        (1500, {"type": "enabled", "budget_tokens": 1024}),
        (1024, {"type": "disabled"}),
    ],
)
def test_a_shorter_answer_leaves_less_room_for_thoughts(tokens, thinking):
    asked = read(max_tokens=8000, thinking={"type": "enabled", "budget_tokens": 5000})
    limited = MESSAGES.limit_output(asked, tokens)
    assert (limited.output_tokens_max, limited.body["max_tokens"]) == (tokens, tokens)
    assert limited.body["thinking"] == thinking
    assert asked.body["max_tokens"] == 8000


@pytest.mark.parametrize("thinking", [
    {"type": "adaptive", "budget_tokens": "x"}, {"type": "adaptive", "budget_tokens": 5000},
    {"type": "enabled"}, {"type": "enabled", "budget_tokens": "x"},
])  # fmt: skip
def test_what_is_no_budget_stays_as_it_is(thinking):
    limited = MESSAGES.limit_output(read(max_tokens=8000, thinking=thinking), 2000)
    assert limited.body["thinking"] == thinking


def test_an_answer_of_no_tokens_is_no_answer_without_a_limit():
    assert read(max_tokens=0).output_tokens_max == 0


@pytest.mark.parametrize("kind", [b"mcp_tool_use", b"server_tool_use"])
def test_so_do_those_in_calls_of_the_provider_s_own_tools(kind):
    raw = (
        b'{"max_tokens":1,"messages":[{"role":"assistant","content":[{"type":"%b","id":"t",'
        b'"name":"f","input":{"id":123456789012345678901234}}]}]}' % kind
    )
    assert orjson.dumps(MESSAGES.read(raw).body) == raw


def test_integers_of_any_size_stay_as_they_came():
    raw = (
        b'{"max_tokens":1,"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"t",'
        b'"name":"f","input":{"id":123456789012345678901234,"ok":18446744073709551615}}]}]}'
    )
    found = MESSAGES.read(raw)
    assert orjson.dumps(found.body) == raw


def test_large_floats_and_digits_in_texts_stay_as_they_came_too():
    given: dict[str, Any] = {"a": 1.5e300, "b": "1" * 40}
    found = read(assistant(use(**given)), user(result()))
    assert orjson.loads(orjson.dumps(found.body))["messages"][0]["content"][0]["input"] == given

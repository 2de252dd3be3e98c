"""Responses requests: what is read, refused, and said in chat."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.unit.responses_kit import FUNCTION, RESPONSES, USER, chat, dropped, read
from tokenhub.dialects import openai
from tokenhub.dialects.responses.to_chat import to_chat
from tokenhub.errors import InvalidRequest, Untranslatable

NESTED = {"type": "function", "function": {k: v for k, v in FUNCTION.items() if k != "type"}}
SCHEMA = {"type": "object", "properties": {}, "additionalProperties": False}
PNG = "data:image/png;base64,aGk="


def call(id: str, arguments: str = "{}") -> dict[str, Any]:
    return {"type": "function_call", "id": f"fc_{id}", "call_id": id, "name": "find",
            "arguments": arguments, "status": "completed"}  # fmt: skip


def called(id: str, arguments: str = "{}") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": "find", "arguments": arguments}}


def result(id: str, output: Any = "found") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": id, "output": output}


def said(*texts: str) -> dict[str, Any]:
    """An assistant's message as a response has it, and as agents send it back."""
    content = [{"type": "output_text", "text": t, "annotations": [], "logprobs": []} for t in texts]
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
            "content": content, "phase": None}  # fmt: skip


def shown(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def test_a_string_is_a_user_s_message():
    request = read("hello there", max_output_tokens=20, stream=True)
    assert (request.model, request.stream, request.dialect) == ("m", True, "responses")
    assert (request.output_tokens_max, request.choices, request.needs) == (20, 1, frozenset())
    assert to_chat(request).request.body == {
        "model": "m", "stream": True, "messages": [{"role": "user", "content": "hello there"}],
        "max_completion_tokens": 20,
    }  # fmt: skip
    assert to_chat(request).request.wants_usage


def test_the_request_is_left_as_it_was():
    request = read([USER, said("a"), call("c"), result("c")], tools=[FUNCTION], instructions="I")
    before = orjson.dumps(request.body)
    to_chat(request)
    assert orjson.dumps(request.body) == before


def test_the_limit_of_an_answer_can_be_lowered():
    lowered = RESPONSES.limit_output(read(max_output_tokens=50), 7)
    assert lowered.output_tokens_max == lowered.body["max_output_tokens"] == 7
    assert to_chat(lowered).request.body["max_completion_tokens"] == 7


def test_what_a_model_must_be_able_to_do():
    image = shown({"type": "input_image", "image_url": PNG, "detail": "auto"})
    format = {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}}
    assert read([image], tools=[FUNCTION], text=format).needs == {"vision", "tools", "json"}
    assert read([result("c", image["content"])]).needs == {"vision"}
    assert read(tools=[], text={"format": {"type": "text"}}).needs == frozenset()


def test_the_estimate_counts_what_a_model_reads():
    assert read("x" * 40).input_tokens == 10
    assert read("x" * 40, instructions="y" * 40).input_tokens == 20
    assert read([shown({"type": "input_text", "text": "x" * 80})]).input_tokens == 20
    assert read([call("c", "x" * 36), result("c", "y" * 40)]).input_tokens == 20
    assert read([shown({"type": "input_image", "image_url": PNG})]).input_tokens == 1000
    assert read(tools=[FUNCTION]).input_tokens == len(orjson.dumps([FUNCTION])) // 4


def test_nothing_is_stored():
    for asked in ({}, {"store": None}, {"store": False}):
        assert read(**asked).body["store"] is False
        assert "store" not in chat(**asked)


@pytest.mark.parametrize(
    ("name", "value"),
    [("store", True), ("background", True), ("previous_response_id", "resp_1"),
     ("conversation", "conv_1"), ("conversation", {"id": "conv_1"})],
)  # fmt: skip
def test_what_needs_memory_is_refused(name, value):
    with pytest.raises(InvalidRequest) as refused:
        read(**{name: value})
    assert (refused.value.param, refused.value.code) == (name, "unsupported_parameter")
    assert refused.value.status == 400
    assert refused.value.message == (
        "TokenHub keeps no responses: send store=false and the whole input"
    )


@pytest.mark.parametrize("item", [{"type": "item_reference", "id": "msg_1"}, {"id": "msg_1"}])
def test_a_reference_to_an_item_is_refused(item):
    with pytest.raises(InvalidRequest, match="keeps no responses") as refused:
        read([USER, item])
    assert refused.value.param == "input[1]"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"), ({"input": 7}, "input"), ({"input": []}, "input"),
        ({"input": ["hi"]}, "input[0]"), ({"input": [{"type": 1}]}, "input[0].type"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role"),
        ({"input": [{"content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": [7]}]}, "input[0].content[0]"),
        ({"input": [{"role": "user", "content": [{}]}]}, "input[0].content[0].type"),
        ({"input": [shown({"type": "input_text"})]}, "input[0].content[0].text"),
        ({"input": [shown({"type": "refusal", "refusal": 1})]}, "input[0].content[0].refusal"),
        ({"input": [shown({"type": "input_image"})]}, "input[0].content[0]"),
        ({"input": [shown({"type": "input_image", "image_url": {"url": PNG}})]},
         "input[0].content[0].image_url"),
        ({"input": [shown({"type": "input_file", "filename": "f"})]}, "input[0].content[0]"),
        ({"input": [{**call("c"), "call_id": ""}]}, "input[0].call_id"),
        ({"input": [{**call("c"), "name": 1}]}, "input[0].name"),
        ({"input": [{**call("c"), "arguments": {}}]}, "input[0].arguments"),
        ({"input": [{**result("c"), "call_id": 3}]}, "input[0].call_id"),
        ({"input": [result("c", {"a": 1})]}, "input[0].output"),
        ({"input": [{"type": "reasoning", "summary": "x"}]}, "input[0].summary"),
        ({"input": [{"type": "reasoning", "encrypted_content": 1}]}, "input[0].encrypted_content"),
        ({"model": 1}, "model"), ({"stream": 1}, "stream"), ({"instructions": []}, "instructions"),
        ({"temperature": 3}, "temperature"), ({"top_p": "1"}, "top_p"),
        ({"max_output_tokens": 0}, "max_output_tokens"), ({"top_logprobs": 21}, "top_logprobs"),
        ({"parallel_tool_calls": "no"}, "parallel_tool_calls"), ({"store": "yes"}, "store"),
        ({"metadata": {"a": 1}}, "metadata"), ({"include": "x"}, "include"),
        ({"include": [1]}, "include[0]"), ({"truncation": "some"}, "truncation"),
        ({"service_tier": 1}, "service_tier"), ({"user": 1}, "user"),
        ({"prompt_cache_key": 1}, "prompt_cache_key"), ({"reasoning": "high"}, "reasoning"),
        ({"reasoning": {"effort": 1}}, "reasoning.effort"), ({"text": "json"}, "text"),
        ({"text": {"verbosity": "loud"}}, "text.verbosity"),
        ({"text": {"format": "json"}}, "text.format"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
        ({"tools": {}}, "tools"), ({"tools": ["find"]}, "tools[0]"),
        ({"tools": [{"name": "find"}]}, "tools[0].type"), ({"tools": [NESTED]}, "tools[0].name"),
        ({"tools": [{**FUNCTION, "parameters": []}]}, "tools[0].parameters"),
        ({"tools": [{**FUNCTION, "strict": 1}]}, "tools[0].strict"),
        ({"tools": [{"type": "custom"}]}, "tools[0].name"),
        ({"tools": [{"type": "custom", "name": "c", "format": "text"}]}, "tools[0].format"),
        ({"tools": [{"type": "custom", "name": "c", "description": 1}]}, "tools[0].description"),
        ({"input": [{"type": "custom_tool_call", "call_id": "c", "name": "n"}]}, "input[0].input"),
        ({"tool_choice": "find"}, "tool_choice"), ({"tool_choice": {}}, "tool_choice.type"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.name"),
        ({"tool_choice": {"type": "allowed_tools", "tools": []}}, "tool_choice.mode"),
        ({"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{}]}},
         "tool_choice.tools[0].type"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(fields, param):
    with pytest.raises(InvalidRequest) as refused:
        RESPONSES.read(orjson.dumps({"model": "m", "input": "hi", **fields}))
    assert (refused.value.status, refused.value.param) == (400, param)


def test_several_turns_with_tools_are_messages():
    reasoning = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"}
    turns = [
        {"type": "message", "role": "developer", "content": "D"},
        shown({"type": "input_text", "text": "look"}),
        reasoning, said("one moment"), call("a", '{"q":1}'), call("b"),
        result("a"), result("b", [{"type": "input_text", "text": "nothing"}]),
        call("c"), result("c"), reasoning, said("it is", " there"), USER,
    ]  # fmt: skip
    request, told = to_chat(read(turns, instructions="I", tools=[FUNCTION]))
    assert told == ("input.reasoning",)
    assert request.body["messages"] == [
        {"role": "system", "content": "I\n\nD"},
        {"role": "user", "content": "look"},
        {"role": "assistant", "content": "one moment",
         "tool_calls": [called("a", '{"q":1}'), called("b")]},
        {"role": "tool", "tool_call_id": "a", "content": "found"},
        {"role": "tool", "tool_call_id": "b", "content": "nothing"},
        {"role": "assistant", "content": None, "tool_calls": [called("c")]},
        {"role": "tool", "tool_call_id": "c", "content": "found"},
        {"role": "assistant", "content": [{"type": "text", "text": "it is"},
                                          {"type": "text", "text": " there"}]},
        USER,
    ]  # fmt: skip
    openai.read_request(orjson.dumps(request.body))


def test_what_is_said_after_a_call_stands_before_its_result():
    assert chat([call("a"), said("so"), said("then"), result("a")])["messages"] == [
        {"role": "assistant", "tool_calls": [called("a")],
         "content": [{"type": "text", "text": "so"}, {"type": "text", "text": "then"}]},
        {"role": "tool", "tool_call_id": "a", "content": "found"},
    ]  # fmt: skip


def test_parts_are_said_in_chat_s_words():
    mark = {"mode": "explicit"}
    parts: list[dict[str, Any]] = [
        {"type": "input_text", "text": "t", "prompt_cache_breakpoint": mark},
        {"type": "input_image", "image_url": PNG, "detail": "high", "file_id": None},
        {"type": "input_image", "image_url": PNG},
        {"type": "input_file", "file_data": "data:x", "filename": "f.pdf"},
        {"type": "input_file", "file_id": "file-1"},
    ]
    assert chat([shown(*parts)])["messages"][0]["content"] == [
        {"type": "text", "text": "t", "prompt_cache_breakpoint": mark},
        {"type": "image_url", "image_url": {"url": PNG, "detail": "high"}},
        {"type": "image_url", "image_url": {"url": PNG}},
        {"type": "file", "file": {"file_data": "data:x", "filename": "f.pdf"}},
        {"type": "file", "file": {"file_id": "file-1"}},
    ]
    no = {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}
    assert chat([no])["messages"] == [no]
    assert chat([shown()])["messages"] == [{"role": "user", "content": ""}]


def test_parameters_are_said_in_chat_s_words():
    format = {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True}
    body = chat(
        temperature=0.5, top_p=0.9, user="u", safety_identifier="s", prompt_cache_key="k",
        service_tier="flex", metadata={"a": "b"}, truncation="disabled", background=False,
        parallel_tool_calls=False, tools=[FUNCTION], tool_choice="required", top_logprobs=3,
        include=["message.output_text.logprobs"], reasoning={"effort": "low", "summary": None},
        text={"format": format, "verbosity": "low"}, stream_options={"include_obfuscation": False},
    )  # fmt: skip
    assert body == {
        "model": "m", "messages": [USER], "temperature": 0.5, "top_p": 0.9, "user": "u",
        "safety_identifier": "s", "prompt_cache_key": "k", "service_tier": "flex",
        "parallel_tool_calls": False, "tools": [NESTED], "tool_choice": "required",
        "logprobs": True, "top_logprobs": 3, "reasoning_effort": "low", "verbosity": "low",
        "response_format": {"type": "json_schema", "json_schema": {
            "name": "n", "schema": SCHEMA, "strict": True}},
    }  # fmt: skip


def test_the_other_forms_of_text_and_tools():
    assert "response_format" not in chat(text={"format": {"type": "text"}})
    wanted = chat(text={"format": {"type": "json_object"}})["response_format"]
    assert wanted == {"type": "json_object"}
    bare = {"type": "function", "name": "f", "parameters": None, "strict": None, "async": False}
    assert chat(tools=[bare])["tools"] == [{"type": "function", "function": {"name": "f"}}]
    assert "logprobs" not in chat(top_logprobs=0)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "function", "name": "find"},
         {"type": "function", "function": {"name": "find"}}),
        ({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "find"}]},
         {"type": "allowed_tools", "allowed_tools": {
             "mode": "auto", "tools": [{"type": "function", "function": {"name": "find"}}]}}),
        ("none", "none"),
    ],
)  # fmt: skip
def test_a_choice_is_nested(choice, expected):
    assert chat(tools=[FUNCTION], tool_choice=choice)["tool_choice"] == expected


def test_a_choice_among_no_tools_asks_for_nothing():
    body = chat(tool_choice="auto", parallel_tool_calls=True, tools=[])
    assert body == {"model": "m", "messages": [USER]}
    assert chat(tool_choice="required")["tool_choice"] == "required"  # the provider's to judge


@pytest.mark.parametrize(
    ("fields", "param", "word"),
    [
        ({"prompt": {"id": "p"}}, "prompt", "prompt"),
        ({"moderation": {"model": "m"}}, "moderation", "moderation"),
        ({"input": [{"type": "web_search_call", "id": "w"}]}, "input[0]", "web_search_call"),
        ({"input": [shown({"type": "input_audio", "input_audio": {}})]},
         "input[0].content[0]", "input_audio"),
        ({"input": [{"role": "assistant", "content": [{"type": "input_image", "image_url": PNG}]}]},
         "input[0].content[0]", "input_image"),
        ({"input": [shown({"type": "input_image", "file_id": "f"})]},
         "input[0].content[0].file_id", "images"),
        ({"input": [shown({"type": "input_file", "file_url": "https://x.test"})]},
         "input[0].content[0].file_url", "files"),
        ({"input": [{"type": "reasoning", "summary": []}]}, "input", "nothing"),
    ],
)  # fmt: skip
def test_what_a_chat_cannot_say_is_refused_by_its_name(fields, param, word):
    request = RESPONSES.read(orjson.dumps({"model": "m", "input": "hi", **fields}))
    with pytest.raises(Untranslatable, match=word) as refused:
        to_chat(request)
    assert refused.value.param == param


def test_a_result_needs_the_id_of_its_call():
    with pytest.raises(InvalidRequest) as refused:
        to_chat(read([{"type": "function_call_output", "output": "x"}]))
    assert refused.value.param == "input[0].call_id"


def test_a_template_needs_no_input():
    assert RESPONSES.read(b'{"model":"m","prompt":{"id":"p"}}').input_tokens == 0


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"reasoning": {"effort": "low", "summary": "auto"}}, ("reasoning.summary",)),
        ({"reasoning": {"mode": "standard", "context": "auto"}}, ()),
        ({"include": ["reasoning.encrypted_content"]}, ("include.reasoning.encrypted_content",)),
        ({"truncation": "auto"}, ("truncation",)),
        ({"max_tool_calls": 3, "image": {}}, ("max_tool_calls",)),
        ({"temperatur": 1, "seed": 1}, ("temperatur", "seed")),
        ({"tools": [{**FUNCTION, "defer_loading": True}]}, ("tools.defer_loading",)),
        ({"text": {"format": None, "shape": "round"}}, ("text.shape",)),
        ({"input": [{**said("a"), "phase": "commentary"}]}, ("input.phase",)),
        ({"input": [{**call("a"), "namespace": "n"}]}, ("input.namespace",)),
        ({"input": [shown({"type": "input_image", "image_url": PNG, "detail": "original"})]},
         ("input.content.detail",)),
    ],
)  # fmt: skip
def test_what_is_left_out_is_told(fields, names):
    assert dropped(**{"given": fields.pop("input", "hi"), **fields}) == names

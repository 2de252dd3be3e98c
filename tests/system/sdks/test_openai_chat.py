"""OpenAI's chat completions with its SDK: the same call, the same answer, whoever gives it."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessage

from tests.system.harness import PROVIDER_KEY
from tests.system.sdks.kit import PIXEL, last_wire, schema_of, user
from tests.system.test_main_job import log_of

pytestmark = pytest.mark.system


def tool(name: str, **properties: str) -> Any:
    function = {"name": name, "description": name, "parameters": schema_of(**properties)}
    return {"type": "function", "function": function}


TOOLS = [tool("get_weather", city="string"), tool("get_time", zone="string")]


def joined(stream: Any) -> tuple[dict[str, Any], list[Any]]:
    """A stream's deltas put together as a message, and its chunks."""
    message: dict[str, Any] = {"content": "", "reasoning_content": "", "tool_calls": {}}
    chunks = list(stream)
    for chunk in chunks:
        for choice in chunk.choices:
            message["finish_reason"] = choice.finish_reason or message.get("finish_reason")
            message["content"] += choice.delta.content or ""
            extra = choice.delta.model_extra or {}
            message["reasoning_content"] += extra.get("reasoning_content") or ""
            for call in choice.delta.tool_calls or ():
                known = message["tool_calls"].setdefault(
                    call.index, {"id": call.id, "name": call.function.name, "arguments": ""}
                )
                known["arguments"] += call.function.arguments or ""
    return message, chunks


def as_sent(message: ChatCompletionMessage) -> Any:
    return message.model_dump(exclude_none=True)


def test_text_comes_back_whole_and_streamed_alike(gateway, client, kind):
    asked: Any = {
        "model": f"of-{kind}",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": "Be kind."},
            user("Where is my lamp?"),
        ],
        "max_tokens": 12,
        "temperature": 0.5,
    }
    whole = client.chat.completions.create(**asked)
    assert whole.choices[0].finish_reason == "length"
    assert "Where is my lamp?" in (whole.choices[0].message.content or "")
    message, chunks = joined(
        client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )
    assert message["content"] == whole.choices[0].message.content
    assert message["finish_reason"] == "length"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens == 12
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + 12
    assert whole.object == "chat.completion"
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk.id for chunk in chunks}) == 1


def test_the_row_tells_the_usage_that_the_caller_was_told(gateway, client, kind):
    raw = client.chat.completions.with_raw_response.create(
        model=f"of-{kind}", messages=[user("How much is that?")]
    )
    usage = raw.parse().usage
    row = log_of(gateway, raw.headers["x-request-id"])
    assert (row["provider_id"], row["model_id"]) == (kind, f"of-{kind}")
    assert not row["usage_is_estimate"]
    assert (row["input_tokens"], row["output_tokens"]) == (
        usage.prompt_tokens, usage.completion_tokens,
    )  # fmt: skip
    cost = usage.prompt_tokens * 1e-6 + usage.completion_tokens * 2e-6
    assert float(raw.headers["x-tokenhub-cost-usd"]) == pytest.approx(cost, abs=1e-9)


def test_an_image_arrives(gateway, client, kind):
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
    ]
    answer = client.chat.completions.create(model=f"of-{kind}", messages=[user(parts)])
    assert "You sent 1 image (image/png)" in (answer.choices[0].message.content or "")


def test_stop_sequences_stop(gateway, client, kind):
    answer = client.chat.completions.create(
        model=f"of-{kind}", messages=[user("Say one two three four")], stop=["three", "never"]
    )
    text = answer.choices[0].message.content or ""
    assert "two" in text
    assert "three" not in text
    assert answer.choices[0].finish_reason == "stop"


def test_tools_over_three_turns(gateway, client, kind):
    messages: list[Any] = [{"role": "system", "content": "Use tools."},
                           user("Please call get_weather.")]  # fmt: skip
    first = client.chat.completions.create(model=f"of-{kind}", messages=messages, tools=TOOLS)
    [call] = first.choices[0].message.tool_calls or []
    assert first.choices[0].finish_reason == "tool_calls"
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments).keys() == {"city"}

    messages += [as_sent(first.choices[0].message),
                 {"role": "tool", "tool_call_id": call.id, "content": "17 degrees, ☂"}]  # fmt: skip
    second = client.chat.completions.create(model=f"of-{kind}", messages=messages, tools=TOOLS)
    assert "17 degrees, ☂" in (second.choices[0].message.content or "")
    assert second.choices[0].finish_reason == "stop"

    messages += [as_sent(second.choices[0].message), user("And now get_time and get_weather?")]
    third = client.chat.completions.create(model=f"of-{kind}", messages=messages, tools=TOOLS)
    calls = third.choices[0].message.tool_calls or []
    assert [each.function.name for each in calls] == ["get_weather", "get_time"]
    assert len({each.id for each in calls}) == 2

    messages += [
        as_sent(third.choices[0].message),
        *({"role": "tool", "tool_call_id": each.id, "content": each.function.name}
          for each in reversed(calls)),
    ]  # fmt: skip
    last = client.chat.completions.create(model=f"of-{kind}", messages=messages, tools=TOOLS)
    assert "get_time" in (last.choices[0].message.content or "")


def test_parallel_tool_calls_are_streamed_with_their_index_id_and_arguments(client, kind):
    asked: Any = {
        "model": f"of-{kind}", "messages": [user("get_weather and get_time, please")],
        "tools": TOOLS,
    }  # fmt: skip
    whole = client.chat.completions.create(**asked)
    message, _ = joined(client.chat.completions.create(**asked, stream=True))
    calls = whole.choices[0].message.tool_calls or []
    assert [message["tool_calls"][index]["name"] for index in (0, 1)] == ["get_weather", "get_time"]
    assert [json.loads(each["arguments"]) for each in message["tool_calls"].values()] == [
        json.loads(each.function.arguments) for each in calls
    ]
    assert message["finish_reason"] == "tool_calls"
    one = client.chat.completions.create(**asked, parallel_tool_calls=False)
    assert len(one.choices[0].message.tool_calls or []) == 1


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("none", []),
        ("required", ["get_weather"]),
        ({"type": "function", "function": {"name": "get_time"}}, ["get_time"]),
    ],
)
def test_the_choice_of_a_tool_is_kept(client, kind, choice, expected):
    answer = client.chat.completions.create(
        model=f"of-{kind}", messages=[user("Hello")], tools=TOOLS, tool_choice=choice
    )
    calls = answer.choices[0].message.tool_calls or []
    assert [each.function.name for each in calls] == expected


def test_structured_output_fits_its_schema(client, kind):
    schema = {
        "type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name", "age"], "additionalProperties": False,
    }  # fmt: skip
    answer = client.chat.completions.create(
        model=f"of-{kind}", messages=[user("Who?")],
        response_format={"type": "json_schema",
                         "json_schema": {"name": "person", "schema": schema, "strict": True}},
    )  # fmt: skip
    found = json.loads(answer.choices[0].message.content or "")
    assert isinstance(found["name"], str)
    assert isinstance(found["age"], int)


def test_reasoning_is_asked_for_and_comes_back(gateway, client):
    answer = client.chat.completions.create(
        model="of-anthropic", messages=[user("Think.")], reasoning_effort="low", max_tokens=4000
    )
    extra = answer.choices[0].message.model_extra or {}
    assert extra["reasoning_content"]
    message, _ = joined(
        client.chat.completions.create(
            model="of-anthropic", messages=[user("Think.")], reasoning_effort="low",
            max_tokens=4000, stream=True,
        )
    )  # fmt: skip
    assert message["reasoning_content"] == extra["reasoning_content"]


def test_a_cut_stream_raises_and_never_looks_finished(client, kind):
    stream = client.chat.completions.create(
        model=f"cut-{kind}", messages=[user("Go on")], stream=True
    )
    with pytest.raises(openai.APIError):
        list(stream)


def test_the_providers_refusal_is_an_openai_error(gateway, client, kind):
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(
            model=f"of-{kind}", messages=[user("Hi")], tools=TOOLS,
            extra_body={"max_tokens": 5, "tool_choice": {"type": "function",
                                                         "function": {"name": "no_such_tool"}}},
        )  # fmt: skip
    body: Any = refused.value.body
    assert body["message"]
    assert "type" in body
    assert PROVIDER_KEY not in str(refused.value)


def test_what_anthropic_cannot_say_is_refused_with_the_field_or_told_in_a_header(gateway, client):
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="of-anthropic", messages=[user("Hi")], n=2)
    assert refused.value.param == "n"
    raw = client.chat.completions.with_raw_response.create(
        model="of-anthropic", messages=[user("Hi")], seed=7, logit_bias={"50256": -100}
    )
    assert set(raw.headers["x-tokenhub-dropped"].split(",")) == {"seed", "logit_bias"}


def test_each_dialect_sends_the_key_in_its_own_header(gateway, client, kind):
    client.chat.completions.create(model=f"of-{kind}", messages=[user("Hi")])
    headers = {name.lower(): value for name, value in last_wire(gateway)["headers"].items()}
    assert ("x-api-key" in headers) == (kind == "anthropic")
    assert ("authorization" in headers) == (kind != "anthropic")


def test_both_workers_answered(gateway, client, kind):
    pids = set()
    for connection in gateway.each_worker():
        body = {"model": f"of-{kind}", "messages": [user("Hi")]}
        reply = connection.ask("POST", "/v1/chat/completions", body, token=gateway.key)
        assert reply.status == 200
        pids.add(connection.worker_pid)
        connection.close()
    assert len(pids) == 2

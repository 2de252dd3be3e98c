"""OpenAI's Responses with its SDK, by way of chats and through, whoever answers."""

from __future__ import annotations

import json
from typing import Any

import openai
import pydantic
import pytest

from tests.system.sdks.kit import PIXEL, TYPES, async_openai, last_wire, run, schema_of, user

pytestmark = pytest.mark.system

WIRES = {
    "of-openai": "/v1/chat/completions",
    "of-anthropic": "/v1/messages",
    "of-vllm": "/v1/chat/completions",
    "native": "/v1/responses",
}


class Person(pydantic.BaseModel):
    name: str
    age: int


def tool(name: str, **properties: str) -> Any:
    return {
        "type": "function", "name": name, "description": name, "strict": True,
        "parameters": schema_of(**properties),
    }  # fmt: skip


TOOLS = [tool("get_weather", city="string"), tool("get_time", zone="string")]


@pytest.fixture(params=sorted(WIRES))
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_text_comes_back_whole_and_streamed_alike(gateway, client, model):
    asked: Any = {
        "model": model, "instructions": "Be brief.", "input": "Where is my lamp?",
        "max_output_tokens": 20,
    }  # fmt: skip
    whole = client.responses.create(**asked)
    assert last_wire(gateway)["path"] == WIRES[model]
    assert (whole.status, whole.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert "Where is my lamp?" in whole.output_text
    events = list(client.responses.create(**asked, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    pieces = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(pieces) == whole.output_text
    assert events[-1].type == "response.incomplete"
    assert events[-1].response.usage.output_tokens == whole.usage.output_tokens == 20


def test_a_model_of_pydantic_s_is_parsed_whole_and_streamed(client, model):
    asked: Any = {"model": model, "input": [user("Who?")], "text_format": Person}
    assert isinstance(client.responses.parse(**asked).output_parsed, Person)
    with client.responses.stream(**asked) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_response()
    assert {"response.created", "response.output_text.done", "response.completed"} <= kinds
    assert isinstance(final.output_parsed, Person)


def test_tools_over_three_turns(client, model):
    asked: Any = {"model": model, "tools": TOOLS, "instructions": "Use tools."}
    talk: list[Any] = [user("get_weather and get_time, please")]
    first = client.responses.create(**asked, input=talk)
    calls = [item for item in first.output if item.type == "function_call"]
    assert [each.name for each in calls] == ["get_weather", "get_time"]
    assert [set(json.loads(each.arguments)) for each in calls] == [{"city"}, {"zone"}]
    assert first.status == "completed"

    talk += first.output  # as it came, as the SDK's guide has it
    talk += [result_of(each.call_id, f"{each.name}: ☂") for each in calls]
    second = client.responses.create(**asked, input=talk)
    assert "get_weather: ☂" in second.output_text
    assert "get_time: ☂" in second.output_text

    talk += [*second.output, user("And now get_time once more")]
    with client.responses.stream(**asked, input=talk) as stream:
        done = [e for e in stream if e.type == "response.function_call_arguments.done"]
        third = stream.get_final_response()
    [call] = [item for item in third.output if item.type == "function_call"]
    assert (call.name, call.arguments) == ("get_time", done[0].arguments)

    talk += [*third.output, result_of(call.call_id, "noon")]
    with client.responses.stream(**asked, input=talk) as stream:
        assert "noon" in stream.get_final_response().output_text


def result_of(call_id: str, said: str) -> Any:
    return {"type": "function_call_output", "call_id": call_id, "output": said}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [("none", []), ("required", ["get_weather"]),
     ({"type": "function", "name": "get_time"}, ["get_time"])],
)  # fmt: skip
def test_the_choice_of_a_tool_is_kept(client, model, choice, expected):
    answer = client.responses.create(model=model, input="Hello", tools=TOOLS, tool_choice=choice)
    assert [each.name for each in answer.output if each.type == "function_call"] == expected


def test_an_image_arrives(client, model):
    parts = [
        {"type": "input_text", "text": "What is this?"},
        {"type": "input_image", "detail": "auto", "image_url": f"data:image/png;base64,{PIXEL}"},
    ]
    answer = client.responses.create(model=model, input=[user(parts)])
    assert "You sent 1 image (image/png)" in answer.output_text


def test_reasoning_is_an_item_where_the_provider_shows_it(client, kind):
    asked: Any = {
        "model": f"thinks-{kind}", "input": [user("Think.")], "reasoning": {"effort": "low"},
        "max_output_tokens": 4000,
    }  # fmt: skip
    answer = client.responses.create(**asked)
    thoughts = [item for item in answer.output if item.type == "reasoning"]
    assert len(thoughts) == (0 if kind == "openai" else 1)  # OpenAI's chats show none
    with client.responses.stream(**asked) as stream:
        streamed = stream.get_final_response()
    assert [item.type for item in streamed.output] == [item.type for item in answer.output]
    assert streamed.output_text == answer.output_text
    again = [user("Think."), *answer.output, user("Go on.")]
    assert client.responses.create(**{**asked, "input": again}).output_text


def test_raw_responses_have_our_headers(client, model):
    raw = client.responses.with_raw_response.create(model=model, input="Hi")
    assert raw.headers["x-negotiated-model"] == model
    assert raw.parse().output_text
    with client.responses.with_streaming_response.create(
        model=model, input="Hi", stream=True
    ) as streamed:
        lines = [line for line in streamed.iter_lines() if line]
    assert lines[0] == "event: response.created"
    assert lines[-2] == "event: response.completed"


def test_async_clients_are_served_and_streamed(gateway, model):
    async def work() -> tuple[Any, Any]:
        async with async_openai(gateway) as client:
            whole = await client.responses.create(model=model, input="Hi")
            async with client.responses.stream(model=model, input="Hi") as stream:
                return whole, await stream.get_final_response()

    whole, final = run(work())
    assert whole.output_text == final.output_text != ""


@pytest.mark.parametrize("kind", TYPES)
def test_a_cut_stream_never_looks_finished(client, kind):
    stream = client.responses.create(model=f"cut-{kind}", input="Go on", stream=True)
    kinds = [event.type for event in stream]
    assert kinds[-1] == "response.failed"
    assert "response.completed" not in kinds


def test_what_would_need_memory_is_a_bad_request(client, model):
    for fields in ({"store": True}, {"previous_response_id": "resp_1"}):
        with pytest.raises(openai.BadRequestError) as refused:
            client.responses.create(model=model, input="Hi", **fields)
        assert refused.value.param == next(iter(fields))

"""The simulator's responses, to the official SDK and by their events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import orjson
import pydantic
import pytest

from tests.providers.test_simulator import ask, blocking
from tests.providers.test_simulator_faults import read_all
from tokenhub.providers.simulator import Simulator

RESPONSES = "/v1/responses"
WEATHER: dict[str, Any] = {
    "type": "function", "name": "weather", "strict": True,
    "parameters": {
        "type": "object", "additionalProperties": False, "required": ["city"],
        "properties": {"city": {"type": "string"}},
    },
}  # fmt: skip
CALL = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "21 degrees"}


class City(pydantic.BaseModel):
    name: str
    people: int


@pytest.fixture(params=["openai", "vllm"])
def sdk(simulator: Simulator, request: pytest.FixtureRequest) -> Iterator[openai.OpenAI]:
    simulator.controls.apply({"dialect": request.param})
    with openai.OpenAI(base_url=simulator.url + "/v1", api_key="sk", max_retries=0) as client:
        yield client


def create(sdk: openai.OpenAI, given: Any = "hello", **fields: Any) -> Any:
    fields = {"model": "sim-fast", "input": given, **fields}
    return blocking(lambda: sdk.responses.create(**fields))


def stream(sdk: openai.OpenAI, given: Any = "hello", **fields: Any) -> tuple[list[Any], Any]:
    fields = {"model": "sim-fast", "input": given, **fields}

    def read() -> tuple[list[Any], Any]:
        with sdk.responses.stream(**fields) as got:
            return list(got), got.get_final_response()

    return blocking(read)


def test_whole_and_streamed_responses_are_the_same(sdk: openai.OpenAI) -> None:
    whole = create(sdk, instructions="be kind", metadata={"a": "b"})
    events, streamed = stream(sdk, instructions="be kind", metadata={"a": "b"})
    assert whole.status == "completed"
    assert streamed.output_text == whole.output_text != ""
    assert streamed.usage == whole.usage
    assert whole.usage.total_tokens == whole.usage.input_tokens + whole.usage.output_tokens
    assert (whole.instructions, whole.metadata) == ("be kind", {"a": "b"})
    assert [each.sequence_number for each in events] == list(range(len(events)))


def test_a_stream_has_the_named_events_in_their_order(simulator: Simulator) -> None:
    body = {"model": "stream-2-0", "input": "hello", "stream": True}
    text = read_all(simulator, RESPONSES, body).decode()
    names = [line[7:] for line in text.splitlines() if line.startswith("event: ")]
    datas = [orjson.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    assert names == [
        f"response.{name}" for name in (
            "created", "in_progress", "output_item.added", "content_part.added",
            "output_text.delta", "output_text.delta", "output_text.done", "content_part.done",
            "output_item.done", "completed",
        )
    ]  # fmt: skip
    assert [data["type"] for data in datas] == names
    assert datas[0]["response"]["output"] == []
    assert datas[-1]["response"]["output"][0] == datas[-2]["item"]


def test_what_is_cut_off_is_incomplete(sdk: openai.OpenAI) -> None:
    whole = create(sdk, max_output_tokens=16)
    assert (whole.status, whole.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert whole.usage.output_tokens == 16
    body: dict[str, Any] = {"model": "sim-fast", "input": "hello", "max_output_tokens": 16}
    events = blocking(lambda: list(sdk.responses.create(**body, stream=True)))
    assert events[-1].type == "response.incomplete"


def test_functions_are_called_and_their_results_quoted(sdk: openai.OpenAI) -> None:
    whole = create(sdk, "the weather please", tools=[WEATHER])
    (call,) = whole.output
    assert (call.type, call.name, orjson.loads(call.arguments)) == (
        "function_call", "weather", {"city": "routes"},
    )  # fmt: skip
    events, streamed = stream(sdk, "the weather please", tools=[WEATHER])
    assert streamed.output[0].arguments == call.arguments
    assert "response.function_call_arguments.done" in {each.type for each in events}
    turns = [{"role": "user", "content": "the weather please"}, call.to_dict(),
             {**RESULT, "call_id": call.call_id}]  # fmt: skip
    assert "The tools said: 21 degrees" in create(sdk, turns, tools=[WEATHER]).output_text
    for choice in ("required", {"type": "function", "name": "weather"}):
        got = create(sdk, "hello", tools=[WEATHER], tool_choice=choice)
        assert got.output[0].type == "function_call"


def test_structured_output_is_parsed(sdk: openai.OpenAI) -> None:
    fields: dict[str, Any] = {"model": "sim-fast", "input": "a city", "text_format": City}
    got = blocking(lambda: sdk.responses.parse(**fields))
    assert got.output_parsed == City(name="routes", people=1)
    assert stream(sdk, "a city", text_format=City)[1].output_parsed == got.output_parsed


@pytest.mark.parametrize(
    ("model", "event"),
    [("sim-fast", "response.reasoning_summary_text.delta"),
     ("sim-reasoner", "response.reasoning_text.delta")],
)  # fmt: skip
def test_thinking_is_counted_and_shown_when_asked_for(
    sdk: openai.OpenAI, model: str, event: str
) -> None:
    asked: dict[str, Any] = {"model": model, "reasoning": {"effort": "low", "summary": "auto"}}
    whole = create(sdk, **asked)
    assert [each.type for each in whole.output] == ["reasoning", "message"]
    assert whole.usage.output_tokens_details.reasoning_tokens > 0
    events, streamed = stream(sdk, **asked)
    assert event in {each.type for each in events}
    assert streamed.output[0] == whole.output[0]


def test_images_and_files_are_named(sdk: openai.OpenAI) -> None:
    parts = [
        {"type": "input_text", "text": "what is it?"},
        {"type": "input_image", "image_url": "https://example.org/cat.jpg"},
        {"type": "input_file", "filename": "a", "file_data": "data:application/pdf;base64,AA=="},
    ]
    said = create(sdk, [{"role": "user", "content": parts}]).output_text
    assert said.startswith("You sent 1 image (url). You sent 1 document (application/pdf).")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": ...}, "input"), ({"input": 5}, "input"), ({"input": [1]}, "input[0]"),
        ({"input": [{"role": "boss", "content": ""}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]},
         "input[0].content[0].type"),
        ({"input": [{"role": "assistant", "content": [{"type": "input_text", "text": "a"}]}]},
         "input[0].content[0].type"),
        ({"input": [CALL]}, "input"), ({"input": [RESULT]}, "input"),
        ({"input": [{"type": "function_call", "call_id": "c"}]}, "input[0].name"),
        ({"input": [{"type": "video"}]}, "input[0].type"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools[0].name"),
        ({"tools": {}}, "tools"), ({"tools": [{}]}, "tools[0].type"),
        ({"tool_choice": "maybe"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "name": "f"}}, "tool_choice"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format.schema"),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort"), ({"reasoning": 1}, "reasoning"),
        ({"max_output_tokens": 5}, "max_output_tokens"), ({"messages": []}, "messages"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
    ],
)  # fmt: skip
def test_a_bad_request_is_refused_by_field(
    simulator: Simulator, fields: dict[str, Any], param: str
) -> None:
    body = {"model": "sim-fast", "input": "hello", **fields}
    body = {name: value for name, value in body.items() if value is not ...}
    status, parsed = ask(simulator, "POST", RESPONSES, body)
    assert (status, parsed["error"]["param"]) == (400, param)


def test_thoughts_that_are_only_named_are_not_found(simulator: Simulator) -> None:
    named = {"type": "reasoning", "id": "rs_1", "summary": []}
    for item, status in ((named, 404), ({**named, "encrypted_content": "x"}, 200)):
        body = {"model": "sim-fast", "input": [item, {"role": "user", "content": "hi"}]}
        assert ask(simulator, "POST", RESPONSES, body)[0] == status


@pytest.mark.parametrize(
    ("model", "error"),
    [("fault-429", openai.RateLimitError), ("fault-context", openai.BadRequestError),
     ("fault-500", openai.InternalServerError)],
)  # fmt: skip
def test_errors_come_as_the_sdk_knows_them(
    sdk: openai.OpenAI, model: str, error: type[openai.APIError]
) -> None:
    with pytest.raises(error):
        create(sdk, model=model)


@pytest.mark.parametrize("fault", ["error-after-start", "error-frame-2"])
def test_an_error_in_a_stream_is_an_event(sdk: openai.OpenAI, fault: str) -> None:
    with pytest.raises(openai.APIError):
        stream(sdk, model=f"fault-{fault}")


@pytest.mark.parametrize("fault", ["cut", "malformed", "drop", "silent-after-2"])
def test_a_broken_stream_has_no_end(simulator: Simulator, fault: str) -> None:
    body = {"model": f"fault-{fault}", "input": "hello", "stream": True}
    got = read_all(simulator, RESPONSES, body)
    assert (b" 200 OK" in got) == (fault != "drop")
    assert b"response.completed" not in got

"""What OpenAI's SDK puts around chats: raw answers, parsing, its stream helper, async, errors."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pydantic
import pytest

from tests.system.sdks.kit import TYPES, async_openai, limited_key, openai_client, run, user

pytestmark = pytest.mark.system


class Person(pydantic.BaseModel):
    name: str
    age: int


class GetWeather(pydantic.BaseModel):
    city: str


def test_raw_answers_have_our_headers(client, kind):
    raw = client.chat.completions.with_raw_response.create(
        model=f"of-{kind}", messages=[user("Hi")]
    )
    assert raw.headers["x-negotiated-model"] == f"of-{kind}"
    assert raw.headers["x-tokenhub-provider"] == kind
    assert raw.parse().choices[0].message.content
    assert raw.request_id == raw.headers["x-request-id"]


def test_streamed_responses_are_read_line_by_line(client, kind):
    asked: Any = {"model": f"of-{kind}", "messages": [user("Hi")], "stream": True}
    with client.chat.completions.with_streaming_response.create(**asked) as raw:
        assert raw.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in raw.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    assert all(line.startswith("data: ") for line in lines)


def test_a_model_of_pydantic_s_is_parsed(client, kind):
    answer = client.chat.completions.parse(
        model=f"of-{kind}", messages=[user("Who?")], response_format=Person
    )
    assert isinstance(answer.choices[0].message.parsed, Person)


def test_tools_are_parsed(client, kind):
    answer = client.chat.completions.parse(
        model=f"of-{kind}", messages=[user("Call GetWeather")],
        tools=[openai.pydantic_function_tool(GetWeather)],
    )  # fmt: skip
    [call] = answer.choices[0].message.tool_calls or []
    assert isinstance(call.function.parsed_arguments, GetWeather)


def test_the_stream_helper_tells_the_text_and_the_whole(client, kind):
    asked: Any = {"model": f"of-{kind}", "messages": [user("Where is my lamp?")]}
    with client.chat.completions.stream(**asked) as stream:
        pieces = [event.delta for event in stream if event.type == "content.delta"]
        whole = stream.get_final_completion()
    assert "".join(pieces) == whole.choices[0].message.content
    assert whole.choices[0].finish_reason == "stop"


def test_the_stream_helper_parses_text_and_arguments(client, kind):
    with client.chat.completions.stream(
        model=f"of-{kind}", messages=[user("Who?")], response_format=Person
    ) as stream:
        assert isinstance(stream.get_final_completion().choices[0].message.parsed, Person)
    with client.chat.completions.stream(
        model=f"of-{kind}", messages=[user("Call GetWeather")],
        tools=[openai.pydantic_function_tool(GetWeather)],
    ) as stream:  # fmt: skip
        done = [each for each in stream if each.type == "tool_calls.function.arguments.done"]
    assert [type(each.parsed_arguments) for each in done] == [GetWeather]


def test_async_clients_are_served_at_once_and_streamed(gateway):
    async def work() -> list[str]:
        async with async_openai(gateway) as client:

            async def ask(kind: str) -> str:
                asked: Any = {"model": f"of-{kind}", "messages": [user(f"Am I {kind}?")]}
                whole = await client.chat.completions.create(**asked)
                stream = await client.chat.completions.create(**asked, stream=True)
                pieces = [
                    chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices
                ]
                assert "".join(pieces) == whole.choices[0].message.content
                return "".join(pieces)

            return await asyncio.gather(*map(ask, TYPES))

    for kind, text in zip(TYPES, run(work()), strict=True):
        assert f"Am I {kind}?" in text


def test_models_are_listed_and_retrieved(client, kind):
    assert f"of-{kind}" in {model.id for model in client.models.list()}
    found = client.models.retrieve(f"of-{kind}")
    assert (found.id, found.owned_by, found.object) == (f"of-{kind}", kind, "model")
    with pytest.raises(openai.NotFoundError) as refused:
        client.models.retrieve("no-such-model")
    assert refused.value.code == "model_not_found"


def test_errors_are_those_of_the_sdk(gateway, client):
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="no-such-model", messages=[user("Hi")])
    assert missing.value.code == "model_not_found"
    assert missing.value.request_id
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="of-openai", messages=[])
    assert refused.value.param == "messages"
    with (
        openai_client(gateway, "no-such-key") as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.models.list()


def test_a_limit_is_a_rate_limit_error_that_says_when_to_come_again(gateway):
    with (
        openai_client(gateway, limited_key(gateway)) as client,
        pytest.raises(openai.RateLimitError) as refused,
    ):
        client.chat.completions.create(model="of-openai", messages=[user("Hi")])
    assert 0 < int(refused.value.response.headers["retry-after"]) <= 61

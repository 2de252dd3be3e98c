"""An agent framework that drives tools over several turns, unchanged, on each type of provider.

Pydantic AI, with each of the dialects that it speaks: chats, Responses and Anthropic's messages.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pydantic
import pytest
from pydantic_ai import Agent, AgentRunResultEvent, NativeOutput, PartDeltaEvent, RunContext
from pydantic_ai.messages import ModelMessage, ModelResponse, ToolCallPart, ToolReturnPart
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

from tests.system.harness import Gateway
from tests.system.sdks.kit import async_anthropic, async_openai, run

pytestmark = pytest.mark.system

DIALECTS = ("chat", "responses", "messages")


class Weather(pydantic.BaseModel):
    city: str
    degrees: int


@asynccontextmanager
async def model_of(gateway: Gateway, dialect: str, name: str) -> AsyncIterator[Model[Any]]:
    """The framework's own client for a dialect."""
    if dialect == "messages":
        async with async_anthropic(gateway) as claude:
            yield AnthropicModel(name, provider=AnthropicProvider(anthropic_client=claude))
        return
    async with async_openai(gateway) as client:
        provider = OpenAIProvider(openai_client=client)
        made = OpenAIChatModel if dialect == "chat" else OpenAIResponsesModel
        yield made(name, provider=provider)


def agent_for(model: Model[Any], heard: list[str]) -> Agent[list[str], str]:
    """Two tools, one of which notes its calls in the run's own state and one of which is async."""
    agent = Agent(model, deps_type=list[str], instructions="Use the tools.")

    @agent.tool
    def get_weather(context: RunContext[list[str]], city: str) -> dict[str, Any]:
        context.deps.append("get_weather")
        return {"city": city, "degrees": 17}

    @agent.tool_plain
    async def get_time(zone: str) -> str:
        heard.append("get_time")
        return f"noon in {zone!r}"

    return agent


def calls_in(messages: list[ModelMessage]) -> list[str]:
    return [
        part.tool_name
        for message in messages
        for part in message.parts
        if isinstance(part, ToolCallPart)
    ]


def returns_in(messages: list[ModelMessage]) -> list[str]:
    return [
        part.tool_call_id
        for message in messages
        for part in message.parts
        if isinstance(part, ToolReturnPart)
    ]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_agent_uses_its_tools_over_several_turns(gateway, kind, dialect):
    heard: list[str] = []

    async def work() -> list[ModelMessage]:
        async with model_of(gateway, dialect, f"of-{kind}") as model:
            agent = agent_for(model, heard)
            first = await agent.run("get_weather and get_time, please", deps=heard)
            assert "17" in first.output
            assert "noon" in first.output
            second = await agent.run(
                "And get_time once more", deps=heard, message_history=first.all_messages()
            )
            assert "noon" in second.output
            third = await agent.run("Thank you", deps=heard, message_history=second.all_messages())
            assert "Thank you" in third.output
            assert third.usage.output_tokens > 0
            return third.all_messages()

    messages = run(work())
    assert sorted(heard) == ["get_time", "get_time", "get_weather"]
    assert calls_in(messages) == ["get_weather", "get_time", "get_time"]
    assert len(set(returns_in(messages))) == 3
    answers = [message for message in messages if isinstance(message, ModelResponse)]
    assert len(answers) == 5


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_agent_streams_over_several_turns(gateway, kind, dialect):
    heard: list[str] = []

    async def work() -> None:
        async with model_of(gateway, dialect, f"of-{kind}") as model:
            agent = agent_for(model, heard)
            history: list[ModelMessage] = []
            for asked, told in (
                ("get_weather and get_time, please", "17"),
                ("And get_time once more", "noon"),
                ("Thank you", "Thank you"),
            ):
                async with agent.run_stream_events(
                    asked, deps=heard, message_history=history
                ) as stream:
                    events = [event async for event in stream]
                assert sum(isinstance(event, PartDeltaEvent) for event in events) > 1
                [ended] = [event for event in events if isinstance(event, AgentRunResultEvent)]
                assert told in ended.result.output
                history = ended.result.all_messages()
            assert calls_in(history) == ["get_weather", "get_time", "get_time"]

    run(work())
    assert sorted(heard) == ["get_time", "get_time", "get_weather"]


@pytest.mark.parametrize(
    ("dialect", "wanted"),
    [
        *((dialect, Weather) for dialect in DIALECTS),  # by a tool that must be called
        *((dialect, NativeOutput(Weather)) for dialect in ("chat", "responses")),  # by its schema
    ],
    ids=[*(f"{dialect}-tool" for dialect in DIALECTS), "chat-schema", "responses-schema"],
)
def test_an_agent_gets_its_answer_in_the_form_it_wants(gateway, kind, dialect, wanted):
    async def work() -> Any:
        async with model_of(gateway, dialect, f"of-{kind}") as model:
            agent: Agent[None, Any] = Agent(model, output_type=wanted)
            return (await agent.run("What is the weather?")).output

    assert isinstance(run(work()), Weather)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_agent_that_thinks_keeps_its_thoughts_between_turns(gateway, kind, dialect):
    heard: list[str] = []
    effort: Any = {
        "chat": {"openai_reasoning_effort": "low"},
        "responses": {"openai_reasoning_effort": "low"},
        "messages": {"anthropic_thinking": {"type": "enabled", "budget_tokens": 1024}},
    }
    settings: Any = {**effort[dialect], "max_tokens": 4000}

    async def work() -> str:
        async with model_of(gateway, dialect, f"thinks-{kind}") as model:
            agent = agent_for(model, heard)
            answer = await agent.run("get_time, please", deps=heard, model_settings=settings)
            return answer.output

    assert "noon" in run(work())
    assert heard == ["get_time"]

"""Tools with Anthropic's SDK: called, answered and called again, whoever the provider is."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest

from tests.system.sdks.kit import async_anthropic, run, schema_of, user

pytestmark = pytest.mark.system


def tool(name: str, **properties: str) -> Any:
    return {"name": name, "description": name, "input_schema": schema_of(**properties)}


TOOLS = [tool("get_weather", city="string"), tool("get_time", zone="string")]


def text_of(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def calls_of(message: Any) -> list[Any]:
    return [block for block in message.content if block.type == "tool_use"]


def results_of(calls: list[Any], **fields: Any) -> Any:
    return user(
        [
            {"type": "tool_result", "tool_use_id": each.id, "content": f"{each.name}: ☂", **fields}
            for each in calls
        ]
    )


def test_tools_over_three_turns(claude, kind):
    asked: Any = {"model": f"of-{kind}", "max_tokens": 400, "tools": TOOLS, "system": "Use tools."}
    talk: list[Any] = [user("get_weather and get_time, please")]
    first = claude.messages.create(**asked, messages=talk)
    calls = calls_of(first)
    assert first.stop_reason == "tool_use"
    assert [(each.name, set(each.input)) for each in calls] == [
        ("get_weather", {"city"}), ("get_time", {"zone"}),
    ]  # fmt: skip

    talk += [{"role": "assistant", "content": first.content}, results_of(calls)]
    second = claude.messages.create(**asked, messages=talk)
    assert second.stop_reason == "end_turn"
    assert "get_weather: ☂" in text_of(second)
    assert "get_time: ☂" in text_of(second)

    talk += [{"role": "assistant", "content": second.content}, user("And get_time once more")]
    with claude.messages.stream(**asked, messages=talk) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        third = stream.get_final_message()
    [call] = calls_of(third)
    assert pieces
    assert (call.name, set(call.input), third.stop_reason) == ("get_time", {"zone"}, "tool_use")

    talk += [{"role": "assistant", "content": third.content}, results_of([call], is_error=True)]
    with claude.messages.stream(**asked, messages=talk) as stream:
        assert "get_time: ☂" in stream.get_final_text()


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "none"}, []),
        ({"type": "any"}, ["get_weather"]),
        ({"type": "tool", "name": "get_time"}, ["get_time"]),
    ],
)
def test_the_choice_of_a_tool_is_kept(claude, kind, choice, expected):
    answer = claude.messages.create(
        model=f"of-{kind}", max_tokens=400, messages=[user("Hello")], tools=TOOLS,
        tool_choice=choice,
    )  # fmt: skip
    assert [each.name for each in calls_of(answer)] == expected


def test_calls_come_one_at_a_time_when_asked_so(claude, kind):
    answer = claude.messages.create(
        model=f"of-{kind}", max_tokens=400, tools=TOOLS,
        messages=[user("get_weather and get_time, please")],
        tool_choice={"type": "auto", "disable_parallel_tool_use": True},
    )  # fmt: skip
    assert [each.name for each in calls_of(answer)] == ["get_weather"]


def test_thoughts_and_calls_go_back_together(claude, kind):
    asked: Any = {
        "model": f"thinks-{kind}", "max_tokens": 4000, "tools": TOOLS,
        "thinking": {"type": "enabled", "budget_tokens": 2048},
    }  # fmt: skip
    talk: list[Any] = [user("get_time, please")]
    first = claude.messages.create(**asked, messages=talk)
    assert calls_of(first)
    talk += [{"role": "assistant", "content": first.content}, results_of(calls_of(first))]
    assert "get_time: ☂" in text_of(claude.messages.create(**asked, messages=talk))


@anthropic.beta_tool
def get_weather(city: str) -> str:
    """The weather.

    Args:
        city: where.
    """
    return f"17 degrees at {city!r}"


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
def test_the_sdks_own_runner_of_tools_comes_to_its_end(claude, kind, streams):
    runner: Any = claude.beta.messages.tool_runner(
        model=f"of-{kind}", max_tokens=400, tools=[get_weather], stream=streams,
        messages=[user("get_weather, please")],
    )  # fmt: skip
    final = runner.until_done()
    assert "17 degrees" in text_of(final)


@anthropic.beta_async_tool
async def get_time(zone: str) -> str:
    """The time.

    Args:
        zone: of the clock.
    """
    return f"noon in {zone!r}"


def test_the_async_runner_comes_to_its_end(gateway, kind):
    async def work() -> Any:
        async with async_anthropic(gateway) as client:
            runner = client.beta.messages.tool_runner(
                model=f"of-{kind}", max_tokens=400, tools=[get_time],
                messages=[user("get_time, please")],
            )  # fmt: skip
            return await runner.until_done()

    assert "noon" in text_of(run(work()))

"""Anthropic's messages with its SDK: through to Anthropic, by translation to everybody else."""

from __future__ import annotations

import asyncio
from typing import Any

import anthropic
import pydantic
import pytest

from tests.system.sdks.kit import (
    PIXEL,
    TYPES,
    anthropic_client,
    async_anthropic,
    last_wire,
    limited_key,
    run,
    user,
)
from tests.system.test_main_job import log_of

pytestmark = pytest.mark.system

WIRES = {
    "openai": "/v1/chat/completions",
    "anthropic": "/v1/messages",
    "vllm": "/v1/chat/completions",
}


class Person(pydantic.BaseModel):
    name: str
    age: int


def text_of(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def anthropic_version(claude: anthropic.Anthropic) -> str:
    return str(claude.default_headers["anthropic-version"])


def test_text_comes_back_whole_and_streamed_alike(gateway, claude, kind):
    asked: Any = {
        "model": f"of-{kind}", "max_tokens": 12, "system": "Be brief.",
        "messages": [user("Where is my lamp?")],
    }  # fmt: skip
    whole = claude.messages.create(**asked)
    assert last_wire(gateway)["path"] == WIRES[kind]
    assert (whole.type, whole.role, whole.stop_reason) == ("message", "assistant", "max_tokens")
    assert "Where is my lamp?" in text_of(whole)
    with claude.messages.stream(**asked) as stream:
        assert "".join(stream.text_stream) == text_of(whole)
        final = stream.get_final_message()
    assert final.stop_reason == "max_tokens"
    assert final.usage.output_tokens == whole.usage.output_tokens == 12
    assert final.usage.input_tokens == whole.usage.input_tokens > 0
    kinds = [event.type for event in claude.messages.create(**asked, stream=True)]
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 1


def test_raw_answers_have_our_headers_and_the_row_tells_their_usage(gateway, claude, kind):
    raw = claude.messages.with_raw_response.create(
        model=f"of-{kind}", max_tokens=50, messages=[user("How much is that?")]
    )
    assert raw.headers["x-tokenhub-provider"] == kind
    message = raw.parse()
    row = log_of(gateway, raw.headers["x-request-id"])
    assert (row["endpoint"], row["model_id"]) == ("/v1/messages", f"of-{kind}")
    assert (row["input_tokens"], row["output_tokens"]) == (
        message.usage.input_tokens, message.usage.output_tokens,
    )  # fmt: skip
    with claude.messages.with_streaming_response.create(
        model=f"of-{kind}", max_tokens=50, messages=[user("Hi")], stream=True
    ) as streamed:
        lines = [line for line in streamed.iter_lines() if line.startswith("event: ")]
    assert (lines[0], lines[-1]) == ("event: message_start", "event: message_stop")


def test_providers_of_the_same_dialect_see_its_headers_and_are_heard(gateway, claude):
    raw = claude.messages.with_raw_response.create(
        model="of-anthropic", max_tokens=50, messages=[user("Hi")],
        extra_headers={"anthropic-beta": "interleaved-thinking-2025-05-14"},
    )  # fmt: skip
    sent = {name.lower(): value for name, value in last_wire(gateway)["headers"].items()}
    assert sent["anthropic-version"] == anthropic_version(claude)
    assert sent["anthropic-beta"] == "interleaved-thinking-2025-05-14"
    assert [name for name in raw.headers if name.startswith("anthropic-ratelimit-")]


def test_blocks_of_system_with_marks_of_a_cached_prefix(claude, kind):
    answer = claude.messages.create(
        model=f"of-{kind}", max_tokens=50, messages=[user("Hi")],
        system=[
            {"type": "text", "text": f"Be brief, {kind}. " * 300,
             "cache_control": {"type": "ephemeral"}},
            {"type": "text", "text": "Be kind."},
        ],
    )  # fmt: skip
    assert text_of(answer)
    if kind == "anthropic":
        assert answer.usage.cache_creation_input_tokens or answer.usage.cache_read_input_tokens


def test_images_arrive(claude, kind):
    source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image", "source": source}]
    answer = claude.messages.create(model=f"of-{kind}", max_tokens=50, messages=[user(parts)])
    assert "You sent 1 image (image/png)" in text_of(answer)


def test_stop_sequences_stop(claude, kind):
    answer = claude.messages.create(
        model=f"of-{kind}", max_tokens=50, stop_sequences=["three"],
        messages=[user("Say one two three four")],
    )  # fmt: skip
    assert "two" in text_of(answer)
    assert "three" not in text_of(answer)
    assert answer.stop_reason == ("end_turn" if kind == "openai" else "stop_sequence")


def test_thoughts_are_blocks_and_go_back_as_they_came(claude, kind):
    asked: Any = {
        "model": f"thinks-{kind}", "max_tokens": 4000,
        "thinking": {"type": "enabled", "budget_tokens": 2048},
    }  # fmt: skip
    talk = [user("Think.")]
    with claude.messages.stream(**asked, messages=talk) as stream:
        streamed = stream.get_final_message()
    whole = claude.messages.create(**asked, messages=talk)
    kinds = [block.type for block in whole.content]
    assert kinds == (["text"] if kind == "openai" else ["thinking", "text"])
    assert [block.type for block in streamed.content] == kinds
    assert text_of(streamed) == text_of(whole)
    talk += [{"role": "assistant", "content": whole.content}, user("Go on.")]
    assert text_of(claude.messages.create(**asked, messages=talk))


def test_a_model_of_pydantic_s_is_parsed_whole_and_streamed(claude, kind):
    asked: Any = {
        "model": f"of-{kind}", "max_tokens": 400, "messages": [user("Who?")],
        "output_format": Person,
    }  # fmt: skip
    assert isinstance(claude.messages.parse(**asked).parsed_output, Person)
    with claude.messages.stream(**asked) as stream:
        assert isinstance(stream.get_final_message().parsed_output, Person)


def test_tokens_are_counted_by_the_provider_or_by_our_estimate(gateway, claude, kind):
    asked: Any = {"model": f"of-{kind}", "messages": [user("Where is my lamp?")]}
    counted = claude.messages.count_tokens(**asked).input_tokens
    more = claude.messages.count_tokens(**asked, system="Be brief. " * 40).input_tokens
    assert 0 < counted < more
    if kind == "anthropic":
        assert last_wire(gateway)["path"] == "/v1/messages/count_tokens"
        answer = claude.messages.create(**asked, max_tokens=5)
        assert answer.usage.input_tokens == counted


def test_async_clients_are_served_at_once_and_streamed(gateway):
    async def work() -> list[tuple[str, str]]:
        async with async_anthropic(gateway) as client:

            async def ask(kind: str) -> tuple[str, str]:
                asked: Any = {
                    "model": f"of-{kind}", "max_tokens": 50, "messages": [user(f"Am I {kind}?")]
                }  # fmt: skip
                whole = await client.messages.create(**asked)
                async with client.messages.stream(**asked) as stream:
                    pieces = [piece async for piece in stream.text_stream]
                await client.messages.count_tokens(model=asked["model"], messages=asked["messages"])
                return text_of(whole), "".join(pieces)

            return await asyncio.gather(*map(ask, TYPES))

    for kind, (whole, streamed) in zip(TYPES, run(work()), strict=True):
        assert f"Am I {kind}?" in whole
        assert whole == streamed


def test_a_cut_stream_raises_and_never_looks_finished(claude, kind):
    asked: Any = {"model": f"cut-{kind}", "max_tokens": 50, "messages": [user("Go on")]}
    with pytest.raises(anthropic.APIError), claude.messages.stream(**asked) as stream:
        stream.get_final_message()


def test_errors_are_those_of_the_sdk(gateway, claude, kind):
    asked: Any = {"max_tokens": 50, "messages": [user("Hi")]}
    with pytest.raises(anthropic.NotFoundError) as missing:
        claude.messages.create(model="no-such-model", **asked)
    assert missing.value.type == "not_found_error"
    assert missing.value.request_id
    with pytest.raises(anthropic.BadRequestError) as refused:
        claude.messages.create(model=f"of-{kind}", max_tokens=50, messages=[])
    assert refused.value.type == "invalid_request_error"
    with pytest.raises(anthropic.BadRequestError) as theirs:
        claude.messages.create(
            model=f"of-{kind}", **asked, tool_choice={"type": "tool", "name": "no_such_tool"},
            tools=[{"name": "a", "input_schema": {"type": "object", "properties": {}}}],
        )  # fmt: skip
    assert theirs.value.type == "invalid_request_error"
    with (
        anthropic_client(gateway, "no-such-key") as stranger,
        pytest.raises(anthropic.AuthenticationError) as unknown,
    ):
        stranger.messages.create(model=f"of-{kind}", **asked)
    assert unknown.value.type == "authentication_error"


def test_a_limit_is_a_rate_limit_error_that_says_when_to_come_again(gateway):
    with (
        anthropic_client(gateway, limited_key(gateway)) as client,
        pytest.raises(anthropic.RateLimitError) as refused,
    ):
        client.messages.create(model="of-openai", max_tokens=5, messages=[user("Hi")])
    assert refused.value.type == "rate_limit_error"
    assert 0 < int(refused.value.response.headers["retry-after"]) <= 61

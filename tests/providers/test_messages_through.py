"""Anthropic's own dialect goes through to those who speak it, and comes back as it was said."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.providers.conftest import PATIENT, Serve, answer, play
from tests.providers.test_anthropic_contract import MESSAGE, event, told
from tokenhub.dialects.messages import MESSAGES
from tokenhub.dialects.sse import events
from tokenhub.domain import ChatRequest
from tokenhub.errors import InvalidRequest, ProviderError
from tokenhub.providers import ADAPTERS
from tokenhub.providers.anthropic import AnthropicAdapter
from tokenhub.providers.base import Answer, Stream, Target
from tokenhub.providers.simulator import Simulator
from tokenhub.providers.upstream import Upstream

TOOL = {"name": "find", "input_schema": {"type": "object"}}


class Speaker:
    """Asks in Anthropic's dialect, through an adapter of one type."""

    def __init__(self, upstream: Upstream, url: str, provider_type: str = "anthropic") -> None:
        self._adapter = ADAPTERS[provider_type](upstream)
        self._url = url

    def send(self, model: str = "sim-fast", **fields: Any) -> Answer:
        return self._adapter.send(self._target(model), _request(**fields), PATIENT, "req-1")

    def stream(self, model: str = "sim-fast", **fields: Any) -> Stream:
        return self._adapter.stream(self._target(model), _request(**fields), PATIENT, "req-1")

    def error(self, model: str = "sim-fast", *, stream: bool = False) -> ProviderError:
        with pytest.raises(ProviderError) as caught:
            list(self.stream(model)) if stream else self.send(model)
        return caught.value

    def _target(self, model: str) -> Target:
        return Target("provider", self._url, model, "sk-provider")


def _request(headers: dict[str, str] | None = None, **fields: Any) -> ChatRequest:
    body = {"model": "asked-for", "max_tokens": 50,
            "messages": [{"role": "user", "content": "hello"}], **fields}  # fmt: skip
    found = MESSAGES.read(orjson.dumps(body))
    found.headers = headers or {}
    return found


@pytest.fixture
def speaker(upstream: Upstream, simulator: Simulator) -> Speaker:
    return Speaker(upstream, simulator.url)


def seen(simulator: Simulator) -> dict[str, Any]:
    assert simulator.last_request is not None
    found: dict[str, Any] = orjson.loads(simulator.last_request.body)
    return found


def headers_seen(simulator: Simulator) -> Any:
    assert simulator.last_request is not None
    return simulator.last_request.headers


def test_the_body_goes_through_but_for_the_model(speaker: Speaker, simulator: Simulator) -> None:
    system = [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}]
    got = speaker.send("upstream-name", system=system, top_k=5)
    assert got.dialect == "messages"
    assert got.dropped == ()
    assert seen(simulator) == {
        "model": "upstream-name", "max_tokens": 50, "system": system, "top_k": 5,
        "messages": [{"role": "user", "content": "hello"}],
    }  # fmt: skip
    assert got.parsed["type"] == "message"
    assert orjson.loads(got.body) == got.parsed
    assert got.usage is not None
    assert got.usage.input_tokens > 0
    assert got.usage.output_tokens > 0


def test_a_stream_goes_through_untouched(speaker: Speaker, simulator: Simulator) -> None:
    stream = speaker.stream(stream=True, tools=[TOOL], tool_choice={"type": "any"})
    blocks = list(stream)
    assert [stream.meter.pass_on(block) for block in blocks] == blocks
    assert (stream.dialect, seen(simulator)["stream"]) == ("messages", True)
    kinds = [orjson.loads(data)["type"] for _, data in events(b"".join(blocks))]
    assert [kinds[0], kinds[-1]] == ["message_start", "message_stop"]
    assert stream.meter.finish_reason == "tool_calls"
    whole = speaker.send(tools=[TOOL], tool_choice={"type": "any"}).usage
    assert stream.meter.usage == whole


def test_the_caller_says_which_version_and_betas_it_means(
    speaker: Speaker, simulator: Simulator
) -> None:
    speaker.send()
    assert headers_seen(simulator)["anthropic-version"] == "2023-06-01"
    assert "anthropic-beta" not in headers_seen(simulator)
    said = {"anthropic-version": "2026-10-21", "anthropic-beta": "one-2025,two-2026"}
    speaker.send(headers=said)
    assert {name: headers_seen(simulator)[name] for name in said} == said
    assert headers_seen(simulator)["x-api-key"] == "sk-provider"


@pytest.mark.parametrize("value", ["a\r\nx-api-key: b", "é"])
def test_a_header_that_is_not_one_line_is_the_caller_s_fault(speaker: Speaker, value: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        speaker.send(headers={"anthropic-beta": value})
    assert caught.value.param == "anthropic-beta"


EXTRA = (
    "Request-Id: req_1\r\nanthropic-organization-id: org\r\n"
    "anthropic-ratelimit-requests-remaining: 7\r\nset-cookie: a=b\r\nx-request-id: other\r\n"
    "anthropic-workspace-id: w\r\nanthropic-priority-input-tokens-limit: 8\r\n"
    "anthropic-fast-output-tokens-reset: 9\r\nanthropic-other: x\r\n"
)


def test_some_of_the_provider_s_headers_are_handed_on(serve: Serve, upstream: Upstream) -> None:
    handed_on = (
        ("Request-Id", "req_1"),
        ("anthropic-organization-id", "org"),
        ("anthropic-ratelimit-requests-remaining", "7"),
        ("anthropic-workspace-id", "w"),
        ("anthropic-priority-input-tokens-limit", "8"),
        ("anthropic-fast-output-tokens-reset", "9"),
    )
    reply = answer(orjson.dumps(MESSAGE), extra=EXTRA)
    url = play(serve, upstream, "anthropic", reply).url
    assert Speaker(upstream, url).send().headers == handed_on
    stop = event("message_stop", b'{"type":"message_stop"}')
    start = event("content_block_start", b'{"type":"content_block_start"}')
    reply = answer(start + stop, extra=EXTRA).replace(b"application/json", b"text/event-stream")
    url = play(serve, upstream, "anthropic", reply).url
    assert Speaker(upstream, url).stream().headers == handed_on


def test_what_it_counts_is_handed_on_whole(serve: Serve, upstream: Upstream) -> None:
    told = {"input_tokens": 14, "context_management": {"original_input_tokens": 99}}
    url = play(serve, upstream, "anthropic", answer(orjson.dumps(told))).url
    target = Target("provider", url, "m", "sk-provider")
    found = AnthropicAdapter(upstream).count_tokens(target, _request(), PATIENT, "req-1")
    assert found is not None
    assert found == told


def test_what_is_translated_has_none_of_them(upstream: Upstream, simulator: Simulator) -> None:
    assert Speaker(upstream, simulator.url, "openai").send().headers == ()


def test_integers_of_any_size_go_through(serve: Serve, upstream: Upstream) -> None:
    use = b'{"type":"tool_use","id":"toolu_1","name":"f","input":{"id":123456789012345678901234}}'
    body = orjson.dumps({**MESSAGE, "content": []}).replace(
        b'"content":[]', b'"content":[%b]' % use
    )
    url = play(serve, upstream, "anthropic", answer(body)).url
    assert Speaker(upstream, url).send().body == body


def test_thoughts_of_other_models_stay_behind(speaker: Speaker, simulator: Simulator) -> None:
    thought = {"type": "thinking", "thinking": "hm", "signature": ""}
    said = [{"role": "user", "content": "a"},
            {"role": "assistant", "content": [thought, {"type": "text", "text": "b"}]},
            {"role": "user", "content": "c"}]  # fmt: skip
    assert speaker.send(messages=said).dropped == ("messages.content.thinking",)
    assert seen(simulator)["messages"][1]["content"] == [{"type": "text", "text": "b"}]


def test_a_refusal_is_relayed_in_anthropic_s_own_words(serve: Serve, upstream: Upstream) -> None:
    body = told("invalid_request_error", "max_tokens: too many")
    url = play(serve, upstream, "anthropic", answer(body, "400 Bad Request")).url
    error = Speaker(upstream, url).error()
    assert (error.next_step, error.status, error.body) == ("stop", 400, body)


@pytest.mark.parametrize("kind", ["overloaded_error", "rate_limit_error"])
def test_an_error_event_before_anything_is_said_can_fail_over(
    serve: Serve, upstream: Upstream, kind: str
) -> None:
    start = event("message_start", b'{"type":"message_start","message":{}}')
    reply = answer(start + event("error", told(kind))).replace(
        b"application/json", b"text/event-stream"
    )
    url = play(serve, upstream, "anthropic", reply).url
    assert Speaker(upstream, url).error(stream=True).error_class in ("overloaded", "rate_limited")


@pytest.mark.parametrize("body", [b'{"choices":[]}', b"{}", b"[]"])
def test_what_is_no_message_is_malformed(serve: Serve, upstream: Upstream, body: bytes) -> None:
    url = play(serve, upstream, "anthropic", answer(body)).url
    assert Speaker(upstream, url).error().error_class == "malformed_answer"


@pytest.mark.parametrize("provider_type", ["openai", "vllm"])
def test_others_are_asked_in_a_chat(
    upstream: Upstream, simulator: Simulator, provider_type: str
) -> None:
    speaker = Speaker(upstream, simulator.url, provider_type)
    said = {"anthropic-beta": "new"}
    request: dict[str, Any] = {
        "system": "be brief",
        "tools": [TOOL],
        "tool_choice": {"type": "any"},
        "top_k": 5,
    }
    got = speaker.send(headers=said, **request)
    assert (got.dialect, got.dropped) == ("chat", ("top_k", "anthropic-beta"))
    message = MESSAGES.answer(got.parsed, _request(**request))
    assert message["stop_reason"] == "tool_use"
    assert message["content"][-1]["name"] == "find"
    translator = MESSAGES.translator(_request(**request))
    stream = speaker.stream(stream=True, **request)
    out = b"".join(translator.feed(stream.meter.pass_on(block)) for block in stream)
    kinds = [orjson.loads(data)["type"] for _, data in events(out)]
    assert [kinds[0], *kinds[-2:]] == ["message_start", "message_delta", "message_stop"]
    assert orjson.loads(events(out)[-2][1])["usage"]["output_tokens"] > 0

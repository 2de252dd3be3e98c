"""What the adapters of the chat wire send, and what they leave as it came: OpenAI's and vLLM's."""

from __future__ import annotations

import copy
from typing import Any

import orjson
import pytest

from tests.providers.conftest import Caller, Serve, answer, scripted
from tokenhub.dialects.sse import events
from tokenhub.domain import ChatRequest
from tokenhub.providers import ADAPTERS
from tokenhub.providers.base import Target
from tokenhub.providers.simulator import Simulator
from tokenhub.providers.upstream import Upstream

# What the common contract leaves to OpenAI's own words.
FAULTS = {
    "policy": ("content_policy", "stop", 400, False),
    "quota": ("quota_exhausted", "cooldown", 429, False),
    "error-frame": ("server_error", "failover", None, True),
}


@pytest.fixture(params=["openai", "vllm"])
def chat(caller: Caller, upstream: Upstream, request: pytest.FixtureRequest) -> Caller:
    """A caller through each adapter that speaks the chat wire."""
    caller.adapter = ADAPTERS[request.param](upstream)
    return caller


def sent(simulator: Simulator) -> dict[str, Any]:
    assert simulator.last_request is not None
    body: dict[str, Any] = orjson.loads(simulator.last_request.body)
    return body


def test_a_request_carries_the_upstream_name_and_everything_the_caller_said(
    chat: Caller, simulator: Simulator
) -> None:
    chat.send("upstream-name", temperature=0.5, some_new_field={"a": [1]}, stream=False)
    assert sent(simulator) == {
        "model": "upstream-name",
        "messages": [{"role": "user", "content": "hello"}],
        "temperature": 0.5,
        "some_new_field": {"a": [1]},
    }


def test_a_stream_asks_for_usage_and_keeps_the_callers_stream_options(
    chat: Caller, simulator: Simulator
) -> None:
    list(chat.stream(stream_options={"include_usage": False, "include_obfuscation": False}))
    assert sent(simulator)["stream"] is True
    assert sent(simulator)["stream_options"] == {
        "include_usage": True, "include_obfuscation": False,
    }  # fmt: skip
    list(chat.stream(stream_options=None))
    assert sent(simulator)["stream_options"] == {"include_usage": True}


def test_the_callers_body_is_left_as_it_was(chat: Caller, simulator: Simulator) -> None:
    body = {
        "model": "a",
        "messages": [{"role": "user", "content": "hello"}],
        "stream": True,
        "stream_options": {"include_usage": False},
    }
    before = copy.deepcopy(body)
    request = ChatRequest(body=body, model="a", stream=True, input_tokens=0)
    target = Target("p", simulator.url, "sim-fast")
    list(chat.adapter.stream(target, request, chat.timeouts, "r"))
    chat.adapter.send(target, request, chat.timeouts, "r")
    assert body == before


def test_the_key_is_a_bearer_s_and_left_out_where_there_is_none(
    chat: Caller, simulator: Simulator
) -> None:
    chat.send()
    assert simulator.last_request is not None
    assert simulator.last_request.headers["authorization"] == "Bearer sk-provider"
    assert simulator.last_request.path == "/v1/chat/completions"
    chat.api_key = None
    chat.send()
    assert "authorization" not in simulator.last_request.headers


def test_an_answer_keeps_its_bytes_and_is_parsed_once(serve: Serve, upstream: Upstream) -> None:
    body = b'{ "choices": [],\n "usage": {"prompt_tokens": 3.0, "completion_tokens": 4} }'
    got = scripted(serve, upstream, answer(body)).send()
    assert got.body == body
    assert got.parsed["choices"] == []
    assert got.usage is not None
    assert (got.usage.input_tokens, got.usage.output_tokens) == (3, 4)


@pytest.mark.parametrize(
    "body", [b"{}", b'{"detail":"no such route"}', b'{"choices":null}', b'{"choices":{}}', b"[]"]
)
def test_what_is_no_completion_is_malformed(serve: Serve, upstream: Upstream, body: bytes) -> None:
    error = scripted(serve, upstream, answer(body)).error("any")
    assert error.error_class == "malformed_answer"


def test_an_error_beside_no_choices_is_one(serve: Serve, upstream: Upstream) -> None:
    body = b'{"choices":[],"error":{"message":"no","code":429}}'
    assert scripted(serve, upstream, answer(body)).error("any").error_class == "rate_limited"


def test_a_streamed_answer_keeps_its_bytes_and_has_its_usage(chat: Caller) -> None:
    stream = chat.stream()
    datas = [data for block in stream for _, data in events(block)]
    assert datas[-1] == b"[DONE]"
    assert orjson.loads(datas[-2])["usage"]["completion_tokens"] == len(datas) - 4


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
def test_openai_s_own_words_have_their_rows(chat: Caller, fault: str, stream: bool) -> None:
    error = chat.error("fault-" + fault, stream=stream)
    assert (error.error_class, error.next_step, error.status, error.sent) == FAULTS[fault]


@pytest.mark.parametrize(
    "body",
    [
        b'{"error":{"message":"no","type":"server_error"}}',
        b'{"object":"error","message":"no","type":"InternalServerError","code":500}',
    ],
)
def test_an_error_that_comes_with_a_200_is_one(
    serve: Serve, upstream: Upstream, body: bytes
) -> None:
    error = scripted(serve, upstream, answer(body)).error("any")
    assert (error.error_class, error.next_step, error.sent) == ("server_error", "failover", True)

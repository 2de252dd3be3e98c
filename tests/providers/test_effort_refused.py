"""Models that refuse to be told how much to think, asked by callers who tell every model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from tests.providers.conftest import PATIENT, Serve, answer, read_request
from tokenhub.dialects.messages import MESSAGES
from tokenhub.domain import ChatRequest
from tokenhub.errors import ProviderError
from tokenhub.providers import ADAPTERS
from tokenhub.providers.base import Target
from tokenhub.providers.upstream import Upstream

REFUSAL = {"error": {"message": "Unrecognized request argument supplied: reasoning_effort",
                     "type": "invalid_request_error", "param": None, "code": None}}  # fmt: skip
COMPLETION = {"id": "1", "model": "m", "choices": [{"index": 0, "message": {"content": "hi"}}]}
CHUNK = b'data: {"id":"1","choices":[{"index":0,"delta":{"content":"hi"}}]}\n\ndata: [DONE]\n\n'
THINKING = {"thinking": {"type": "enabled", "budget_tokens": 2000}}

Strict = tuple[str, list[dict[str, Any]]]


def refused(body: Any, status: str = "400 Bad Request") -> bytes:
    return answer(orjson.dumps(body), status)


@pytest.fixture
def strict(serve: Serve) -> Callable[[bytes], Strict]:
    """A server that refuses to be told, and what it was asked."""

    def start(refusal: bytes) -> Strict:
        asked: list[dict[str, Any]] = []

        def handle(sock: Any) -> None:
            while data := read_request(sock):
                body = orjson.loads(data.partition(b"\r\n\r\n")[2])
                asked.append(body)
                if "reasoning_effort" in body or "max_tokens" in body:
                    sock.sendall(refusal)
                elif body.get("stream"):
                    head = answer(CHUNK).replace(b"application/json", b"text/event-stream")
                    sock.sendall(head)
                else:
                    sock.sendall(answer(orjson.dumps(COMPLETION)))

        return serve(handle), asked

    return start


def request(**fields: Any) -> ChatRequest:
    said = {"model": "m", "max_tokens": 5000, "messages": [{"role": "user", "content": "hi"}]}
    return MESSAGES.read(orjson.dumps({**said, **fields}))


@pytest.mark.parametrize("provider_type", ["openai", "vllm"])
@pytest.mark.parametrize(
    ("fields", "name"),
    [(THINKING, "thinking"), ({"output_config": {"effort": "max"}}, "output_config.effort")],
)
def test_it_is_asked_once_more_without_and_the_caller_is_told(
    upstream: Upstream,
    strict: Callable[[bytes], Strict],
    provider_type: str,
    fields: dict[str, Any],
    name: str,
) -> None:
    url, asked = strict(refused(REFUSAL))
    adapter, target = ADAPTERS[provider_type](upstream), Target("p", url, "m")
    whole = adapter.send(target, request(**fields), PATIENT, "req-1")
    assert (whole.parsed, whole.dropped) == (COMPLETION, (name,))
    stream = adapter.stream(target, request(stream=True, **fields), PATIENT, "req-1")
    assert (b"".join(stream), stream.dropped) == (CHUNK, (name,))
    assert ["reasoning_effort" in body for body in asked] == [True, False] * 2
    assert {name: value for name, value in asked[0].items() if name != "reasoning_effort"} == asked[
        1
    ]


@pytest.mark.parametrize(
    ("refusal", "fields"),
    [
        (refused({"error": {"message": "no such thing", "param": "messages"}}), THINKING),
        (refused(REFUSAL, "500 Internal Server Error"), THINKING),
    ],
)
def test_any_other_failure_is_one(
    upstream: Upstream, strict: Callable[[bytes], Strict], refusal: bytes, fields: dict[str, Any]
) -> None:
    url, asked = strict(refusal)
    with pytest.raises(ProviderError):
        ADAPTERS["openai"](upstream).send(Target("p", url, "m"), request(**fields), PATIENT, "r")
    assert len(asked) == 1


def test_who_says_it_in_a_chat_has_said_it(
    upstream: Upstream, strict: Callable[[bytes], Strict]
) -> None:
    url, asked = strict(refused(REFUSAL))
    body = {"model": "m", "messages": [], "reasoning_effort": "low"}
    said = ChatRequest(body=body, model="m", stream=False, input_tokens=1)
    with pytest.raises(ProviderError) as caught:
        ADAPTERS["openai"](upstream).send(Target("p", url, "m"), said, PATIENT, "req-1")
    assert (caught.value.next_step, len(asked)) == ("stop", 1)

"""Responses that go through to a provider that speaks them, and to one that does not."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.providers.conftest import PATIENT, QUICK, Caller, Serve, answer, play, scripted
from tokenhub.dialects import DIALECTS
from tokenhub.domain import ChatRequest, Dialect
from tokenhub.errors import ProviderError, Untranslatable
from tokenhub.providers import ADAPTERS
from tokenhub.providers.base import Answer, Stream, Target
from tokenhub.providers.simulator import Simulator
from tokenhub.providers.upstream import Upstream

USAGE = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
WHOLE: dict[str, Any] = {"id": "resp_1", "object": "response", "status": "completed", "error": None,
         "output": [], "usage": USAGE}  # fmt: skip
NATIVE: frozenset[Dialect] = frozenset({"responses"})


def asked(**fields: Any) -> ChatRequest:
    body = {"model": "asked-for", "input": "hello", **fields}
    return DIALECTS["responses"].read(orjson.dumps(body))


def target(caller: Caller, *, is_native: bool = True) -> Target:
    return Target("p", caller.url, "upstream", speaks=NATIVE if is_native else frozenset())


def send(caller: Caller, **fields: Any) -> Answer:
    return caller.adapter.send(target(caller), asked(**fields), PATIENT, "r")


def stream(caller: Caller) -> Stream:
    return caller.adapter.stream(target(caller), asked(stream=True), QUICK, "r")


def event(kind: str, **fields: Any) -> bytes:
    told = orjson.dumps({"type": kind, "sequence_number": 0, **fields})
    return b"event: " + kind.encode() + b"\ndata: " + told + b"\n\n"


def reply(*events: bytes) -> bytes:
    return answer(b"".join(events)).replace(b"application/json", b"text/event-stream")


CREATED = event("response.created", response={**WHOLE, "status": "in_progress", "usage": None})
DELTA = event("response.output_text.delta", delta="hi")
COMPLETED = event("response.completed", response=WHOLE)


@pytest.fixture(params=["openai", "vllm"])
def kind(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def test_a_whole_response_passes_as_it_came(serve: Serve, upstream: Upstream, kind: str) -> None:
    raw = orjson.dumps(WHOLE, option=orjson.OPT_INDENT_2)
    got = send(play(serve, upstream, kind, answer(raw)))
    assert (got.body, got.dialect) == (raw, "responses")
    assert got.usage is not None
    assert (got.usage.input_tokens, got.usage.output_tokens) == (3, 4)


def test_a_stream_passes_as_it_came_and_is_done_at_its_last_event(
    serve: Serve, upstream: Upstream, kind: str
) -> None:
    # The server stays: only the last event tells that nothing is missing.
    caller = play(serve, upstream, kind, reply(CREATED, DELTA, COMPLETED))
    got = stream(caller)
    assert next(got) == CREATED + DELTA + COMPLETED
    assert got.is_done
    got.meter.pass_on(COMPLETED)
    assert got.meter.usage is not None
    assert (got.meter.usage.output_tokens, got.meter.finish_reason) == (4, "stop")


@pytest.mark.parametrize(
    ("last", "error_class"),
    [
        (event("response.failed", response={"error": {"code": "server_error"}}), "server_error"),
        (event("response.failed", response={"error": {"code": "rate_limit_exceeded"}}),
         "rate_limited"),
        (event("error", code="rate_limit_exceeded", message="no", param=None), "rate_limited"),
        (event("error", error={"type": "invalid_request_error", "code": "invalid_prompt"}),
         "client_error"),
    ],
)  # fmt: skip
def test_an_error_within_a_stream_is_one(
    serve: Serve, upstream: Upstream, last: bytes, error_class: str
) -> None:
    for before in (b"", CREATED, CREATED + DELTA):
        with pytest.raises(ProviderError) as failed:
            list(stream(scripted(serve, upstream, reply(before, last))))
        assert failed.value.error_class == error_class


@pytest.mark.parametrize(
    ("body", "error_class"),
    [
        ({**WHOLE, "status": "failed", "error": {"code": "server_error", "message": "x"}},
         "server_error"),
        ({"error": {"message": "x", "code": "rate_limit_exceeded"}}, "rate_limited"),
        ({"object": "response"}, "malformed_answer"),
        ({"choices": []}, "malformed_answer"),
    ],
)  # fmt: skip
def test_what_is_no_response_is_an_error(
    serve: Serve, upstream: Upstream, body: dict[str, Any], error_class: str
) -> None:
    with pytest.raises(ProviderError) as failed:
        send(scripted(serve, upstream, answer(orjson.dumps(body))))
    assert failed.value.error_class == error_class


def test_the_provider_is_sent_what_the_caller_said_and_stores_nothing(
    caller: Caller, simulator: Simulator
) -> None:
    ours = {"type": "reasoning", "id": "rs_th_a_0", "summary": []}
    bare = {"type": "reasoning", "id": "rs_1", "summary": []}
    given = [{"role": "user", "content": "hello"}, ours]
    got = caller.adapter.send(
        Target("p", simulator.url, "sim-fast", speaks=NATIVE),
        asked(input=[*given, bare], temperature=0.5), PATIENT, "r",
    )  # fmt: skip
    assert simulator.last_request is not None
    assert simulator.last_request.path == "/v1/responses"
    assert orjson.loads(simulator.last_request.body) == {
        "model": "sim-fast", "input": given[:1], "temperature": 0.5, "store": False,
    }  # fmt: skip
    assert (got.dialect, got.dropped) == ("responses", ("input.reasoning",))


def test_a_stream_of_the_simulator_s_passes(caller: Caller, simulator: Simulator) -> None:
    found = caller.adapter.stream(
        Target("p", simulator.url, "sim-fast", speaks=NATIVE), asked(stream=True), PATIENT, "r"
    )
    blocks = [found.meter.pass_on(block) for block in found]
    assert b"response.completed" in blocks[-1]
    assert found.meter.usage is not None
    assert found.meter.finish_reason == "stop"


@pytest.mark.parametrize("kind", sorted(ADAPTERS))
def test_who_does_not_speak_responses_is_asked_in_chat(
    upstream: Upstream, simulator: Simulator, kind: str
) -> None:
    adapter, spoken = ADAPTERS[kind](upstream), DIALECTS["responses"]
    plain = Target("p", simulator.url, "sim-fast")
    got = adapter.send(plain, asked(truncation="auto", max_output_tokens=50), PATIENT, "r")
    assert got.dialect == "chat"
    assert "truncation" in got.dropped
    response = spoken.answer(got.parsed, asked())
    assert response["status"] == "completed"
    assert response["output"][-1]["content"][0]["text"]
    found = adapter.stream(plain, asked(stream=True, max_output_tokens=50), PATIENT, "r")
    translator = spoken.translator(asked(stream=True))
    raw = b"".join(translator.feed(found.meter.pass_on(block)) for block in found)
    assert raw.count(b"event: response.completed\n") == 1
    assert b'"usage":{"input_tokens"' in raw


def test_a_hosted_tool_goes_to_who_has_it_only(serve: Serve, upstream: Upstream) -> None:
    caller = scripted(serve, upstream, answer(orjson.dumps(WHOLE)))
    forced: dict[str, Any] = {
        "tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search"},
    }  # fmt: skip
    with pytest.raises(Untranslatable):
        caller.adapter.send(target(caller, is_native=False), asked(**forced), PATIENT, "r")
    assert send(caller, **forced).dialect == "responses"


def test_an_image_in_a_stream_is_one_large_event(serve: Serve) -> None:
    image = {"type": "image_generation_call", "result": "A" * (3 << 20)}
    last = event("response.completed", response={**WHOLE, "output": [image]})
    upstream = Upstream(16 << 20)
    try:
        caller = scripted(serve, upstream, reply(CREATED, DELTA, last))
        got = caller.adapter.stream(target(caller), asked(stream=True), PATIENT, "r")
        assert b"".join(got) == CREATED + DELTA + last
        assert got.is_done
    finally:
        upstream.close()


def test_pictures_that_tools_have_found_reach_who_is_asked_in_chat(
    caller: Caller, simulator: Simulator
) -> None:
    call = {"type": "function_call", "call_id": "c", "name": "view", "arguments": "{}"}
    image = {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo="}
    shown = {"type": "function_call_output", "call_id": "c", "output": [image]}
    user = {"role": "user", "content": "see"}
    plain = Target("p", simulator.url, "sim-fast")
    got = caller.adapter.send(plain, asked(input=[user, call, shown]), PATIENT, "r")
    assert "You sent 1 image" in got.body.decode()

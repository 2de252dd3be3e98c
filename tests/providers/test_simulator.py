"""The built-in simulator speaks OpenAI's dialect and fails as it is told."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import gevent
import gevent.socket
import openai
import orjson
import pytest
from gevent import monkey

from tests.providers.conftest import Caller, wait_until
from tokenhub.dialects.sse import events
from tokenhub.providers.simulator import Simulator
from tokenhub.providers.simulator.content import MODELS
from tokenhub.providers.simulator.faults import parse

T = TypeVar("T")
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"}, "days": {"type": "integer"},
                "unit": {"enum": ["C", "F"]}, "note": {"type": "string"},
            },
            "required": ["city", "days", "unit"],
        },
    },
}  # fmt: skip
HELLO: Any = [{"role": "user", "content": "hello"}]


def ask(
    simulator: Simulator, method: str, path: str, body: object = None, **headers: str
) -> tuple[int, Any]:
    """One plain HTTP request; returns status and parsed body."""
    data = b"" if body is None else orjson.dumps(body)
    fields = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = f"{method} {path} HTTP/1.1\r\nContent-Length: {len(data)}\r\n{fields}\r\n"
    with contextlib.closing(gevent.socket.create_connection(("127.0.0.1", simulator.port))) as sock:
        sock.sendall(head.encode() + data)
        got = b""
        while b"\r\n\r\n" not in got or len(got.partition(b"\r\n\r\n")[2]) < _length(got):
            got += sock.recv(65536)
    body = got.partition(b"\r\n\r\n")[2]
    return int(got[9:12]), orjson.loads(body) if body else None


def _length(got: bytes) -> int:
    return int(got.partition(b"Content-Length: ")[2].split(b"\r\n")[0])


def chunks(blocks: Iterator[bytes]) -> list[Any]:
    datas = [data for block in blocks for _, data in events(block)]
    assert datas.pop() == b"[DONE]"
    return [orjson.loads(data) for data in datas]


def text_of(parsed: list[Any], index: int = 0) -> str:
    return "".join(
        choice["delta"].get("content") or ""
        for chunk in parsed for choice in chunk["choices"] if choice["index"] == index
    )  # fmt: skip


# --- healthy ------------------------------------------------------------------------------------


def test_the_same_question_has_the_same_answer_whole_and_streamed(caller: Caller) -> None:
    first, second = caller.send(), caller.send()
    assert first.body == second.body
    streamed = chunks(caller.stream())
    assert text_of(streamed) == first.parsed["choices"][0]["message"]["content"]
    assert streamed[-1]["usage"] == first.parsed["usage"]
    assert all(chunk["usage"] is None for chunk in streamed[:-1])
    other = caller.send(messages=[{"role": "user", "content": "something else"}])
    assert other.parsed["choices"] != first.parsed["choices"]


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_the_output_limit_is_kept_and_counted(caller: Caller, field: str) -> None:
    limit: dict[str, Any] = {field: 5}
    parsed = caller.send(**limit).parsed
    assert parsed["usage"]["completion_tokens"] == 5
    assert parsed["choices"][0]["finish_reason"] == "length"
    assert caller.send().parsed["choices"][0]["finish_reason"] == "stop"


def test_several_choices_are_answered_and_billed(caller: Caller) -> None:
    parsed = caller.send(n=3, max_tokens=10).parsed
    texts = [choice["message"]["content"] for choice in parsed["choices"]]
    assert len(set(texts)) == 3
    assert parsed["usage"]["completion_tokens"] == 30
    streamed = chunks(caller.stream(n=3, max_tokens=10))
    assert [text_of(streamed, index) for index in range(3)] == texts


def test_a_required_tool_is_called_with_arguments_of_its_types(caller: Caller) -> None:
    message = caller.send(tools=[TOOL], tool_choice="required").parsed["choices"][0]["message"]
    call = message["tool_calls"][0]
    assert call["function"]["name"] == "weather"
    arguments = orjson.loads(call["function"]["arguments"])
    assert arguments == {"city": "routes", "days": 1, "unit": "C"}
    choice = {"type": "function", "function": {"name": "weather"}}
    streamed = chunks(caller.stream(tools=[TOOL], tool_choice=choice))
    deltas = [c["delta"]["tool_calls"][0] for s in streamed for c in s["choices"]
              if "tool_calls" in c["delta"]]  # fmt: skip
    assert deltas[0]["id"] == call["id"]
    assert all(delta["index"] == 0 for delta in deltas)
    assert "".join(d["function"]["arguments"] for d in deltas) == call["function"]["arguments"]
    assert caller.send(tools=[TOOL]).parsed["choices"][0]["finish_reason"] == "stop"


def test_without_include_usage_there_is_no_usage_chunk(caller: Caller) -> None:
    plain = caller.stream(stream_options={"include_usage": False})
    sent = chunks(plain)
    assert sent
    assert all(chunk.get("usage") is None for chunk in sent[:-1])


def test_the_model_name_paces_a_stream(caller: Caller) -> None:
    stream = caller.stream("stream-5-20")
    blocks = list(stream)
    assert len(blocks) >= 7, "role, five pieces, finish and the rest come one by one"
    assert len(text_of(chunks(iter(blocks))).split()) >= 4


def test_content_parts_are_read_as_text_and_images_are_named(caller: Caller) -> None:
    parts = [
        {"type": "text", "text": "hello parts"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
        {"type": "image_url", "image_url": {"url": "https://example.org/cat.jpg"}},
    ]
    got = caller.send(messages=[{"role": "user", "content": parts}])
    said = got.parsed["choices"][0]["message"]["content"]
    assert said.startswith("You sent 2 images (image/png, url). You asked: hello parts")


def test_models_health_and_stats_are_served(caller: Caller, simulator: Simulator) -> None:
    status, models = ask(simulator, "GET", "/v1/models")
    assert status == 200
    assert {each["id"] for each in models["data"]} == set(MODELS)
    assert ask(simulator, "GET", "/health") == (200, None)
    caller.send()
    list(caller.stream("stream-2-0"))
    _, stats = ask(simulator, "GET", "/stats")
    assert (stats["requests"], stats["streams"], stats["open_requests"]) == (2, 1, 0)
    assert stats["by_model"] == {"sim-fast": 1, "stream-2-0": 1}
    assert stats["by_path"] == {"/v1/chat/completions": 2, "/v1/models": 1, "/health": 1}
    assert ask(simulator, "GET", "/nowhere")[0] == 404


@pytest.mark.parametrize(
    "body", [None, [], {}, {"model": "sim-fast"}, {"model": 1, "messages": []},
             {"model": "m", "messages": [], "tools": 5, "tool_choice": "required"}],
)  # fmt: skip
def test_a_bad_request_is_told_so(simulator: Simulator, body: object) -> None:
    status, parsed = ask(simulator, "POST", "/v1/chat/completions", body)
    assert status == 400
    assert parsed["error"]["type"] == "invalid_request_error"


def test_it_listens_on_loopback_only() -> None:
    with pytest.raises(ValueError, match="loopback"):
        Simulator("0.0.0.0")


# --- faults -------------------------------------------------------------------------------------


def test_an_unknown_fault_is_told_so(caller: Caller, simulator: Simulator) -> None:
    assert caller.error("fault-nonsense").error_class == "client_error"
    assert ask(simulator, "POST", "/control", {"fault": "nonsense"})[0] == 400
    with pytest.raises(ValueError, match="unknown fault"):
        parse("slow-")


def test_a_fault_can_be_set_for_some_requests_and_healed(
    caller: Caller, simulator: Simulator
) -> None:
    control = {"model": "sim-fast", "fault": "429", "times": 2, "retry_after": 3}
    assert ask(simulator, "POST", "/control", control)[0] == 200
    assert caller.error("sim-fast").retry_after_seconds == 3
    assert caller.send("sim-cheap").status == 200
    assert caller.error("sim-fast").status == 429
    assert caller.send("sim-fast").status == 200
    ask(simulator, "POST", "/control", {"fault": "500"})
    assert caller.error("sim-cheap").status == 500
    ask(simulator, "POST", "/control", {"fault": ""})
    assert caller.send("sim-cheap").status == 200


def test_pacing_can_be_set_for_all_and_reset(caller: Caller, simulator: Simulator) -> None:
    pacing = {"chunks": 4, "interval_ms": 10, "latency_ms": 80}
    assert ask(simulator, "POST", "/control", pacing)[0] == 200
    got = caller.send()
    assert got.ttft_ms >= 80
    assert got.parsed["usage"]["completion_tokens"] == 4
    ask(simulator, "POST", "/control", dict.fromkeys(pacing))
    assert caller.send().parsed["usage"]["completion_tokens"] > 4


def test_the_fault_header_wins(simulator: Simulator) -> None:
    body = orjson.dumps({"model": "sim-fast", "messages": HELLO})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: {len(body)}\r\n"
    sock = gevent.socket.create_connection(("127.0.0.1", simulator.port))
    sock.sendall(head.encode() + b"X-Simulator-Fault: 529\r\n\r\n" + body)
    assert sock.recv(12) == b"HTTP/1.1 529"
    sock.close()


def test_a_client_that_leaves_is_noticed_and_counted(caller: Caller, simulator: Simulator) -> None:
    stream = caller.stream("fault-silent-after-2")
    next(stream)
    assert simulator.stats.open_streams == 1
    stream.close()
    wait_until(lambda: simulator.stats.open_streams == 0)
    assert simulator.stats.aborted_streams == 1


def test_hundreds_of_streams_are_held_at_once(caller: Caller, simulator: Simulator) -> None:
    streams = [caller.stream("fault-silent-after-2") for _ in range(300)]
    assert simulator.stats.open_streams == 300
    for stream in streams:
        stream.close()
    wait_until(lambda: simulator.stats.open_streams == 0, 5)


# --- the official SDK ---------------------------------------------------------------------------


def blocking(call: Callable[[], T]) -> T:
    """Run what blocks its thread while the simulator is served on ours."""
    if monkey.is_module_patched("socket"):
        return call()
    found: T = gevent.get_hub().threadpool.apply(call)
    return found


@pytest.fixture
def sdk(simulator: Simulator) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=simulator.url + "/v1", api_key="sk", max_retries=0) as client:
        yield client


def test_the_sdk_understands_a_whole_answer(sdk: openai.OpenAI) -> None:
    got = blocking(lambda: sdk.chat.completions.create(model="sim-fast", messages=HELLO))
    assert got.choices[0].message.content
    assert got.usage is not None
    assert got.usage.total_tokens == got.usage.prompt_tokens + got.usage.completion_tokens
    assert {model.id for model in blocking(lambda: list(sdk.models.list()))} == set(MODELS)


def test_the_sdk_understands_a_stream(sdk: openai.OpenAI) -> None:
    def read() -> list[Any]:
        return list(
            sdk.chat.completions.create(
                model="stream-4-5", messages=HELLO, stream=True,
                stream_options={"include_usage": True},
            )
        )  # fmt: skip

    got = blocking(read)
    assert [chunk.choices[0].finish_reason for chunk in got if chunk.choices][-1] == "stop"
    assert got[-1].usage.completion_tokens == 4


@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("fault-429", openai.RateLimitError),
        ("fault-401", openai.AuthenticationError),
        ("fault-400", openai.BadRequestError),
        ("fault-500", openai.InternalServerError),
    ],
)
def test_the_sdk_understands_an_error(
    sdk: openai.OpenAI, model: str, error: type[openai.APIError]
) -> None:
    with pytest.raises(error):
        blocking(lambda: sdk.chat.completions.create(model=model, messages=HELLO))

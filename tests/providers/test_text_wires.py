"""Completions and embeddings go through to whoever has them, and only to them."""

from __future__ import annotations

import base64
import struct
from typing import Any

import orjson
import pytest

from tests.providers.conftest import PATIENT, QUICK, Serve, answer, read_request
from tokenhub.dialects import DIALECTS
from tokenhub.dialects.sse import events
from tokenhub.domain import ChatRequest, Dialect
from tokenhub.errors import ProviderError, Untranslatable
from tokenhub.providers import ADAPTERS
from tokenhub.providers.base import Target
from tokenhub.providers.simulator import Simulator
from tokenhub.providers.upstream import Upstream

NATIVE: frozenset[Dialect] = frozenset({"completions"})
ALWAYS: frozenset[Dialect] = frozenset()
PASSED = [("openai", NATIVE), ("vllm", ALWAYS)]
TRANSLATED = [("openai", ALWAYS), ("anthropic", ALWAYS), ("anthropic", NATIVE)]


def asked(dialect: Dialect = "completions", **fields: Any) -> ChatRequest:
    first = {"prompt": "hello"} if dialect == "completions" else {"input": ["hello", "you"]}
    return DIALECTS[dialect].read(orjson.dumps({"model": "asked-for", **first, **fields}))


class Wired:
    """Asks the simulator through an adapter."""

    def __init__(self, upstream: Upstream, url: str, kind: str) -> None:
        self.adapter = ADAPTERS[kind](upstream)
        self.url = url
        self.speaks = ALWAYS

    def send(self, request: ChatRequest, model: str = "sim-fast") -> Any:
        return self.adapter.send(self.target(model), request, PATIENT, "req-1")

    def stream(self, request: ChatRequest, model: str = "sim-fast") -> Any:
        return self.adapter.stream(self.target(model), request, PATIENT, "req-1")

    def target(self, model: str) -> Target:
        return Target("provider", self.url, model, "sk-provider", self.speaks)


@pytest.fixture
def wired(upstream: Upstream, simulator: Simulator) -> Any:
    def make(kind: str, speaks: frozenset[Dialect] = ALWAYS) -> Wired:
        found = Wired(upstream, simulator.url, kind)
        found.speaks = speaks
        return found

    return make


def last(simulator: Simulator) -> tuple[str, dict[str, Any]]:
    assert simulator.last_request is not None
    return simulator.last_request.path, orjson.loads(simulator.last_request.body)


# --- completions --------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "speaks"), PASSED)
def test_a_completion_passes_with_the_provider_s_name_for_the_model(
    wired: Any, simulator: Simulator, kind: str, speaks: frozenset[Dialect]
) -> None:
    prompt = [[1, 2], [3]]
    got = wired(kind, speaks).send(asked(prompt=prompt, echo=True, logprobs=2, vendor=1), "theirs")
    path, body = last(simulator)
    assert path == "/v1/completions"
    assert body == {
        "model": "theirs", "prompt": prompt, "echo": True, "logprobs": 2, "vendor": 1,
    }  # fmt: skip
    assert (got.dialect, got.parsed["object"]) == ("completions", "text_completion")
    assert orjson.loads(got.body) == got.parsed
    assert got.usage.input_tokens == got.parsed["usage"]["prompt_tokens"] == 3
    assert got.usage.output_tokens == 32


@pytest.mark.parametrize("wants_usage", [False, True])
@pytest.mark.parametrize(("kind", "speaks"), PASSED)
def test_a_streamed_completion_passes_and_is_metered(
    wired: Any, kind: str, speaks: frozenset[Dialect], wants_usage: bool
) -> None:
    request = asked(stream=True, stream_options={"include_usage": wants_usage}, max_tokens=5)
    stream = wired(kind, speaks).stream(request)
    shown = b"".join(stream.meter.pass_on(block) for block in stream)
    datas = [data for _, data in events(shown)]
    assert datas.pop() == b"[DONE]"
    chunks = [orjson.loads(data) for data in datas]
    assert any(chunk.get("usage") for chunk in chunks) == wants_usage
    assert stream.dialect == "completions"
    assert stream.meter.usage.output_tokens == 5
    assert stream.meter.finish_reason == "length"


@pytest.mark.parametrize(("kind", "speaks"), TRANSLATED)
def test_where_there_are_none_a_chat_is_asked(
    wired: Any, simulator: Simulator, kind: str, speaks: frozenset[Dialect]
) -> None:
    request = asked(stream=True)
    whole = wired(kind, speaks).send(request)
    assert whole.dialect == "chat"
    path, body = last(simulator)
    assert path == ("/v1/messages" if kind == "anthropic" else "/v1/chat/completions")
    limit = "max_tokens" if kind == "anthropic" else "max_completion_tokens"
    assert body[limit] == 16
    said = DIALECTS["completions"].answer(whole.parsed, request)
    stream = wired(kind, speaks).stream(request)
    translator = DIALECTS["completions"].translator(request)
    passed = b"".join(translator.feed(stream.meter.pass_on(block)) for block in stream)
    *datas, done = [data for _, data in events(passed)]
    assert done == b"[DONE]"
    choices = [choice for data in datas for choice in orjson.loads(data)["choices"]]
    assert "".join(each["text"] for each in choices) == said["choices"][0]["text"] != ""
    assert choices[-1]["finish_reason"] == said["choices"][0]["finish_reason"] == "length"
    assert stream.meter.usage.output_tokens == 16


def test_what_a_chat_cannot_say_is_refused_and_nothing_sent(
    wired: Any, simulator: Simulator
) -> None:
    with pytest.raises(Untranslatable):
        wired("openai").send(asked(echo=True))
    assert simulator.last_request is None


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("kind", "speaks"), PASSED)
@pytest.mark.parametrize(
    ("fault", "error_class"),
    [
        ("429", "rate_limited"), ("context", "context_overflow"), ("error-frame-0", "server_error"),
        ("malformed", "malformed_answer"), ("content-type", "malformed_answer"),
        ("error-after-start", "overloaded server_error"),
    ],
)  # fmt: skip
def test_faults_are_told_as_in_a_chat(
    wired: Any, kind: str, speaks: frozenset[Dialect], fault: str, error_class: str,
    stream: bool,
) -> None:  # fmt: skip
    caller = wired(kind, speaks)
    with pytest.raises(ProviderError) as caught:
        if stream:
            list(caller.stream(asked(stream=True), "fault-" + fault))
        else:
            caller.send(asked(), "fault-" + fault)
    assert caught.value.error_class in error_class.split()


def test_an_overflow_is_told_in_numbers(wired: Any) -> None:
    with pytest.raises(ProviderError) as caught:
        wired("openai", NATIVE).send(asked(max_tokens=4000), "fault-overflow-4097-1360")
    assert caught.value.error_class == "context_overflow"
    assert (caught.value.context_tokens, caught.value.input_tokens) == (4097, 1360)


# --- embeddings ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["openai", "vllm"])
def test_embeddings_pass_untouched(wired: Any, simulator: Simulator, kind: str) -> None:
    floats = wired(kind).send(asked("embeddings", dimensions=4, stream=False), "theirs")
    path, body = last(simulator)
    assert path == "/v1/embeddings"
    assert body == {"model": "theirs", "input": ["hello", "you"], "dimensions": 4}
    packed = wired(kind).send(asked("embeddings", dimensions=4, encoding_format="base64"))
    assert (floats.dialect, packed.dialect) == ("embeddings", "embeddings")
    assert (floats.usage.input_tokens, floats.usage.output_tokens) == (3, 0)
    vectors = [each["embedding"] for each in floats.parsed["data"]]
    raw = [base64.b64decode(each["embedding"]) for each in packed.parsed["data"]]
    assert [list(struct.unpack("<4f", each)) for each in raw] == vectors


def test_bytes_of_vectors_are_not_written_anew(serve: Serve, upstream: Upstream) -> None:
    body = b'{ "object":"list","data":[{"embedding": [0.10, 1e-3]}],"usage":{"total_tokens":2}}'

    def handle(sock: Any) -> None:
        read_request(sock)
        sock.sendall(answer(body))

    target = Target("p", serve(handle), "m")
    got = ADAPTERS["openai"](upstream).send(target, asked("embeddings"), QUICK, "r")
    assert got.body == body
    assert got.usage is not None
    assert got.usage.input_tokens == 2


@pytest.mark.parametrize("body", [b'{"data":[]}', b'{"choices":[]}', b'{"object":"list"}'])
def test_what_has_no_vectors_is_malformed(serve: Serve, upstream: Upstream, body: bytes) -> None:
    def handle(sock: Any) -> None:
        read_request(sock)
        sock.sendall(answer(body))

    target = Target("p", serve(handle), "m")
    with pytest.raises(ProviderError) as caught:
        ADAPTERS["vllm"](upstream).send(target, asked("embeddings"), QUICK, "r")
    assert caught.value.error_class == "malformed_answer"


def test_anthropic_is_never_asked_for_vectors(wired: Any, simulator: Simulator) -> None:
    with pytest.raises(Untranslatable):
        wired("anthropic", frozenset({"embeddings"})).send(asked("embeddings"))
    assert simulator.last_request is None

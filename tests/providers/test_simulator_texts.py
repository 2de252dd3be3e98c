"""The simulator's completions and embeddings, and the headers of its answers, to official SDKs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import openai
import orjson
import pytest

from tests.providers.test_simulator import ask, blocking
from tests.providers.test_simulator_faults import read_all
from tokenhub.providers.simulator import Simulator

anthropic = pytest.importorskip("anthropic")

COMPLETIONS, EMBEDDINGS = "/v1/completions", "/v1/embeddings"


@pytest.fixture(params=["openai", "vllm", "vllm-old"])
def sdk(simulator: Simulator, request: pytest.FixtureRequest) -> Iterator[openai.OpenAI]:
    simulator.controls.apply({"dialect": request.param})
    with openai.OpenAI(base_url=simulator.url + "/v1", api_key="sk", max_retries=0) as client:
        yield client


def complete(sdk: openai.OpenAI, **fields: Any) -> Any:
    fields = {"model": "sim-fast", "prompt": "hello", **fields}
    return blocking(lambda: sdk.completions.create(**fields))


# --- completions --------------------------------------------------------------------------------


def test_whole_and_streamed_completions_are_the_same(sdk: openai.OpenAI) -> None:
    whole = complete(sdk, max_tokens=9)
    assert (whole.object, whole.choices[0].finish_reason) == ("text_completion", "length")
    assert whole.usage.completion_tokens == 9

    def read() -> list[Any]:
        return list(sdk.completions.create(
            model="sim-fast", prompt="hello", max_tokens=9, stream=True,
            stream_options={"include_usage": True},
        ))  # fmt: skip

    chunks = blocking(read)
    assert "".join(c.text for chunk in chunks for c in chunk.choices) == whole.choices[0].text
    assert [c.finish_reason for chunk in chunks for c in chunk.choices][-1] == "length"
    assert chunks[-1].usage.completion_tokens == 9


def test_the_default_limit_is_sixteen_tokens(sdk: openai.OpenAI) -> None:
    assert complete(sdk).usage.completion_tokens == 16


def test_several_prompts_with_several_choices_each_are_numbered(sdk: openai.OpenAI) -> None:
    got = complete(sdk, prompt=["one", "two"], n=2, best_of=3, max_tokens=5)
    assert [choice.index for choice in got.choices] == [0, 1, 2, 3]
    assert len({choice.text for choice in got.choices}) >= 2
    assert got.usage.completion_tokens == 2 * 3 * 5


def test_the_prompt_is_echoed_and_chances_are_told(sdk: openai.OpenAI) -> None:
    choice = complete(sdk, echo=True, logprobs=1, max_tokens=3, stop=["zzz"]).choices[0]
    assert choice.text.startswith("hello")
    assert "".join(choice.logprobs.tokens) == choice.text
    assert choice.logprobs.text_offset[:2] == [0, 5]
    assert complete(sdk, prompt=[1, 2, 3], max_tokens=0).choices[0].text == ""


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": ...}, "prompt"), ({"prompt": []}, None), ({"prompt": ["a", 1]}, None),
        ({"max_tokens": -1}, "max_tokens"), ({"logprobs": 6}, "logprobs"), ({"n": 0}, "n"),
        ({"best_of": 2, "n": 3}, None), ({"best_of": 2, "stream": True}, "best_of"),
        ({"echo": "yes"}, "echo"), ({"suffix": 1}, "suffix"), ({"temperature": 3}, "temperature"),
        ({"stream_options": {"include_usage": True}}, "stream_options"), ({"model": 1}, None),
        ({"logit_bias": []}, "logit_bias"), ({"presence_penalty": 3}, "presence_penalty"),
    ],
)  # fmt: skip
def test_a_bad_request_for_a_completion_is_refused(
    simulator: Simulator, fields: dict[str, Any], param: str | None
) -> None:
    body = {"model": "sim-fast", "prompt": "hello", **fields}
    body = {name: value for name, value in body.items() if value is not ...}
    status, parsed = ask(simulator, "POST", COMPLETIONS, body)
    assert (status, parsed["error"]["param"]) == (400, param)


# --- embeddings ---------------------------------------------------------------------------------


def embed(sdk: openai.OpenAI, given: Any, **fields: Any) -> Any:
    fields = {"model": "sim-fast", "input": given, **fields}
    return blocking(lambda: sdk.embeddings.create(**fields))


def test_vectors_follow_from_the_text_and_have_the_length_one(sdk: openai.OpenAI) -> None:
    got = embed(sdk, ["hello", "you", "hello"])  # the SDK asks for base64 and unpacks it
    first, other, again = (each.embedding for each in got.data)
    assert first == again != other
    assert len(first) == 1536
    assert math.isclose(math.hypot(*first), 1, rel_tol=1e-5)
    assert embed(sdk, "hello", encoding_format="float").data[0].embedding == first
    assert (got.usage.prompt_tokens, got.usage.total_tokens) == (5, 5)


def test_vectors_can_be_shorter_and_come_of_token_ids(sdk: openai.OpenAI) -> None:
    got = embed(sdk, [[1, 2], [3]], dimensions=8)
    assert [len(each.embedding) for each in got.data] == [8, 8]
    assert embed(sdk, [1, 2], dimensions=8).data[0].embedding == got.data[0].embedding
    assert got.usage.prompt_tokens == 3


@pytest.mark.parametrize(
    "fields",
    [
        {"input": None}, {"input": ""}, {"input": ["a", ""]}, {"input": []}, {"input": [[]]},
        {"input": ["a"] * 2049}, {"dimensions": 0}, {"dimensions": 9999}, {"user": 1},
        {"encoding_format": "hex"}, {"stream": True}, {"model": None},
    ],
)  # fmt: skip
def test_a_bad_request_for_embeddings_is_refused(
    simulator: Simulator, fields: dict[str, Any]
) -> None:
    body = {"model": "sim-fast", "input": "hello", **fields}
    status, parsed = ask(simulator, "POST", EMBEDDINGS, body)
    assert status == 400
    assert parsed["error"]["type"] == "invalid_request_error"


# --- faults, keys, headers ----------------------------------------------------------------------


@pytest.mark.parametrize("path", [COMPLETIONS, EMBEDDINGS])
def test_they_fail_on_demand_and_ask_for_a_key(simulator: Simulator, path: str) -> None:
    body = {"model": "fault-503", "prompt": "hello", "input": "hello"}
    assert ask(simulator, "POST", path, body)[0] == 503
    cut = read_all(simulator, path, {**body, "model": "fault-cut"})
    assert cut.startswith(b"HTTP/1.1 200")
    simulator.controls.apply({"api_key": "sk-right"})
    assert ask(simulator, "POST", path, {**body, "model": "sim-fast"})[0] == 401
    assert simulator.stats.by_path[path] == 3


def test_a_streamed_completion_opens_before_it_fails(simulator: Simulator) -> None:
    body = {"model": "fault-error-after-start", "prompt": "hello", "stream": True}
    got = read_all(simulator, COMPLETIONS, body).decode()
    datas = [orjson.loads(line[6:]) for line in got.splitlines() if line.startswith("data: ")]
    assert datas[0]["choices"][0]["text"] == ""
    assert datas[1]["error"]["type"] == "overloaded_error" or datas[1]["error"]["message"]


def test_counting_fails_on_demand_too(simulator: Simulator) -> None:
    messages = [{"role": "user", "content": "hello"}]
    with anthropic.Anthropic(base_url=simulator.url, api_key="sk", max_retries=0) as sdk:
        count = sdk.messages.count_tokens
        assert blocking(lambda: count(model="sim-fast", messages=messages)).input_tokens == 2
        with pytest.raises(anthropic.RateLimitError):
            blocking(lambda: count(model="fault-429", messages=messages))


def test_answers_have_the_headers_of_their_provider(simulator: Simulator) -> None:
    body = {"model": "sim-fast", "prompt": "hello"}
    head = read_all(simulator, COMPLETIONS, body).partition(b"\r\n\r\n")[0].decode()
    for name in ("x-request-id: req_", "openai-processing-ms: ", "x-ratelimit-limit-requests: ",
                 "x-ratelimit-remaining-tokens: ", "x-ratelimit-reset-requests: "):  # fmt: skip
        assert name in head
    simulator.controls.apply({"dialect": "vllm"})
    head = read_all(simulator, COMPLETIONS, body).partition(b"\r\n\r\n")[0].decode()
    assert "ratelimit" not in head
    message = {"model": "sim-fast", "max_tokens": 5, "stream": True,
               "messages": [{"role": "user", "content": "hello"}]}  # fmt: skip
    head = read_all(simulator, "/v1/messages", message, anthropic_version="2023-06-01").decode()
    for name in ("request-id: req_", "anthropic-ratelimit-requests-limit: ",
                 "anthropic-ratelimit-input-tokens-remaining: ",
                 "anthropic-ratelimit-tokens-reset: "):  # fmt: skip
        assert name in head

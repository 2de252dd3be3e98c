"""What every adapter promises, whatever it speaks, against a simulator that speaks it, too."""

from __future__ import annotations

import logging
from typing import Any

import orjson
import pytest

from tests.providers.conftest import Caller, Serve, answer, play
from tokenhub.dialects.sse import events
from tokenhub.domain import ChatRequest
from tokenhub.errors import ProviderError
from tokenhub.providers.base import Target, Timeouts
from tokenhub.providers.calls import normalise_base_url
from tokenhub.providers.errors import ERROR_CLASSES
from tokenhub.providers.simulator import Simulator
from tokenhub.providers.upstream import Upstream


def text_of(datas: list[bytes]) -> str:
    chunks = [orjson.loads(data) for data in datas if data and data != b"[DONE]"]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk.get("choices", ())]
    return "".join(delta.get("content") or "" for delta in deltas)


def read(caller: Caller, **fields: Any) -> list[bytes]:
    """The data of all events that a caller of the gateway would see."""
    stream = caller.stream(**fields)
    shown = [stream.meter.pass_on(block) for block in stream]
    shown.append(b"" if shown[-1] else stream.meter.finish())
    return [data for block in shown for _, data in events(block)]


def headers_of(simulator: Simulator) -> dict[str, str]:
    assert simulator.last_request is not None
    return simulator.last_request.headers


# --- answers ------------------------------------------------------------------------------------


def test_a_whole_answer_is_a_chat_completion(any_caller: Caller) -> None:
    got = any_caller.send()
    assert orjson.loads(got.body) == got.parsed
    assert got.parsed["object"] == "chat.completion"
    assert got.parsed["choices"][0]["message"]["content"]
    assert got.parsed["choices"][0]["finish_reason"] == "stop"
    assert got.usage is not None
    assert got.usage.input_tokens > 0
    assert got.usage.output_tokens == got.parsed["usage"]["completion_tokens"]


def test_a_stream_says_the_same_in_chunks(any_caller: Caller) -> None:
    whole = any_caller.send().parsed["choices"][0]["message"]["content"]
    datas = read(any_caller)
    assert datas[-1] == b"[DONE]"
    assert text_of(datas) == whole


def test_a_stream_ends_with_its_usage_and_its_reason(any_caller: Caller) -> None:
    stream = any_caller.stream()
    for block in stream:
        stream.meter.pass_on(block)
    assert stream.is_done
    assert stream.meter.finish_reason == "stop"
    assert stream.meter.usage is not None
    assert stream.meter.usage.output_tokens > 0


@pytest.mark.parametrize("wants_usage", [False, True])
def test_the_usage_chunk_is_shown_to_whoever_asked(any_caller: Caller, wants_usage: bool) -> None:
    body = {
        "model": "asked-for",
        "messages": [{"role": "user", "content": "hello"}],
        "stream_options": {"include_usage": wants_usage},
    }
    request = ChatRequest(
        body=body, model="asked-for", stream=True, input_tokens=2, wants_usage=wants_usage
    )
    target = Target("provider", any_caller.url, "sim-fast")
    stream = any_caller.adapter.stream(target, request, any_caller.timeouts, "req-1")
    shown = b"".join(stream.meter.pass_on(block) for block in stream)
    usages = [
        orjson.loads(data).get("usage") for _, data in events(shown) if data not in (b"", b"[DONE]")
    ]
    assert any(usages) == wants_usage


def test_the_time_to_the_first_event_is_measured(any_caller: Caller) -> None:
    assert 100 <= any_caller.stream("fault-slow-100").ttft_ms < 2000
    assert 100 <= any_caller.send("fault-slow-100").ttft_ms < 2000


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b"<html>", b'"text"', b"\xff"])
def test_a_body_that_is_no_json_object_is_malformed(
    serve: Serve, upstream: Upstream, dialect: str, body: bytes
) -> None:
    caller = play(serve, upstream, dialect, answer(body))
    assert caller.error("any").error_class == "malformed_answer"


def test_a_stream_that_is_answered_with_json_is_malformed(
    serve: Serve, upstream: Upstream, dialect: str
) -> None:
    caller = play(serve, upstream, dialect, answer())
    assert caller.error("any", stream=True).error_class == "malformed_answer"


@pytest.mark.parametrize("data", [b"", b"data: [1]\n\n", b"data: x\n\n", b"event: ping\n\n"])
def test_a_stream_that_begins_with_nonsense_is_malformed(
    serve: Serve, upstream: Upstream, dialect: str, data: bytes
) -> None:
    reply = answer(data).replace(b"application/json", b"text/event-stream")
    error = play(serve, upstream, dialect, reply).error("any", stream=True)
    assert (error.error_class, error.sent) == ("malformed_answer", True)


# --- requests -----------------------------------------------------------------------------------


def test_the_head_names_us_and_the_request(any_caller: Caller, simulator: Simulator) -> None:
    any_caller.send()
    headers = headers_of(simulator)
    assert headers["x-request-id"] == "req-1"
    assert headers["user-agent"].startswith("tokenhub/")
    assert headers["accept-encoding"] == "identity"
    assert headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/", "/v2"])
def test_any_common_spelling_of_the_base_url_works(
    any_caller: Caller, simulator: Simulator, path: str
) -> None:
    any_caller.url = simulator.url + path
    assert any_caller.send().status == 200


@pytest.mark.parametrize(
    ("given_url", "normal"),
    [
        ("https://api.example.com/v1/", "https://api.example.com"),
        ("https://api.example.com/openai/v1", "https://api.example.com/openai"),
        ("https://api.example.com/v2", "https://api.example.com"),
        (" http://host:8000// ", "http://host:8000"),
        ("http://host/v10", "http://host/v10"),
    ],
)
def test_a_base_url_loses_its_version_and_trailing_slashes(given_url: str, normal: str) -> None:
    assert normalise_base_url(given_url) == normal
    assert normalise_base_url(normal) == normal


def test_a_base_url_that_is_none_is_unreachable(any_caller: Caller) -> None:
    any_caller.url = "not a url"
    error = any_caller.error("any")
    assert (error.error_class, error.sent) == ("unreachable", False)


@pytest.mark.parametrize("key", ["sk\r\nX-Evil: 1", "sk-ключ", "sk\x00"])
def test_a_key_that_is_no_header_value_is_never_sent(
    any_caller: Caller, simulator: Simulator, key: str
) -> None:
    any_caller.api_key = key
    error = any_caller.error("any")
    assert (error.error_class, error.sent) == ("auth_failed", False)
    assert simulator.last_request is None


# --- errors -------------------------------------------------------------------------------------

# fault: error_class, next_step, the provider's status, may it have charged
TABLE = {
    "400": ("client_error", "stop", 400, False),
    "413": ("client_error", "stop", 413, False),
    "422": ("client_error", "stop", 422, False),
    "418": ("client_error", "stop", 418, False),
    "context": ("context_overflow", "failover", 400, False),
    "401": ("auth_failed", "cooldown", 401, False),
    "402": ("quota_exhausted", "cooldown", 402, False),
    "403": ("forbidden", "cooldown", 403, False),
    "404": ("model_not_found", "cooldown", 404, False),
    "408": ("timeout", "failover", 408, True),
    "409": ("conflict", "failover", 409, False),
    "429": ("rate_limited", "cooldown", 429, False),
    "500": ("server_error", "failover", 500, False),
    "502": ("server_error", "failover", 502, False),
    "503": ("server_error", "failover", 503, False),
    "504": ("timeout", "failover", 504, True),
    "529": ("overloaded", "failover", 529, False),
    "redirect": ("redirect", "failover", 302, False),
    "content-type": ("malformed_answer", "failover", None, True),
    "malformed": ("malformed_answer", "failover", None, True),
    "drop": ("connection_closed", "failover", None, True),
    "huge": ("response_too_large", "failover", None, True),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", TABLE)
def test_every_fault_has_its_row(any_caller: Caller, fault: str, stream: bool) -> None:
    error = any_caller.error("fault-" + fault, stream=stream)
    assert (error.error_class, error.next_step, error.status, error.sent) == TABLE[fault]
    relayed = error.next_step == "stop" or error.error_class == "context_overflow"
    assert bool(error.body) == relayed, "the text of others is never passed on"
    if relayed:
        told = orjson.loads(error.body)["error"]
        assert {"message", "type", "code", "param"} <= set(told), "OpenAI's envelope"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "fault",
    ["hang", "silent-after-2", "cut", "error-frame", "error-frame-2", "error-after-start"],
)
def test_what_breaks_is_in_the_table_and_may_have_been_charged(
    any_caller: Caller, fault: str, stream: bool
) -> None:
    any_caller.timeouts = Timeouts(1, 0.2, 0.2, 2)
    error = any_caller.error("fault-" + fault, stream=stream)
    row = ERROR_CLASSES[error.error_class]
    assert (error.next_step, error.sent) == (row.next_step, True)
    assert row.counts
    assert error.body == b""


@pytest.mark.parametrize("stream", [False, True])
def test_an_overflow_tells_the_window_and_the_size_of_the_prompt(
    any_caller: Caller, stream: bool
) -> None:
    error = any_caller.error("fault-overflow-8192-9000", stream=stream)
    assert error.error_class == "context_overflow"
    assert (error.context_tokens, error.input_tokens) == (8192, 9000)


def test_a_cut_is_told_from_an_end(any_caller: Caller) -> None:
    assert any_caller.error("fault-cut").error_class == "answer_cut"
    stream = any_caller.stream("fault-cut")
    assert len(events(next(stream))) >= 3
    with pytest.raises(ProviderError) as caught:
        next(stream)
    assert caught.value.error_class == "stream_cut"
    assert not stream.is_done


def test_an_error_event_after_the_first_comes_after_the_events_before_it(
    any_caller: Caller,
) -> None:
    stream = any_caller.stream("fault-error-frame-2")
    assert len(events(next(stream))) >= 2
    with pytest.raises(ProviderError) as caught:
        next(stream)
    assert caught.value.next_step == "failover"


def test_the_time_to_wait_is_passed_on(any_caller: Caller, simulator: Simulator) -> None:
    simulator.set_fault("sim-fast", "429", retry_after_secs=7)
    assert any_caller.error("sim-fast").retry_after_seconds == 7
    simulator.set_fault("sim-fast", "503", retry_after_secs=2.5)
    assert any_caller.error("sim-fast", stream=True).retry_after_seconds == 2.5
    simulator.set_fault("sim-fast", "500")
    assert any_caller.error("sim-fast").retry_after_seconds is None


@pytest.mark.parametrize("status", [200, 404])
def test_an_error_body_that_never_ends_does_not_hold_the_caller(
    serve: Serve, upstream: Upstream, dialect: str, status: int
) -> None:
    head = f"HTTP/1.1 {status} X\r\nContent-Length: 100\r\n\r\n".encode() + b"{"
    caller = play(serve, upstream, dialect, head)
    caller.timeouts = Timeouts(connect_secs=1, first_byte_secs=1, idle_secs=0.3, total_secs=0.6)
    expected = "answer_idle" if status == 200 else "model_not_found"
    assert caller.error("any").error_class == expected


def test_nobody_listens(any_caller: Caller) -> None:
    any_caller.url = "http://127.0.0.1:1"
    error = any_caller.error("any")
    row = ERROR_CLASSES["unreachable"]
    assert (error.error_class, error.next_step, error.sent) == (row.name, row.next_step, False)


def test_no_key_is_in_a_log_or_an_error(
    any_caller: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    any_caller.api_key = "sk-secret"
    for fault in ("fault-401", "fault-500", "fault-drop"):
        error = any_caller.error(fault)
        assert "sk-secret" not in str(error) + repr(vars(error))
    assert "sk-secret" not in caplog.text

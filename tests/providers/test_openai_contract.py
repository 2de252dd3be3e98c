"""What is sent to a provider of the OpenAI dialect, and what each of its answers means."""

from __future__ import annotations

import copy
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.providers.conftest import Caller, Serve, answer, scripted
from tokenhub.domain import ChatRequest
from tokenhub.errors import ProviderError
from tokenhub.providers import ADAPTERS
from tokenhub.providers.base import Adapter, Target, Timeouts, events
from tokenhub.providers.openai import (
    RETRY_AFTER_SECS_MAX,
    OpenAIAdapter,
    classify,
    fault_of,
    normalise_base_url,
    parse_retry_after,
)
from tokenhub.providers.simulator import Simulator
from tokenhub.providers.upstream import Upstream

NOW = 1_800_000_000.0  # 2027-01-15 08:00:00 UTC


def sent(simulator: Simulator) -> dict[str, Any]:
    assert simulator.last_request is not None
    body: dict[str, Any] = orjson.loads(simulator.last_request.body)
    return body


# --- requests -----------------------------------------------------------------------------------


def test_a_request_carries_the_upstream_name_and_everything_the_caller_said(
    caller: Caller, simulator: Simulator
) -> None:
    caller.send("upstream-name", temperature=0.5, some_new_field={"a": [1]}, stream=False)
    assert sent(simulator) == {
        "model": "upstream-name",
        "messages": [{"role": "user", "content": "hello"}],
        "temperature": 0.5,
        "some_new_field": {"a": [1]},
    }


def test_a_stream_asks_for_usage_and_keeps_the_callers_stream_options(
    caller: Caller, simulator: Simulator
) -> None:
    list(caller.stream(stream_options={"include_usage": False, "include_obfuscation": False}))
    assert sent(simulator)["stream"] is True
    assert sent(simulator)["stream_options"] == {
        "include_usage": True, "include_obfuscation": False,
    }  # fmt: skip
    list(caller.stream(stream_options=None))
    assert sent(simulator)["stream_options"] == {"include_usage": True}


def test_the_callers_body_is_left_as_it_was(caller: Caller, simulator: Simulator) -> None:
    body = {"model": "a", "messages": [], "stream": True, "stream_options": {"x": 1}}
    before = copy.deepcopy(body)
    request = ChatRequest(body=body, model="a", stream=True, input_tokens=0)
    target = Target("p", simulator.url, "sim-fast")
    list(caller.adapter.stream(target, request, caller.timeouts, "r"))
    caller.adapter.send(target, request, caller.timeouts, "r")
    assert body == before


def test_the_head_names_us_the_request_and_the_key(caller: Caller, simulator: Simulator) -> None:
    caller.send()
    assert simulator.last_request is not None
    headers = simulator.last_request.headers
    assert headers["authorization"] == "Bearer sk-provider"
    assert headers["x-request-id"] == "req-1"
    assert headers["user-agent"].startswith("tokenhub/")
    assert headers["accept-encoding"] == "identity"
    assert headers["content-type"] == "application/json"


def test_without_a_key_no_authorization_is_sent(caller: Caller, simulator: Simulator) -> None:
    caller.api_key = None
    caller.send()
    assert simulator.last_request is not None
    assert "authorization" not in simulator.last_request.headers


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/", "/v2"])
def test_any_common_spelling_of_the_base_url_works(
    caller: Caller, simulator: Simulator, path: str
) -> None:
    caller.url = simulator.url + path
    assert caller.send().status == 200


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


def test_the_registry_makes_adapters_that_know_their_health_url(upstream: Upstream) -> None:
    adapter: Adapter = ADAPTERS["openai"](upstream)
    assert isinstance(adapter, OpenAIAdapter)
    assert adapter.health_url("http://host/v1/") == "http://host/v1/models"


def test_a_base_url_that_is_none_is_unreachable(caller: Caller) -> None:
    caller.url = "not a url"
    error = caller.error("any")
    assert (error.error_class, error.sent) == ("unreachable", False)


# --- answers ------------------------------------------------------------------------------------


def test_an_answer_keeps_its_bytes_and_is_parsed_once(serve: Serve, upstream: Upstream) -> None:
    body = b'{ "choices": [],\n "usage": {"prompt_tokens": 3.0, "completion_tokens": 4} }'
    got = scripted(serve, upstream, answer(body)).send()
    assert got.body == body
    assert got.parsed["choices"] == []
    assert got.usage is not None
    assert (got.usage.input_tokens, got.usage.output_tokens) == (3, 4)


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b"<html>", b'"text"', b"\xff"])
def test_a_body_that_is_no_json_object_is_malformed(
    serve: Serve, upstream: Upstream, body: bytes
) -> None:
    assert scripted(serve, upstream, answer(body)).error("any").error_class == "malformed_answer"


def test_a_stream_that_is_answered_with_json_is_malformed(serve: Serve, upstream: Upstream) -> None:
    caller = scripted(serve, upstream, answer())
    assert caller.error("any", stream=True).error_class == "malformed_answer"


def test_a_streamed_answer_has_its_usage_and_its_end(caller: Caller) -> None:
    stream = caller.stream()
    datas = [data for block in stream for _, data in events(block)]
    assert datas[-1] == b"[DONE]"
    assert orjson.loads(datas[-2])["usage"]["completion_tokens"] == len(datas) - 4
    assert stream.is_done


def test_the_time_to_the_first_event_is_measured(caller: Caller) -> None:
    assert 100 <= caller.stream("fault-slow-100").ttft_ms < 2000


# --- errors -------------------------------------------------------------------------------------

# fault: error_class, next_step, the provider's status, may it have charged
TABLE = {
    "400": ("client_error", "stop", 400, False),
    "413": ("client_error", "stop", 413, False),
    "422": ("client_error", "stop", 422, False),
    "418": ("client_error", "stop", 418, False),
    "context": ("context_overflow", "failover", 400, False),
    "policy": ("content_policy", "stop", 400, False),
    "401": ("auth_failed", "cooldown", 401, False),
    "402": ("quota_exhausted", "cooldown", 402, False),
    "quota": ("quota_exhausted", "cooldown", 429, False),
    "403": ("forbidden", "cooldown", 403, False),
    "404": ("model_not_found", "cooldown", 404, False),
    "408": ("timeout", "failover", 408, True),
    "409": ("conflict", "failover", 409, False),
    "429": ("rate_limited", "cooldown", 429, False),
    "500": ("server_error", "failover", 500, True),
    "502": ("server_error", "failover", 502, True),
    "503": ("server_error", "failover", 503, True),
    "529": ("overloaded", "failover", 529, True),
    "redirect": ("redirect", "failover", 302, False),
    "content-type": ("malformed_answer", "failover", None, True),
    "malformed": ("malformed_answer", "failover", None, True),
    "error-frame": ("server_error", "failover", None, True),
    "drop": ("connection_closed", "failover", None, True),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", TABLE)
def test_every_fault_has_its_row(caller: Caller, fault: str, stream: bool) -> None:
    error = caller.error("fault-" + fault, stream=stream)
    assert (error.error_class, error.next_step, error.status, error.sent) == TABLE[fault]
    relayed = error.next_step == "stop" or error.error_class == "context_overflow"
    assert bool(error.body) == relayed, "the text of others is never passed on"


def test_a_cut_is_told_from_an_end(caller: Caller) -> None:
    assert caller.error("fault-cut").error_class == "answer_cut"
    stream = caller.stream("fault-cut")
    assert len(events(next(stream))) == 3
    with pytest.raises(ProviderError) as caught:
        next(stream)
    assert caught.value.error_class == "stream_cut"
    assert not stream.is_done


def test_an_error_event_after_the_first_comes_after_the_events_before_it(caller: Caller) -> None:
    stream = caller.stream("fault-error-frame-2")
    assert len(events(next(stream))) == 2
    with pytest.raises(ProviderError) as caught:
        next(stream)
    assert caught.value.error_class == "server_error"


def judge(status: int | None, error: object) -> tuple[str, str]:
    body = orjson.dumps({"error": error})
    found = classify(status, orjson.loads(body), body)
    return found.error_class, found.next_step


@pytest.mark.parametrize(
    ("status", "error", "verdict"),
    [
        (403, {"code": "insufficient_quota"}, "quota_exhausted"),
        (400, {"type": "insufficient_quota", "code": None}, "quota_exhausted"),
        (400, {"code": "content_filter", "type": None}, "content_policy"),
        (401, {"type": "invalid_request_error", "code": "invalid_api_key"}, "auth_failed"),
        (404, {"type": "invalid_request_error", "code": None}, "model_not_found"),
        (429, {"type": "tokens", "code": "rate_limit_exceeded"}, "rate_limited"),
        (400, {"type": "invalid_request_error", "code": 400}, "client_error"),
        (503, {"type": "invalid_request_error"}, "server_error"),
        (400, {"message": "This model's maximum context length is 8192"}, "context_overflow"),
        (400, {"message": "max_tokens is too large: 9000"}, "context_overflow"),
        (413, {"message": "Prompt is too long"}, "context_overflow"),
        (400, {"message": "unknown parameter"}, "client_error"),
        (500, {"message": "context length"}, "server_error"),
        (400, "a bare text", "client_error"),
        (None, {"type": "overloaded_error"}, "overloaded"),
        (None, {"code": 429, "message": "slow down"}, "rate_limited"),
        (None, {"code": "502"}, "server_error"),
        (None, {"code": 200}, "server_error"),
        (None, {"type": "invalid_request_error"}, "client_error"),
        (None, {"message": "?"}, "server_error"),
        (None, "a bare text", "server_error"),
    ],
)
def test_words_come_before_the_status_and_the_text_comes_last(
    status: int | None, error: object, verdict: str
) -> None:
    assert judge(status, error)[0] == verdict


def test_fields_at_the_top_are_read_like_an_error_object() -> None:
    body = (
        b'{"object":"error","message":"maximum context length","type":"BadRequestError","code":400}'
    )
    assert classify(400, orjson.loads(body), body).error_class == "context_overflow"


def test_an_overflow_is_seen_in_a_body_that_is_no_json() -> None:
    assert classify(400, None, b"input is too long").error_class == "context_overflow"


def test_a_fault_that_stops_always_has_a_status_to_answer_with() -> None:
    found = fault_of(b'{"error":{"type":"invalid_request_error","message":"no"}}')
    assert found is not None
    assert (found.next_step, found.status) == ("stop", 400)
    assert b"invalid_request_error" in found.body


@pytest.mark.parametrize("data", [b"[DONE]", b'{"choices":[]}', b'{"error":null}', b'{"error":""}'])
def test_what_reports_no_error_is_no_fault(data: bytes) -> None:
    assert fault_of(data) is None


def test_the_time_to_wait_is_passed_on(caller: Caller, simulator: Simulator) -> None:
    simulator.set_fault("sim-fast", "429", retry_after_secs=7)
    assert caller.error("sim-fast").retry_after_seconds == 7
    simulator.set_fault("sim-fast", "503", retry_after_secs=2.5)
    assert caller.error("sim-fast", stream=True).retry_after_seconds == 2.5
    simulator.set_fault("sim-fast", "500")
    assert caller.error("sim-fast").retry_after_seconds is None


@pytest.mark.parametrize(
    ("milliseconds", "value", "seconds"),
    [
        ("", "7", 7.0),
        ("", "0.5", 0.5),
        ("", "0", 0.0),
        ("1500", "7", 1.5),
        ("x", "7", 7.0),
        ("", "Fri, 15 Jan 2027 08:01:00 GMT", 60.0),
        ("", "Fri, 15 Jan 2027 07:59:00 GMT", 0.0),
        ("", "Fri, 15 Jan 2037 08:00:00 GMT", RETRY_AFTER_SECS_MAX),
        ("", "86400", RETRY_AFTER_SECS_MAX),
        ("", "-5", None),
        ("", "nan", None),
        ("", "soon", None),
        ("", "", None),
    ],
)
def test_retry_after_is_read_in_every_form(
    milliseconds: str, value: str, seconds: float | None
) -> None:
    assert parse_retry_after(milliseconds, value, NOW) == seconds


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_retry_after_breaks_the_reader(milliseconds: str, value: str) -> None:
    seconds = parse_retry_after(milliseconds, value, NOW)
    assert seconds is None or 0 <= seconds <= RETRY_AFTER_SECS_MAX


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
ERROR_FIELDS = st.dictionaries(st.sampled_from(["code", "type", "message", "param"]), JSON)


@given(st.none() | st.integers(400, 599), JSON | ERROR_FIELDS.map(lambda e: {"error": e}))
def test_any_error_body_has_a_verdict(status: int | None, payload: object) -> None:
    error = classify(status, payload, orjson.dumps(payload))
    assert error.error_class
    assert error.next_step != "stop" or error.status is not None


@pytest.mark.parametrize("status", [200, 404])
def test_an_error_body_that_never_ends_does_not_hold_the_caller(
    serve: Serve, upstream: Upstream, status: int
) -> None:
    head = f"HTTP/1.1 {status} X\r\nContent-Length: 100\r\n\r\n".encode() + b"{"
    caller = scripted(serve, upstream, head, stay=True)
    caller.timeouts = Timeouts(connect_secs=1, first_byte_secs=1, idle_secs=0.3, total_secs=0.6)
    expected = "answer_idle" if status == 200 else "model_not_found"
    assert caller.error("any").error_class == expected

"""What is sent to Anthropic, and what its answers mean to a caller of the OpenAI dialect."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import gevent
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.providers.conftest import Caller, Serve, answer, play, read_request
from tokenhub.dialects.sse import events
from tokenhub.errors import ProviderError, Untranslatable
from tokenhub.providers import ADAPTERS, base
from tokenhub.providers.anthropic import CHAT
from tokenhub.providers.base import Target
from tokenhub.providers.errors import ERROR_CLASSES
from tokenhub.providers.simulator import Simulator
from tokenhub.providers.upstream import Upstream

TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}
STOP = b'{"type": "message_stop"}'
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude",
    "content": [{"type": "text", "text": "hello"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 5, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 20,
        "output_tokens": 7,
    },
}  # fmt: skip


@pytest.fixture
def claude(caller: Caller, upstream: Upstream) -> Caller:
    caller.adapter = ADAPTERS["anthropic"](upstream)
    return caller


def told(kind: str, message: str = "no") -> bytes:
    """Anthropic's error envelope."""
    return orjson.dumps({"type": "error", "error": {"type": kind, "message": message}})


def event(kind: str, data: bytes) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)


def play_events(serve: Serve, upstream: Upstream, *written: bytes) -> Caller:
    reply = answer(b"".join(written)).replace(b"application/json", b"text/event-stream")
    return play(serve, upstream, "anthropic", reply)


# --- requests -----------------------------------------------------------------------------------


def test_messages_are_posted_with_the_key_and_the_version(
    claude: Caller, simulator: Simulator
) -> None:
    claude.send("upstream-name", stop="x")
    assert simulator.last_request is not None
    assert simulator.last_request.path == "/v1/messages"
    assert simulator.last_request.headers["x-api-key"] == "sk-provider"
    assert simulator.last_request.headers["anthropic-version"] == "2023-06-01"
    assert "authorization" not in simulator.last_request.headers
    body = orjson.loads(simulator.last_request.body)
    assert (body["model"], body["stop_sequences"]) == ("upstream-name", ["x"])
    assert body["stream"] is False


def test_a_stream_is_asked_for(claude: Caller, simulator: Simulator) -> None:
    list(claude.stream())
    assert simulator.last_request is not None
    assert orjson.loads(simulator.last_request.body)["stream"] is True


def test_the_key_s_line_is_there_without_a_key(claude: Caller, simulator: Simulator) -> None:
    claude.api_key = None
    claude.error("fault-401")
    assert simulator.last_request is not None
    assert simulator.last_request.headers["x-api-key"] == ""


def test_what_cannot_be_said_is_refused_before_anything_is_sent(
    claude: Caller, simulator: Simulator
) -> None:
    for ask in (claude.send, claude.stream):
        with pytest.raises(Untranslatable):
            ask(n=2)
    assert simulator.last_request is None


def test_what_is_dropped_is_named(claude: Caller) -> None:
    assert "seed" in claude.send(seed=5).dropped
    stream = claude.stream(seed=5)
    list(stream)
    assert "seed" in stream.dropped
    assert claude.send().dropped == ()


# --- answers ------------------------------------------------------------------------------------


def test_cached_tokens_are_part_of_the_input(serve: Serve, upstream: Upstream) -> None:
    got = play(serve, upstream, "anthropic", answer(orjson.dumps(MESSAGE))).send()
    assert got.usage is not None
    assert (got.usage.input_tokens, got.usage.output_tokens) == (125, 7)
    assert (got.usage.cache_read_tokens, got.usage.cache_write_tokens) == (100, 20)
    assert got.parsed["usage"]["prompt_tokens"] == 125
    assert abs(got.parsed["created"] - time.time()) < 60


def test_a_tool_is_called_whole_and_streamed(claude: Caller) -> None:
    asked: dict[str, Any] = {"tools": [TOOL], "tool_choice": "required"}
    choice = claude.send(**asked).parsed["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"][0]["function"]["name"] == "find"
    stream = claude.stream(**asked)
    for block in stream:
        stream.meter.pass_on(block)
    assert stream.meter.finish_reason == "tool_calls"


@pytest.mark.parametrize(
    "body",
    [{}, {"type": "message"}, {"content": "text"}, {"content": None}, {"choices": []}],
)
def test_what_is_no_message_is_malformed(
    serve: Serve, upstream: Upstream, body: dict[str, Any]
) -> None:
    error = play(serve, upstream, "anthropic", answer(orjson.dumps(body))).error("any")
    assert (error.error_class, error.sent) == ("malformed_answer", True)


@pytest.mark.parametrize(
    "content",
    [[None], [7], [{}], [{"type": "text"}], [{"type": "tool_use"}], [{"type": []}],
     [{"type": "tool_use", "id": 1, "name": None, "input": []}], [{"type": "new_thing"}]],
)  # fmt: skip
def test_odd_content_is_an_answer_or_malformed_but_no_crash(
    serve: Serve, upstream: Upstream, content: list[Any]
) -> None:
    body = orjson.dumps({**MESSAGE, "content": content, "usage": {"input_tokens": "x"}})
    got = play(serve, upstream, "anthropic", answer(body)).send()
    assert orjson.loads(got.body)["object"] == "chat.completion"


def test_arguments_keep_integers_of_any_size(serve: Serve, upstream: Upstream) -> None:
    use = b'{"type":"tool_use","id":"toolu_1","name":"f","input":{"id":123456789012345678901234}}'
    body = orjson.dumps({**MESSAGE, "content": []}).replace(
        b'"content":[]', b'"content":[%b]' % use
    )
    got = play(serve, upstream, "anthropic", answer(body)).send()
    function = got.parsed["choices"][0]["message"]["tool_calls"][0]["function"]
    assert function["arguments"] == '{"id":123456789012345678901234}'
    assert got.usage is not None
    assert got.usage.input_tokens == 125


@pytest.mark.parametrize("number", ["7", "1" * 5000])
def test_an_input_nested_beyond_reason_is_malformed(
    serve: Serve, upstream: Upstream, number: str
) -> None:
    deep = '{"a":' * 1000 + number + "}" * 1000
    body = '{"content":[{"type":"tool_use","id":"toolu_1","name":"f","input":' + deep + "}]}"
    error = play(serve, upstream, "anthropic", answer(body.encode())).error("any")
    assert error.error_class == "malformed_answer"


def test_an_error_that_comes_with_a_200_is_one(serve: Serve, upstream: Upstream) -> None:
    caller = play(serve, upstream, "anthropic", answer(told("overloaded_error")))
    error = caller.error("any")
    assert (error.error_class, error.next_step, error.sent) == ("overloaded", "failover", True)


# --- errors -------------------------------------------------------------------------------------


def test_a_relayed_error_speaks_the_caller_s_dialect(serve: Serve, upstream: Upstream) -> None:
    body = told("invalid_request_error", "max_tokens: Field required")
    error = play(serve, upstream, "anthropic", answer(body, "400 Bad Request")).error("any")
    assert error.next_step == "stop"
    envelope = orjson.loads(error.body)
    assert set(envelope) == {"error"}
    assert envelope["error"]["type"] == "invalid_request_error"
    assert "Field required" in envelope["error"]["message"]


def test_an_error_page_of_somebody_in_between_is_judged_by_its_status(
    serve: Serve, upstream: Upstream
) -> None:
    reply = answer(b"<html>413 Request Entity Too Large</html>", "413 X")  # Cloudflare's
    error = play(serve, upstream, "anthropic", reply).error("any")
    assert (error.error_class, error.next_step, error.status) == ("client_error", "stop", 413)
    assert isinstance(orjson.loads(error.body)["error"], dict)


@pytest.mark.parametrize(
    ("message", "numbers"),
    [
        ("prompt is too long: 208656 tokens > 200000 maximum", (200000, 208656)),
        (
            (
                "input length and `max_tokens` exceed context limit: 188059 + 20000 > 200000, "
                "decrease input length or `max_tokens` and try again"
            ),
            (200000, 188059),
        ),
    ],
)
def test_an_overflow_has_its_numbers_and_an_envelope_to_relay(
    serve: Serve, upstream: Upstream, message: str, numbers: tuple[int, int]
) -> None:
    reply = answer(told("invalid_request_error", message), "400 X")
    error = play(serve, upstream, "anthropic", reply).error("any")
    assert (error.error_class, error.next_step) == ("context_overflow", "failover")
    assert (error.context_tokens, error.input_tokens) == numbers
    assert orjson.loads(error.body)["error"]["message"] == message


STREAMED = {
    "overloaded_error": "overloaded",
    "rate_limit_error": "rate_limited",
    "api_error": "server_error",
    "invalid_request_error": "client_error",
    "timeout_error": "timeout",
    "authentication_error": "auth_failed",
    "permission_error": "forbidden",
    "billing_error": "quota_exhausted",
    "not_found_error": "model_not_found",
    "request_too_large": "client_error",
    "an_error_of_tomorrow": "server_error",
}


@pytest.mark.parametrize(("kind", "error_class"), STREAMED.items())
def test_an_error_event_is_judged_by_its_type(
    serve: Serve, upstream: Upstream, kind: str, error_class: str
) -> None:
    error = play_events(serve, upstream, event("error", told(kind))).error("any", stream=True)
    assert error.error_class == error_class
    assert error.next_step == ERROR_CLASSES[error_class].next_step
    if error.next_step == "stop":
        assert error.status == 400
        assert set(orjson.loads(error.body)) == {"error"}


START = orjson.dumps({"type": "message_start", "message": {**MESSAGE, "content": []}})
PING = b'{"type": "ping"}'
TEXT = orjson.dumps(
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}}
)


def test_an_error_event_after_a_ping_can_still_fail_over(serve: Serve, upstream: Upstream) -> None:
    caller = play_events(
        serve,
        upstream,
        event("message_start", START),
        event("ping", PING),
        event("error", told("overloaded_error", "Overloaded")),
    )
    assert error_of(caller.stream).error_class == "overloaded"


def test_an_error_event_after_some_text_is_seen(serve: Serve, upstream: Upstream) -> None:
    caller = play_events(
        serve,
        upstream,
        event("message_start", START) + event("content_block_delta", TEXT),
        event("error", told("overloaded_error", "Overloaded")),
    )
    stream = caller.stream()
    assert len(events(next(stream))) == 2
    assert error_of(lambda: next(stream)).error_class == "overloaded"


def test_an_error_event_without_an_error_is_one(serve: Serve, upstream: Upstream) -> None:
    caller = play_events(serve, upstream, event("error", b'{"type": "error", "error": null}'))
    assert error_of(caller.stream).error_class == "server_error"


def test_a_model_that_thinks_long_is_waited_for(
    serve: Serve, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "OPENING_SECS", 0.1)
    opening = event("message_start", START) + event("ping", PING)

    def handle(sock: Any) -> None:
        read_request(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + opening)
        gevent.sleep(0.3)
        sock.sendall(event("content_block_delta", TEXT) + event("message_stop", STOP))

    url = serve(handle)
    caller = Caller(upstream, url)
    caller.adapter = ADAPTERS["anthropic"](upstream)
    began = time.monotonic()
    stream = caller.stream()
    assert 0.05 < time.monotonic() - began < 0.25
    assert b"".join(stream) == (
        opening + event("content_block_delta", TEXT) + event("message_stop", STOP)
    )


def error_of(call: Callable[[], object]) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        call()
    return caught.value


def test_text_about_errors_is_no_error(serve: Serve, upstream: Upstream) -> None:
    delta = {"type": "text_delta", "text": '{"type":"error","error":{}}'}
    data = orjson.dumps({"type": "content_block_delta", "index": 0, "delta": delta})
    assert CHAT.fault_of(data) is None


@pytest.mark.parametrize("data", [b'{"choices":[]}', b"[]", b"{", b"[DONE]", b'{"type":7}'])
def test_what_is_no_event_of_this_dialect_is_malformed(data: bytes) -> None:
    found = CHAT.fault_of(data)
    assert found is not None
    assert (found.error_class, found.sent) == ("malformed_answer", True)


@given(st.binary(max_size=60) | st.builds(told, st.text(max_size=20), st.text(max_size=40)))
def test_any_event_is_judged(data: bytes) -> None:
    found = CHAT.fault_of(data)
    assert found is None or found.error_class in ERROR_CLASSES


# --- models -------------------------------------------------------------------------------------


def test_a_list_that_goes_on_is_told_in_the_log(
    serve: Serve, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "tokenhub.providers")
    body = orjson.dumps({"data": [{"type": "model", "id": "claude"}], "has_more": True})
    caller = play(serve, upstream, "anthropic", answer(body))
    target = Target("my-claude", caller.url, "any", None)
    found = caller.adapter.list_models(target, caller.timeouts)
    assert [each.id for each in found] == ["claude"]
    assert [record.getMessage() for record in caplog.records] == ["model list is cut short"]

"""Where a request stands in a trace, what its spans say, and what becomes of spans nobody takes."""

from __future__ import annotations

import logging
import random
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.collector_kit import plain
from tokenhub.config import Settings
from tokenhub.domain import Attempt, Outcome, Span, Trace, Usage
from tokenhub.errors import ConfigError, ProviderError
from tokenhub.tracing import Asked, Tracer, find_tracer, note_answer, note_stream, trace_lines
from tokenhub.tracing.context import trace_of
from tokenhub.tracing.spans import attempt_span, export_request, request_span
from tokenhub.tracing.tracer import BATCH_MAX, QUEUE_MAX

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
LINE = re.compile(rb"traceparent: 00-([0-9a-f]{32})-([0-9a-f]{16})-0[01]\r\n(tracestate: .*\r\n)?")


def begin(parent: str = "", state: str = "", ratio: float = 1.0) -> Trace:
    return trace_of(parent, state, rng=random.Random(3), ratio=ratio)


def test_a_callers_trace_goes_on_and_its_decision_to_sample_counts():
    found = begin(PARENT, "vendor=1,other=2")
    assert found.id == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert (found.parent_id, found.state) == ("00f067aa0ba902b7", "vendor=1,other=2")
    assert found.is_sampled
    assert found.span_id not in ("", found.parent_id)
    assert not begin(PARENT[:-2] + "00").is_sampled
    assert begin(PARENT, ratio=0).is_sampled
    assert begin("01" + PARENT[2:] + "-and-more").parent_id  # a later version may say more


@pytest.mark.parametrize(
    "parent",
    [
        "", "x", PARENT.upper(), PARENT + "-more", "ff" + PARENT[2:], PARENT + "," + PARENT,
        "00-" + "0" * 32 + "-00f067aa0ba902b7-01", PARENT[:36] + "0" * 16 + "-01",
    ],
)  # fmt: skip
def test_what_is_no_trace_begins_a_new_one(parent):
    found = begin(parent, "vendor=1")
    assert (found.parent_id, found.state) == ("", "")
    assert re.fullmatch("[0-9a-f]{32}", found.id)


def test_of_new_traces_the_share_is_sampled_that_was_asked_for():
    rng = random.Random(1)
    sampled = sum(trace_of("", "", rng=rng, ratio=0.25).is_sampled for _ in range(4000))
    assert 900 < sampled < 1100
    assert not begin(ratio=0).is_sampled


@given(st.text(max_size=80) | st.just(PARENT), st.text(max_size=600))
def test_whatever_a_caller_sends_the_lines_for_a_provider_are_lines(parent, state):
    trace = begin(parent, state)
    assert LINE.fullmatch(trace_lines(trace, "00f067aa0ba902b8"))


TRACE = Trace("1" * 32, "2" * 16, "3" * 16, "a=b")
ASKED = Asked("anthropic", "claude", "https://api.example.com/v1")


def make_outcome(**fields: Any) -> Outcome:
    given = {
        "request_id": "req_1", "key_id": "key_1", "endpoint": "/v1/messages", "mode": "normal",
        "stream": True, "started_at": 1_700_000_000_000, "latency_ms": 70, "status": 200,
        "ending": "rescued", "model_id": "m", "provider_id": "p", "cost_nanousd": 1500,
        "requested_model": "alias", "trace": TRACE, "trace_id": TRACE.id,
    }  # fmt: skip
    return Outcome(**{**given, **fields})


def make_attempt(**fields: Any) -> Attempt:
    return Attempt(**{"model_id": "m", "provider_id": "p", "started_ms": 5, "duration_ms": 60,
                      "span": Span("4" * 16), **fields})  # fmt: skip


def test_the_servers_span_says_who_asked_what_and_how_it_ended():
    span = request_span(make_outcome(attempts=[make_attempt()]), TRACE)
    assert (span["traceId"], span["spanId"], span["parentSpanId"]) == (
        TRACE.id, TRACE.span_id, TRACE.parent_id,
    )  # fmt: skip
    assert (span["kind"], span["name"], span["traceState"]) == (2, "POST /v1/messages", "a=b")
    assert int(span["endTimeUnixNano"]) - int(span["startTimeUnixNano"]) == 70_000_000
    found = plain(span["attributes"])
    assert found["http.response.status_code"] == 200
    assert found["tokenhub.outcome"] == "rescued"
    assert found["tokenhub.cost_usd"] == 1.5e-6
    assert found["tokenhub.attempts"] == 1
    assert "status" not in span
    assert "error.type" not in found


def test_an_attempts_span_has_the_names_of_the_conventions():
    usage = Usage(100, 20, cache_read_tokens=60, cache_write_tokens=10, reasoning_tokens=5)
    note = Span("4" * 16, "claude-4", ("stop",))
    attempt = make_attempt(usage=usage, status=200, span=note, reason="routed", response_bytes=9)
    span = attempt_span(make_outcome(), TRACE, attempt, ASKED)
    assert (span["parentSpanId"], span["spanId"], span["kind"]) == (TRACE.span_id, "4" * 16, 3)
    assert span["name"] == "chat claude"
    assert span["startTimeUnixNano"] == str(1_700_000_000_005 * 10**6)
    found = plain(span["attributes"])
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": "claude",
        "gen_ai.response.model": "claude-4",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.usage.cache_read.input_tokens": 60,
        "gen_ai.usage.cache_creation.input_tokens": 10,
        "gen_ai.usage.reasoning.output_tokens": 5,
        "server.address": "api.example.com",
        "server.port": 443,
        "tokenhub.reason": "routed",
        "http.response.body.size": 9,
    }
    assert {name: found.get(name) for name in expected} == expected


def test_who_failed_is_an_error_and_who_was_stopped_is_not():
    def status_of(**fields: Any) -> Any:
        span = attempt_span(make_outcome(), TRACE, make_attempt(**fields), ASKED)
        return span.get("status")

    assert status_of(error_class="timeout", next_step="failover") == {
        "code": 2, "message": "timeout",
    }  # fmt: skip
    assert status_of(error_class="hedge_lost") is None
    cut = request_span(make_outcome(ending="cut", error_class="stream_cut"), TRACE)
    assert cut["status"]["code"] == 2
    refused = request_span(make_outcome(ending="refused", status=400), TRACE)
    assert "status" not in refused


def test_who_has_been_deleted_since_still_has_a_span():
    span = attempt_span(make_outcome(), TRACE, make_attempt(), Asked("", "m", ""))
    found = plain(span["attributes"])
    assert (found["gen_ai.request.model"], "server.address" in found) == ("m", False)


@pytest.mark.parametrize(
    ("parsed", "model", "reasons"),
    [
        ({"model": "x", "choices": [{"finish_reason": "stop"}, {"finish_reason": None}]}, "x",
         ("stop",)),
        ({"model": "y", "stop_reason": "end_turn"}, "y", ("end_turn",)),
        ({"model": 7, "choices": [None, {"finish_reason": 3}]}, "", ()),
        ({"model": "z" * 900, "status": "completed"}, "z" * 200, ("completed",)),
    ],
)  # fmt: skip
def test_an_answer_is_asked_for_its_model_and_its_end(parsed, model, reasons):
    span = Span("1")
    note_answer(span, parsed)
    assert (span.response_model, span.finish_reasons) == (model, reasons)
    note_stream(span, "length")
    assert span.finish_reasons == ("length",)


class Scripted(Tracer):
    """A tracer whose collector follows a script: statuses, or errors; then 200."""

    def __init__(self, *script: Any) -> None:
        settings = Settings.from_env({"TOKENHUB_OTEL_ENABLED": "true"})
        found = find_tracer(settings, lambda *_: ASKED)
        assert found is not None
        self.__dict__.update(found.__dict__)
        self.script = list(script)
        self.sent: list[bytes] = []

    def _post(self, body: bytes) -> int:
        step = self.script.pop(0) if self.script else 200
        if isinstance(step, BaseException):
            raise step
        self.sent.append(body)
        return int(step)

    def fill(self, count: int) -> None:
        """As `take` does it, without the greenlet."""
        self._greenlet = self._greenlet or object()
        for _ in range(count):
            self.take(make_outcome())

    @property
    def waiting(self) -> int:
        return len(self._queue)


def test_a_queue_that_is_full_drops_and_counts_and_never_waits():
    tracer = Scripted()
    tracer.fill(QUEUE_MAX + 5)
    assert (tracer.waiting, tracer.dropped) == (QUEUE_MAX, 5)
    assert tracer._flush()
    assert (tracer.waiting, len(tracer.sent)) == (0, QUEUE_MAX // BATCH_MAX)


def test_what_nobody_wants_to_see_is_not_even_queued():
    tracer = Scripted()
    tracer.take(make_outcome(trace=None))
    tracer.take(make_outcome(trace=Trace("1" * 32, "2" * 16, is_sampled=False)))
    assert (tracer.waiting, tracer._greenlet) == (0, None)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the tracer logs."""
    monkeypatch.setattr(logging.getLogger("tokenhub"), "propagate", True)
    caplog.set_level("INFO", "tokenhub.tracing")
    return lambda: [each.getMessage() for each in caplog.records]


@pytest.mark.parametrize("trouble", [503, 429, ProviderError("no", error_class="unreachable")])
def test_a_batch_that_may_be_taken_later_is_kept_and_it_is_said_once(trouble, said):
    tracer = Scripted(trouble, trouble)
    tracer.fill(3)
    assert not tracer._flush()
    assert not tracer._flush()
    assert (tracer.waiting, tracer.dropped) == (3, 0)
    assert tracer._flush()
    assert tracer.waiting == 0
    assert said() == ["spans are not taken", "spans are taken again"]


def test_a_batch_that_is_refused_for_good_is_dropped_and_counted(said):
    tracer = Scripted(400)
    tracer.fill(3)
    assert tracer._flush()
    assert (tracer.waiting, tracer.dropped) == (0, 3)
    assert said() == ["spans are not taken"]


def test_the_settings_name_the_collector():
    def endpoint(text: str) -> tuple[str, int, bool, bytes]:
        settings = Settings.from_env(
            {"TOKENHUB_OTEL_ENABLED": "true", "TOKENHUB_OTEL_ENDPOINT": text}
        )
        found = find_tracer(settings, lambda *_: ASKED)
        assert found is not None
        origin = found._endpoint.origin
        return origin.host, origin.port, origin.is_tls, found._endpoint.head.split(b" ")[1]

    assert endpoint("localhost:4318") == ("localhost", 4318, False, b"/v1/traces")
    assert endpoint("https://otel.example/in/") == (
        "otel.example", 443, True, b"/in/v1/traces",
    )  # fmt: skip
    assert endpoint("http://x:1/v1/traces") == ("x", 1, False, b"/v1/traces")
    with pytest.raises(ConfigError, match="TOKENHUB_OTEL_ENDPOINT"):
        endpoint("http://user:word@x")
    assert find_tracer(Settings.from_env({}), lambda *_: ASKED) is None


@pytest.mark.parametrize("text", ["x", "a b=c", "=x", "a=ü", "a=b\tc"])
def test_headers_that_are_none_stop_the_start_and_are_not_repeated(text):
    variables = {"TOKENHUB_OTEL_ENABLED": "true", "TOKENHUB_OTEL_HEADERS": text}
    with pytest.raises(ConfigError) as caught:
        find_tracer(Settings.from_env(variables), lambda *_: ASKED)
    assert str(caught.value) == "TOKENHUB_OTEL_HEADERS: must be name=value,name=value"


def test_what_is_exported_names_the_service():
    [resource] = export_request([], "mine")["resourceSpans"]
    assert plain(resource["resource"]["attributes"])["service.name"] == "mine"

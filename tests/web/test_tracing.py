"""Traces of real requests: what a collector gets, what a provider is told, and what a collector
that is dead costs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

from tests.collector_kit import Collector, collecting
from tests.endpoints_kit import CHAT, EMBEDDING, MESSAGE
from tests.web.world_kit import World, model_of, open_world
from tokenhub.tracing import tracer as tracing

TRACE_ID, CALLERS_SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE_ID}-{CALLERS_SPAN}-01"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


Open = Callable[..., World]


@pytest.fixture
def opened(
    tmp_path: Path, sqlite_template: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Open]:
    monkeypatch.setattr(tracing, "FLUSH_SECS", 0.05)
    made: list[Any] = []

    def make(endpoint: str, **variables: str) -> World:
        data = tmp_path / "data"
        data.mkdir(mode=0o700)
        given = {"TOKENHUB_OTEL_ENABLED": "true", "TOKENHUB_OTEL_ENDPOINT": endpoint, **variables}
        made.append(open_world(data, sqlite_template, **given))
        found: World = made[-1].__enter__()
        return found

    yield make
    for each in made:
        each.__exit__(None, None, None)
    shutil.rmtree(tmp_path / "data", ignore_errors=True)


def told(world: World) -> tuple[str, str]:
    """The trace that the provider was told last."""
    last = world.simulator.last_request
    assert last is not None
    headers = {name.lower(): value for name, value in last.headers.items()}
    return headers.get("traceparent", ""), headers.get("tracestate", "")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("endpoint", "kind"),
    [(CHAT, "openai"), (CHAT, "anthropic"), (MESSAGE, "anthropic"), (MESSAGE, "vllm")],
    ids=["chat-through", "chat-translated", "messages-through", "messages-translated"],
)
def test_a_request_is_a_span_of_its_callers_trace_and_each_attempt_one_below(
    opened, collector, endpoint, kind, stream
):
    world = opened(collector.address)
    body = endpoint.body(model_of(endpoint, kind), stream=stream)
    answer = world.post(endpoint, body, traceparent=PARENT, tracestate="a=b")
    assert answer.status_code == 200
    answer.get_data()
    server, client = collector.wait(2)
    assert (server["traceId"], server["parentSpanId"]) == (TRACE_ID, CALLERS_SPAN)
    assert (client["traceId"], client["parentSpanId"]) == (TRACE_ID, server["spanId"])
    assert told(world) == (f"00-{TRACE_ID}-{client['spanId']}-01", "a=b")
    ours, theirs = server["attributes"], client["attributes"]
    assert ours["tokenhub.request_id"] == answer.headers["X-Request-Id"]
    assert (ours["tokenhub.outcome"], ours["http.response.status_code"]) == ("answered", 200)
    assert theirs["gen_ai.operation.name"] == "chat"
    assert theirs["gen_ai.provider.name"] == kind
    assert theirs["gen_ai.request.model"] == "sim-fast"
    assert theirs["gen_ai.usage.input_tokens"] > 0
    assert theirs["gen_ai.usage.output_tokens"] > 0
    assert theirs["gen_ai.response.finish_reasons"]
    assert theirs["server.address"] == "127.0.0.1"
    assert theirs["http.response.body.size"] > 0
    assert theirs["tokenhub.cost_usd"] == ours["tokenhub.cost_usd"] > 0
    if not stream:
        assert theirs["gen_ai.response.model"]


def test_a_failover_has_a_span_for_each_attempt_and_a_refusal_one_for_itself(opened, collector):
    world = opened(collector.address, TOKENHUB_OTEL_HEADERS="x-team=blue, x-more=1")
    world.simulator.controls.apply({"model": "sim-fast", "fault": "503", "times": 1})
    assert world.post(CHAT, CHAT.body("", {})).status_code == 200
    spans = collector.wait(3)
    assert [each["kind"] for each in spans] == [2, 3, 3]
    _, failed, answered = spans
    assert failed["status"]["code"] == 2
    assert failed["attributes"]["error.type"]
    assert failed["attributes"]["tokenhub.next_step"]
    assert "status" not in answered
    assert collector.headers["x_team"] == "blue"

    assert world.post(CHAT, CHAT.body("nobody")).status_code == 404
    refused = collector.wait(4)[3]
    assert refused["attributes"]["tokenhub.outcome"] == "refused"
    assert "parentSpanId" not in refused


def test_the_row_of_a_request_has_its_trace(opened, collector):
    world = opened(collector.address)
    taken: list[str] = []
    record = world.app.services.recorder.record

    def watch(outcome: Any, **more: Any) -> None:
        taken.append(outcome.trace_id)
        record(outcome, **more)

    world.app.services.gateway.recorder.record = watch
    world.post(EMBEDDING, EMBEDDING.body("vectors"), traceparent=PARENT)
    world.post(CHAT, CHAT.body("of-openai"))
    assert taken[0] == TRACE_ID
    assert len(taken[1]) == 32
    assert collector.wait(4)[1]["attributes"]["gen_ai.operation.name"] == "embeddings"


def test_a_trace_that_its_caller_does_not_want_is_handed_on_and_not_exported(opened, collector):
    world = opened(collector.address)
    world.post(CHAT, CHAT.body("of-openai"), traceparent=PARENT[:-2] + "00")
    assert told(world)[0].startswith(f"00-{TRACE_ID}-")
    assert told(world)[0].endswith("-00")
    gevent.sleep(0.2)
    assert collector.posts == 0


def time_of(world: World, count: int) -> float:
    began = time.monotonic()
    for _ in range(count):
        assert world.post(CHAT, CHAT.body("of-openai")).status_code == 200
    return time.monotonic() - began


def test_a_collector_that_is_dead_costs_no_request_anything(opened):
    world = opened("127.0.0.1:9")  # nobody listens there
    assert time_of(world, 20) < 5.0
    gevent.sleep(0.2)
    assert time_of(world, 1) < 1.0


def test_a_collector_that_hangs_costs_no_request_anything_and_does_not_hold_up_the_end(
    opened, collector, monkeypatch
):
    monkeypatch.setattr(tracing, "CLOSE_SECS", 0.2)
    collector.delay_secs = 60.0
    world = opened(collector.address)
    time_of(world, 2)
    with gevent.Timeout(5):
        while not collector.posts:
            gevent.sleep(0.02)
    assert time_of(world, 10) < 5.0
    began = time.monotonic()
    world.app.services.tracer.close()
    assert time.monotonic() - began < 2.0


def test_without_tracing_nothing_is_told_to_anybody(tmp_path, sqlite_template):
    with open_world(tmp_path, sqlite_template) as world:
        world.post(CHAT, CHAT.body("of-openai"), traceparent=PARENT, tracestate="a=b")
        assert told(world) == ("", "")
        assert world.app.services.tracer is None


def test_what_is_waiting_is_sent_at_the_end(opened, collector, monkeypatch):
    monkeypatch.setattr(tracing, "FLUSH_SECS", 60.0)
    world = opened(collector.address)
    world.post(CHAT, CHAT.body("of-openai"))
    gevent.sleep(0.05)
    assert collector.posts == 0
    world.app.services.tracer.close()
    assert len(collector.spans) == 2

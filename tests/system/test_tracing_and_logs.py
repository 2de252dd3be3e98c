"""Two real workers: each sends its spans and writes its lines, and both heed a new level."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.system.harness import PROVIDER_KEY, Gateway, chat_body, running, wait_until

pytestmark = pytest.mark.system

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"
CHAT = "/v1/chat/completions"


class Collector(ThreadingHTTPServer):
    """Keeps the spans that it is sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Taker)
        self.spans: list[Any] = []
        self.text = ""


class Taker(BaseHTTPRequestHandler):
    """One post."""

    def do_POST(self) -> None:
        collector = self.server
        assert isinstance(collector, Collector)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        collector.text += body.decode()
        [resource] = json.loads(body)["resourceSpans"]
        collector.spans += resource["scopeSpans"][0]["spans"]
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    found = Collector()
    thread = threading.Thread(target=found.serve_forever, daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()
    thread.join()


def lines(gateway: Gateway) -> list[dict[str, Any]]:
    """The access log so far."""
    found = []
    for text in gateway.log_text().splitlines():
        if text.startswith("{"):
            line = json.loads(text)
            if line["logger"] == "tokenhub.access":
                found.append(line)
    return found


def test_spans_lines_and_levels_of_two_workers(tmp_path, collector):
    extra = {
        "TOKENHUB_OTEL_ENABLED": "true",
        "TOKENHUB_OTEL_ENDPOINT": f"127.0.0.1:{collector.server_port}",
        "TOKENHUB_ACCESS_LOG": "all",
    }
    dsn = f"sqlite:///{tmp_path / 'hub.sqlite'}"
    with running(tmp_path, dsn, workers=2, extra=extra) as gateway:
        assert lines(gateway) == []  # at `warn`
        assert gateway.admin("PUT", "log-level", {"level": "info"})["saved"]
        wait_until(lambda: _both_log(gateway), what="both workers heed the level")

        for worker in gateway.each_worker():
            for stream in (False, True):
                body = chat_body("sim-fast", stream=stream)
                reply = worker.ask("POST", CHAT, body, token=gateway.key, traceparent=PARENT)
                assert reply.status == 200
            worker.close()
        spans = wait_until(lambda: len(collector.spans) >= 8 and collector.spans, what="spans")
        assert {each["traceId"] for each in spans} == {TRACE_ID}
        assert sorted(each["kind"] for each in spans) == [2] * 4 + [3] * 4
        ours = {each["spanId"] for each in spans if each["kind"] == 2}
        assert {each["parentSpanId"] for each in spans if each["kind"] == 3} == ours

        assert gateway.ask("POST", CHAT, chat_body("x"), token="tokenhub_wrong").status == 401
        _say_nonsense(gateway.port)
        _leave_early(gateway)
        statuses = {200, 401, 400, 0}
        wait_until(lambda: statuses <= {each["status"] for each in lines(gateway)}, what="lines")
        served = [each for each in lines(gateway) if each.get("outcome") == "answered"]
        assert len(served) == 4
        assert {each["trace_id"] for each in served} == {TRACE_ID}
        assert {each["api_key_id"] for each in served} == {gateway.key_id}
        logged = gateway.admin("GET", "logs")
        ids = {each["request_id"] for each in logged["logs"]}
        assert {each["request_id"] for each in served} <= ids
        assert PROVIDER_KEY not in gateway.log_text() + collector.text
        assert gateway.key not in gateway.log_text() + collector.text


def _both_log(gateway: Gateway) -> bool:
    """Whether a request to each worker has a line now."""
    count = len(lines(gateway))
    for worker in gateway.each_worker():
        assert worker.ask("GET", "/healthz").status == 200
        worker.close()
    healthy = [each for each in lines(gateway)[count:] if each["path"] == "/healthz"]
    return len(healthy) == gateway.workers


def _say_nonsense(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), 5) as client:
        client.sendall(b"this is\x00 no HTTP\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 400")


def _leave_early(gateway: Gateway) -> None:
    """Ask for a slow answer, and go."""
    gateway.simulate(model="sim-fast", fault="hang", times=1)
    body = json.dumps(chat_body("sim-fast")).encode()
    head = (
        f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {gateway.key}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", gateway.port), 5) as client:
        client.sendall(head.encode() + body)
        wait_until(lambda: gateway.simulator_stats()["open_requests"] > 0)

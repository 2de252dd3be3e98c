"""Beginning and end of our worker processes, under every signal that ends one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.harness import ROOT, wait_until
from tests.system.wire_harness import Server, is_alive, serving

pytestmark = pytest.mark.system


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path) as found:
        wait_until(lambda: len(found.worker_pids()) == 2)
        yield found


def ends_within(server: Server, secs: float) -> bool:
    started = time.monotonic()
    assert server.process.wait(20) == 0
    return time.monotonic() - started < secs


def test_both_workers_answer(server):
    for pid in server.worker_pids():
        assert server.client_of(pid).get("/echo").json["pid"] == pid


def test_sigterm_without_requests_ends_at_once_and_tells_the_application(server):
    idle = [server.client_of(pid) for pid in server.worker_pids()]
    silent = server.connect()
    time.sleep(0.1)
    server.signal(signal.SIGTERM)
    assert all(client.is_closed() for client in [*idle, silent])
    assert ends_within(server, 1.5)
    assert sorted(server.notes()) == ["on_drain", "on_drain", "on_stop", "on_stop"]


def test_sigterm_lets_a_stream_finish_and_closes_the_idle(server):
    busy, idle = (server.client_of(server.worker_pids()[0]) for _ in range(2))
    busy.send("GET /stream?n=6&pause=0.5 HTTP/1.1\r\nHost: hub\r\n\r\n")
    busy.head()
    assert busy.chunk() == b"line 0\n"
    server.signal(signal.SIGTERM)
    started = time.monotonic()
    assert idle.is_closed()
    assert time.monotonic() - started < 0.7
    assert b"".join(iter(busy.chunk, b"")).endswith(b"line 5\n")
    assert busy.is_closed()
    assert ends_within(server, 1.5)
    # The stream had ended before the application was told.
    assert server.notes()[-1] == "on_stop"
    assert server.notes().count("stream: close") == 1


def test_an_answer_during_the_drain_says_that_the_connection_ends(server):
    client = server.connect().send("GET /sleep?secs=1 HTTP/1.1\r\nHost: hub\r\n\r\n")
    time.sleep(0.2)
    server.signal(signal.SIGTERM)
    answer = client.answer()
    assert (answer.body, answer.closes) == (b"awake", True)
    assert client.is_closed()


def test_the_drain_has_an_end(tmp_path):
    with serving(tmp_path, "--graceful-timeout", "1") as server:
        client = server.connect().send("GET /stream?pause=30 HTTP/1.1\r\nHost: hub\r\n\r\n")
        client.head()
        server.signal(signal.SIGTERM)
        assert client.chunk() == b"line 0\n"
        with pytest.raises(EOFError):
            client.chunk()
        assert ends_within(server, 3)
        assert "stream: close" in server.notes()
        assert server.notes()[-1] == "on_stop"


def test_sigint_ends_at_once_whatever_runs(server):
    client = server.connect().send("GET /sleep HTTP/1.1\r\nHost: hub\r\n\r\n")
    time.sleep(0.2)
    server.signal(signal.SIGINT)
    assert client.is_closed()
    assert ends_within(server, 2.5)
    assert server.notes().count("on_stop") == 2


def test_a_killed_worker_is_replaced(server):
    killed = server.worker_pids()[0]
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: not is_alive(killed), 5)
    wait_until(lambda: len(server.worker_pids()) == 2, 5)
    assert killed not in server.worker_pids()
    for pid in server.worker_pids():
        assert server.client_of(pid).get("/echo").status == 200


def test_workers_end_when_the_arbiter_is_killed(server):
    pids = server.worker_pids()
    client = server.connect().send("GET /sleep HTTP/1.1\r\nHost: hub\r\n\r\n")
    time.sleep(0.2)
    server.process.kill()
    server.process.wait(5)
    wait_until(lambda: not any(is_alive(pid) for pid in pids), 2.5)
    assert client.is_closed()


def test_no_request_is_lost_while_a_worker_ends(server):
    """Requests on fresh connections; the kernel hands them to whichever worker still listens."""
    ending = server.worker_pids()[0]
    for number in range(200):
        if number == 50:
            os.kill(ending, signal.SIGTERM)
        client = server.connect()
        assert client.get("/echo").status == 200
        client.close()


def test_max_requests_replaces_a_worker_without_losing_a_request(tmp_path):
    with serving(tmp_path, "--max-requests", "20", "--workers", "1") as server:
        seen = set()
        for _ in range(60):
            client = server.connect()
            seen.add(client.get("/echo").json["pid"])
            client.close()
        assert len(seen) >= 3


def test_an_access_log_is_written_when_asked_for(tmp_path):
    log = tmp_path / "access"
    with serving(tmp_path, "--access-logfile", str(log)) as server:
        size = len(server.connect().get("/echo?x=1").body)
        server.connect().get("/boom")
        wait_until(lambda: log.read_text().count("\n") == 2)
    whole, failed = log.read_text().splitlines()
    assert f'"GET /echo?x=1 HTTP/1.1" 200 {size} ' in whole
    assert '"GET /boom HTTP/1.1" 500 ' in failed


@pytest.mark.parametrize(
    "options", [("--certfile", __file__), ("--proxy-protocol", "auto"), ("--protocol", "uwsgi")]
)
def test_settings_that_we_do_not_serve_stop_the_start(options):
    module = "tests.system.echo_app"
    place = ("-c", f"python:{module}", "-b", "127.0.0.1:0")
    done = subprocess.run(
        [sys.executable, "-m", "gunicorn", *place, *options, f"{module}:app"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode != 0
    assert "not supported" in done.stderr

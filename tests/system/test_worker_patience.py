"""How long our worker class waits for clients, and how it notices that they have left."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.system.harness import wait_until
from tests.system.wire_harness import Client, Server, serving

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("worker")) as found:
        yield found


@pytest.fixture
def client(server: Server) -> Client:
    return server.connect()


@pytest.fixture
def fresh_notes(server: Server) -> Server:
    server.notes_path.write_text("")
    return server


def test_a_head_that_does_not_end_is_cut_at_its_deadline(client):
    started = time.monotonic()
    client.send("GET /x HTTP/1.1\r\n")
    while not client.rest and time.monotonic() - started < 3:
        client.socket.settimeout(0.1)
        client.send("X: y\r\n")  # dripping does not help
        try:
            client.more()
        except TimeoutError:
            continue
    client.socket.settimeout(8)
    answer = client.answer()
    assert (answer.status, answer.json["error"]["code"]) == (408, "request_timeout")
    assert 0.4 < time.monotonic() - started < 2


def test_a_body_that_does_not_end_is_a_408(client):
    started = time.monotonic()
    client.send("POST /echo HTTP/1.1\r\nHost: hub\r\nContent-Length: 10\r\n\r\nabc")
    time.sleep(0.5)
    client.send("d")
    answer = client.answer()
    assert (answer.status, answer.json["error"]["code"]) == (408, "request_timeout")
    assert answer.json["error"]["type"] == "timeout_error"
    assert 0.6 < time.monotonic() - started < 2
    assert client.is_closed()


def test_an_idle_connection_is_closed_after_the_keep_alive_time(client):
    assert client.get("/echo").status == 200
    started = time.monotonic()
    assert client.is_closed()
    assert 0.8 < time.monotonic() - started < 3


def test_a_connection_that_never_asks_is_closed_too(client):
    assert client.is_closed()


def test_a_client_still_sending_gets_the_refusal_and_no_reset(server):
    for framing in ("Content-Length: 200000000", "Transfer-Encoding: chunked"):
        client = server.connect()
        client.send(f"POST /refuse HTTP/1.1\r\nHost: hub\r\n{framing}\r\n\r\n")
        for _ in range(30):  # reads nothing before it has sent all of this
            client.send(b"100000\r\n" + b"x" * 0x100000 + b"\r\n")
        answer = client.answer()
        assert (answer.status, answer.body, answer.closes) == (413, b"too large", True)
        assert client.is_closed()


def test_an_unread_body_of_modest_size_does_not_cost_the_connection(client):
    client.send("POST /refuse HTTP/1.1\r\nHost: hub\r\nContent-Length: 1000000\r\n\r\n")
    assert not client.answer().closes
    client.send(b"x" * 1_000_000)
    assert client.get("/echo").status == 200


def test_an_unread_body_that_stays_away_costs_the_connection(client):
    client.send("POST /refuse HTTP/1.1\r\nHost: hub\r\nContent-Length: 10\r\n\r\n")
    assert client.answer().status == 413
    assert client.is_closed()


EXPECT = "POST /{} HTTP/1.1\r\nHost: hub\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"


def test_100_continue_is_sent_when_the_body_is_wanted(client):
    assert client.send(EXPECT.format("echo")).answer().status == 100
    assert client.send("hello").answer().json["body"] == "hello"
    assert client.get("/echo").status == 200


def test_100_continue_is_not_sent_when_the_body_is_refused(client):
    answer = client.send(EXPECT.format("refuse")).answer()
    assert (answer.status, answer.closes) == (413, True)
    client.close()


def test_100_continue_is_not_sent_when_the_body_is_here(client):
    assert client.send(EXPECT.format("echo") + "hello").answer().status == 200


@pytest.mark.parametrize(
    "request_text",
    [
        "GET /sleep HTTP/1.1\r\nHost: hub\r\n\r\n",
        "POST /sleep HTTP/1.1\r\nHost: hub\r\nContent-Length: 3\r\n\r\nabc",
        "POST /sleep?unread=1 HTTP/1.1\r\nHost: hub\r\nContent-Length: 3\r\n\r\nabc",
        "GET /sleep HTTP/1.0\r\n\r\n",
    ],
)
def test_a_client_that_leaves_is_noticed_while_the_application_waits(fresh_notes, request_text):
    client = fresh_notes.connect().send(request_text)
    time.sleep(0.1)
    client.close()
    wait_until(lambda: fresh_notes.notes() == ["sleep: client closed"], 1)


@pytest.mark.parametrize("framing", ["Content-Length: 200000", "Transfer-Encoding: chunked"])
def test_a_client_that_leaves_after_a_slow_body_is_noticed(fresh_notes, framing):
    body = b"x" * 200_000 if "Length" in framing else b"3\r\nabc\r\n0\r\n\r\n"
    client = fresh_notes.connect().send(f"POST /sleep HTTP/1.1\r\nHost: hub\r\n{framing}\r\n\r\n")
    time.sleep(0.05)
    client.send(body)
    time.sleep(0.1)
    client.close()
    wait_until(lambda: fresh_notes.notes() == ["sleep: client closed"], 1)


def test_a_client_that_leaves_in_the_middle_of_a_stream_is_noticed(fresh_notes):
    client = fresh_notes.connect().send("GET /stream?pause=20 HTTP/1.1\r\nHost: hub\r\n\r\n")
    client.head()
    assert client.chunk() == b"line 0\n"
    client.close()
    expected = ["stream: client closed", "stream: close"]
    wait_until(lambda: fresh_notes.notes() == expected, 1)


def test_a_client_that_leaves_while_it_is_sent_to_is_noticed(fresh_notes):
    client = fresh_notes.connect().send("GET /large?mib=64 HTTP/1.1\r\nHost: hub\r\n\r\n")
    client.head()
    client.close()
    assert fresh_notes.connect().get("/echo").status == 200


def test_half_closing_counts_as_leaving(fresh_notes):
    client = fresh_notes.connect().send("GET /sleep HTTP/1.1\r\nHost: hub\r\n\r\n")
    client.socket.shutdown(1)
    wait_until(lambda: fresh_notes.notes() == ["sleep: client closed"], 1)
    assert client.is_closed()


def test_a_client_that_leaves_in_the_middle_of_its_body_harms_nobody(server):
    client = server.connect()
    client.send("POST /echo HTTP/1.1\r\nHost: hub\r\nContent-Length: 10\r\n\r\nabc")
    client.close()
    assert server.connect().get("/echo").status == 200


def test_a_pipelined_request_is_not_taken_for_a_leaving_client(fresh_notes):
    client = fresh_notes.connect().send("GET /sleep?secs=0.3 HTTP/1.1\r\nHost: hub\r\n\r\n")
    time.sleep(0.1)
    client.send("GET /echo HTTP/1.1\r\nHost: hub\r\n\r\n")
    assert client.answer().body == b"awake"
    assert client.answer().status == 200
    assert fresh_notes.notes() == []


@pytest.mark.parametrize("end", ["hint=1", "length=7"])
def test_who_leaves_with_a_complete_answer_is_not_thrown_at(fresh_notes, end):
    client = fresh_notes.connect()
    client.send(f"GET /stream?n=1&pause=0.4&{end} HTTP/1.1\r\nHost: hub\r\n\r\n")
    started = time.monotonic()
    assert client.answer().body == b"line 0\n"  # though the application is not at its end
    assert time.monotonic() - started < 0.3
    client.close()
    wait_until(lambda: fresh_notes.notes(), 2)
    assert fresh_notes.notes() == ["stream: close"]


def test_clients_that_close_right_after_an_answer_are_never_thrown_at(fresh_notes):
    for _ in range(200):
        client = fresh_notes.connect()
        client.get("/stream")
        client.close()
    wait_until(lambda: len(fresh_notes.notes()) >= 200, 5)
    assert set(fresh_notes.notes()) == {"stream: close"}

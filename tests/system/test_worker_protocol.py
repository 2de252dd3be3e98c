"""HTTP as our worker class speaks it: framing, refusals, deadlines, and clients that leave."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.system.wire_harness import Client, Server, serving

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("worker")) as found:
        yield found


@pytest.fixture
def client(server: Server) -> Client:
    return server.connect()


def post(path: str, *headers: str, body: str = "") -> str:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: hub", *headers, "", body])


# What the application sees


def test_a_connection_serves_many_requests(client):
    for number in range(5):
        answer = client.ask("POST", "/echo", body=b"x" * number)
        assert (answer.status, answer.json["bytes"], answer.closes) == (200, number, False)


def test_pipelined_requests_are_answered_in_order(client):
    client.send("".join(post(f"/{n}", "Content-Length: 2", body="ab") for n in range(3)))
    paths = [client.answer().json["environ"]["PATH_INFO"] for _ in range(3)]
    assert paths == ["/0", "/1", "/2"]


def test_the_environ_has_what_wsgi_and_gunicorn_promise(client, server):
    query = "POST /a%20b%C3%A9/c?x=1%202 HTTP/1.1\r\nHost: hub\r\nX-Two: a\r\nx-two: b\r\n"
    client.send(query + "Content-Type: text/plain\r\nContent-Length: 1\r\n\r\nz")
    seen = client.answer().json["environ"]
    expected = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/a bÃ©/c",
        "RAW_URI": "/a%20b%C3%A9/c?x=1%202",
        "QUERY_STRING": "x=1%202",
        "SCRIPT_NAME": "",
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "1",
        "HTTP_HOST": "hub",
        "HTTP_X_TWO": "a,b",
        "REMOTE_ADDR": "127.0.0.1",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": str(server.port),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http",
    }
    assert {key: seen.get(key) for key in expected} == expected
    assert seen["REMOTE_PORT"] == str(client.socket.getsockname()[1])
    assert "HTTP_CONTENT_TYPE" not in seen


@pytest.mark.parametrize("name", ["X_Forwarded_For", "SCRIPT_NAME", "PATH_INFO"])
def test_a_header_with_an_underscore_is_not_seen(client, name):
    seen = client.get("/echo", f"{name}: /evil").json["environ"]
    assert "/evil" not in seen.values()


def test_bodies_of_any_size_and_framing_arrive_whole(client):
    for size in (1, 8191, 16384, 70_000, 3_000_000):
        assert client.ask("POST", "/echo", body=b"y" * size).json["bytes"] == size
    client.send(post("/echo", "Transfer-Encoding: chunked", body="5\r\nhello\r\n"))
    time.sleep(0.05)
    client.send("6;ext=1\r\n world\r\n0\r\nX-Trailer: a\r\n\r\n")
    assert client.answer().json["body"] == "hello world"


def test_lines_of_a_body_can_be_read_one_by_one(client):
    assert client.ask("POST", "/pieces", body=b"a\nb\nc").body == b"3"
    client.send(post("/pieces", "Content-Length: 4"))
    time.sleep(0.05)
    assert client.send("a\nb\n").answer().body == b"2"


# What the client sees


def test_a_whole_answer_leaves_in_one_send(client):
    client.send("GET /echo HTTP/1.1\r\nHost: hub\r\n\r\n")
    got = client.more()
    assert got.startswith(b"HTTP/1.1 200 OK\r\n")
    assert got.endswith(b"}")
    answer = client.answer()
    assert answer.headers["server"] == "tokenhub"
    assert answer.headers["date"].endswith(" GMT")


def test_parts_of_known_number_need_no_chunks(client):
    answer = client.get("/headers")
    assert (answer.body, answer.headers["content-length"]) == (b"ab", "2")


def test_hop_by_hop_headers_of_the_application_are_dropped(client):
    headers = client.get("/headers").headers
    assert headers["x-mine"] == "kept"
    assert headers["server"] == "tokenhub"
    assert not {"connection", "transfer-encoding"} & headers.keys()


def test_a_stream_comes_chunk_by_chunk_in_order(client):
    started = time.monotonic()
    client.send("GET /stream?n=4&pause=0.2 HTTP/1.1\r\nHost: hub\r\n\r\n")
    first = client.more()
    assert first.endswith(b"7\r\nline 0\n\r\n")  # the head goes with the first chunk
    assert time.monotonic() - started < 0.2
    assert client.answer().body == b"".join(b"line %d\n" % n for n in range(4))
    assert time.monotonic() - started > 0.6
    assert client.get("/echo").status == 200


def test_a_stream_that_knows_its_end_has_it_sent_with_the_last_chunk(client):
    client.send("GET /stream?n=1&pause=0.1&hint=1 HTTP/1.1\r\nHost: hub\r\n\r\n")
    assert client.more().endswith(b"7\r\nline 0\n\r\n0\r\n\r\n")
    assert client.answer().body == b"line 0\n"
    assert client.get("/echo").status == 200


def test_an_answer_larger_than_every_buffer_arrives_at_a_slow_client(client):
    client.send("GET /large?mib=8 HTTP/1.1\r\nHost: hub\r\n\r\n")
    time.sleep(0.3)
    assert len(client.answer().body) == 8 * 1024 * 1024


def test_the_write_callable_of_wsgi_works(client):
    assert client.get("/written").body == b"one two"


def test_http_10_ends_with_the_connection_unless_the_length_is_known(server):
    client = server.connect().send("GET /stream HTTP/1.0\r\n\r\n")
    answer = client.answer()
    assert answer.body == b"line 0\nline 1\nline 2\n"
    assert "transfer-encoding" not in answer.headers
    client = server.connect().send("GET /echo HTTP/1.0\r\n\r\n")
    assert client.answer().closes
    assert client.is_closed()
    client = server.connect().send("GET /echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert client.answer().headers["connection"] == "keep-alive"
    assert client.get("/echo").status == 200


def test_connection_close_is_honoured(client):
    assert client.get("/echo", "Connection: close").closes
    assert client.is_closed()


def test_head_and_204_and_304_have_no_body(client):
    whole = client.get("/echo").headers
    assert client.ask("HEAD", "/echo").headers.keys() == whole.keys()
    assert "transfer-encoding" not in client.ask("HEAD", "/stream").headers
    for status in ("204", "304"):
        answer = client.get(f"/headers?status={status}+Empty")
        assert answer.status == int(status)
        assert not {"content-length", "transfer-encoding"} & answer.headers.keys()
    assert client.get("/echo").status == 200


# Applications that fail


def test_a_failure_before_the_head_is_a_500_in_the_envelope(server):
    for kind in ("plain", "timeout", "silent", "value", "nul", "lf", "wide", "name", "colon"):
        client = server.connect()
        answer = client.get(f"/boom?kind={kind}")
        assert (answer.status, answer.json["error"]["code"]) == (500, "internal_error"), kind
        assert b"secret" not in answer.body
        assert "set-cookie" not in answer.headers
        assert answer.closes
        assert client.is_closed()


def test_an_error_of_ours_keeps_its_status_code_and_headers(client):
    answer = client.get("/boom?kind=refused")
    assert (answer.status, answer.json["error"]["code"]) == (413, "request_too_large")
    assert answer.headers["retry-after"] == "7"


def test_a_failure_in_the_middle_of_a_stream_is_seen_as_one(server):
    client = server.connect()
    with pytest.raises(EOFError):
        client.get("/stream?boom=1")
    client = server.connect()
    with pytest.raises(EOFError):
        client.get("/stream?length=1000")
    client = server.connect().send("GET /stream?boom=1 HTTP/1.0\r\n\r\n")
    with pytest.raises(ConnectionResetError):
        client.answer()


# Requests that never reach the application

SMUGGLING = {
    "length and coding": post("/x", "Content-Length: 3", "Transfer-Encoding: chunked", body="0"),
    "two lengths": post("/x", "Content-Length: 3", "Content-Length: 4", body="abcd"),
    "equal lengths": post("/x", "Content-Length: 3", "Content-Length: 3", body="abc"),
    "list of lengths": post("/x", "Content-Length: 3, 3", body="abc"),
    "chunked twice": post("/x", "Transfer-Encoding: chunked, chunked", body="0\r\n\r\n"),
    "two codings": post("/x", "Transfer-Encoding: chunked", "Transfer-Encoding: identity"),
    "only identity": post("/x", "Transfer-Encoding: identity"),
    "negative length": post("/x", "Content-Length: -1"),
    "signed length": post("/x", "Content-Length: +1", body="a"),
    "wide digit": post("/x", "Content-Length: \xb2", body="aa"),
    "hex length": post("/x", "Content-Length: 0x1", body="a"),
    "space before colon": post("/x", "Content-Length : 3", body="abc"),
    "folded": post("/x", "X-A: b", " Content-Length: 3", body="abc"),
    "nul": post("/x", "X-A: b\0c"),
    "bare cr": post("/x", "X-A: b\rContent-Length: 3"),
    "bare lf": "GET /x HTTP/1.1\nHost: hub\n\n",
    "bare lf in head": "GET /x HTTP/1.1\r\nHost: hub\nX: y\r\n\r\n",
    "no name": post("/x", ": b"),
    "no colon": post("/x", "nonsense"),
    "two hosts": post("/x", "Host: other"),
    "no version": "GET /x\r\n\r\n",
    "version": "GET /x HTTP/2.0\r\n\r\n",
    "method": "g<t /x HTTP/1.1\r\n\r\n",
    "target": "GET /\xff HTTP/1.1\r\n\r\n",
    "1.0 chunked": "POST /x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunk size": post("/x", "Transfer-Encoding: chunked", body="zz\r\nabc\r\n0\r\n\r\n"),
    "chunk sign": post("/x", "Transfer-Encoding: chunked", body="+3\r\nabc\r\n0\r\n\r\n"),
    "chunk end": post("/x", "Transfer-Encoding: chunked", body="3\r\nabcd\r\n0\r\n\r\n"),
}
CODINGS = ["xchunked", "gzip, chunked", "\x0bchunked", "chunked;q=1", '"chunked"']


@pytest.mark.parametrize("name", SMUGGLING)
def test_an_ambiguous_request_is_refused_and_the_connection_closed(client, name):
    client.send(SMUGGLING[name] + "GET /smuggled HTTP/1.1\r\nHost: hub\r\n\r\n")
    answer = client.answer()
    assert (answer.status, answer.json["error"]["code"]) == (400, "bad_request")
    assert answer.json["error"]["param"] is None
    assert answer.headers["content-type"] == "application/json"
    assert len(answer.headers["x-request-id"]) == 32
    assert answer.closes
    assert client.is_closed()


@pytest.mark.parametrize("coding", CODINGS)
def test_an_unknown_coding_is_refused(client, coding):
    client.send(post("/x", f"Transfer-Encoding: {coding}", body="0\r\n\r\n"))
    answer = client.answer()
    assert answer.json["error"]["code"] in ("unsupported_transfer_coding", "bad_request")
    assert answer.status == (400 if "\x0b" in coding else 501)
    assert client.is_closed()


@pytest.mark.parametrize(
    ("request_text", "status", "code"),
    [
        (f"GET /{'x' * 5000} HTTP/1.1\r\n\r\n", 414, "uri_too_long"),
        (post("/x", f"X-A: {'y' * 9000}"), 431, "headers_too_large"),
        (post("/x", *(f"X-{n}: y" for n in range(120))), 431, "headers_too_large"),
        (post("/x", "Expect: a miracle"), 417, "expectation_failed"),
    ],
)
def test_what_is_too_much_gets_its_own_status(client, request_text, status, code):
    answer = client.send(request_text).answer()
    assert (answer.status, answer.json["error"]["code"]) == (status, code)
    assert client.is_closed()


def test_refusals_never_echo_the_client(client):
    answer = client.send(post("/canary", "canary : canary")).answer()
    assert b"canary" not in answer.body


def test_refusals_on_anthropic_paths_wear_the_other_envelope(client):
    answer = client.send(post("/v1/messages?beta=true", "Content-Length: x")).answer()
    assert answer.json == {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": answer.json["error"]["message"]},
        "request_id": answer.headers["request-id"],
    }
    assert answer.headers["request-id"] == answer.headers["x-request-id"]

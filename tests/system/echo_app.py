"""A WSGI application that misbehaves on request, and the gunicorn settings it is served with.

Loaded by gunicorn as `-c python:tests.system.echo_app tests.system.echo_app:app`.
"""

# ruff: noqa: E402
from gevent import monkey

monkey.patch_all()

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import gevent

from tokenhub.errors import BodyTooLarge, ClientClosed
from tokenhub.worker import HubWorker


class QuickWorker(HubWorker):
    """Deadlines short enough for tests."""

    HEADER_SECS = 0.6
    BODY_SECS = 0.8
    DRAIN_SECS = 1.0
    DRAIN_BYTES = 64 * 1024 * 1024


workers = 2
worker_class = QuickWorker
http_parser = "python"
keepalive = 1
graceful_timeout = 5
timeout = 30
control_socket_disable = True
loglevel = "warning"

TEXT = [("Content-Type", "text/plain")]
MEBIBYTE = b"x" * 1024 * 1024


def note(text: str) -> None:
    """Tell the test what happened; one line, written at once."""
    with Path(os.environ["ECHO_NOTES"]).open("a") as notes:
        notes.write(text + "\n")


def app(environ: dict[str, Any], start_response: Any) -> Any:
    """The path names what to do."""
    name = environ["PATH_INFO"].rpartition("/")[2]
    options = {key: values[0] for key, values in parse_qs(environ["QUERY_STRING"]).items()}
    return ACTIONS.get(name, echo)(environ, start_response, options)


def echo(environ: dict[str, Any], start_response: Any, options: dict[str, str]) -> list[bytes]:
    """What the server made of the request, as JSON."""
    body = environ["wsgi.input"].read()
    shown = {key: value for key, value in environ.items() if isinstance(value, str)}
    found = {"pid": os.getpid(), "body": body.decode("latin-1")[:200], "bytes": len(body)}
    text = json.dumps({**found, "environ": shown}).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(text)))]
    start_response("200 OK", headers)
    return [text]


class Stream:
    """Numbered lines with a pause after each; notes how it ended."""

    def __init__(self, options: dict[str, str]) -> None:
        self.left = int(options.get("n", 3))
        self.knows_its_end = "hint" in options
        self.lines = self._make(self.left, float(options.get("pause", 0)), options)

    def _make(self, n: int, pause: float, options: dict[str, str]) -> Iterator[bytes]:
        try:
            for number in range(n):
                yield b"line %d\n" % number
                gevent.sleep(pause)
            if "boom" in options:
                raise RuntimeError("late")
        except ClientClosed:
            note("stream: client closed")
            raise

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        line = next(self.lines)
        self.left -= 1
        return line

    def __length_hint__(self) -> int:
        return self.left if self.knows_its_end else 1

    def close(self) -> None:
        note("stream: close")


def stream(environ: Any, start_response: Any, options: dict[str, str]) -> Stream:
    """As many lines as asked, without a length unless one is given."""
    length = [("Content-Length", options["length"])] if "length" in options else []
    start_response("200 OK", TEXT + length)
    return Stream(options)


def sleep(environ: Any, start_response: Any, options: dict[str, str]) -> list[bytes]:
    """Like a provider that does not answer."""
    if "unread" not in options:
        environ["wsgi.input"].read()
    try:
        gevent.sleep(float(options.get("secs", 20)))
    except ClientClosed:
        note("sleep: client closed")
        raise
    start_response("200 OK", TEXT)
    return [b"awake"]


def refuse(environ: Any, start_response: Any, options: dict[str, str]) -> list[bytes]:
    """Answer without reading the body."""
    start_response("413 Content Too Large", TEXT)
    return [b"too large"]


def pieces(environ: Any, start_response: Any, options: dict[str, str]) -> list[bytes]:
    """Read a body line by line."""
    lines = list(environ["wsgi.input"])
    start_response("200 OK", TEXT)
    return [str(len(lines)).encode()]


def boom(environ: Any, start_response: Any, options: dict[str, str]) -> list[bytes]:
    """Fail before the head, in one of many ways."""
    kind = options.get("kind", "plain")
    if kind == "refused":
        raise BodyTooLarge("that is too much", headers={"Retry-After": "7"})
    if kind == "timeout":
        raise gevent.Timeout(1)
    if kind == "plain":
        raise RuntimeError("secret words")
    if kind == "silent":
        return [b"no start_response"]
    value = {"value": "a\r\nSet-Cookie: x=1", "nul": "a\0b", "lf": "a\nb", "wide": "\u20ac"}
    name = {"name": "X-A\r\nX-B", "colon": "X:A"}
    start_response("200 OK", [(name.get(kind, "X-A"), value.get(kind, "fine"))])
    return [b"must not be seen"]


def headers(environ: Any, start_response: Any, options: dict[str, str]) -> list[bytes]:
    """Headers that are not the application's to send."""
    mine = [("Server", "evil/1"), ("Connection", "upgrade"), ("Transfer-Encoding", "gzip")]
    start_response(options.get("status", "200 OK"), [*mine, ("X-Mine", "kept")])
    return [b"a", b"b"]


def large(environ: Any, start_response: Any, options: dict[str, str]) -> Iterator[bytes]:
    """More than any buffer between us."""
    start_response("200 OK", TEXT)
    return iter([MEBIBYTE] * int(options.get("mib", 8)))


def written(environ: Any, start_response: Any, options: dict[str, str]) -> list[bytes]:
    """Through the callable that start_response returns."""
    write = start_response("200 OK", TEXT)
    write(b"one ")
    return [b"two"]


ACTIONS = {
    each.__name__: each for each in (stream, sleep, refuse, pieces, boom, headers, large, written)
}

app.on_drain = lambda: note("on_drain")  # type: ignore[attr-defined]
app.on_stop = lambda: note("on_stop")  # type: ignore[attr-defined]

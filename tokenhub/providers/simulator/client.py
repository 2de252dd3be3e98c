"""One connection to the simulator: reads HTTP requests, writes answers, notices a client leaving.

Just enough of HTTP/1.1 for the clients that talk to a simulator: keep-alive and bodies with a
length. What is asked and answered is not its business.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import gevent
import gevent.socket

BODY_BYTES_MAX = 64 << 20
IDLE_SECS = 300.0
LAST_CHUNK = b"0\r\n\r\n"


class Gone(Exception):
    """The client has left."""


class HangUp(Exception):
    """We close the connection."""


@dataclass(slots=True)
class Request:
    """What a client sent; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Client:
    """A connection; `close()` frees its watcher, the socket belongs to the server."""

    def __init__(self, sock: Any) -> None:
        sock.settimeout(IDLE_SECS)
        self._sock = sock
        self._watcher = gevent.get_hub().loop.io(sock.fileno(), 1)
        self._early = b""  # read, but of the next request

    def close(self) -> None:
        self._watcher.close()

    def read(self) -> Request:
        """The next request.

        Raises:
            Gone: there is none.
            HangUp: it was none; the client has been told.
        """
        buffer, end = self._early, -1
        while (end := buffer.find(b"\r\n\r\n")) < 0:
            buffer += self._receive()
        first, *lines = buffer[:end].decode("latin-1").split("\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        length = headers.get("content-length", "0")
        if first.count(" ") != 2 or not length.isdecimal() or int(length) > BODY_BYTES_MAX:
            self.answer(400, b"{}")
            raise HangUp
        if headers.get("expect", "").lower() == "100-continue":
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = self._body(buffer[end + 4 :], int(length))
        method, path, _ = first.split(" ")
        return Request(method, path.partition("?")[0], headers, body)

    def send(self, data: bytes) -> None:
        """Write it all; raises Gone."""
        try:
            self._sock.sendall(data)
        except OSError:
            raise Gone from None

    def answer(
        self, status: int, body: bytes, kind: str = "application/json", *, extra: str = ""
    ) -> None:
        """A whole answer; `extra` is header lines, each with its CRLF."""
        self.send(head(status, kind, f"Content-Length: {len(body)}\r\n{extra}") + body)

    def send_chunk(self, data: bytes) -> None:
        """A piece of an answer that began with CHUNKED."""
        self.send(chunk(data))

    def pause(self, milliseconds: float) -> None:
        """Sleep, but no longer than the client stays; raises Gone when it leaves."""
        try:
            gevent.socket.wait(self._watcher, milliseconds / 1000)
        except TimeoutError:
            return
        self._early += self._receive()  # still here, and ahead of us
        gevent.sleep(milliseconds / 1000)

    def _body(self, begun: bytes, length: int) -> bytes:
        parts, missing = [begun], length - len(begun)
        while missing > 0:
            parts.append(self._receive())
            missing -= len(parts[-1])
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        self._early = body[length:]
        return body[:length]

    def _receive(self) -> bytes:
        try:
            data: bytes = self._sock.recv(65536)
        except OSError:
            raise Gone from None
        if not data:
            raise Gone
        return data


CHUNKED = "Transfer-Encoding: chunked\r\nCache-Control: no-cache\r\n"


def head(status: int, kind: str, fields: str) -> bytes:
    """The head of an answer; `fields` are header lines, each with its CRLF."""
    known = status in HTTPStatus._value2member_map_
    phrase = HTTPStatus(status).phrase if known else "Unknown"
    return f"HTTP/1.1 {status} {phrase}\r\nContent-Type: {kind}\r\n{fields}\r\n".encode()


def chunk(data: bytes) -> bytes:
    """One chunk of the chunked transfer coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)

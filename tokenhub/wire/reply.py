"""HTTP/1 responses on their way from a WSGI application to a socket.

A whole answer leaves in one send, a stream in one send for each chunk, the head with the first.
Knows nothing of sockets or greenlets: it is given a function that sends bytes.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from email.utils import formatdate
from operator import length_hint
from typing import Any

SERVER = "tokenhub"
HOP_BY_HOP = frozenset(
    {
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization"),
        *("te", "trailer", "trailers", "transfer-encoding", "upgrade", "server", "date"),
    }
)
"""What only this hop may say; gunicorn's list, Server and Date being ours too."""

TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
STATUS = re.compile(r"[2-5][0-9]{2} .*")
"""PEP 3333; nothing that comes from an application is interim (1xx)."""
CONTROLS = bytes(set(range(32)) - {9}) + b"\x7f"
"""Bytes that may stand in no header (RFC 9110 section 5.5); CR and LF only at the ends of lines."""

NAMES_MAX = 500
LAST_CHUNK = b"0\r\n\r\n"

Headers = list[tuple[str, str]]


def _length_of(value: str) -> int:
    if not value.isdecimal():
        raise ValueError("the application sent an impossible Content-Length")
    return int(value)


class HeadWriter:
    """Makes response heads; one for each worker, as it remembers header names and the date."""

    def __init__(self) -> None:
        self._kinds: dict[str, str] = {}
        self._second = 0
        self._date_line = ""

    def kind_of(self, name: str) -> str:
        """What to do with the application's header: "keep", "drop" or "length".

        Raises:
            ValueError: this cannot be the name of a header.
        """
        found = self._kinds.get(name)
        if found is not None:
            return found
        if not TOKEN.fullmatch(name):
            raise ValueError("the application sent an impossible header name")
        lower = name.lower()
        kind = "length" if lower == "content-length" else "keep"
        if lower in HOP_BY_HOP:
            kind = "drop"
        # Bounded, should an application ever make names up from what it is told.
        if len(self._kinds) < NAMES_MAX:
            self._kinds[name] = kind
        return kind

    def write(self, first: str, lines: list[str]) -> bytes:
        """A head of this first line, Server, Date and these lines.

        Raises:
            ValueError: a line holds a control character (or one that no header can carry).
        """
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._date_line = f"Date: {formatdate(second, usegmt=True)}"
        every = [first, f"Server: {SERVER}", self._date_line, *lines, "", ""]
        head = "\r\n".join(every).encode("latin-1")
        # One CR and one LF between any two lines and no other control character: whoever put
        # a line of their own into a value has changed the count.
        if len(head) - len(head.translate(None, CONTROLS)) != 2 * len(every) - 2:
            raise ValueError("the application sent a header with a control character")
        return head


class Reply:
    """One response: `start` is WSGI's start_response, `relay` sends what the application returned.

    Args:
        heads: makes the head.
        request: gunicorn's request; its method and version decide about body and framing.
        send: sends bytes, all of them; what it raises passes through.
        keeps: asked once, for the head: whether the connection can go on after this response.
    """

    def __init__(
        self,
        heads: HeadWriter,
        request: Any,
        send: Callable[[bytes], None],
        keeps: Callable[[], bool],
    ) -> None:
        self._heads = heads
        self._send = send
        self._keeps = keeps
        self._method: str = request.method
        self._is_http10: bool = request.version == (1, 0)
        self._lines: list[str] = []
        self._length: int | None = None
        self._has_body = True
        self._is_chunked = False
        self.status = ""
        self.headers: Headers = []
        self.sent = 0
        """Bytes of the body that left; with `status` and `headers` what an access log wants."""
        self.head_sent = False
        self._is_ending = self._has_ended = False
        self.keep_alive = False
        """Whether the client was told that the connection goes on."""

    @property
    def is_complete(self) -> bool:
        """Whether the client has been sent all of the answer, though the application may go on."""
        if not self.head_sent or self.ends_with_connection:
            return False
        return self._has_ended or not self._has_body or self.sent == self._length

    @property
    def ends_with_connection(self) -> bool:
        """Whether only the end of the connection tells the client that this is all."""
        return self._has_body and self._length is None and not self._is_chunked

    def start(self, status: str, headers: Headers, exc_info: Any = None) -> Callable[[bytes], None]:
        """WSGI's start_response.

        Raises:
            ValueError, TypeError: status or headers that cannot be sent.
        """
        if exc_info:
            try:
                if self.head_sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # no reference cycle through the traceback (PEP 3333)
        elif self.status:
            raise AssertionError("start_response was called twice")
        if not STATUS.fullmatch(status):
            raise ValueError("the application sent an impossible status")
        self.status, self.headers = status, headers
        self._lines, self._length = [], None
        kind_of = self._heads.kind_of
        for name, value in headers:
            kind = kind_of(name)
            if kind == "keep":
                self._lines.append(name + ": " + value)
            elif kind == "length":
                self._length = _length_of(value)
        self._frame(status[:3])
        return self.write

    def _frame(self, code: str) -> None:
        """How the client will know where the body ends (RFC 9112 section 6.3)."""
        self._has_body = self._method != "HEAD" and code not in ("204", "304")
        if code == "204":
            self._length = None
        self._is_chunked = self._has_body and self._length is None and not self._is_http10

    def relay(self, answer: Iterable[bytes]) -> None:
        """Send what the application returned, as it comes.

        An iterable that knows when it has given its last piece (its `__length_hint__` is then 0,
        PEP 424) has the end of the chunked coding sent with that piece.

        Raises:
            RuntimeError: the application did not keep WSGI's rules; what left is incomplete.
        """
        if isinstance(answer, list | tuple):
            answer = [b"".join(answer)]
            self._set_length(len(answer[0]))
        for chunk in answer:
            if chunk:
                self._is_ending = length_hint(answer, 1) == 0
                self.write(chunk)
        self._finish()

    def write(self, data: bytes) -> None:
        """Send a piece of the body, with the head if that is still here."""
        packet = b"" if self.head_sent else self._take_head()
        if self._has_body:
            if self._length is not None:
                data = data[: self._length - self.sent]
            self.sent += len(data)
            if self._is_chunked and data:
                if self._has_ended:
                    raise RuntimeError("the application sent more than it had announced")
                data = b"%x\r\n%b\r\n" % (len(data), data)
                if self._is_ending:
                    self._has_ended = True
                    data += LAST_CHUNK
            packet = packet + data if packet else data
        if packet:
            self._send(packet)

    def _finish(self) -> None:
        if not self.head_sent:
            self._set_length(0)
        if self._has_body and self._length is not None and self.sent < self._length:
            raise RuntimeError("the application sent less than its Content-Length")
        if not self.head_sent:
            self._send(self._take_head())
        elif self._is_chunked and not self._has_ended:
            self._send(LAST_CHUNK)

    def _set_length(self, length: int) -> None:
        """The whole body is known, and the head has not left: no need for chunks."""
        if self._length is None and self._has_body and not self.head_sent:
            self._length = length
            self._is_chunked = False

    def _take_head(self) -> bytes:
        if not self.status:
            raise RuntimeError("the application answered without start_response")
        self.keep_alive = not self.ends_with_connection and self._keeps()
        lines = self._lines
        if not self.keep_alive:
            lines.append("Connection: close")
        elif self._is_http10:
            lines.append("Connection: keep-alive")
        if self._is_chunked:
            lines.append("Transfer-Encoding: chunked")
        elif self._length is not None:
            lines.append(f"Content-Length: {self._length}")
        version = "HTTP/1.0" if self._is_http10 else "HTTP/1.1"
        head = self._heads.write(f"{version} {self.status}", lines)
        self.head_sent = True
        return head

"""HTTP/1.1 to providers: pooled keep-alive connections, a deadline on every wait, bounded answers.

The one client of the request path, on gevent sockets and geventhttpclient's llhttp parser. It
speaks HTTP only: what a status or a body means is the adapters' business. Failures leave as
ProviderError; whatever else is thrown into a waiting greenlet (a timeout, a caller that went away)
closes the connection at once and passes on. It logs nothing: requests carry keys and prompts.
"""

from __future__ import annotations

import re
from time import monotonic
from typing import NamedTuple
from urllib.parse import urlsplit

from gevent.ssl import SSLContext
from geventhttpclient._parser import HTTPParseError

from tokenhub import __version__
from tokenhub.errors import ProviderError
from tokenhub.providers.base import Headers, Timeouts
from tokenhub.providers.connection import (
    IDLE_SECS_MAX,
    Connection,
    Origin,
    Pool,
    connect,
    failure,
    tls_context,
)
from tokenhub.providers.names import Names

HEAD_BYTES_MAX = 256 * 1024
ORIGINS_MAX = 1024
RESEND_SECS_MAX = 1.0
"""A provider that closes an idle connection does so within a round trip. One that closes later has
perhaps been generating, and charging, until it fell over."""


class Endpoint(NamedTuple):
    """A method and URL, ready to be asked: its origin, and its head up to what varies."""

    origin: Origin
    head: bytes


class _ClosedUnanswered(Exception):
    """The connection ended before the first byte of an answer."""


class Exchange:
    """One request and its answer from the head on: `status`, its headers, and then the body, once.

    A connection whose answer is complete goes back to its pool by itself; `close()` gives up any
    other. `total_secs` of the timeouts began when the exchange was made.
    """

    __slots__ = ("_connection", "_deadline", "_head", "_is_open", "_pieces", "_pool", "_size_left",
                 "_timeouts", "response_bytes", "status")  # fmt: skip

    def __init__(self, connection: Connection, pool: Pool, timeouts: Timeouts) -> None:
        self._connection = connection
        self._pool = pool
        self._timeouts = timeouts
        self._is_open = True  # the connection is ours: neither closed nor given back
        self._pieces = connection.message.reset()
        self._head = b""
        self.response_bytes = 0  # of a body that was read whole, as far as it came
        self.status = 0

    def begin(self, request: bytes, deadline: float, size_max: int) -> None:
        """Send the request and read the head of the answer.

        Args:
            request: head and body.
            deadline: the monotonic time at which everything must be over.
            size_max: bytes beyond which the answer is refused.

        Raises:
            ProviderError: connection_closed, first_byte_timeout, total_deadline,
                response_too_large, malformed_answer.
            _ClosedUnanswered: the connection was or went dead; nothing has been answered.
        """
        self._deadline = deadline
        self._size_left = size_max
        try:
            head_deadline = min(monotonic() + self._timeouts.first_byte_secs, deadline)
            try:
                self._connection.send(request, head_deadline)
            except TimeoutError:
                raise self._late(head_deadline, "first_byte_timeout") from None
            except OSError:
                pass  # perhaps it answered early, say 413, and closed: its word is read
            self._read_head(head_deadline)
        except BaseException:
            self.close()
            raise

    def header(self, name: bytes) -> str:
        """A header's value by its lower-case name; "" when it is missing."""
        found = self._head.lower().find(b"\r\n" + name + b":")
        if found < 0:
            return ""
        start = found + len(name) + 3
        return self._head[start : self._head.find(b"\r\n", start)].decode("latin-1").strip()

    def headers(self, wanted: re.Pattern[bytes]) -> Headers:
        """The headers whose lines match: its two groups are the name and the value."""
        found = wanted.findall(self._head)
        return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in found)

    def read(self, longest_secs: float | None = None) -> bytes:
        """The next bytes of a streamed body, b"" at its clean end; the Source of a Stream.

        Args:
            longest_secs: instead of `idle_secs`.

        Raises:
            ProviderError: stream_cut, stream_idle, total_deadline, response_too_large,
                malformed_answer.
        """
        while not self._pieces and self._is_open:
            self._receive(longest_secs or self._timeouts.idle_secs, "stream")
        return self._take()

    def wait(self, longest_secs: float) -> float:
        """See base.Source.wait."""
        if self._pieces or not self._is_open:
            return longest_secs
        deadline = monotonic() + longest_secs
        try:
            self._connection.wait(min(deadline, self._deadline))
        except TimeoutError:
            return 0.0
        except BaseException:
            self.close()
            raise
        return max(0.0, deadline - monotonic())

    def read_all(self, longest_secs: float | None = None) -> bytes:
        """The whole body.

        Raises:
            ProviderError: answer_cut, answer_idle, total_deadline, response_too_large,
                malformed_answer.
        """
        try:
            while self._is_open:
                self._receive(longest_secs or self._timeouts.idle_secs, "answer")
        finally:
            self.response_bytes = sum(map(len, self._pieces))
        return self._take()

    def close(self) -> None:
        """Close the connection, unless it has gone back to its pool."""
        if self._is_open:
            self._is_open = False
            self._connection.close()

    def _take(self) -> bytes:
        pieces = self._pieces
        body = bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        return body

    def _read_head(self, deadline: float) -> None:
        message, head = self._connection.message, b""
        while not message.has_head:
            try:
                data = self._connection.receive(deadline)
            except TimeoutError:
                raise self._late(deadline, "first_byte_timeout") from None
            except OSError:
                data = b""
            if not data:
                if not head:
                    raise _ClosedUnanswered
                raise failure("connection_closed", "the provider closed inside the head")
            head += data
            if len(head) > HEAD_BYTES_MAX:
                raise failure("malformed_answer", "the head of the answer is too large")
            self._feed(data)
        while head[9:10] == b"1":  # interim: 100 Continue, 103 Early Hints
            head = head[head.find(b"\r\n\r\n") + 4 :]
        self._head = head[: head.find(b"\r\n\r\n") + 2]
        self.status = message.get_code()
        self._settle()

    def _receive(self, longest_secs: float, what: str) -> None:
        """Read once; `what` is the first half of the error class: stream or answer."""
        deadline = min(monotonic() + longest_secs, self._deadline)
        try:
            data = self._connection.receive(deadline)
            if data:
                self._feed(data)
            else:
                # Without a length the end of the connection is the end of the answer.
                self._connection.message.feed(b"")
            self._settle()
        except TimeoutError:
            self.close()
            raise self._late(deadline, what + "_idle") from None
        except (OSError, HTTPParseError):
            self.close()
            raise failure(what + "_cut", "the provider closed inside the answer") from None
        except BaseException:
            self.close()
            raise

    def _late(self, deadline: float, error_class: str) -> ProviderError:
        if deadline >= self._deadline:
            return failure("total_deadline", "the time for this attempt is over")
        return failure(error_class, "the provider is silent")

    def _feed(self, data: bytes) -> None:
        message = self._connection.message
        self._size_left -= len(data)
        try:
            message.feed(data)
        except HTTPParseError:
            if not message.is_complete:
                raise failure("malformed_answer", "the answer is not HTTP") from None
            message.keep_alive = False  # something follows the answer: out of step

    def _settle(self) -> None:
        """Refuse what is too large; give the connection back once the answer is complete."""
        message = self._connection.message
        if message.get_remaining_content_length() > self._size_left:
            raise failure("response_too_large", "the answer is too large")
        if message.is_complete:
            if message.keep_alive:
                self._is_open = False
                self._pool.put(self._connection)
            else:
                self.close()


class Upstream:
    """The client: one per process, made after fork, used on one thread.

    Args:
        response_bytes_max: the largest answer; of a stream, all its bytes together.
        idle_secs_max: how long a connection may idle before it is not trusted any more.
        tls: instead of a context that trusts the system's authorities.
        allow_private: whether providers on this machine and in private networks may be called.
    """

    def __init__(
        self,
        response_bytes_max: int,
        *,
        idle_secs_max: float = IDLE_SECS_MAX,
        tls: SSLContext | None = None,
        allow_private: bool = True,
    ) -> None:
        self._response_bytes_max = response_bytes_max
        self._idle_secs_max = idle_secs_max
        self._tls = tls
        self._allow_private = allow_private
        self._names = Names()
        self._pools: dict[Origin, Pool] = {}

    def exchange(
        self, endpoint: Endpoint, fields: bytes, body: bytes, timeouts: Timeouts
    ) -> Exchange:
        """Send a request; returns when the head of the answer is here.

        A kept connection that the provider closed just as we wrote is replaced, and the request
        sent once more. On a fresh connection nothing is ever sent twice, nor when the provider
        has had the time to work on it: see RESEND_SECS_MAX.

        Args:
            fields: the header lines that vary, each with its CRLF (see `header_line`).

        Raises:
            ProviderError: unreachable, connect_timeout or address_refused (nothing was sent), and
                those of Exchange.begin.
        """
        began = monotonic()
        deadline = began + timeouts.total_secs
        request = b"%b%bContent-Length: %d\r\n\r\n%b" % (endpoint.head, fields, len(body), body)
        pool = self._pools.get(endpoint.origin)
        connection = pool.find() if pool is not None else None
        if pool is not None and connection is not None:
            exchange = Exchange(connection, pool, timeouts)
            try:
                exchange.begin(request, deadline, self._response_bytes_max)
                return exchange
            except _ClosedUnanswered:
                if monotonic() - began > RESEND_SECS_MAX:
                    raise _unanswered() from None
        pool = self._tidy(endpoint.origin)
        connection = self._connect(endpoint.origin, min(timeouts.connect_secs, timeouts.total_secs))
        exchange = Exchange(connection, pool, timeouts)
        try:
            exchange.begin(request, deadline, self._response_bytes_max)
        except _ClosedUnanswered:
            raise _unanswered() from None
        return exchange

    def close(self) -> None:
        """Close all idle connections; running exchanges end as they will."""
        while self._pools:
            self._pools.popitem()[1].close()

    def _tidy(self, origin: Origin) -> Pool:
        """The pool of an origin, and a moment to close what has grown old in all of them."""
        for pool in self._pools.values():
            pool.drop_old()
        if origin not in self._pools:
            if len(self._pools) >= ORIGINS_MAX:
                self._pools.pop(next(iter(self._pools))).close()
            self._pools[origin] = Pool(self._idle_secs_max)
        return self._pools[origin]

    def _connect(self, origin: Origin, longest_secs: float) -> Connection:
        if origin.is_tls and self._tls is None:
            self._tls = tls_context()
        tls = self._tls if origin.is_tls else None
        return connect(
            origin, longest_secs, names=self._names, tls=tls, allow_private=self._allow_private
        )


def _unanswered() -> ProviderError:
    return failure("connection_closed", "the provider closed without an answer")


def endpoint_of(method: str, url: str, *, query: str = "") -> Endpoint:
    """What to connect to and the fixed part of the request's head.

    Args:
        query: ours, ready to be sent; the URL itself is somebody else's and has none.

    Raises:
        ValueError: not an http or https URL, or one with credentials, query or odd characters;
            repeats nothing of it.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # its text may hold a password
        raise ValueError("must be a URL such as https://api.example.com") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an http or https URL")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("must not have credentials, a query or a fragment")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("must be plain ASCII")
    is_tls = parts.scheme == "https"
    origin = Origin(is_tls, parts.hostname, port or (443 if is_tls else 80))
    target = (parts.path or "/") + (f"?{query}" if query else "")
    head = (
        f"{method} {target} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        f"User-Agent: tokenhub/{__version__}\r\nContent-Type: application/json\r\n"
        "Accept: application/json, text/event-stream\r\nAccept-Encoding: identity\r\n"
    )
    return Endpoint(origin, head.encode())


def header_line(name: bytes, value: str) -> bytes:
    """A header line with its CRLF.

    Raises:
        ValueError: the value would break out of its line, or is not ASCII.
    """
    if not value.isprintable():
        raise ValueError("a header value has control characters")
    return b"%b: %b\r\n" % (name, value.encode("ascii"))

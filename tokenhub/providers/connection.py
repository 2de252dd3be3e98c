"""Connections to providers: opened within a deadline, kept in pools, checked before reuse.

Knows sockets, TLS and the parser that each connection carries; what is asked over a connection is
upstream.py's business.
"""

from __future__ import annotations

import select
import socket
from collections import deque
from contextlib import suppress
from ssl import PROTOCOL_TLS_CLIENT, SSLWantReadError, SSLWantWriteError
from time import monotonic
from typing import Any, NamedTuple

import gevent
import gevent.socket
from gevent import monkey
from gevent.ssl import SSLContext
from geventhttpclient._parser import HTTPParseError, HTTPResponseParser

from tokenhub import outbound
from tokenhub.errors import ProviderError
from tokenhub.providers.names import Names, Target

READ_BYTES = 65536
NEVER = float("inf")
IDLE_CONNECTIONS_MAX = 256
IDLE_SECS_MAX = 55.0
"""Below the 60 s after which common servers and load balancers close an idle connection."""

# The real poll, patched or not: it is asked with a timeout of 0 and cannot block.
_poll = monkey.get_original("select", "poll")


class Origin(NamedTuple):
    """Where the connections of one pool go."""

    is_tls: bool
    host: str
    port: int


class _ConnectTimeout(Exception):
    """Our own clock while connecting, told apart from any other timeout by its class."""


class Message(HTTPResponseParser):
    """The answer being received; one per connection, since llhttp carries on from one to the next.

    Only the body is kept. Headers are looked up in the raw head (Exchange.header): most are never
    asked for, and each would cost two calls.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reset()

    def reset(self) -> list[bytearray]:
        """Get ready for the next answer; returns the list that its body will be put into."""
        self.has_head = False
        self.is_complete = False
        self.keep_alive = False
        pieces: list[bytearray] = []
        self._on_body = pieces.append
        return pieces

    # llhttp insists on these; a bounded deque's append is the cheapest way to do nothing.
    _on_status = _on_header_field = _on_header_value = deque[str](maxlen=0).append

    def _on_message_begin(self) -> None:
        if self.is_complete:
            raise HTTPParseError("bytes after the end of the answer")

    def _on_headers_complete(self) -> None:
        self.has_head = self.get_code() >= 200  # 1xx are interim: the answer follows

    def _on_message_complete(self) -> None:
        self.is_complete = self.has_head
        self.keep_alive = self.should_keep_alive()


class Connection:
    """A socket to a provider, with what it needs again and again: watcher, alarm, poll and parser.

    Used by one greenlet at a time.
    """

    __slots__ = ("_alarm", "_deadline", "_has_data", "_hub", "_is_tls", "_poll", "_raw",
                 "_rings_at", "_sock", "_waiter", "_watcher", "idle_since", "message")  # fmt: skip

    def __init__(self, sock: Any, *, is_tls: bool) -> None:
        self._hub = gevent.get_hub()
        self._watcher = self._hub.loop.io(sock.fileno(), 1)
        self._alarm: Any = None
        self._rings_at = NEVER
        self._deadline = NEVER
        self._waiter: Any = None
        self._poll = _poll()
        self._poll.register(sock.fileno(), select.POLLIN)
        sock.settimeout(0.0)
        self._sock = sock
        # The socket itself never waits, and skips a layer of Python.
        self._raw = sock if is_tls else sock._sock
        self._is_tls = is_tls
        self._has_data = False  # somebody has waited for it already
        self.message = Message()
        self.idle_since = 0.0

    def is_readable(self) -> bool:
        """An idle connection that has something to say was closed, or is out of step."""
        return bool(self._poll.poll(0))

    def send(self, data: bytes, deadline: float) -> None:
        """Write it all before the monotonic `deadline`; raises OSError, TimeoutError if late."""
        sock = self._sock
        try:
            sent = self._raw.send(data)
        except (BlockingIOError, SSLWantWriteError):
            sent = 0
        if sent < len(data):
            sock.settimeout(max(deadline - monotonic(), 0.001))
            sock.sendall(memoryview(data)[sent:])
            sock.settimeout(0.0)

    def receive(self, deadline: float) -> bytes:
        """What is there, once something is; b"" when the provider has closed.

        Args:
            deadline: monotonic seconds.

        Raises:
            OSError: the connection broke; TimeoutError when the deadline passed.
        """
        while True:
            # Wait before asking: an answer is never there yet, and asking in vain costs an
            # exception. It also lets others run between two reads of a fast stream.
            if not self._has_data:
                self.wait(deadline)
            self._has_data = False
            try:
                data: bytes = self._raw.recv(READ_BYTES)
            except (BlockingIOError, SSLWantReadError):
                continue
            return data

    def wait(self, deadline: float) -> None:
        """Return when there is something to receive, and receive nothing.

        Args:
            deadline: monotonic seconds.

        Raises:
            TimeoutError: the deadline passed; the connection is as it was.
        """
        if self._is_tls and self._sock.pending():
            return  # what TLS has already decrypted is not seen by waiting
        self._deadline = deadline
        if deadline < self._rings_at:
            self._set_alarm(deadline)
        self._waiter = gevent.getcurrent()
        try:
            self._hub.wait(self._watcher)
        finally:
            self._waiter = None
        self._has_data = True

    def close(self) -> None:
        if self._alarm is not None:
            self._alarm.close()
        self._watcher.close()
        with suppress(OSError):
            self._sock.close()

    # One alarm for all waits of a connection, moved only when it would ring too late: nearly every
    # wait ends long before its deadline, and a timer for each costs half as much as the wait.

    def _set_alarm(self, at: float) -> None:
        if self._alarm is not None:
            self._alarm.close()
        self._rings_at = at
        self._alarm = self._hub.loop.timer(max(at - monotonic(), 0.0), ref=False)
        self._alarm.start(self._ring)

    def _ring(self) -> None:
        self._rings_at = NEVER
        if self._waiter is not None:
            if self._deadline > monotonic():
                self._set_alarm(self._deadline)
            else:
                self._waiter.throw(TimeoutError)


class Pool:
    """Idle connections to one origin. The one used last is taken first: spare ones grow old."""

    __slots__ = ("_idle", "_idle_max", "_idle_secs_max")

    def __init__(self, idle_secs_max: float = IDLE_SECS_MAX) -> None:
        self._idle: deque[Connection] = deque()
        self._idle_max = IDLE_CONNECTIONS_MAX
        self._idle_secs_max = idle_secs_max

    def find(self) -> Connection | None:
        """A connection that the provider has kept open, if there is one."""
        oldest = monotonic() - self._idle_secs_max
        while self._idle:
            connection = self._idle.pop()
            if connection.idle_since >= oldest and not connection.is_readable():
                return connection
            connection.close()
        return None

    def put(self, connection: Connection) -> None:
        connection.idle_since = monotonic()
        self._idle.append(connection)
        if len(self._idle) > self._idle_max:
            self._idle.popleft().close()

    def drop_old(self) -> None:
        """Close what has idled too long."""
        oldest = monotonic() - self._idle_secs_max
        while self._idle and self._idle[0].idle_since < oldest:
            self._idle.popleft().close()

    def close(self) -> None:
        """Close what idles, and from now on whatever is put."""
        self._idle_max = 0
        while self._idle:
            self._idle.popleft().close()


def connect(
    origin: Origin,
    longest_secs: float,
    *,
    names: Names,
    tls: SSLContext | None = None,
    allow_private: bool = True,
) -> Connection:
    """A fresh connection; `longest_secs` covers name lookup, TCP and TLS.

    The name is looked up once, every address is judged, and the connection goes to one that was:
    a name that means something else a moment later (DNS rebinding) leads nowhere.

    Args:
        names: what looks the name up.
        allow_private: see `outbound`.

    Raises:
        ProviderError: unreachable, connect_timeout or address_refused; nothing was sent.
    """
    try:
        with gevent.Timeout(longest_secs, _ConnectTimeout):
            sock = _open(_targets(origin, names, allow_private))
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                if tls is not None:
                    sock = tls.wrap_socket(sock, server_hostname=origin.host)
                return Connection(sock, is_tls=tls is not None)
            except BaseException:
                sock.close()
                raise
    except _ConnectTimeout:
        raise failure("connect_timeout", "no connection in time", sent=False) from None
    except (OSError, UnicodeError):  # refused, no such host, TLS; a host that cannot be one
        raise failure("unreachable", "the provider cannot be reached", sent=False) from None


def resolve(host: str, longest_secs: float) -> list[str]:
    """The numeric addresses of a host.

    Raises:
        OSError, UnicodeError: there are none; TimeoutError when nobody says in time.
    """
    with gevent.Timeout(longest_secs, TimeoutError):
        return [str(sockaddr[0]) for _, sockaddr in Names().find(host, 0)]


def _targets(origin: Origin, names: Names, allow_private: bool) -> list[Target]:
    """Where a connection may go, in the resolver's order."""
    if outbound.is_allowed_name(origin.host, allow_private=allow_private):
        allowed = [
            (family, sockaddr)
            for family, sockaddr in names.find(origin.host, origin.port)
            if outbound.is_allowed(str(sockaddr[0]), allow_private=allow_private)
        ]
        if allowed:
            return allowed
    raise ProviderError(
        "the provider's address is one that is not called",
        error_class="address_refused",
        next_step="cooldown",
        sent=False,
    )


def _open(targets: list[Target]) -> Any:
    """A socket that is connected to the first target that answers; raises the last OSError."""
    *others, last = targets
    for target in others:
        with suppress(OSError):
            return _open_one(target)
    return _open_one(last)


def _open_one(target: Target) -> Any:
    family, sockaddr = target
    sock = gevent.socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.connect(sockaddr)  # numeric: nothing is looked up again
    except BaseException:
        sock.close()
        raise
    return sock


def tls_context() -> SSLContext:
    """Trusts the system's authorities; certificate and host name are verified.

    The same as ssl.create_default_context, but of gevent's class, so that it works unpatched.
    """
    context = SSLContext(PROTOCOL_TLS_CLIENT)
    context.load_default_certs()
    return context


def failure(error_class: str, message: str, *, sent: bool = True) -> ProviderError:
    """A failed attempt that another candidate should make good."""
    return ProviderError(message, error_class=error_class, sent=sent)

"""One client's connection, from accept to close.

Serves its requests one after the other in one greenlet, with a deadline on whatever the client must
do, and watches for the client's leaving while the application works. RFC 9112 towards the client,
PEP 3333 towards the application; knows neither Flask nor processes.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import time
import uuid
from collections.abc import Callable, Iterable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, Protocol

import gevent
from gunicorn.http.errors import ParseException

from tokenhub.errors import ClientClosed, TokenHubError
from tokenhub.wire import request as wire
from tokenhub.wire.reply import HeadWriter, Reply
from tokenhub.wire.request import BodyInput, Environ, HubRequest, Refusal

logger = logging.getLogger("tokenhub.worker")

PEEK = socket.MSG_PEEK | socket.MSG_DONTWAIT
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
ANTHROPIC_PATH = "/v1/messages"
OnAnswer = Callable[[Environ, int, int, float], None]
"""Told of a request that has ended: its environ, the status (0 = nothing was answered), the bytes
of the body that left, and the seconds it took. Of what was no HTTP the environ has only what is
known."""

NOBODY_TO_TELL = (ClientClosed, gevent.GreenletExit, SystemExit)
"""The client is gone, or the worker is going."""


class Host(Protocol):
    """What a connection wants from its worker.

    The application, gunicorn's logger and settings (`wire.freeze_settings`), what connections
    share, and the limits: HEADER_SECS from the first byte to the end of a head; BODY_SECS from the
    application's first read to the end of a body; SEND_SECS for the client to take what it is
    sent; DRAIN_SECS and DRAIN_BYTES for what a refused client goes on sending.
    """

    HEADER_SECS: float
    BODY_SECS: float
    SEND_SECS: float
    DRAIN_SECS: float
    DRAIN_BYTES: int

    wsgi: Callable[[Environ, Any], Iterable[bytes]]
    log: Any
    limits: SimpleNamespace
    environ: Environ
    heads: HeadWriter
    on_answer: OnAnswer | None
    alive: bool
    """False once the worker is to end: no connection goes on after its request."""

    def count_request(self) -> None: ...


class Connection:
    """One client's connection.

    Args:
        host: the worker.
        client: gevent's socket.
        peer: address of the client. listener: address it connected to.
    """

    def __init__(self, host: Host, client: Any, peer: Any, listener: Any) -> None:
        self.idle_since: float | None = None
        """Since when we wait for a request, by the monotonic clock; None while serving one."""
        self._host = host
        self._client = client
        self._raw = client._sock  # the socket itself: never waits, and skips a layer of Python
        self._peer = peer
        self._hub = gevent.get_hub()
        self._greenlet: Any = gevent.getcurrent()
        # One watcher waits for requests and, while one is served, for the client's leaving.
        self._watcher = self._hub.loop.io(self._raw.fileno(), 1)
        self._reader = wire.Reader(client, wire.find_trusted_schemes(host.limits, peer))
        self._template = wire.connection_environ(host.environ, client, peer, listener)
        self._requests = 0
        self._may_watch = False
        self._client_keeps = False
        self._continue_due = False
        self._reply: Reply | None = None
        self._body: BodyInput | None = None
        """The body of the request being served, unless it came whole with the head."""

    def serve(self) -> None:
        """Serve requests until one side has enough."""
        try:
            while self._await_request() and self._serve_request():
                pass
        except NOBODY_TO_TELL:
            pass
        finally:
            self._watcher.close()

    @property
    def has_served(self) -> bool:
        """Whether it has had a request already."""
        return self._requests > 0

    def hang_up(self) -> None:
        """End an idle connection, unless its next request has come already."""
        try:
            self._raw.recv(1, PEEK)
        except BlockingIOError:
            # Its greenlet wakes up to read the end of input. It may be gone by itself.
            with contextlib.suppress(OSError):
                self._raw.shutdown(socket.SHUT_RD)
        except OSError:
            pass  # reset by the client; its greenlet finds out by itself

    # Requests

    def _await_request(self) -> bool:
        """Wait for the first bytes of a request; False when there will be none.

        Somebody else calls `hang_up` when this takes too long: a look at all connections once a
        second costs less than a timer for each request.
        """
        if self._reader.held:
            gevent.sleep(0)  # pipelined: let the others have their turn
            return True
        while True:
            self.idle_since = time.monotonic()
            self._hub.wait(self._watcher)
            self.idle_since = None
            try:
                self._reader.held = self._raw.recv(wire.RECV_BYTES)
            except BlockingIOError:
                continue
            except OSError:
                return False
            return bool(self._reader.held)

    def _read_request(self) -> HubRequest | None:
        """The request whose first bytes are here; None if it came to nothing."""
        reader = self._reader
        first = reader.held
        reader.deadline = time.monotonic() + self._host.HEADER_SECS
        self._requests += 1
        try:
            return HubRequest(self._host.limits, reader, self._peer, self._requests)
        except (TimeoutError, ParseException) as error:
            method, _, rest = first.lstrip(b"\r\n")[:999].decode("latin-1").partition(" ")
            target = rest.partition(" ")[0].partition("?")[0]
            refusal = wire.refusal_of(error)
            if self._host.on_answer is not None:
                known = {"REQUEST_METHOD": method, "PATH_INFO": target}
                self._note({**self._template, **known}, refusal.status, 0, time.monotonic())
            self._refuse(refusal, target)
        except OSError:
            pass  # gone in the middle of a head
        return None

    def _serve_request(self) -> bool:
        """Read and answer one request. True when the connection goes on."""
        request = self._read_request()
        if request is None:
            return False
        whole = wire.find_body_in_hand(request)
        self._body = None if whole else BodyInput(request.body, self._start_body, self._watch)
        environ = wire.request_environ(self._template, request, whole or self._body)
        self._client_keeps = not wire.wants_close(request, environ)
        self._continue_due = request._expected_100_continue
        reply = Reply(self._host.heads, request, self._send, self._keeps)
        started = time.monotonic()
        try:
            refusal = self._answer(environ, reply)
        except NOBODY_TO_TELL:
            self._note(environ, reply.status if reply.head_sent else "0", reply.sent, started)
            raise
        took_secs = time.monotonic() - started
        if refusal is None:
            goes_on = self._finish_body(reply)
        elif reply.head_sent:
            goes_on = self._cut(reply)
        else:
            reply.status, reply.headers = refusal.status, []
            goes_on = self._refuse(refusal, request.path, is_head=request.method == "HEAD")
        if self._host.log.access_log_enabled:
            self._host.log.access(reply, request, environ, timedelta(seconds=took_secs))
        if self._host.on_answer is not None:
            self._note(environ, reply.status, reply.sent, started)
        self._host.count_request()
        return goes_on

    def _answer(self, environ: Environ, reply: Reply) -> Refusal | None:
        """Let the application answer; what to say in its place if it failed.

        Raises:
            ClientClosed, GreenletExit, SystemExit: quietly the end.
        """
        answer: Any = None
        try:
            try:
                self._reply, self._may_watch = reply, True
                if self._body is None:
                    self._watch()
                answer = self._host.wsgi(environ, reply.start)
                reply.relay(answer)
            finally:
                self._stop_watching()
                if hasattr(answer, "close"):
                    answer.close()
        except NOBODY_TO_TELL:
            raise
        except TokenHubError as error:
            return wire.refusal_of(error)
        except BaseException:  # the application's last resort; gevent's Timeout is no Exception
            logger.exception("request failed", extra={"method": environ["REQUEST_METHOD"]})
            return wire.FAILED
        return None

    def _note(self, environ: Environ, status: str, sent: int, started: float) -> None:
        """Tell who wants to know that a request has ended."""
        if self._host.on_answer is None:
            return
        try:
            self._host.on_answer(environ, int(status[:3]), sent, time.monotonic() - started)
        except Exception:  # the client has its answer, and the connection goes on
            logger.exception("request cannot be noted")

    def _keeps(self) -> bool:
        """Whether the connection can go on after the answer that is about to begin."""
        if not (self._client_keeps and self._host.alive and self._host.limits.keepalive):
            return False
        if self._body is None:
            return True
        if self._continue_due:
            return False  # nobody knows whether the body is coming (RFC 9110 section 10.1.1)
        left = self._body.left_bytes
        return left is not None and left <= self._host.DRAIN_BYTES

    # The client's leaving

    def _watch(self) -> None:
        """Notice from now on when the client leaves: there is nothing left to read from it."""
        if self._may_watch:
            self._watcher.start(self._look)

    def _stop_watching(self) -> None:
        self._may_watch = False
        self._watcher.stop()

    def _look(self) -> None:
        """Called by the event loop: the client has sent something, or its end.

        An end of input counts as gone, though the client could be reading still. More input is the
        next request; a client behind that is not watched any more, as reading it must wait. Who
        leaves with a complete answer has not left early.
        """
        try:
            is_gone = not self._raw.recv(1, PEEK)
        except BlockingIOError:
            return
        except OSError:
            is_gone = True
        self._stop_watching()
        if is_gone and not (self._reply and self._reply.is_complete):
            self._greenlet.throw(ClientClosed())

    # Bodies

    def _start_body(self) -> None:
        """The application begins to read a body that is not here yet."""
        self._reader.deadline = time.monotonic() + self._host.BODY_SECS
        if self._continue_due:
            self._continue_due = False
            self._send(CONTINUE)

    def _finish_body(self, reply: Reply) -> bool:
        """Read what the application left of the body. True when the connection goes on."""
        if self._body is None or self._body.is_whole:
            return reply.keep_alive
        if not reply.keep_alive:
            self._linger()
            return False
        self._reader.deadline = time.monotonic() + self._host.DRAIN_SECS
        return self._body.drop()

    def _linger(self) -> None:
        """Swallow what the client is still sending, so that it gets to read its answer.

        Closing with input unread makes the kernel send a reset, which can overtake the answer.
        """
        reader = self._reader
        reader.deadline = time.monotonic() + self._host.DRAIN_SECS
        left = self._host.DRAIN_BYTES
        with contextlib.suppress(OSError):  # the end of input, or of our patience
            self._raw.shutdown(socket.SHUT_WR)
            while left > 0:
                left -= len(reader.receive(left))

    # Answers

    def _send(self, data: bytes) -> None:
        """Send all of `data`. Raises ClientClosed when the client does not take it."""
        try:
            sent = self._raw.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            raise ClientClosed from None
        if sent < len(data):
            self._client.timeout = self._host.SEND_SECS
            try:
                self._client.sendall(memoryview(data)[sent:])
            except OSError:
                raise ClientClosed from None

    def _refuse(self, refusal: Refusal, target: str, *, is_head: bool = False) -> bool:
        """Answer in the application's place. False, as the connection ends with it."""
        status = int(refusal.status[:3])
        logger.info("request refused", extra={"status": status, "code": refusal.code})
        is_anthropic = target.startswith(ANTHROPIC_PATH)
        request_id = uuid.uuid4().hex
        body = refusal.render(request_id, is_anthropic=is_anthropic)
        lines = [
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            f"X-Request-Id: {request_id}",
            "Connection: close",
            *(f"{name}: {value}" for name, value in refusal.headers),
        ]
        if is_anthropic:
            lines.append(f"request-id: {request_id}")
        head = self._host.heads.write(f"HTTP/1.1 {refusal.status}", lines)
        self._send(head if is_head else head + body)
        self._linger()
        return False

    def _cut(self, reply: Reply) -> bool:
        """The answer broke off after its head: let the client see that. False, as it is the end."""
        logger.warning("answer cut short", extra={"status": reply.status})
        if reply.ends_with_connection:
            # A plain close would look like the answer's proper end.
            self._raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        return False

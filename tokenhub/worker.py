"""Our gunicorn worker: gunicorn's gevent worker with `tokenhub.wire` for its connections.

gunicorn still listens, forks, signals and parses. Here is the life of the worker process: accept,
sweep idle connections, drain on SIGTERM without waiting for clients that want nothing.

Three optional attributes of the WSGI application object are called. Without arguments: `on_drain`
once when the end was announced and nothing is accepted any more; `on_stop` once when the last
request has ended or was cut, right before the exit. Neither is called in a worker that is killed.
And `on_answer`, unless it is None, when a request has ended: see `wire.connection.OnAnswer`.

Of gunicorn's own, these are not there: the hooks pre_request and post_request, `sendfile`,
`wsgi.early_hints`, and the protocols that `check_config` refuses.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from types import FrameType
from typing import Any

import gevent
from gevent.event import Event
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn.workers.ggevent import GeventWorker

from tokenhub.wire.connection import Connection
from tokenhub.wire.reply import HeadWriter
from tokenhub.wire.request import freeze_settings, worker_environ

logger = logging.getLogger("tokenhub.worker")

UNSUPPORTED = (
    ("certfile", None, "TLS ends at the proxy in front of us"),
    ("keyfile", None, "TLS ends at the proxy in front of us"),
    ("protocol", "http", "only HTTP is spoken here"),
    ("proxy_protocol", "off", "the client's address comes in a header"),
    ("http2_cleartext", "off", "HTTP/2 ends at the proxy in front of us"),
)


class HubWorker(GeventWorker):  # type: ignore[misc]  # gunicorn has no types
    """A gunicorn worker class; the limits are explained at `wire.connection.Host`."""

    HEADER_SECS = 10.0
    BODY_SECS = 60.0
    SEND_SECS = 60.0
    DRAIN_SECS = 2.0
    DRAIN_BYTES = 16 * 1024 * 1024

    TICK_SECS = 1.0
    """How often idle connections are swept, and the parent is looked for."""
    DRAIN_TICK_SECS = 0.05
    FIRST_SECS = 0.2
    """While draining: how long a connection accepted just before may take to send its request."""
    CUT_SECS = 1.0
    """How long before gunicorn's SIGKILL what still runs is cut; half is for its cleaning up."""

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Called by gunicorn before the first fork.

        Raises:
            RuntimeError: a setting asks for what is not here. gunicorn prints it and exits.
        """
        for name, only, why in UNSUPPORTED:
            if getattr(cfg, name) != only:
                raise RuntimeError(f"gunicorn's setting {name} is not supported: {why}")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_hurried = False
        self._connections: set[Connection] = set()

    def init_process(self) -> None:
        """Runs in the child, after the fork, until the worker ends."""
        self.limits = freeze_settings(self.cfg)
        self.environ = worker_environ(self.cfg)
        self.heads = HeadWriter()
        self._ending = Event()
        self._pool = Pool(self.worker_connections)
        super().init_process()

    def run(self) -> None:
        """Accept connections until told to end, drain, and return: gunicorn then exits."""
        self.on_answer = getattr(self.wsgi, "on_answer", None)
        servers = [self._listen(each) for each in self.sockets]
        while self.alive:
            self.notify()
            self._sweep(self.cfg.keepalive, self.cfg.keepalive or self.HEADER_SECS)
            self._ending.wait(self.TICK_SECS)
        for server in servers:
            server.close()
        if self._is_hurried:
            self.cfg.worker_int(self)
        self._drain()
        self._tell_application("on_stop")

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve one connection, in a greenlet of its own.

        Args:
            listener: the address it came to; gunicorn's own workers are given the socket.
        """
        connection = Connection(self, client, addr, listener)
        self._connections.add(connection)
        try:
            connection.serve()
        finally:
            self._connections.discard(connection)

    def count_request(self) -> None:
        """One more request answered; with gunicorn's `max_requests` the last may be reached."""
        self.nr += 1
        if self.nr >= self.max_requests and self.alive:
            logger.info("worker has served max_requests")
            self._end()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM: finish what runs, and go."""
        self._end()

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        """SIGINT and SIGQUIT: go at once."""
        self._is_hurried = True
        self._end()

    def _end(self) -> None:
        self.alive = False
        self._ending.set()

    def _listen(self, listener: Any) -> StreamServer:
        listener.setblocking(1)
        # The address is asked for now: a connection accepted last of all begins after the close.
        handle = partial(self.handle, listener.getsockname())
        server = StreamServer(listener, handle=handle, spawn=self._pool)
        if self.cfg.workers > 1:
            server.max_accept = 1  # the other workers want to have connections too
        server.start()
        return server

    def _sweep(self, again_secs: float, first_secs: float) -> None:
        """Hang up on connections that have waited so long, again or for their first request."""
        now = time.monotonic()
        for connection in list(self._connections):
            since = connection.idle_since
            patience = again_secs if connection.has_served else first_secs
            if since is not None and now - since >= patience:
                connection.hang_up()

    def _drain(self) -> None:
        """Let requests finish, then cut those that are left.

        gunicorn kills us `graceful_timeout` seconds after its SIGTERM, so we cut a little earlier:
        whoever is cut can still settle its accounts.
        """
        self._sweep(0, self.FIRST_SECS)
        self._tell_application("on_drain")
        total = float(self.cfg.graceful_timeout)
        deadline = time.monotonic() + total - min(self.CUT_SECS, total / 2)
        while self._pool and not self._is_hurried and time.monotonic() < deadline:
            self.notify()
            gevent.sleep(self.DRAIN_TICK_SECS)
            self._sweep(0, self.FIRST_SECS)
        if self._pool:
            logger.warning("requests cut", extra={"requests": len(self._pool)})
            self._pool.kill(timeout=self.CUT_SECS / 2)

    def _tell_application(self, event: str) -> None:
        listener = getattr(self.wsgi, event, None)
        if listener is None:
            return
        try:
            listener()
        except Exception:  # whatever it is, the worker has to come to its end
            logger.exception("application failed at the worker's end", extra={"event": event})

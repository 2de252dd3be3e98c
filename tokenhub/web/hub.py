"""The WSGI app of one worker: Flask, with less of it for each request. Knows no route."""

from __future__ import annotations

from typing import Any

from flask import Flask, Request, Response
from flask.sessions import SessionInterface, SessionMixin
from werkzeug.routing import MapAdapter

from tokenhub.jobs import Background
from tokenhub.services import Services
from tokenhub.web.access_log import AccessLog


class Hub(Flask):
    """The WSGI app of one worker.

    `on_drain` and `on_stop` are called by the worker class: when it stops accepting, and when the
    last request has been served; `on_answer`, unless it is None, when a request has ended.
    """

    services: Services
    background: Background
    is_draining = False
    on_answer: AccessLog | None = None

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """As Flask's, which looks at the host twice, and no route of ours depends on it."""
        if request is None or "HTTP_UPGRADE" in request.environ:
            return super().create_url_adapter(request)
        return self.url_map.bind(
            request.host,
            request.root_path,
            "",
            request.scheme,
            request.method,
            request.path,
            query_args=request.environ.get("QUERY_STRING", ""),
        )

    def on_drain(self) -> None:
        """Fail readiness: whoever balances the load should look elsewhere.

        What would keep a connection open for as long as its client likes is to be ended here.
        """
        self.is_draining = True
        self.services.feed.stop()

    def on_stop(self) -> None:
        """Leave nothing behind in memory."""
        self.background.stop()
        if self.services.tracer is not None:
            self.services.tracer.close()


class _NoSession(dict[str, Any], SessionMixin):
    """What Flask is given instead of a cookie session: always the same, always empty."""


class NoSessions(SessionInterface):
    """Flask's cookie sessions are not used; making an empty one for each request costs 20 µs."""

    _none = _NoSession()

    def open_session(self, app: Flask, request: Request) -> SessionMixin:
        return self._none

    def is_null_session(self, obj: object) -> bool:
        return True

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Nothing to save."""

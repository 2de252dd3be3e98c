"""What goes out through the admin API: JSON, times as RFC 3339, and reads of the database.

Knows no entity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
from flask import Response
from sqlalchemy import Connection

from tokenhub.db import DatabaseAway
from tokenhub.domain import Outcome
from tokenhub.errors import Unavailable
from tokenhub.services import Services
from tokenhub.web.forms import Page

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

T = TypeVar("T")


class Ready(Response):
    """An answer whose headers are complete: it is handed to the worker as it is.

    Werkzeug would look again for what is missing or must be put right, for each request.

    Attributes:
        outcome: of a stream: what its request comes to, when it has ended.
    """

    outcome: Outcome | None = None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """The WSGI application; the worker closes what it is given."""
        start_response(self.status, self.headers.to_wsgi_list())
        body: Iterable[bytes] = self.response  # type: ignore[assignment]  # never text
        return body


def answer(payload: object, status: int = 200) -> Response:
    """JSON that nobody may keep: it is about secrets, or true only now."""
    response = Response(orjson.dumps(payload), status, content_type="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response


def listing(name: str, rows: list[dict[str, Any]], total: int, page: Page) -> dict[str, Any]:
    """A page of a list, and where in the list it is."""
    return {name: rows, "total": total, "limit": page.limit, "offset": page.offset}


def rfc3339(at: int | None) -> str | None:
    """Unix milliseconds as RFC 3339 in UTC; null for never (None or 0)."""
    if not at:
        return None
    moment = datetime.fromtimestamp(at / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read(hub: Services, work: Callable[[Connection], T]) -> T:
    """Run `work` in a read-only transaction.

    Raises:
        Unavailable: the database is away.
    """
    try:
        return hub.database.read(work)
    except DatabaseAway as error:
        raise Unavailable("the database is away", code="database_away") from error

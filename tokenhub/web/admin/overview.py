"""The tiles of the first page, in one call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Blueprint, Response
from sqlalchemy import Connection

from tokenhub.board.board import unix_ms
from tokenhub.errors import InvalidRequest
from tokenhub.views import overview as view
from tokenhub.views.attention import judge
from tokenhub.views.items import Severity
from tokenhub.web import forms, guards
from tokenhub.web.admin import asking, dimensions
from tokenhub.web.admin.attention import read_facts
from tokenhub.web.answers import answer, rfc3339

routes = Blueprint("overview", __name__)

SPAN_DEFAULT_MS = 3_600_000
SPAN_MAX_MS = 3660 * 86_400_000

ASKS: dict[str, asking.Ask] = {**asking.TIMES, "cmp": asking.one(forms.one_of("0", "1"))}


@routes.get("/overview")
def overview() -> Response:
    """Requests, outcomes, latency, spending and refusals of a time, the last hour by default."""
    hub, now = guards.services(), unix_ms()
    asked = asking.read_query(ASKS)
    span = span_of(asked, now, SPAN_DEFAULT_MS)
    compare = asked.get("cmp", "1") == "1"

    def work(connection: Connection) -> tuple[dict[str, Any], Mapping[Severity, int]]:
        tiles = view.read(connection, span, now, compare=compare)
        return tiles, judge(read_facts(connection, hub, now)).counts

    tiles, counts = dimensions.read(hub, work)
    return answer(
        {
            "as_of": rfc3339(now),
            "from": rfc3339(span.from_at),
            "to": rfc3339(span.to_at),
            **tiles,
            "attention": counts,
        }
    )


def span_of(asked: dict[str, Any], now: int, default_ms: int) -> view.Span:
    """The time that is asked for; it ends now unless something else is said.

    Raises:
        InvalidRequest: it ends before it begins, or is longer than anybody has been here.
    """
    from_at, to_at = asking.times_of(asked)
    end = now if to_at is None else to_at
    begin = end - default_ms if from_at is None else from_at
    if begin > end:
        raise InvalidRequest("from must not be in the future", param="from")
    if end - begin > SPAN_MAX_MS:
        raise InvalidRequest("from and to must not be more than ten years apart", param="from")
    return view.Span(begin, end)

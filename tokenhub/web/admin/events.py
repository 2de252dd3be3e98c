"""What happens, as it happens, and how health has changed.

The stream is the same on every worker of every host, and can be resumed on any.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
from flask import Blueprint, Response, request

from tokenhub import store
from tokenhub.board.board import unix_ms
from tokenhub.domain import ENDINGS
from tokenhub.errors import InvalidRequest
from tokenhub.events import TYPES, Reader, Wants
from tokenhub.services import Services
from tokenhub.web import access, events, forms, guards
from tokenhub.web.admin import asking
from tokenhub.web.admin.feeds import Feed
from tokenhub.web.answers import rfc3339

routes = Blueprint("events", __name__)

RATE_MAX = 10_000
SECS_MAX = 86_400

ASKS: dict[str, asking.Ask] = {
    "types": asking.words_of(*TYPES),
    "key": asking.one(asking.identifier),
    "model": asking.one(asking.identifier),
    "provider": asking.one(asking.identifier),
    "outcome": asking.one(forms.one_of(*ENDINGS)),
    "rate_max": asking.one(asking.integer(1, RATE_MAX)),
    "last_event_id": asking.one(lambda name, value: _place(name, value)),
    "secs": asking.one(asking.integer(0, SECS_MAX)),
}

TRANSITION_FIELDS = (
    "kind", "model_id", "provider_id", "old_state", "new_state", "old_breaker", "breaker",
    "reason",
)  # fmt: skip


@routes.get("/events")
def follow() -> Response:
    """Everything that happens, as `text/event-stream`."""
    hub = guards.services()
    asked = _asked()
    hub.feed.check_room()
    if request.method == "HEAD":
        return Response(headers=events.HEADERS, content_type="text/event-stream")
    pieces = events.stream(hub, asked, _welcome(hub))
    return Response(pieces, headers=events.HEADERS, content_type="text/event-stream")


@routes.get("/health/transitions")
def transitions() -> Response:
    """How the health of providers and models has changed, on all hosts, newest first."""
    asked = asking.read_query(
        {
            **asking.TIMES,
            "provider": asking.one(asking.identifier),
            "model": asking.one(asking.identifier),
            **asking.PAGING,
        }
    )
    from_at, to_at = asking.times_of(asked)
    filters = store.TransitionFilters(from_at, to_at, asked.get("provider"), asked.get("model"))
    return TRANSITIONS.serve(guards.services(), filters, asked)


def record(row: dict[str, Any]) -> dict[str, Any]:
    """A change of health."""
    fields = orjson.loads(row["fields"])
    return {
        "id": row["id"],
        "timestamp": rfc3339(row["at"]),
        "host_id": row["host_id"],
        **{name: fields.get(name) for name in TRANSITION_FIELDS},
        "until": rfc3339(fields.get("until_at")),
    }


def _asked() -> events.Asked:
    """What the query string asks for; the header of a browser that comes back goes first."""
    values = asking.read_query(ASKS)
    after = request.headers.get("Last-Event-ID", "")
    if after:
        _place("Last-Event-ID", after)
    types = values.get("types")
    return events.Asked(
        wants=Wants(
            types=None if types is None else frozenset(types),
            api_key_id=values.get("key"),
            model_id=values.get("model"),
            provider_id=values.get("provider"),
            outcome=values.get("outcome"),
            rate_max=values.get("rate_max", 0),
        ),
        after=after or values.get("last_event_id", ""),
        secs=values.get("secs"),
    )


def _place(name: str, value: str) -> str:
    """The id of an event."""
    try:
        Reader.resume(value, str)
    except ValueError:
        raise InvalidRequest(f"{name} must be the id of an event", param=name) from None
    return value


def _welcome(hub: Services) -> Callable[[], bool]:
    """Says whether whoever asks may still listen: what they came in with is still in force."""
    admin = access.current_admin()
    secret = request.cookies.get(access.COOKIE, "")

    def is_welcome() -> bool:
        admins = hub.catalog.latest().admins
        if admin.session is not None:
            return admins.find_session(secret, hub.root, unix_ms()) is not None
        return admins.find_token(admin.token.sha256, hub.root, unix_ms()) is not None

    return is_welcome


TRANSITIONS = Feed(
    "health-transitions",
    "transitions",
    ("id", "timestamp", "host_id", *TRANSITION_FIELDS, "until"),
    store.find_transitions,
    store.count_transitions,
    record,
)

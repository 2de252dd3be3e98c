"""Who changed what: pages and exports of the audit."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response

from tokenhub import store
from tokenhub.web import guards
from tokenhub.web.admin import asking
from tokenhub.web.admin.feeds import Feed
from tokenhub.web.answers import rfc3339

routes = Blueprint("audit", __name__)

AS_THEY_ARE = ("action", "resource", "detail", "request_id", "actor", "client_ip")
WORDS = ("action", "resource", "actor", "request_id", "client_ip")
FILTERS: dict[str, asking.Ask] = {**asking.TIMES, **dict.fromkeys(WORDS, asking.words)}


@routes.get("/audit")
def list_all() -> Response:
    """Who changed what, newest first: a page, or all of it as CSV or JSON lines."""
    asked = asking.read_query({**FILTERS, **asking.PAGING})
    from_at, to_at = asking.times_of(asked)
    words = {name: asked[name] for name in WORDS if name in asked}
    return AUDIT.serve(guards.services(), store.AuditFilters(from_at, to_at, words), asked)


def record(row: dict[str, Any]) -> dict[str, Any]:
    """A change; `detail` holds the before and the after as JSON text."""
    return {
        "id": row["id"],
        "timestamp": rfc3339(row["at"]),
        **{name: row[name] for name in AS_THEY_ARE},
    }


AUDIT = Feed(
    "audit",
    "logs",
    ("id", "timestamp", *AS_THEY_ARE),
    store.find_audit,
    store.count_audit,
    record,
)

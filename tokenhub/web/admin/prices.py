"""Imported prices: how the table stands, and a refresh at once."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response

from tokenhub.price_source import shown_source
from tokenhub.prices import Prices
from tokenhub.services import Services
from tokenhub.web import changes, forms, guards
from tokenhub.web.answers import answer, rfc3339

routes = Blueprint("prices", __name__)


@routes.get("/prices")
def status() -> Response:
    """Where prices come from and how the last refresh on this host went."""
    forms.check_query()
    hub = guards.services()
    found = _prices(hub).status()
    return answer(
        {
            "enabled": hub.settings.pricing_refresh_enabled,
            "source": shown_source(hub.settings.pricing_source),
            "table_source": found.source,
            "fetched_at": rfc3339(found.fetched_at),
            "entries": found.entries,
            "refused": found.refused,
            "error": found.error,
            "tried_at": rfc3339(found.tried_at),
        }
    )


@routes.post("/prices/refresh")
def refresh() -> Response:
    """Read the table now, also when regular refreshes are off."""
    hub = guards.services()
    template = changes.change_of(hub, "model", "", action="model.price")
    report = _prices(hub).refresh(template)
    shown: dict[str, Any] = {
        "updated": report.updated,
        "unchanged": report.unchanged,
        "unmatched": report.unmatched,
        "source": report.source,
        "fetched_at": rfc3339(report.fetched_at),
        "error": report.error,
    }
    return answer(shown)


def _prices(hub: Services) -> Prices:
    return Prices(settings=hub.settings, catalog=hub.catalog, database=hub.database)

"""What there is to see: info, logs, audit, and what can be routed to now."""

from __future__ import annotations

import os

from flask import Blueprint, Response

from tokenhub import __version__
from tokenhub.db import DatabaseAway
from tokenhub.domain import Provider
from tokenhub.services import Services
from tokenhub.web import forms, guards
from tokenhub.web.admin import models
from tokenhub.web.answers import answer, listing

routes = Blueprint("views", __name__)


@routes.get("/info")
def info() -> Response:
    """Which gateway this is and how it stands; answers also while the database is away."""
    forms.check_query()
    hub = guards.services()
    return answer(
        {
            "tokenhub": "admin",
            "vault_locked": hub.vault.is_locked,
            "vault_initialized": _is_vault_initialized(hub),
            "version": __version__,
            "host_id": hub.host_id,
            "worker": {"pid": os.getpid(), "slot": hub.board.slot},
            "workers": hub.board.worker_pids(),
            "catalog_version": hub.catalog.latest().version,
        }
    )


@routes.get("/engine/models")
def engine_models() -> Response:
    """What can be routed to now, and through which providers."""
    hub = guards.services()
    page = forms.read_page()
    snapshot = hub.catalog.current()
    part = snapshot.routable[page.offset : page.offset + page.limit]
    shown = [models.record(each) for each in part]
    usable = sorted(snapshot.usable)
    return answer(
        {
            **listing("models", shown, len(snapshot.routable), page),
            "adapters": usable,
            "adapter_info": [
                {"id": each, "health_endpoint": _health_url(hub, snapshot.providers[each])}
                for each in usable
            ],
        }
    )


def _is_vault_initialized(hub: Services) -> bool | None:
    """null: the database is away, so nobody knows."""
    try:
        return hub.vault.is_initialized()
    except DatabaseAway:
        return None


def _health_url(hub: Services, provider: Provider) -> str:
    return hub.gateway.adapters[provider.type].health_url(provider.base_url)

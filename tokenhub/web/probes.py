"""What machines ask: is it alive, should it get traffic, how is it going, what can it do."""

from __future__ import annotations

import hmac
from pathlib import Path
from typing import Any

import gevent
from flask import Blueprint, Response, current_app, request
from flask.blueprints import BlueprintSetupState
from prometheus_client import CollectorRegistry
from prometheus_flask_exporter import PrometheusMetrics

from tokenhub import __version__, host
from tokenhub.errors import Unauthenticated
from tokenhub.services import Services
from tokenhub.telemetry import BoardCollector, Facts
from tokenhub.web import access, guards
from tokenhub.web.answers import answer

blueprint = Blueprint("probes", __name__)

EXPORTER = "tokenhub.metrics"

DESCRIPTION = "tokenhub.openapi"
DESCRIPTION_FILE = Path(__file__).parents[2] / "docs" / "openapi.json"


@blueprint.record
def read_description(state: BlueprintSetupState) -> None:
    """Read it when the app is built: a new version starts new workers."""
    state.app.extensions[DESCRIPTION] = DESCRIPTION_FILE.read_bytes()


@blueprint.get("/healthz")
def healthz() -> Response:
    """This worker answers. Always 200: a restart would not help with anything else."""
    snapshot = guards.services().catalog.latest()
    return answer(
        {
            "status": "ok",
            "adapters": len(snapshot.usable),
            "models": len(snapshot.routable),
            "version": __version__,
        }
    )


@blueprint.get("/readyz")
def readyz() -> Response:
    """Whether traffic should come here; 503 says why not."""
    reasons = _reasons(guards.services())
    return answer({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)


@blueprint.get("/metrics")
def metrics() -> Response:
    """Prometheus metrics of this host; every worker gives the same."""
    hub = guards.services()
    if not hub.settings.metrics_public:
        _require_token(hub)
    body, content_type = _exporter(hub).generate_metrics(request.headers.get("Accept"))
    return Response(body, 200, content_type=content_type)


@blueprint.get("/openapi.json")
def description() -> Response:
    """Every endpoint, as OpenAPI 3.1; no secret, so it needs no token."""
    response = Response(current_app.extensions[DESCRIPTION], 200, content_type="application/json")
    response.headers["Cache-Control"] = "no-cache"
    return response


def _reasons(hub: Services) -> list[str]:
    reasons: list[str] = []
    if getattr(current_app, "is_draining", False):  # the factory's app knows
        reasons.append("draining")
    if hub.board.database_age_secs > hub.settings.max_stale_secs:
        reasons.append("database_away")
    if not hub.catalog.latest().routable:
        reasons.append("no_model")
    return reasons


def _require_token(hub: Services) -> None:
    """Let the metrics token pass, and any administrator's."""
    token = guards.bearer_token(request.environ).encode("latin-1", "replace")
    if not token:
        raise Unauthenticated("the metrics token is required", code="missing_metrics_token")
    ours = hub.settings.metrics_token.encode()

    def is_allowed(given: bytes) -> bool | None:
        is_ours = bool(ours) and hmac.compare_digest(given, ours)
        return is_ours or access.find_admin(hub, given) is not None or None

    if not access.guess(hub, token, is_allowed):
        raise Unauthenticated("the metrics token is not valid", code="invalid_metrics_token")


def _exporter(hub: Services) -> Any:
    """prometheus_flask_exporter over the board alone; its hooks on each request are off."""

    def exists(kind: str, id_: str) -> bool:
        snapshot = hub.catalog.latest()
        return id_ in (snapshot.models if kind == "model" else snapshot.providers)

    found = current_app.extensions.get(EXPORTER)
    if found is None:
        registry = CollectorRegistry()
        facts = Facts(
            catalog_version=lambda: hub.catalog.latest().version,
            exists=exists,
            vault_is_locked=lambda: hub.vault.is_locked,
            journal_directory=host.journal_directory(hub.settings),
            journal_bytes_max=hub.settings.journal_max_mb << 20,
            version=__version__,
        )
        registry.register(BoardCollector(hub.board, facts, pause=gevent.sleep))
        found = current_app.extensions[EXPORTER] = PrometheusMetrics(
            app=None, path=None, export_defaults=False, registry=registry
        )
    return found

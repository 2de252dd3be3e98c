"""What a provider lists, beside what is registered of it. Registers nothing."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response

from tokenhub import discovery
from tokenhub.domain import Provider
from tokenhub.errors import NotFound, ProviderError, RoutingError
from tokenhub.providers.base import ModelListing
from tokenhub.services import Services
from tokenhub.web import forms, guards
from tokenhub.web.answers import answer

routes = Blueprint("discover", __name__)

OWNER_CHARS_MAX = 100

_KEY_REFUSED = {"auth_failed", "forbidden", "quota_exhausted"}
_NOT_REACHED = {
    "unreachable", "connect_timeout", "address_refused", "connection_closed", "first_byte_timeout",
    "answer_idle", "stream_idle", "total_deadline",
}  # fmt: skip


@routes.get("/providers/<path:provider_id>/discover")
def discover(provider_id: str) -> Response:
    """Ask a provider for its models, with its own key, whether it is enabled or not."""
    forms.check_query()
    hub = guards.services()
    provider_id = forms.path_id(provider_id)
    snapshot = hub.catalog.current()
    provider = snapshot.providers.get(provider_id)
    if provider is None:
        raise NotFound("there is no such provider", param="id")
    registered = {
        model.upstream_model
        for model in snapshot.models.values()
        if model.provider_id == provider_id
    }
    rows = [_row(provider, each, registered) for each in _list(hub, provider)]
    return answer({"provider_id": provider_id, "models": rows, "total": len(rows)})


def _list(hub: Services, provider: Provider) -> list[ModelListing]:
    adapter = hub.gateway.adapters.get(provider.type)
    if adapter is None:
        raise NotFound("there is no adapter for this provider's type", param="id")
    api_key = hub.gateway.secret_of(provider)
    try:
        return discovery.list_models(adapter, provider, api_key)
    except ProviderError as error:
        raise told(error) from None


def told(error: ProviderError) -> RoutingError:
    """The provider's failure as ours to report: its status is a detail, its text is not told."""
    details = {"error_class": error.error_class, "upstream_status": error.status}
    if error.error_class in _KEY_REFUSED:
        return RoutingError(
            "the provider does not accept its key, or the key may not list models",
            code="provider_auth_failed",
            details=details,
        )
    if error.error_class in _NOT_REACHED:
        return RoutingError(
            "the provider cannot be reached, or does not answer",
            code="provider_unreachable",
            details=details,
        )
    return RoutingError(
        "the provider answered with something other than its models",
        code="provider_error",
        details=details,
    )


def _row(provider: Provider, listing: ModelListing, registered: set[str]) -> dict[str, Any]:
    model = discovery.suggest(provider.id, listing)
    owner = listing.owned_by
    return {
        "id": model.id,
        "owned_by": owner[:OWNER_CHARS_MAX] if owner.isprintable() else "",
        "registered": listing.id in registered,
        "capabilities": list(model.capabilities),
        "max_context_tokens": model.max_context_tokens,
        "max_output_tokens": model.max_output_tokens,
    }

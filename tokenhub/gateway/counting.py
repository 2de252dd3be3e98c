"""How many tokens a request is: as a provider counts that can, else as we estimate.

Nothing is recorded, billed or blamed: counting costs nothing anywhere, and nobody is asked twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenhub.catalog import Snapshot
from tokenhub.domain import Caller, ChatRequest, Policy
from tokenhub.errors import (
    ProviderError,
    RequestRefused,
    RoutingError,
    UpstreamRefused,
    VaultError,
)
from tokenhub.gateway.gateway import Gateway
from tokenhub.gateway.verdict import without_key
from tokenhub.providers.base import Target, Timeouts

TIMEOUTS = Timeouts(connect_secs=1.0, first_byte_secs=3.0, idle_secs=1.0, total_secs=4.0)
"""Whoever counts before asking wants to know soon; our estimate is there at once."""


def count_tokens(
    gateway: Gateway, caller: Caller, snapshot: Snapshot, request: ChatRequest, policy: Policy
) -> Mapping[str, Any]:
    """The input tokens of a request for the model that would be asked first, and whatever else its
    provider says of them.

    Raises:
        UpstreamRefused: the provider finds the caller at fault, as it will when it is asked.
        NotFound, PermissionDenied: the request names a model that is not there, or not for the
            caller.
    """
    try:
        decision = gateway.decide(snapshot, request, policy, key_id=caller.key.id, is_trial=True)
    except RoutingError:
        return _estimate(request)  # nobody could be asked now; it can be counted all the same
    model = (decision.candidates or decision.last_resort)[0].model
    provider = snapshot.providers[model.provider_id]
    api_key = None
    try:
        api_key = gateway.secret_of(provider)
        target = Target(
            provider_id=provider.id,
            base_url=provider.base_url,
            model=model.upstream_model,
            api_key=api_key,
        )
        adapter = gateway.adapters[provider.type]
        counted = adapter.count_tokens(target, request, TIMEOUTS, caller.request_id)
    except ProviderError as error:
        if error.next_step == "stop":
            body = without_key(error.body, api_key)
            raise UpstreamRefused(error.status or 400, body) from None
        return _estimate(request)
    except (RequestRefused, VaultError):
        return _estimate(request)
    return _estimate(request) if counted is None else counted


def _estimate(request: ChatRequest) -> dict[str, int]:
    return {"input_tokens": request.input_tokens}

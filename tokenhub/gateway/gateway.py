"""What a worker serves requests with, and the one decision that each of them gets."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tokenhub.board import Board
from tokenhub.catalog import Snapshot
from tokenhub.domain import ChatRequest, Decision, Policy, Provider
from tokenhub.errors import NotFound, PermissionDenied
from tokenhub.escrow import Escrow
from tokenhub.providers.base import Adapter, Timeouts
from tokenhub.recorder import Recorder
from tokenhub.routing import decide, resolve_name


@dataclass(frozen=True)
class Gateway:
    """What every exchange of this worker works with.

    Args:
        adapters: by provider type.
        secret_of: the provider's key, looked up at call time; raises VaultLocked.
        temperature: exploration over the ranking; 0 takes the best.
        unknown_model: "404" or "route".
    """

    board: Board
    recorder: Recorder
    escrow: Escrow
    adapters: Mapping[str, Adapter]
    secret_of: Callable[[Provider], str | None]
    whole_timeouts: Timeouts
    stream_timeouts: Timeouts
    temperature: float = 0.0
    unknown_model: str = "404"
    rng: random.Random = field(default_factory=random.Random)

    def decide(self, snapshot: Snapshot, request: ChatRequest, policy: Policy) -> Decision:
        """Order the models for a request. No side effects.

        Raises:
            NotFound: the request names a model that we do not know.
            PermissionDenied: it names one that the key may not use.
            NoEligibleModel, InvalidRequest: see `routing.decide`.
        """
        named = None if request.model in ("", "*") else self._find(snapshot, request.model)
        return decide(
            request,
            policy,
            snapshot.routable,
            adapters=snapshot.usable,
            health=self.board.vitals.view(),
            named=named,
            temperature=self.temperature,
            rng=self.rng,
            snapshot_version=snapshot.version,
        )

    def _find(self, snapshot: Snapshot, name: str) -> str | None:
        """The id of the model that a caller names; None = unknown, and the choice is ours."""
        named = resolve_name(name, snapshot.models)
        if named is None:
            if self.unknown_model == "404":
                raise NotFound(
                    f"the model {name[:200]!r} does not exist",
                    code="model_not_found",
                    param="model",
                )
        elif snapshot.allowed is not None and named not in snapshot.allowed:
            raise PermissionDenied(
                f"the API key may not use the model {named!r}",
                code="model_not_allowed",
                param="model",
            )
        return named

"""What a worker serves requests with, and the one decision that each of them gets."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from tokenhub.aliases import choose, usable_of, variant_at
from tokenhub.board import Board
from tokenhub.board.board import unix_ms
from tokenhub.catalog import Snapshot
from tokenhub.domain import Alias, ChatRequest, Decision, Policy, Provider
from tokenhub.escrow import Escrow
from tokenhub.gateway.naming import considered, find_wish
from tokenhub.health import HealthView, drained
from tokenhub.providers.base import Adapter, Timeouts
from tokenhub.recorder import Recorder
from tokenhub.routing import Choose, decide


@dataclass(frozen=True)
class Gateway:
    """What every exchange of this worker works with.

    Args:
        adapters: by provider type.
        secret_of: the provider's key, looked up at call time; raises VaultLocked.
        temperature: exploration over the ranking; 0 takes the best.
        unknown_model: "404" or "route".
        hedge_after_secs: ask another model as well after so long; 0 = never.
        hedged_max: how many are asked at once, at most, where that is done.
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
    hedge_after_secs: float = 0.0
    hedged_max: int = 3
    rng: random.Random = field(default_factory=random.Random)

    def decide(
        self,
        snapshot: Snapshot,
        request: ChatRequest,
        policy: Policy,
        *,
        key_id: str = "",
        is_trial: bool = False,
    ) -> Decision:
        """Order the models for a request. An alias whose models take turns moves on; nothing else
        is changed.

        Args:
            snapshot: as the caller's key sees it.
            key_id: that key; what an alias may keep it with its variant by.
            is_trial: take nobody's turn.

        Raises:
            NotFound: the request names a model that we do not know.
            PermissionDenied: it names one that the key may not use.
            NoEligibleModel, InvalidRequest: see `routing.decide`.
        """
        wish = find_wish(snapshot, request, policy, self.unknown_model)
        alias = wish.alias
        decision = decide(
            request,
            policy,
            considered(snapshot, wish),
            adapters=snapshot.usable,
            health=self.health_of(snapshot),
            named=wish.named,
            temperature=self.temperature,
            rng=self.rng,
            snapshot_version=snapshot.version,
            listed=wish.listed,
            choose=None if alias is None else self._choice(alias, request, key_id, is_trial),
            alias_from="" if alias is None else alias.name,
        )
        return decision._replace(brought_by=wish.brought_by) if wish.brought_by else decision

    def health_of(self, snapshot: Snapshot) -> HealthView:
        """How everybody is now, and who is kept out of use."""
        view = self.board.vitals.view()
        return drained(view, snapshot.drains, unix_ms()) if snapshot.drains else view

    def _choice(self, alias: Alias, request: ChatRequest, key_id: str, is_trial: bool) -> Choose:
        def pick(usable: Collection[str]) -> str | None:
            fit = usable_of(alias, usable)
            if len(fit) < 2:
                return fit[0].model_id if fit else None
            if alias.sticky_by == "round_robin":
                # Those who can take a turn now take turns among themselves.
                name = "\n".join((alias.name, *(variant.model_id for variant in fit)))
                turns = self.board.turns
                turn = turns.peek(name) if is_trial else turns.take(name)
                return variant_at(fit, turn).model_id
            key = request.sticky_key
            if alias.sticky_by == "api_key" and key_id:
                key = key_id
            return choose(alias, usable, key=key, rng=self.rng).model_id

        return pick

"""How this host stands, as far as only its own memory and disk know.

Its leader tells it to the others with every sign of life. Reads no database.
"""

from __future__ import annotations

from collections.abc import Callable

from tokenhub.board import Board
from tokenhub.catalog import Snapshot
from tokenhub.config import Settings
from tokenhub.prices import load_status
from tokenhub.secret_memory import SecretMemory
from tokenhub.store import HostState


def state_of(
    *,
    settings: Settings,
    board: Board,
    secret_memory: SecretMemory,
    snapshot_of: Callable[[], Snapshot],
) -> HostState:
    """The host's state now."""
    prices = load_status(settings.data_dir)
    providers = snapshot_of().providers
    return HostState(
        lag_secs=round(board.backlog.lag_secs, 1),
        waiting_bytes=board.backlog.waiting_bytes,
        set_aside=board.backlog.set_aside,
        # Not whether administrators must unlock: what counts is whether requests get keys.
        vault_locked=settings.vault_enabled and secret_memory.read() is None,
        prices_at=prices.fetched_at,
        prices_error=prices.error,
        provider_answers=any(
            each.kind == "provider"
            and each.id in providers
            and not providers[each.id].demo
            and (each.last_success_at > 0 or (each.probe is not None and each.probe.is_alive))
            for each in board.vitals.list_all()
        ),
    )

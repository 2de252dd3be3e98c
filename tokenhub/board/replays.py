"""How requests with an idempotency key fared on this host. Counts, and knows nothing of them."""

from __future__ import annotations

from typing import Literal, get_args

from tokenhub.board.memory import Memory

Fate = Literal["served", "replayed", "reused", "owner_lost", "in_flight", "not_kept", "unavailable"]
"""served: it was the first, or those before it came to nothing. The others are as the errors."""

FATES: tuple[Fate, ...] = get_args(Fate)


class Replays:
    """Counters that only go up; they begin at 0 with the host."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._words = memory.words
        self._counts = memory.reserve(len(FATES))

    def note(self, fate: Fate) -> None:
        """One more request."""
        with self._memory.lock():
            self._words[self._counts + FATES.index(fate)] += 1

    def counts(self) -> dict[str, int]:
        """How many requests there were, by their fate."""
        return {fate: self._words[self._counts + at] for at, fate in enumerate(FATES)}

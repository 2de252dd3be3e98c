"""Who listens to the events of this host, and what of them was lost.

Each worker counts in a column of its own. Knows nothing of what an event is.
"""

from __future__ import annotations

from tokenhub.board.memory import Memory

CLIENTS, DROPPED, UNPUBLISHED, FEED_WORDS = range(4)


class Feeds:
    """Streams of events, of all workers together."""

    def __init__(self, memory: Memory, *, slots: int) -> None:
        self._words = memory.words
        self._start = memory.reserve(slots * FEED_WORDS)
        self._slots = slots

    @property
    def clients(self) -> int:
        """Streams that are open now."""
        return self._sum(CLIENTS)

    @property
    def dropped(self) -> int:
        """Events that streams have not had because their readers were too slow."""
        return self._sum(DROPPED)

    @property
    def unpublished(self) -> int:
        """Events that were not written down, for want of room or because the disk failed."""
        return self._sum(UNPUBLISHED)

    def enter(self, slot: int) -> None:
        """One more stream in this worker."""
        self._words[self._at(slot, CLIENTS)] += 1

    def leave(self, slot: int) -> None:
        """One stream fewer in this worker."""
        self._words[self._at(slot, CLIENTS)] -= 1

    def note_dropped(self, slot: int, events: int) -> None:
        """A stream has told its reader that so many are missing."""
        self._words[self._at(slot, DROPPED)] += events

    def note_unpublished(self, slot: int) -> None:
        """An event was not written down."""
        self._words[self._at(slot, UNPUBLISHED)] += 1

    def clear_slot(self, slot: int) -> None:
        """The worker is gone, and its streams with it; what it has counted stays."""
        self._words[self._at(slot, CLIENTS)] = 0

    def _at(self, slot: int, field: int) -> int:
        return self._start + slot * FEED_WORDS + field

    def _sum(self, field: int) -> int:
        return sum(self._words[self._at(slot, field)] for slot in range(self._slots))

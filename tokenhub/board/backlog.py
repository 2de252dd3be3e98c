"""How far the database is behind the journal of this host.

Workers say how much they have appended, each in a column of its own; the ingester says how much of
it has arrived. Knows nothing of what is in a record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tokenhub.board.memory import Memory

INGESTED_BYTES, CAUGHT_UP_MS, SET_ASIDE, BACKLOG_WORDS = range(4)


class Backlog:
    """What is not in the database yet.

    Args:
        first_segment: of the journal in this run; what is before it was never counted here.
        now_ms: a clock that all processes of this host share and nobody can set.
    """

    def __init__(
        self, memory: Memory, *, slots: int, first_segment: int, now_ms: Callable[[], int]
    ) -> None:
        self._words = memory.words
        self._at = memory.reserve(BACKLOG_WORDS)
        self._appended = memory.reserve(slots)
        self._slots = slots
        self._first_segment = first_segment
        self._now_ms = now_ms
        self._words[self._at + CAUGHT_UP_MS] = now_ms()

    def note_appended(self, slot: int, size_bytes: int) -> None:
        """A worker has written so much down."""
        self._words[self._appended + slot] += size_bytes

    @property
    def appended_bytes(self) -> int:
        """What all workers of this run have written down."""
        return sum(self._words[self._appended : self._appended + self._slots])

    def note_ingested(self, spans: Mapping[int, tuple[int, int]]) -> None:
        """This much more is in the database: by segment, from where to where. The ingester's alone
        to call."""
        ours = (new - old for at, (old, new) in spans.items() if at >= self._first_segment)
        self._words[self._at + INGESTED_BYTES] += sum(ours)

    def catch_up(self, appended_bytes: int, began_ms: int) -> None:
        """Everything is in the database that was there at a moment. The ingester's alone to call.

        Args:
            appended_bytes, began_ms: as they were at that moment.
        """
        self._words[self._at + INGESTED_BYTES] = appended_bytes
        self._words[self._at + CAUGHT_UP_MS] = began_ms

    @property
    def waiting_bytes(self) -> int:
        """What this run has written down and the database does not have."""
        return max(0, self.appended_bytes - self._words[self._at + INGESTED_BYTES])

    @property
    def lag_secs(self) -> float:
        """No record that waits is older; also grows while nobody looks."""
        return (self._now_ms() - self._words[self._at + CAUGHT_UP_MS]) / 1000

    def note_set_aside(self, records: int) -> None:
        """Records that the database will not take are in a file now. The ingester's alone."""
        self._words[self._at + SET_ASIDE] += records

    @property
    def set_aside(self) -> int:
        """How many records are in the file instead of the database."""
        return self._words[self._at + SET_ASIDE]

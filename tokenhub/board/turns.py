"""Whose turn it is, counted for all workers of this host at once.

One counter for each name that requests take turns under. Knows nothing of who takes them.
"""

from __future__ import annotations

from tokenhub.board.memory import Directory, Memory

NAMES_MAX = 1024
"""The names beyond share one counter: their turns are still taken, though not in strict order."""
NAME_BYTES = 152
TURN_WORDS = NAMES_MAX * (2 + -(-NAME_BYTES // 8)) + 1


class Turns:
    """Counters that only go up; they begin at 0 with the host."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._words = memory.words
        self._names = Directory(memory, rows=NAMES_MAX, name_bytes=NAME_BYTES)
        self._turns = memory.reserve(NAMES_MAX)

    def take(self, name: str) -> int:
        """The number of this turn, which nobody else gets."""
        at = self._turns + self._names.row_of(name)
        with self._memory.lock():
            turn = self._words[at]
            self._words[at] = turn + 1
        return turn

    def peek(self, name: str) -> int:
        """The number that the next turn will have."""
        return self._words[self._turns + self._names.row_of(name)]

"""Attempts of the last minute, counted in windows of ten seconds.

One row for each thing that is attempted and a column for each worker slot in it, so that counting
needs no lock: a column has one writer. Knows nothing of what the rows are.
"""

from __future__ import annotations

from typing import NamedTuple

from tokenhub.board.memory import Memory

WINDOW_MS = 10_000
WINDOWS = 6

# Words of one window in one slot's column.
EPOCH, SUCCESSES, FAILURES, LATENCY_SUM_MS, WINDOW_WORDS = range(5)


class Sums(NamedTuple):
    """What happened in the last minute."""

    successes: int
    failures: int
    latency_sum_ms: int


class Windows:
    """Rows of windows in shared memory."""

    def __init__(self, memory: Memory, *, rows: int, slots: int) -> None:
        self._words = memory.words
        self._stride = slots * WINDOWS * WINDOW_WORDS
        self._start = memory.reserve(rows * self._stride)

    def add_success(self, row: int, slot: int, now_ms: int, latency_ms: int) -> None:
        """Count an attempt that was answered."""
        at, words = self._window(row, slot, now_ms), self._words
        words[at + SUCCESSES] += 1
        words[at + LATENCY_SUM_MS] += latency_ms

    def add_failure(self, row: int, slot: int, now_ms: int) -> None:
        """Count an attempt that failed."""
        self._words[self._window(row, slot, now_ms) + FAILURES] += 1

    def sums(self, row: int, now_ms: int) -> Sums:
        """The last minute of a row, over all slots."""
        oldest = now_ms // WINDOW_MS - WINDOWS
        start = self._start + row * self._stride
        successes = failures = latency_sum_ms = 0
        for at in range(start, start + self._stride, WINDOW_WORDS):
            if self._words[at + EPOCH] > oldest:
                successes += self._words[at + SUCCESSES]
                failures += self._words[at + FAILURES]
                latency_sum_ms += self._words[at + LATENCY_SUM_MS]
        return Sums(successes, failures, latency_sum_ms)

    def _window(self, row: int, slot: int, now_ms: int) -> int:
        """The current window of a slot's column, emptied if it held an older ten seconds."""
        number = now_ms // WINDOW_MS
        column = slot * WINDOWS + number % WINDOWS
        at = self._start + row * self._stride + column * WINDOW_WORDS
        words = self._words
        if words[at + EPOCH] != number:
            words[at + SUCCESSES] = 0
            words[at + FAILURES] = 0
            words[at + LATENCY_SUM_MS] = 0
            words[at + EPOCH] = number
        return at

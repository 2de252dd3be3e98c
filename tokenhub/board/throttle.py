"""Wrong guesses, counted for each who makes them, so that all workers of a host refuse together.

A table of fixed size: when it is full, whoever has been quiet longest makes way. Knows nothing of
what is guessed, nor of who an id stands for.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b

from tokenhub.board.memory import Memory

ROWS = 4096
PROBES = 8
FORGET_MS = 1_800_000
"""After so long without a wrong guess the earlier ones are forgotten."""

MINUTE_MS = 60_000

# Words of a row.
KEY, FAILURES, LAST_MS, MINUTE, NOTES, ROW_WORDS = range(6)
THROTTLE_WORDS = (ROWS + 1) * ROW_WORDS  # the last row is that of all together


class Throttle:
    """Who has to wait before the next guess.

    Args:
        rest_secs: how long to wait after so many wrong guesses; 0 = not at all.
        now_ms: a clock that all processes share and nobody sets.
    """

    def __init__(
        self, memory: Memory, *, rest_secs: Callable[[int], int], now_ms: Callable[[], int]
    ) -> None:
        self._memory = memory
        self._words = memory.words
        self._start = memory.reserve(THROTTLE_WORDS)
        self._everybody = self._start + ROWS * ROW_WORDS
        self._rest_secs = rest_secs
        self._now_ms = now_ms

    def wait_secs(self, who: str) -> int:
        """Whole seconds until `who` may guess again; 0 = now."""
        at = self._find(_key_of(who))
        if at is None:
            return 0
        rest_ms = self._rest_secs(self._words[at + FAILURES]) * 1000
        return max(0, -(-(self._words[at + LAST_MS] + rest_ms - self._now_ms()) // 1000))

    def fail(self, who: str) -> int:
        """Count a wrong guess; returns how many there have been."""
        words, now = self._words, self._now_ms()
        with self._memory.lock():
            at = self._find_or_take(_key_of(who))
            if now - words[at + LAST_MS] > FORGET_MS:
                words[at + FAILURES] = 0
            words[at + FAILURES] += 1
            words[at + LAST_MS] = now
            return words[at + FAILURES]

    def clear(self, who: str) -> None:
        """Forget the wrong guesses of `who`: they have guessed right."""
        key = _key_of(who)
        if self._find(key) is None:
            return
        with self._memory.lock():
            at = self._find(key)
            if at is not None:
                self._words[at + FAILURES] = 0

    def may_note(self, who: str | None, per_minute: int) -> bool:
        """Whether another of the few notes that `who` is worth in a minute may be written.

        Args:
            who: None = all together, who never make way.
        """
        words, minute = self._words, self._now_ms() // MINUTE_MS
        with self._memory.lock():
            at = self._everybody if who is None else self._find_or_take(_key_of(who))
            if words[at + MINUTE] != minute:
                words[at + MINUTE] = minute
                words[at + NOTES] = 0
            words[at + NOTES] += 1
            return words[at + NOTES] <= per_minute

    def _find(self, key: int) -> int | None:
        return next((at for at in self._places(key) if self._words[at + KEY] == key), None)

    def _find_or_take(self, key: int) -> int:
        found = self._find(key)
        if found is not None:
            return found
        words = self._words
        at = min(self._places(key), key=lambda place: words[place + LAST_MS])
        words[at : at + ROW_WORDS] = memoryview(bytes(ROW_WORDS * 8)).cast("q")
        words[at + KEY] = key
        words[at + LAST_MS] = self._now_ms()
        return at

    def _places(self, key: int) -> list[int]:
        return [self._start + (key + step) % ROWS * ROW_WORDS for step in range(PROBES)]


def _key_of(who: str) -> int:
    """63 bits, never 0."""
    digest = blake2b(who.encode(), digest_size=8, person=b"throttle").digest()
    return int.from_bytes(digest, "big") >> 1 or 1

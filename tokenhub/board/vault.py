"""What workers must agree on about the vault, besides its key, which has memory of its own: when
an administrator last used it, and how many wrong passwords were given.

Times are milliseconds of a clock that nobody can set. A new arbiter begins anew.
"""

from __future__ import annotations

from collections.abc import Callable

from tokenhub.board.memory import Memory

FREE_TRIES = 5
"""Wrong passwords in a row after which the next try has to wait."""
WAIT_MS = 30_000
WAIT_MS_MAX = 900_000

LAST_USE_MS, IS_OPEN, USE_WORDS = range(3)
WRONG, WAIT_UNTIL_MS, TRIES_WORDS = range(3)


def wait_ms(wrong: int) -> int:
    """How long to wait after so many wrong passwords: twice as long each time, up to a limit."""
    if wrong < FREE_TRIES:
        return 0
    return min(WAIT_MS << min(wrong - FREE_TRIES, 10), WAIT_MS_MAX)


class LastUse:
    """When an administrator last used the vault.

    Whoever asks compares with the clock, and a use that comes too late is none: so from the moment
    on at which it is too long ago, it is so for every worker, until the vault is unlocked.

    Args:
        now_ms: the clock.
    """

    def __init__(self, memory: Memory, *, now_ms: Callable[[], int]) -> None:
        self._memory = memory
        self._words = memory.words
        self._at = memory.reserve(USE_WORDS)
        self._now_ms = now_ms

    def begin(self) -> None:
        """The vault was unlocked."""
        with self._memory.lock():
            self._words[self._at + LAST_USE_MS] = self._now_ms()
            self._words[self._at + IS_OPEN] = 1

    def end(self) -> None:
        """The vault was locked."""
        self._words[self._at + IS_OPEN] = 0

    def touch(self, idle_ms: int) -> bool:
        """Used now; False, and nothing changed, if the last use is older than `idle_ms`."""
        with self._memory.lock():
            if self.is_older(idle_ms):
                return False
            self._words[self._at + LAST_USE_MS] = self._now_ms()
            return True

    def is_older(self, idle_ms: int) -> bool:
        """Whether the last use is older than `idle_ms`; 0 = it never is."""
        return 0 < idle_ms <= self._now_ms() - self._words[self._at + LAST_USE_MS]

    def find_left_open(self, idle_ms: int) -> int | None:
        """When it was last used, if that is too long ago and `note` was not told yet."""
        with self._memory.lock():
            is_open = self._words[self._at + IS_OPEN] and self.is_older(idle_ms)
            return self._words[self._at + LAST_USE_MS] if is_open else None

    def note(self, at: int) -> None:
        """That it was left open at `at` is known now; nothing, if it was used since."""
        with self._memory.lock():
            if self._words[self._at + LAST_USE_MS] == at:
                self._words[self._at + IS_OPEN] = 0


class Tries:
    """Wrong passwords in a row, by anybody on this host.

    Args:
        now_ms: the clock.
    """

    def __init__(self, memory: Memory, *, now_ms: Callable[[], int]) -> None:
        self._memory = memory
        self._words = memory.words
        self._at = memory.reserve(TRIES_WORDS)
        self._now_ms = now_ms

    def take(self) -> int:
        """Milliseconds to wait before the next try; 0 = try now: it counts as wrong for now."""
        now = self._now_ms()
        with self._memory.lock():
            left_ms = self._words[self._at + WAIT_UNTIL_MS] - now
            if left_ms > 0:
                return left_ms
            wrong = self._words[self._at + WRONG] + 1
            self._words[self._at + WRONG] = wrong
            self._words[self._at + WAIT_UNTIL_MS] = now + wait_ms(wrong)
            return 0

    def clear(self) -> None:
        """One was right."""
        with self._memory.lock():
            self._words[self._at + WRONG] = 0
            self._words[self._at + WAIT_UNTIL_MS] = 0

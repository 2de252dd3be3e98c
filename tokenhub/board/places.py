"""Rows of a table that are found by hash and given to others when they have long been idle.

As many as there are and no more: a flood of names neither grows the table nor stops anybody. Knows
nothing of what the rows hold.
"""

from __future__ import annotations

from collections.abc import Callable

from tokenhub.board.memory import Memory

REACH = 32
"""How many places a name may be in. With 10,000 names that are all busy in 16,384 rows, fewer than
one in a thousand finds none idle there; then the one that is idle soonest is forgotten."""


class Places:
    """Who has which row.

    Args:
        rows: how many places names are spread over; the table needs `REACH` more rows, so that no
            search goes round.
        is_held: whether a row must not be given away, however idle it looks.
    """

    def __init__(
        self, memory: Memory, rows: int, is_held: Callable[[int], bool] = lambda _: False
    ) -> None:
        self._words = memory.words
        self._rows = rows
        self._names = memory.reserve(rows + REACH)
        self._busy_until_ns = memory.reserve(rows + REACH)
        self._is_held = is_held

    def find(self, name: int) -> int | None:
        """The row of `name` (64 bits, not 0), if it has one."""
        start = name % self._rows
        names = self._words[self._names + start : self._names + start + REACH].tolist()
        return start + names.index(name) if name in names else None

    def take(self, name: int, now_ns: int, *, until_ns: int) -> int | None:
        """A row for `name`, which has none: an idle one, or the one that is idle soonest; None if
        all are held. What is in it is what was left there. Under the board's lock.

        Args:
            until_ns: it is busy at least so long.
        """
        start = name % self._rows
        begin = self._busy_until_ns + start
        busy_until_ns = self._words[begin : begin + REACH].tolist()
        order = sorted(range(REACH), key=lambda each: max(busy_until_ns[each], now_ns))
        row = next((start + each for each in order if not self._is_held(start + each)), None)
        if row is not None:
            self._words[self._names + row] = name
            self._words[self._busy_until_ns + row] = until_ns
        return row

    def keep(self, row: int, until_ns: int) -> None:
        """A row is busy until then, if it was not for longer. Under the board's lock."""
        at = self._busy_until_ns + row
        self._words[at] = max(self._words[at], until_ns)

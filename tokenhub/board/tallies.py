"""Counters by name: a row for each set of labels, a column for each worker slot.

Adding needs no lock, for a column has one writer; a dead worker's column keeps counting. There are
only so many rows: what comes when all are taken is counted together. Knows nothing of what the
labels are.
"""

from __future__ import annotations

from collections.abc import Iterator

from tokenhub.board.memory import Directory, Memory

OTHER = "other"
"""What the labels of those are that found no row."""

NAME_BYTES = 288
"""All labels of a row: a mode, a model's id and a provider's, a status and an error class."""


class Tallies:
    """Sums since the host's arbiter started.

    Args:
        rows: how many sets of labels, the one for all others included.
        labels: how many each has.
    """

    def __init__(self, memory: Memory, *, slots: int, rows: int, labels: int) -> None:
        self._words = memory.words
        self._slots = slots
        self._others = (OTHER,) * labels
        self._directory = Directory(memory, rows=rows, name_bytes=NAME_BYTES)
        self._start = memory.reserve(rows * slots)
        self._found: dict[tuple[str, ...], int] = {}
        self.rows_max = rows

    def __len__(self) -> int:
        """Rows in use."""
        return len(self._directory)

    def add(self, labels: tuple[str, ...], slot: int, count: int = 1) -> None:
        """Count in the column of `slot`."""
        start = self._found.get(labels)
        if start is None:
            row = self._directory.row_of("\n".join(labels))
            start = self._start + row * self._slots
            if row != Directory.OVERFLOW:  # or a flood of labels would fill our own memory
                self._found[labels] = start
        self._words[start + slot] += count

    def items(self) -> Iterator[tuple[tuple[str, ...], int]]:
        """Each set of labels that was counted, summed over the slots."""
        for row in range(len(self._directory)):
            start = self._start + row * self._slots
            count = sum(self._words[start : start + self._slots])
            if count:
                name = self._directory.name_at(row)
                yield tuple(name.split("\n")) if row else self._others, count


def words_for(slots: int, rows: int) -> int:
    """How many words `Tallies` need."""
    return rows * (slots + 1 + NAME_BYTES // 8) + 1

"""Shared words and the lock over them.

A word is a signed 64-bit integer. Aligned words are never torn on the machines we run on, so one
writer and many readers need no lock; read-modify-write by several processes does. Most counters
avoid even that: each worker slot has a column of its own, and readers add the columns up.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

WORD_BYTES = 8


class Memory:
    """Anonymous memory shared with every process forked from here.

    Args:
        words: how many; untouched pages cost nothing.
    """

    def __init__(self, words: int) -> None:
        self.words = memoryview(mmap.mmap(-1, words * WORD_BYTES)).cast("q")
        self._used = 0
        self._lock_fd = os.memfd_create("tokenhub-board-lock")

    def reserve(self, words: int) -> int:
        """Hand out the next `words` words; returns the index of the first. Before forking only."""
        start = self._used
        self._used += words
        if self._used > len(self.words):
            raise ValueError("the board is too small for its parts")
        return start

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Exclude the other processes. Nothing inside may yield to another greenlet.

        A POSIX record lock: the kernel drops it when its holder dies, so a killed worker never
        leaves the board locked.
        """
        fcntl.lockf(self._lock_fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._lock_fd, fcntl.LOCK_UN)


class Directory:
    """Names given to rows of a table in shared memory, so that every worker finds the same row.

    Names are only ever added; row 0 is the overflow row that everything past `rows` shares, so a
    flood of names costs accuracy and never memory.

    Args:
        memory: where it lives.
        rows: how many names, the overflow row included.
        name_bytes: longest name, in UTF-8; longer ones are cut and told apart by their checksum.
    """

    OVERFLOW = 0

    def __init__(self, memory: Memory, *, rows: int, name_bytes: int) -> None:
        self._memory = memory
        self._rows = rows
        self._stride = 1 + -(-name_bytes // WORD_BYTES)
        self._name_bytes = (self._stride - 1) * WORD_BYTES
        self._count = memory.reserve(1)
        self._names = memory.reserve(rows * self._stride)
        self._known: dict[bytes, int] = {}  # what was read of it; no more than there are rows

    def __len__(self) -> int:
        """Rows in use, the overflow row included."""
        return self._memory.words[self._count] + 1

    def row_of(self, name: str) -> int:
        """The row of `name`, taken for it if it has none yet."""
        raw = self._cut(name)
        row = self._known.get(raw)
        if row is None:
            row = self._read_up_to(len(self)).get(raw)
        if row is None:
            row = self._add(raw) if len(self) < self._rows else self.OVERFLOW
        return row

    def name_at(self, row: int) -> str:
        """The name of a row in use; "" for the overflow row."""
        at = self._names + row * self._stride
        size = self._memory.words[at]
        raw = bytes(self._memory.words[at + 1 : at + self._stride].cast("B")[:size])
        return raw.decode()

    def _read_up_to(self, used: int) -> dict[bytes, int]:
        """The names that this worker knows, with those that others have added."""
        known = self._known
        for row in range(len(known) + 1, used):
            known[self.name_at(row).encode()] = row
        return known

    def _add(self, raw: bytes) -> int:
        words = self._memory.words
        with self._memory.lock():
            used = len(self)
            row = self._read_up_to(used).get(raw)
            if row is not None:
                return row
            if used >= self._rows:
                return self.OVERFLOW
            at = self._names + used * self._stride
            padded = raw.ljust(self._name_bytes, b"\0")
            words[at + 1 : at + self._stride].cast("B")[:] = padded
            words[at] = len(raw)
            words[self._count] = used
            self._known[raw] = used
            return used

    def _cut(self, name: str) -> bytes:
        raw = name.encode()
        if len(raw) <= self._name_bytes:
            return raw
        kept = raw[: self._name_bytes - 9].decode(errors="ignore").encode()
        return kept + b"~%08x" % zlib.crc32(raw)

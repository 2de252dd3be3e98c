"""One page of memory that the arbiter and its workers share, holding the vault's data key.

Made before the workers are forked, so that unlocking in one of them unlocks all, and a worker that
is started later finds the key as well. Knows nothing of vaults, passwords or entries.

What is protected: the page never reaches the swap, a core dump or, where the kernel has
memfd_secret(2), /proc/<pid>/mem; a wipe leaves zeros. What is not: code inside a worker can read
the page, and a key that was read is a Python object, which nobody can overwrite.

Layout: generation (8 bytes, odd while a write is under way) ‖ check (32) ‖ key (32).
"""

from __future__ import annotations

import ctypes
import logging
import mmap
import os
import platform
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from hashlib import sha256
from typing import Any

log = logging.getLogger("tokenhub.secret_memory")

KEY_BYTES = 32
_CHECK = slice(8, 40)
_KEY = slice(40, 40 + KEY_BYTES)
_ZEROS = bytes(KEY_BYTES)
_READS_MAX = 8
_MEMFD_SECRET = 447  # the same number on every architecture that has it
_ARCHITECTURES = ("x86_64", "aarch64")


class SecretMemory:
    """A 32-byte key that every process forked from this one sees, or nothing (locked).

    Args:
        lock: makes the context in which a write runs, such as the board's `lock`: one writer at
            a time among all processes, and nothing inside yields.
        page: where to keep it; a new `secret_page`, else `locked_page`, if not given.
    """

    def __init__(
        self, lock: Callable[[], AbstractContextManager[Any]], page: mmap.mmap | None = None
    ) -> None:
        self._lock = lock
        self._page = page or secret_page() or locked_page()
        # One aligned 8-byte word: loads and stores of it are not torn on 64-bit machines.
        self._words = memoryview(self._page).cast("Q")

    @property
    def generation(self) -> int:
        """A number that has moved if anything was written since it was last seen."""
        return self._words[0]

    def read(self) -> bytes | None:
        """The key, or None when locked, while a write is under way, or after one that died."""
        for _ in range(_READS_MAX):
            copy = self._page[: _KEY.stop]
            generation, check, key = (
                int.from_bytes(copy[:8], sys.byteorder),
                copy[_CHECK],
                copy[_KEY],
            )
            if generation % 2 or check == _ZEROS:
                return None
            if check == _check_of(generation, key):
                return key
        return None

    def write(self, key: bytes | None, *, only_at: int | None = None) -> bool:
        """Publish `key` to all processes, or wipe what is there (None).

        Args:
            only_at: do nothing if the generation is another one: somebody has written since it was
                looked at; 0 = if anything was ever written.

        The generation is odd from before the first byte to after the last, and the check binds
        key and generation: whatever a killed writer leaves behind, or another processor sees out
        of order, reads as locked.

        Returns: True if readers now get something else than before.

        Raises: ValueError: the key is not 32 bytes long.
        """
        if key is not None and len(key) != KEY_BYTES:
            raise ValueError("the key must have 32 bytes")
        with self._lock():
            if only_at not in (None, self._words[0]):
                return False
            before = self.read()
            begun = (self._words[0] + 1) | 1
            self._words[0] = begun
            self._page[_CHECK] = _ZEROS
            self._page[_KEY] = _ZEROS if key is None else key
            if key is not None:
                self._page[_CHECK] = _check_of(begun + 1, key)
            self._words[0] = begun + 1
        return before != key


def secret_page() -> mmap.mmap | None:
    """A page that even the kernel cannot read, from memfd_secret(2); None where there is none.

    Absent from old kernels, refused by some container profiles, and counted against
    RLIMIT_MEMLOCK.
    """
    if platform.system() != "Linux" or platform.machine() not in _ARCHITECTURES:
        return None
    descriptor = _libc().syscall(ctypes.c_long(_MEMFD_SECRET), ctypes.c_ulong(os.O_CLOEXEC))
    if descriptor < 0:
        return None
    try:
        os.ftruncate(descriptor, mmap.PAGESIZE)
        return mmap.mmap(descriptor, mmap.PAGESIZE)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def locked_page() -> mmap.mmap:
    """An anonymous page, kept out of core dumps and, when the limits allow, out of the swap.

    Children of a fork do not inherit the lock, but the page they share stays in memory as long as
    this process has it locked.
    """
    page = mmap.mmap(-1, mmap.PAGESIZE)
    if hasattr(mmap, "MADV_DONTDUMP"):
        page.madvise(mmap.MADV_DONTDUMP)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    if _libc().mlock(ctypes.c_void_p(address), ctypes.c_size_t(mmap.PAGESIZE)) != 0:
        reason = os.strerror(ctypes.get_errno())
        log.warning("the vault key may reach the swap", extra={"reason": reason})
    return page


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check_of(generation: int, key: bytes) -> bytes:
    return sha256(b"tokenhub-secret-memory:" + generation.to_bytes(8, "little") + key).digest()

"""What the vault needs of others: its rows, and memory that all workers of the host share."""

from __future__ import annotations

from typing import Protocol

from tokenhub.domain import VaultRow


class VaultRows(Protocol):
    """The vault's part of the database."""

    def find(self) -> VaultRow | None: ...

    def create(self, row: VaultRow) -> bool:
        """Store the only row; False, and nothing stored, if there is one already."""

    def find_entry(self, name: str) -> bytes | None: ...


class KeyMemory(Protocol):
    """Shared memory for a 32-byte key."""

    @property
    def generation(self) -> int: ...

    def read(self) -> bytes | None: ...

    def write(self, key: bytes | None, *, only_at: int | None = None) -> bool:
        """Set or (None) wipe; True if readers now get something else than before.

        Args:
            only_at: do nothing if the generation is another one; 0 = if anything was ever written.
        """


class VaultUse(Protocol):
    """When an administrator last used the vault; shared. Times are milliseconds of its clock."""

    def begin(self) -> None:
        """It was unlocked: that is its first use."""

    def end(self) -> None:
        """It was locked: there is nothing left that could be left open."""

    def touch(self, idle_ms: int) -> bool:
        """Used now; False, and nothing changed, if the last use is older than `idle_ms`."""

    def is_older(self, idle_ms: int) -> bool:
        """Whether the last use is older than `idle_ms`; 0 = it never is."""

    def find_left_open(self, idle_ms: int) -> int | None:
        """When it was last used, if that is too long ago and nobody has noted it yet."""

    def note(self, at: int) -> None:
        """It was left open and is not any more, unless it was unlocked after `at`."""


class PasswordTries(Protocol):
    """How many wrong passwords were given in a row; shared."""

    def take(self) -> int:
        """Milliseconds to wait before the next try; 0 = try now: it counts as wrong for now."""

    def clear(self) -> None:
        """The password was right."""

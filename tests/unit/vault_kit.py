"""A vault for unit tests: its rows in a dictionary, cheap Argon2, a clock that is set by hand."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from tokenhub.board.memory import Memory
from tokenhub.board.vault import LastUse, Tries
from tokenhub.domain import VaultRow
from tokenhub.secret_memory import SecretMemory
from tokenhub.vault import Argon2Params, Vault

PASSWORD = "äöüß"  # 8 bytes, the fewest
CHEAP = Argon2Params(time_cost=1, memory_cost_kib=8, parallelism=1)


class Rows:
    """The database's part, in memory; `meanwhile` runs between a question and its answer."""

    def __init__(self) -> None:
        self.row: VaultRow | None = None
        self.entries: dict[str, bytes] = {}
        self.reads = 0
        self.meanwhile: Callable[[], object] = lambda: None

    @property
    def stored(self) -> VaultRow:
        assert self.row is not None
        return self.row

    def find(self) -> VaultRow | None:
        return self.row

    def create(self, row: VaultRow) -> bool:
        self._others_act()
        if self.row is not None:
            return False
        self.row = row
        return True

    def find_entry(self, name: str) -> bytes | None:
        self.reads += 1
        found = self.entries.get(name)
        self._others_act()
        return found

    def _others_act(self) -> None:
        act, self.meanwhile = self.meanwhile, lambda: None
        act()


class Clock:
    """Milliseconds, as they are set."""

    def __init__(self) -> None:
        self.now_ms = 1_000_000_000

    def __call__(self) -> int:
        return self.now_ms

    def pass_secs(self, secs: float) -> None:
        self.now_ms += round(secs * 1000)


class Shared:
    """What the workers of one host share."""

    def __init__(self) -> None:
        memory = Memory(100)
        self.clock = Clock()
        self.key = make_memory()
        self.last_use = LastUse(memory, now_ms=self.clock)
        self.tries = Tries(memory, now_ms=self.clock)


def make_memory() -> SecretMemory:
    return SecretMemory(nullcontext, mmap.mmap(-1, mmap.PAGESIZE))


def make_vault(
    rows: Rows | None = None,
    memory: SecretMemory | None = None,
    *,
    shared: Shared | None = None,
    unlocked: bool = False,
    **options: Any,
) -> Vault:
    """One worker's vault.

    Args:
        memory: where the key is, if not in `shared`.
        options: others than the tests' own, see `Vault`.
    """
    shared = shared or Shared()
    named = {"enabled": True, "kdf": CHEAP, **options}
    vault = Vault(
        rows=Rows() if rows is None else rows,
        memory=memory or shared.key,
        last_use=shared.last_use,
        tries=shared.tries,
        **named,
    )
    if unlocked:
        vault.unlock(PASSWORD)
    return vault

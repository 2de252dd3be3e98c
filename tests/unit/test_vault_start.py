"""A vault is opened by the settings' password only if nobody has locked it since the start."""

from __future__ import annotations

from collections.abc import Callable

from tests.unit.vault_kit import PASSWORD, Rows, make_memory, make_vault


def test_a_vault_that_is_locked_while_a_worker_starts_stays_locked():
    rows = Rows()
    make_vault(rows, unlocked=True)

    def lock_meanwhile(work: Callable[[], bytes]) -> bytes:
        make_vault(rows, fresh).unlock(PASSWORD)
        make_vault(rows, fresh).lock()
        return work()

    fresh = make_memory()
    starting = make_vault(rows, fresh, run_blocking=lock_meanwhile)
    assert not starting.open_at_start(PASSWORD)
    assert starting.is_locked

"""Money at the edges: hosts that come back or end, small requests behind large ones."""

from __future__ import annotations

from functools import partial
from typing import Any

import gevent
import pytest

from tests.store.test_escrow import NOW, TOTAL, Host, ledger, refusal
from tokenhub import store
from tokenhub.budgets import Account, Budget
from tokenhub.errors import QuotaExceeded
from tokenhub.escrow import LEASES_MAX


def set_limit(host: Host, nanousd: int) -> None:
    budget = Budget("key", "key_1", "total", nanousd)
    host.database.write(lambda found: store.save_budget(found, budget, NOW))


@pytest.fixture
def host(database) -> Host:
    return Host(database, "host_1")


def test_the_bill_of_a_share_that_was_released_does_not_lower_the_next_one(database, host):
    """A host was taken for dead and comes back: its journal arrives when it has leased anew."""
    set_limit(host, 1000)
    host.escrow.reserve((TOTAL,), 60)
    database.write(lambda found: store.release_host(found, host.name))
    assert ledger(database).leased_nanousd == 0
    again = Host(database, host.name)
    again.escrow.reserve((TOTAL,), 50)
    charge = {TOTAL: store.Charge(20, 60, 1)}
    database.write(lambda found: store.charge_ledgers(found, host.name, charge))
    found = ledger(database)
    assert (found.spent_nanousd, found.leased_nanousd) == (20, 50)
    assert again.shares() == {TOTAL: 50}


def test_a_large_request_does_not_keep_out_the_small_ones_behind_it(database, host):
    set_limit(host, 100)
    large = gevent.spawn(host.escrow.reserve, (TOTAL,), 101)
    small = [gevent.spawn(host.escrow.reserve, (TOTAL,), 10) for _ in range(10)]
    gevent.joinall(small, raise_error=True)
    with pytest.raises(QuotaExceeded):
        large.get()
    assert ledger(database).leased_nanousd == 100


def test_everybody_who_is_refused_has_an_error_of_their_own(host):
    """Others write into its headers."""
    set_limit(host, 5)
    waiting = [gevent.spawn(host.escrow.reserve, (TOTAL,), 10) for _ in range(5)]
    gevent.joinall(waiting)
    errors = [each.exception for each in waiting] + [refusal(host, 10)]
    assert len({id(each.headers) for each in errors}) == 6


def test_a_host_that_ends_gives_back_all_that_is_free(database, host):
    set_limit(host, 100)
    host.spend(host.escrow.reserve((TOTAL,), 70), 10)
    host.escrow.reserve((TOTAL,), 20)
    host.steward.leave()
    assert ledger(database).leased_nanousd == 20


def test_many_keys_that_come_at_once_share_transactions(database, host, monkeypatch):
    """One each would keep a thousand waiting for the disk."""
    accounts = [Account("key", f"key_{number}", "total", 0) for number in range(60)]
    team = Account("team", "team_1", "total", 0)
    for account in (*accounts, team):
        budget = Budget(*account[:2], "total", 1000)  # type: ignore[arg-type]
        database.write(partial(store.save_budget, budget=budget, at=NOW))
    writes = 0
    write = database.write

    def counted(*args: Any, **options: Any) -> Any:
        nonlocal writes
        writes += 1
        return write(*args, **options)

    monkeypatch.setattr(database, "write", counted)
    asked = [gevent.spawn(host.escrow.reserve, (each, team), 10) for each in accounts]
    gevent.joinall(asked, raise_error=True)
    assert writes <= 2 * 60 / LEASES_MAX
    assert ledger(database, team).leased_nanousd == 600
    assert ledger(database, accounts[7]).leased_nanousd == 10

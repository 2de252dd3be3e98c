"""Money between hosts: never more than the limit is handed out, and what is not used comes back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gevent
import pytest

from tokenhub import escrow, store
from tokenhub.board import Board
from tokenhub.budgets import Account, Budget, accounts_of
from tokenhub.db import Database, DatabaseAway
from tokenhub.errors import QuotaExceeded, Unavailable
from tokenhub.escrow import Escrow, name_of
from tokenhub.steward import Steward

NOW = 1_700_000_000_000
KEY = ("key", "key_1")
TOTAL = Account(*KEY, "total", 0)


class Host:
    """A worker of a host of its own, and the host's leader."""

    def __init__(self, database: Database, name: str) -> None:
        self.database, self.name = database, name
        self.board = Board(slots=2)
        self.escrow = Escrow(database=database, board=self.board, host_id=name)
        self.caught_up_at = float("-inf")
        self.ahead_secs = 0.0
        self.board.purse._now_ns = lambda: int(self.now() * 1e9)
        self.lead()

    def now(self) -> float:
        return time.monotonic() + self.ahead_secs

    def wait(self, secs: float) -> None:
        """Have time pass for the board and the leader, who looks before and after."""
        self.steward.tick()
        self.ahead_secs += secs
        self.steward.tick()

    def lead(self) -> None:
        self.steward = Steward(
            database=self.database,
            board=self.board,
            host_id=self.name,
            caught_up_at=lambda: self.caught_up_at,
            now=self.now,
        )

    def spend(self, reservation: Any, cost: int) -> None:
        """What a request's end does: its record is ingested, and its reservation settled."""
        spent = {account: store.Charge(cost, cost, 1) for account in reservation.accounts}
        self.database.write(lambda found: store.charge_ledgers(found, self.name, spent))
        self.escrow.settle(reservation, cost)

    def shares(self) -> dict[Account, int]:
        found = self.database.read(lambda each: store.list_shares(each, self.name))
        return {account: granted for account, (granted, _) in found.items()}


@pytest.fixture
def limit(database) -> Callable[..., None]:
    """Sets a budget."""

    def work(nanousd: int, period: str = "total", subject: tuple[str, str] = KEY) -> None:
        budget = Budget(subject[0], subject[1], period, nanousd)  # type: ignore[arg-type]
        database.write(lambda found: store.save_budget(found, budget, NOW))

    return work


@pytest.fixture
def host(database) -> Host:
    return Host(database, "host_1")


@pytest.fixture
def other(database) -> Host:
    return Host(database, "host_2")


def ledger(database: Database, account: Account = TOTAL) -> store.Ledger:
    return database.read(lambda found: store.find_ledgers(found, [account]))[account]


def refusal(host: Host, amount: int, *accounts: Account) -> QuotaExceeded:
    with pytest.raises(QuotaExceeded) as caught:
        host.escrow.reserve(accounts or (TOTAL,), amount)
    return caught.value


def test_a_request_takes_exactly_what_it_lacks(database, host, limit):
    limit(100)
    host.escrow.reserve((TOTAL,), 30)
    assert ledger(database).leased_nanousd == 30
    assert host.shares() == {TOTAL: 30}


def test_what_was_settled_is_spent_and_the_rest_serves_the_next(database, host, limit):
    limit(100)
    host.spend(host.escrow.reserve((TOTAL,), 30), 10)
    host.escrow.reserve((TOTAL,), 20)
    found = ledger(database)
    assert (found.spent_nanousd, found.leased_nanousd, found.requests) == (10, 20, 1)


def test_with_money_for_so_many_so_many_are_served(host, limit):
    limit(100)
    for _ in range(10):
        host.escrow.reserve((TOTAL,), 10)
    assert refusal(host, 10).code == "budget_in_flight"


def test_what_is_spent_is_refused_for_good(host, limit):
    limit(100)
    host.spend(host.escrow.reserve((TOTAL,), 100), 95)
    error = refusal(host, 10)
    assert error.code == "insufficient_quota"
    assert error.headers["x-should-retry"] == "false"
    assert error.details["limit_usd"] == pytest.approx(1e-7)
    assert error.details["spent_usd"] == pytest.approx(9.5e-8)


def test_what_is_only_reserved_is_worth_another_try(host, limit):
    limit(100)
    host.escrow.reserve((TOTAL,), 95)
    error = refusal(host, 10)
    assert error.code == "budget_in_flight"
    assert error.headers["Retry-After"] == "1"


def test_all_accounts_or_none(database, host, limit):
    team = Account("team", "team_1", "total", 0)
    limit(100)
    limit(5, subject=("team", "team_1"))
    error = refusal(host, 10, TOTAL, team)
    assert error.details["subject"] == "team:team_1"
    assert ledger(database).leased_nanousd == 0
    assert host.shares() == {}


def test_two_hosts_never_hand_out_more_than_the_limit(database, host, other, limit):
    limit(100)
    served = [one.escrow.reserve((TOTAL,), 10) for one in (host, other) * 5]
    assert len(served) == 10
    assert {refusal(one, 10).code for one in (host, other)} == {"budget_in_flight"}
    assert ledger(database).leased_nanousd == 100


def test_who_waits_at_once_is_served_by_one_lease(database, host, limit):
    limit(1000)
    served = [gevent.spawn(host.escrow.reserve, (TOTAL,), 10) for _ in range(100)]
    gevent.joinall(served, raise_error=True)
    assert ledger(database).leased_nanousd == 1000


def test_of_many_at_once_exactly_as_many_as_there_is_money_for(database, host, other, limit):
    limit(370)

    def ask(one: Host) -> bool:
        try:
            one.escrow.reserve((TOTAL,), 10)
        except QuotaExceeded:
            return False
        return True

    asked = [gevent.spawn(ask, one) for one in (host, other) * 100]
    gevent.joinall(asked, raise_error=True)
    assert sum(each.value for each in asked) == 37
    assert ledger(database).leased_nanousd == 370


def test_idle_money_goes_back(database, host, other, limit):
    limit(100)
    host.spend(host.escrow.reserve((TOTAL,), 100), 40)
    assert refusal(other, 50).code == "budget_in_flight"
    host.wait(1.1)
    gevent.sleep(escrow.REMEMBER_SECS)
    assert ledger(database).leased_nanousd == 0
    other.escrow.reserve((TOTAL,), 50)


def test_wanted_money_goes_back_at_once(database, host, other, limit):
    limit(100)
    host.spend(host.escrow.reserve((TOTAL,), 100), 40)
    waiting = gevent.spawn(other.escrow.reserve, (TOTAL,), 60)
    for _ in range(10):
        gevent.sleep(0.02)
        host.steward.tick()
    assert waiting.get(timeout=1).amount_nanousd == 60
    assert ledger(database).spent_nanousd == 40


def test_what_is_reserved_does_not_go_back(database, host, limit):
    limit(100)
    host.escrow.reserve((TOTAL,), 60)
    host.wait(1.1)
    assert ledger(database).leased_nanousd == 60


def test_a_dead_worker_leaves_the_host_with_less_never_with_more(database, host, limit):
    limit(100)
    host.board.sit_down(1)
    host.escrow.reserve((TOTAL,), 60)
    host.board.purse.clear_slot(1)
    holding = host.board.purse.look(name_of(TOTAL))
    assert holding[:2] == (0, 0)
    # Its opening becomes a row at the estimate, and all that was reserved is off the share.
    charge = {TOTAL: store.Charge(25, 60, 1)}
    database.write(lambda found: store.charge_ledgers(found, host.name, charge))
    found = ledger(database)
    assert (found.spent_nanousd, found.leased_nanousd) == (25, 0)
    host.escrow.reserve((TOTAL,), 75)


def test_a_share_of_a_past_run_is_released_when_its_journal_was_read(database, host, limit):
    limit(100)
    host.escrow.reserve((TOTAL,), 60)
    again = Host(database, host.name)  # the arbiter died, and its board with it
    again.wait(10)
    assert ledger(database).leased_nanousd == 60, "its journal was not read"
    again.caught_up_at = again.now() + 1
    again.wait(10)
    assert ledger(database).leased_nanousd == 0


def test_a_share_that_was_just_leased_is_not_taken_for_forgotten(database, host, limit):
    limit(100)
    found = host.escrow.reserve((TOTAL,), 60)
    host.escrow.settle(found, 60)
    host.wait(10)
    assert ledger(database).leased_nanousd == 60, "the charge is still in the journal"
    host.caught_up_at = host.now() + 1
    host.wait(2)
    assert ledger(database).leased_nanousd == 60, "another lease may be on its way"


def test_a_dearer_request_than_was_reserved_leaves_the_next_with_less(database, host, limit):
    limit(100)
    host.spend(host.escrow.reserve((TOTAL,), 10), 25)
    host.escrow.reserve((TOTAL,), 75)
    found = ledger(database)
    assert found.spent_nanousd + found.leased_nanousd == 100


def test_a_released_share_is_not_given_back_twice(database, host, other, limit):
    limit(100)
    held = host.escrow.reserve((TOTAL,), 60)
    database.write(lambda found: store.release_share(found, host.name, TOTAL, 60))
    other.escrow.reserve((TOTAL,), 100)
    host.spend(held, 60)  # it was not dead after all
    found = ledger(database)
    assert (found.spent_nanousd, found.leased_nanousd) == (60, 100)


def test_a_credit_makes_room_and_is_written_down(database, host, limit):
    limit(100)
    host.spend(host.escrow.reserve((TOTAL,), 100), 100)
    assert refusal(host, 10).code == "insufficient_quota"
    database.write(
        lambda found: store.credit_ledger(found, TOTAL, 100, NOW, reason="paid", actor="admin")
    )
    gevent.sleep(escrow.REMEMBER_SECS)
    host.escrow.reserve((TOTAL,), 100)
    rows, total = database.read(lambda found: store.list_credits(found, KEY, 10, 0))
    assert total == 1
    assert rows[0]["reason"] == "paid"


def test_a_new_period_has_an_account_of_its_own(database, host, limit):
    limit(100, "day")
    first, second = (accounts_of(*KEY, at)[0] for at in (NOW, NOW + 86_400_000))
    host.spend(host.escrow.reserve((first,), 100), 100)
    assert refusal(host, 10, first).code == "insufficient_quota"
    host.escrow.reserve((second,), 100)


def test_without_the_database_the_share_serves_as_long_as_it_lasts(database, host, limit,
                                                                   monkeypatch):  # fmt: skip
    limit(100)
    host.spend(host.escrow.reserve((TOTAL,), 50), 10)

    def away(*_: Any, **__: Any) -> None:
        raise DatabaseAway("away")

    monkeypatch.setattr(database, "write", away)
    host.escrow.reserve((TOTAL,), 40)
    with pytest.raises(Unavailable) as caught:
        host.escrow.reserve((TOTAL,), 1)
    assert caught.value.code == "budget_unavailable"


def test_money_of_a_lease_whose_outcome_is_unknown_comes_back(database, host, limit, monkeypatch):
    limit(100)
    write = database.write

    def lost(work: Any, **options: Any) -> None:
        write(work, **options)
        raise DatabaseAway("the answer was lost", is_outcome_unknown=True)

    monkeypatch.setattr(database, "write", lost)
    with pytest.raises(Unavailable):
        host.escrow.reserve((TOTAL,), 60)
    monkeypatch.undo()
    assert ledger(database).leased_nanousd == 60
    host.caught_up_at = host.now() + 1
    host.wait(4)
    assert ledger(database).leased_nanousd == 0


def test_money_that_was_lost_on_its_way_comes_back_while_requests_ask_for_it(
    database, host, limit, monkeypatch
):
    limit(100)
    host.wait(20)  # nothing is held, and nobody has asked for long
    monkeypatch.setattr(escrow, "REMEMBER_SECS", 0)
    write = database.write

    def lost(work: Any, **options: Any) -> None:
        write(work, **options)
        raise DatabaseAway("the answer was lost", is_outcome_unknown=True)

    monkeypatch.setattr(database, "write", lost)
    with pytest.raises(Unavailable):
        host.escrow.reserve((TOTAL,), 60)
    monkeypatch.setattr(database, "write", write)
    host.caught_up_at = host.now() + 1
    for _ in range(5):
        refusal(host, 60)
        host.wait(0.7)
    host.escrow.reserve((TOTAL,), 60)


def test_a_host_that_holds_nothing_asks_for_nothing(database, host, limit, monkeypatch):
    limit(100)
    host.caught_up_at = float("inf")
    host.spend(host.escrow.reserve((TOTAL,), 60), 60)
    for _ in range(6):
        host.wait(4)
    assert host.shares() == {}

    def read(*_: Any, **__: Any) -> None:
        raise AssertionError("the database was asked")

    monkeypatch.setattr(database, "read", read)
    host.wait(1)


def test_each_who_is_refused_has_an_error_of_its_own(host, limit):
    limit(100)
    assert refusal(host, 101) is not refusal(host, 101)


def test_who_leaves_while_waiting_leaves_nothing_reserved(database, host, other, limit):
    limit(100)
    held = host.escrow.reserve((TOTAL,), 100)
    waiting = gevent.spawn(other.escrow.reserve, (TOTAL,), 50)
    gevent.sleep(0.05)
    waiting.kill()
    host.spend(held, 0)
    gevent.sleep(0.3)
    holding = other.board.purse.look(name_of(TOTAL))
    assert holding is None or holding.reserved_nanousd == 0

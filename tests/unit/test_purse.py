"""The money of one host, shared by its workers: real processes, one board."""

from __future__ import annotations

import os

import pytest

from tests.unit.test_rates import in_children
from tokenhub.board import Board, purse
from tokenhub.board.memory import Memory
from tokenhub.board.places import REACH
from tokenhub.board.purse import ACCOUNTS, KEEP_NS, Purse, PurseFull

KEY, TEAM = 7, 8


class Clock:
    def __init__(self) -> None:
        self.ns = 10**15

    def __call__(self) -> int:
        return self.ns


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def money(clock: Clock) -> Purse:
    return Purse(Memory(purse.words_for(2)), slots=2, now_ns=clock)


def look(money: Purse, account: int) -> tuple[int, int]:
    """What an account has, and what of it is reserved."""
    found = money.look(account)
    assert found is not None
    return found.available_nanousd, found.reserved_nanousd


def test_a_request_is_served_from_all_accounts_or_from_none(money):
    money.deposit((KEY, TEAM), (100, 30))
    assert money.reserve((KEY, TEAM), 40, 0) == [0, 10]
    assert look(money, KEY) == (100, 0)
    assert money.reserve((KEY, TEAM), 30, 0) == []
    assert look(money, KEY) == (100, 30)
    assert money.reserve((KEY, TEAM), 1, 0) == [0, 1]


def test_what_was_not_used_is_free_again(money):
    money.deposit((KEY,), (100,))
    money.reserve((KEY,), 100, 0)
    money.settle((KEY,), 100, 40, 0)
    assert look(money, KEY) == (60, 0)
    assert money.reserve((KEY,), 61, 1) == [1]


def test_who_costs_more_than_was_set_aside_leaves_the_next_with_less_than_nothing(money):
    money.deposit((KEY,), (10,))
    money.reserve((KEY,), 10, 0)
    money.settle((KEY,), 10, 15, 0)
    assert look(money, KEY) == (-5, 0)
    assert money.reserve((KEY,), 10, 0) == [15]
    assert money.withdraw(KEY) == -5
    assert look(money, KEY) == (0, 0)


def test_only_what_is_free_can_be_withdrawn(money):
    money.deposit((KEY,), (100,))
    money.reserve((KEY,), 30, 0)
    assert money.withdraw(KEY) == 70
    assert look(money, KEY) == (30, 30)
    assert money.withdraw(KEY) == 0
    assert money.withdraw(TEAM) == 0
    assert money.look(TEAM) is None


def test_what_a_dead_worker_had_set_aside_counts_as_spent(money):
    money.deposit((KEY, TEAM), (100, 100))
    money.reserve((KEY, TEAM), 30, 0)
    money.reserve((KEY,), 50, 1)
    money.clear_slot(0)
    assert look(money, KEY) == (70, 50)
    assert look(money, TEAM) == (70, 0)
    money.clear_slot(0)
    assert look(money, KEY) == (70, 50)


def test_who_asks_in_vain_does_not_make_money_look_used(money, clock):
    money.deposit((KEY,), (10,))
    clock.ns += 5 * 10**9
    money.reserve((KEY,), 11, 0)
    found = money.look(KEY)
    assert found is not None
    assert found.idle_secs == 5
    money.reserve((KEY,), 10, 0)
    found = money.look(KEY)
    assert found is not None
    assert found.idle_secs == 0


def test_ten_thousand_keys_have_money_at_once(money):
    accounts = [hash((name, "key")) or 1 for name in range(10_000)]
    for account in accounts:
        money.deposit((account,), (5,))
        assert money.reserve((account,), 5, 0) == []
    assert all(look(money, account) == (5, 5) for account in accounts)


def crowd(count: int) -> list[int]:
    """Accounts that all want the same places."""
    return [KEY + number * ACCOUNTS for number in range(1, count + 1)]


def test_without_room_an_account_is_refused_and_no_other_is_touched(money):
    others = crowd(REACH)
    for account in others:
        money.deposit((account,), (5,))
    with pytest.raises(PurseFull):
        money.reserve((KEY,), 1, 0)
    with pytest.raises(PurseFull):
        money.deposit((others[0], KEY), (1, 1))
    assert all(look(money, account) == (5, 0) for account in others)


def test_the_place_of_an_account_without_money_is_given_to_the_next(money, clock):
    others = crowd(REACH)
    for account in others:
        money.deposit((account,), (5,))
    money.withdraw(others[3])
    clock.ns += KEEP_NS
    money.deposit((KEY,), (9,))
    assert look(money, KEY) == (9, 0)
    assert money.look(others[3]) is None


def test_four_workers_hand_out_exactly_what_there_is():
    board = Board(slots=4)
    board.purse.deposit((KEY, TEAM), (1000, 370))

    def work(slot: int) -> int:
        return sum(not board.purse.reserve((KEY, TEAM), 10, slot) for _ in range(100))

    assert sum(in_children(4, work)) == 37
    assert look(board.purse, TEAM) == (370, 370)


def test_four_workers_that_spend_and_return_lose_nothing():
    board = Board(slots=4)
    board.purse.deposit((KEY,), (10**6,))

    def work(slot: int) -> int:
        for _ in range(300):
            board.purse.reserve((KEY,), 10, slot)
            board.purse.settle((KEY,), 10, 3, slot)
        return 0

    in_children(4, work)
    assert look(board.purse, KEY) == (10**6 - 4 * 300 * 3, 0)


def test_the_end_of_a_worker_takes_what_it_had_set_aside_off_the_account():
    board = Board(slots=2)
    board.purse.deposit((KEY,), (100,))

    def work(_: int) -> int:
        board.sit_down(1)
        board.purse.reserve((KEY,), 60, 1)
        return os.getpid()

    [pid] = in_children(1, work)
    assert look(board.purse, KEY) == (100, 60)
    board.clear_slot_of(pid)
    assert look(board.purse, KEY) == (40, 0)

"""The money of one request whose attempts are in flight at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import gevent
import pytest
from gevent.event import AsyncResult
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.gateway_kit import make_request
from tokenhub.budgets import Account
from tokenhub.domain import Candidate, Model, Price
from tokenhub.errors import InvalidRequest, QuotaExceeded, Unavailable
from tokenhub.escrow import Reservation
from tokenhub.gateway.money import Held, Money
from tokenhub.pricing import OUTPUT_TOKENS_UNLIMITED

ACCOUNT = Account("key", "key_1", "total", 0)
REQUEST = make_request(input_tokens=0, output_tokens_max=1)


class Purse:
    """So much money; whoever asks waits until the test says so, if `waits`."""

    def __init__(self, nanousd: int, *, waits: bool = False) -> None:
        self.free = nanousd
        self.reserved = 0
        self.waiting: list[AsyncResult[bool]] = []
        self.asked: list[int] = []
        self._waits = waits

    def reserve(self, accounts: tuple[Account, ...], amount_nanousd: int) -> Reservation:
        self.asked.append(amount_nanousd)
        if self._waits:
            verdict: AsyncResult[bool] = AsyncResult()
            self.waiting.append(verdict)
            verdict.get()
        if amount_nanousd > self.free:
            raise QuotaExceeded("no")
        self.free -= amount_nanousd
        self.reserved += amount_nanousd
        return Reservation(accounts, (), amount_nanousd)

    def settle(self, reservation: Reservation, cost_nanousd: int) -> None:
        self.reserved -= reservation.amount_nanousd
        self.free += reservation.amount_nanousd - cost_nanousd


def costing(nanousd: int) -> Candidate:
    """A model whose attempts at REQUEST cost so much at most."""
    price = Price(0, nanousd * 1_000_000)
    return Candidate(Model(f"m{nanousd}", "p", "m", price=price), 0.0, 1.0, nanousd // 2)


class World:
    def __init__(self, nanousd: int, *, waits: bool = False) -> None:
        self.purse = Purse(nanousd, waits=waits)
        self.spent = 0
        self.openings: list[tuple[int, int]] = []
        self.money = Money(
            self.purse, (ACCOUNT,), lambda: self.spent, lambda *said: self.openings.append(said)
        )

    def hold(self, nanousd: int) -> Held:
        held = self.money.hold(costing(nanousd), REQUEST)
        assert held.most_nanousd >= nanousd
        return held

    def end(self, held: Held, cost_nanousd: int) -> None:
        self.spent += cost_nanousd
        self.money.release(held)


@pytest.fixture
def make() -> Iterator[Callable[..., World]]:
    yield World


def most(nanousd: int) -> int:
    """What is set aside for such an attempt: the bound is a little generous."""
    return World(10**12).hold(nanousd).most_nanousd


def test_attempts_in_flight_each_have_their_own_money(make):
    world = make(10**9)
    first, second = world.hold(100), world.hold(50)
    assert sum(world.purse.asked) == first.most_nanousd + second.most_nanousd
    assert world.openings[-1] == (50 + 25, world.purse.reserved)


def test_what_one_has_left_over_the_next_one_uses(make):
    world = make(10**9)
    first = world.hold(100)
    world.end(first, 10)
    world.hold(50)
    assert len(world.purse.asked) == 1
    world.hold(100)
    assert world.purse.reserved == world.spent + most(50) + most(100)


def test_who_waits_for_money_neither_lends_it_nor_is_paid_for_twice(make):
    world = make(10**9, waits=True)
    waiting = [gevent.spawn(world.hold, 100), gevent.spawn(world.hold, 50)]
    gevent.sleep(0)
    assert world.purse.asked == [most(100), most(50)]
    for verdict in world.purse.waiting:
        verdict.set(True)
    gevent.joinall(waiting, raise_error=True)
    assert world.purse.reserved == most(100) + most(50)


def test_who_leaves_while_it_waits_is_not_in_flight_any_more(make):
    world = make(10**9, waits=True)
    waiting = gevent.spawn(world.hold, 100)
    gevent.sleep(0)
    waiting.kill()
    other = gevent.spawn(world.hold, 50)
    gevent.sleep(0)
    world.purse.waiting[-1].set(True)
    other.get()
    assert world.purse.asked == [most(100), most(50)]
    assert world.purse.reserved == most(50)


def test_what_is_granted_when_the_request_is_over_goes_back_at_once(make):
    world = make(10**9, waits=True)
    waiting = gevent.spawn(world.hold, 100)
    gevent.sleep(0)
    world.money.settle(0)
    world.purse.waiting[0].set(True)
    with pytest.raises(Unavailable):
        waiting.get()
    assert (world.purse.reserved, world.purse.free) == (0, 10**9)


def test_who_was_refused_is_not_asked_for_again_nor_is_a_dearer_one(make):
    world = make(most(50))
    for nanousd in (100, 100, 200):
        with pytest.raises(QuotaExceeded):
            world.hold(nanousd)
    assert len(world.purse.asked) == 1
    world.hold(50)


def test_without_a_limit_of_the_answer_there_is_none_of_its_cost(make):
    world = make(10**12)
    held = world.money.hold(costing(10), make_request(input_tokens=0))
    assert held.request.output_tokens_max == OUTPUT_TOKENS_UNLIMITED
    unpriced = Candidate(Model("m", "p", "m", price=Price()), 0.0, 1.0, None)
    with pytest.raises(InvalidRequest):
        world.money.hold(unpriced, REQUEST)


_STEP = st.tuples(st.sampled_from("bbbgge"), st.integers(0, 50), st.integers(0, 100))


@given(st.integers(0, 2000), st.lists(_STEP, max_size=30))
def test_whatever_runs_at_once_never_more_is_at_work_than_was_set_aside(budget, steps):
    """b: an attempt begins, g: somebody's wait for money ends, e: an attempt ends."""
    world = World(budget, waits=True)
    waiting: list[gevent.Greenlet] = []
    at_work: list[Held] = []

    def look() -> None:
        for each in [each for each in waiting if each.ready()]:
            waiting.remove(each)
            if each.value is not None:
                at_work.append(each.value)
        assert world.spent + sum(each.most_nanousd for each in at_work) <= world.purse.reserved
        assert world.purse.reserved <= budget

    for kind, which, share in steps:
        if kind == "b":
            greenlet = gevent.Greenlet(_quietly, world, which + 1)
            greenlet.start()
            waiting.append(greenlet)
        elif kind == "g" and world.purse.waiting:
            world.purse.waiting.pop(which % len(world.purse.waiting)).set(True)
        elif kind == "e" and at_work:
            held = at_work.pop(which % len(at_work))
            world.end(held, held.most_nanousd * share // 100)
        for _ in range(3):
            gevent.sleep(0)
        look()
    for each in waiting:
        each.kill()
    world.money.settle(world.spent)
    assert (world.purse.reserved, world.purse.free) == (0, budget - world.spent)


def _quietly(world: World, nanousd: int) -> Held | None:
    try:
        return world.hold(nanousd)
    except QuotaExceeded:
        return None

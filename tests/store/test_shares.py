"""Hosts share money through the database: none is spent twice, and none stays lost."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import gevent
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, select

from tests.store.flaky import Flaky
from tests.store.test_ingest import make_batch
from tokenhub import escrow, store
from tokenhub.board import Board
from tokenhub.budgets import Account, Budget
from tokenhub.db import Database, DatabaseAway, postgres
from tokenhub.db.budget_tables import budget_shares
from tokenhub.errors import TokenHubError
from tokenhub.escrow import Escrow, Reservation, name_of
from tokenhub.steward import STRANDED_SECS, Steward

NUMBERS = itertools.count(1)
SLOTS = 2


class Clock:
    """Monotonic time that only goes on when told."""

    def __init__(self) -> None:
        self.secs = 1e6

    def now(self) -> float:
        return self.secs

    def now_ns(self) -> int:
        return int(self.secs * 1e9)


@dataclass
class Held:
    """A request in flight: what the journal knows of it, and what it has set aside."""

    reservation: Reservation
    is_opened: bool


@dataclass
class Line:
    """What the journal will have the ingester enter."""

    accounts: tuple[Account, ...]
    spent: int
    unleased: int


class Host:
    """A board, a worker in each slot, a journal and whoever leads."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.id = name
        self.journal: list[Line] = []
        self.caught_up_at = float("-inf")
        self.flaky = Flaky(world.database, [])
        self.start()

    def start(self) -> None:
        """Start with an empty board, as after a crash of everything."""
        self.board = Board(slots=SLOTS)
        self.board.purse._now_ns = self.world.clock.now_ns
        database: Any = self.flaky
        self.escrow = Escrow(database=database, board=self.board, host_id=self.id)
        self.held: list[list[Held]] = [[] for _ in range(SLOTS)]
        self.lead()

    def lead(self) -> None:
        self.steward = Steward(
            database=cast(Database, self.flaky), board=self.board, host_id=self.id,
            caught_up_at=lambda: self.caught_up_at, now=self.world.clock.now,
        )  # fmt: skip

    def reserve(self, slot: int, accounts: tuple[Account, ...], amount: int) -> Held | None:
        self.board.slot = slot
        try:
            held = Held(self.escrow.reserve(accounts, amount), is_opened=False)
        except TokenHubError as error:
            self.world.last_refusal = error
            return None
        self.held[slot].append(held)
        return held

    def settle(self, slot: int, cost: int) -> None:
        held = self.held[slot].pop(0)
        self.record(held, cost, unleased=cost)
        self.board.slot = slot
        self.escrow.settle(held.reservation, cost)

    def record(self, held: Held, cost: int, *, unleased: int) -> None:
        line = Line(held.reservation.accounts, cost, unleased)
        self.journal.append(line)
        self.world.note(line, reserved=held.reservation.amount_nanousd)

    def kill(self, slot: int) -> None:
        """Kill a worker: what it has opened is interrupted, the rest is unknown to anybody."""
        for held in self.held[slot]:
            if held.is_opened:
                amount = held.reservation.amount_nanousd
                self.record(held, amount // 2, unleased=amount)
        self.held[slot].clear()
        self.board.purse.clear_slot(slot)

    def crash(self) -> None:
        for slot in range(SLOTS):
            self.kill(slot)
        self.start()

    def ingest(self) -> None:
        charges: dict[Account, store.Charge] = {}
        for line in self.journal:
            for account in line.accounts:
                charge = charges.setdefault(account, store.Charge())
                charge.spent_nanousd += line.spent
                charge.unleased_nanousd += line.unleased
                charge.requests += 1
        self.world.database.write(
            lambda connection: store.charge_ledgers(connection, self.id, charges)
        )
        self.journal.clear()
        self.caught_up_at = self.world.clock.secs

    def tick(self, *faults: str) -> None:
        self.flaky.faults = list(faults)
        with suppress(DatabaseAway):
            self.steward.tick()
        self.flaky.faults = []

    def free(self, account: Account) -> int:
        found = self.board.purse.look(name_of(account))
        return found.available_nanousd - found.reserved_nanousd if found else 0

    def reserved(self, account: Account) -> int:
        found = self.board.purse.look(name_of(account))
        return found.reserved_nanousd if found else 0


class World:
    """Two hosts, one database, and a key and another of the same team."""

    def __init__(self, database: Database, *, key_limit: int = 60, team_limit: int = 90) -> None:
        number = next(NUMBERS)
        self.database = database
        self.clock = Clock()
        self.last_refusal: TokenHubError | None = None
        self.limits: dict[Account, int] = {}
        self.spent: dict[Account, int] = {}
        self.excess: dict[Account, int] = {}
        one = self.budget("key", f"key_{number}", key_limit)
        two = self.budget("key", f"other_{number}", key_limit)
        team = self.budget("team", f"team_{number}", team_limit)
        self.sets = ((one, team), (two, team), (team,))
        self.hosts = [Host(self, f"host-{number}-{letter}") for letter in "ab"]

    def budget(self, kind: Any, id_: str, limit: int) -> Account:
        budget = Budget(kind, id_, "total", limit)
        self.database.write(lambda connection: store.save_budget(connection, budget, 1))
        account = Account(kind, id_, "total", 0)
        self.limits[account], self.spent[account], self.excess[account] = limit, 0, 0
        return account

    def note(self, line: Line, reserved: int) -> None:
        for account in line.accounts:
            self.spent[account] += line.spent
            self.excess[account] += max(0, line.spent - reserved)

    def ledgers(self) -> dict[Account, store.Ledger]:
        return self.database.read(
            lambda connection: store.find_ledgers(connection, list(self.limits))
        )

    def shares(self) -> dict[Account, int]:
        ids = [host.id for host in self.hosts]
        query = select(budget_shares).where(budget_shares.c.host_id.in_(ids))
        found: dict[Account, int] = dict.fromkeys(self.limits, 0)
        for row in self.database.read(lambda connection: connection.execute(query).all()):
            found[Account(*row[1:5])] += row.granted_nanousd
        return found

    def check(self) -> None:
        """What was spent, what hosts may spend and what is left are no more than the limit, and the
        books agree with each other."""
        shares = self.shares()
        for account, ledger in self.ledgers().items():
            limit = self.limits[account]
            promised = sum(
                max(0, host.free(account)) + host.reserved(account) for host in self.hosts
            )
            left = max(0, ledger.spendable(limit) - ledger.leased_nanousd)
            assert self.spent[account] + promised + left <= limit + self.excess[account]
            assert ledger.leased_nanousd == shares[account]

    def come_to_rest(self) -> None:
        """Everything ends, and time passes."""
        for host in self.hosts:
            for slot in range(SLOTS):
                while host.held[slot]:
                    host.settle(slot, 0)
        for _ in range(6):
            for host in self.hosts:
                host.ingest()
                host.tick()
            self.clock.secs += STRANDED_SECS / 2 + 0.1
        for account, ledger in self.ledgers().items():
            assert (ledger.spent_nanousd, ledger.leased_nanousd) == (self.spent[account], 0)
        assert set(self.shares().values()) == {0}


@pytest.fixture
def world(database, monkeypatch):
    return make_world(database, monkeypatch)


def make_world(database: Database, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(escrow, "REMEMBER_SECS", 0)
    monkeypatch.setattr(escrow, "ASK_AGAIN_SECS", 0.001)
    # Only how long a request waits: the database keeps the time it has.
    monkeypatch.setattr(escrow._Waiter, "is_late", property(lambda self: True))
    return World(database)


FAULTS = st.lists(st.sampled_from(["", "", "before", "after"]), max_size=3)

ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(
            ["reserve", "reserve", "reserve", "reserve", "reserve", "open", "open", "settle",
             "settle", "exceed", "kill", "killed late", "crash", "ingest", "tick", "tick", "lead",
             "wait", "rest"]
        ),
        st.integers(0, 1),
        st.integers(0, SLOTS - 1),
        st.integers(1, 60),
        st.integers(0, 2),
        FAULTS,
    ),
    min_size=15,
    max_size=50,
)  # fmt: skip


def do(world: World, action: str, host: Host, slot: int, amount: int, which: int,
       faults: list[str]) -> None:  # fmt: skip
    waiting = host.held[slot]
    match action:
        case "reserve":
            host.flaky.faults = list(faults)
            host.reserve(slot, world.sets[which], amount)
            host.flaky.faults = []
        case "open" if waiting:
            waiting[0].is_opened = True
        case "settle" if waiting:
            host.settle(slot, amount % (waiting[0].reservation.amount_nanousd + 1))
        case "exceed" if waiting:
            host.settle(slot, waiting[0].reservation.amount_nanousd + amount % 5)
        case "kill":
            host.kill(slot)
        case "killed late" if waiting:  # after its record, before it has settled
            held = waiting.pop(0)
            cost = amount % (held.reservation.amount_nanousd + 1)
            host.record(held, cost, unleased=cost)
            host.kill(slot)
        case "crash":
            host.crash()
        case "ingest":
            host.ingest()
        case "tick":
            host.tick(*faults)
        case "lead":
            host.lead()
        case "wait":
            world.clock.secs += 0.4
        case "rest":
            for _ in range(3):
                host.tick(*faults)
                world.clock.secs += STRANDED_SECS / 2 + 0.1


@given(actions=ACTIONS)
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_in_whatever_order_things_happen_no_money_is_promised_twice_or_lost(
    database, monkeypatch, actions
):
    world = make_world(database, monkeypatch)
    for action, host, *rest in actions:
        do(world, action, world.hosts[host], *rest)
        world.check()
    world.come_to_rest()
    # What was never spent can be spent.
    for account, limit in world.limits.items():
        left = limit - world.spent[account]
        if left > 0 and account[0] == "team":
            assert world.hosts[0].reserve(0, (account,), left) is not None


def test_leases_and_ingest_of_the_same_money_wait_for_each_other_but_never_begin_again(
    world, monkeypatch
):
    """Neither in a circle nor because somebody else was faster; in a patched process, where they
    really are at work at the same time."""
    races: list[BaseException | None] = []
    has_lost = postgres._lost_race

    def note(error: BaseException | None) -> bool:
        races.append(error)
        return has_lost(error)

    monkeypatch.setattr(postgres, "_lost_race", note)
    accounts, (one, two) = world.sets[0], (host.id for host in world.hosts)
    charges = {account: store.Charge(0, 1, 1) for account in accounts}
    wants, amounts = dict.fromkeys(accounts, 0), dict.fromkeys(accounts, 1)

    def lease(connection: Connection, host_id: str) -> None:
        store.begin_leases(connection, accounts)
        store.lease_money(connection, host_id, wants, [1])

    def repeat(work: Callable[[Connection], object]) -> None:
        for _ in range(30):
            world.database.write(work)
            gevent.sleep(0)

    some = [
        partial(lease, host_id=one),
        partial(lease, host_id=two),
        partial(store.ingest, batch=replace(make_batch(charges=charges), host_id=one)),
        partial(store.give_back_money, host_id=two, amounts=amounts),
    ]
    workers = [gevent.spawn(repeat, work) for work in some]
    gevent.joinall(workers, raise_error=True)
    assert races == []
    leased = {account: ledger.leased_nanousd for account, ledger in world.ledgers().items()}
    assert leased == world.shares()

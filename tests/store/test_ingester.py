"""Every record of the journal arrives exactly once, whatever dies, fails or changes in between."""

from __future__ import annotations

import fcntl
import itertools
import os
from collections import Counter
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from tests.store.flaky import Flaky
from tokenhub import ingest, journal, store
from tokenhub.board import Board
from tokenhub.budgets import Account
from tokenhub.db import Database, DatabaseAway
from tokenhub.db.sums_tables import attempt_buckets, buckets
from tokenhub.db.traffic_tables import (
    attempts,
    events,
    feedback,
    journal_offsets,
    openings,
    request_logs,
)
from tokenhub.domain import Attempt, Outcome, Usage
from tokenhub.ingest import SET_ASIDE, Ingester
from tokenhub.journal import END, EVENT, FEEDBACK, OPENING, Journal
from tokenhub.recorder import ENDING, INPUT_TOKENS, attempt_row, log_row, payload_of
from tokenhub.records import parse_request

SEGMENT = 2048
"""Three or four records."""

LEASED = 10**6
HELD = 20
"""What is set aside for a request; it costs 7."""

NAMES = itertools.count(1)


class World:
    """Writers, their journal, and the leader of the moment, on one host."""

    def __init__(self, directory: Path, database: Database) -> None:
        self.number = next(NAMES)
        self.host_id = f"host-{self.number}"
        self.directory = directory / self.host_id
        self.database = database
        self.flaky = Flaky(database, [])
        self.board = Board(slots=1)
        self.numbers = itertools.count(1)
        self.requests = itertools.count(1)
        self.writers: list[Journal] = []
        self.account = Account("key", f"key_{self.number}", "total", 0)
        self.held = [[*self.account]]
        wants = {self.account: 0}
        database.write(
            lambda each: store.lease_money(each, self.host_id, wants=wants, amounts=[LEASED])
        )
        self.open: dict[str, int] = {}
        self.expected: dict[str, str] = {}
        self.notes: list[tuple[bytes, int]] = []
        for _ in range(2):
            self.writers.append(self.new_writer())
        self.lead()

    def new_writer(self) -> Journal:
        return Journal(
            self.directory, f"w{next(NAMES)}", lambda: next(self.numbers), bytes_max=1 << 30,
            segment_bytes=SEGMENT,
        )  # fmt: skip

    def lead(self) -> None:
        self.ingester = Ingester(
            database=self.flaky,  # type: ignore[arg-type]
            board=self.board,
            directory=self.directory,
            host_id=self.host_id,
        )

    def row(self, request_id: str, ending: str = "answered") -> list[Any]:
        outcome = Outcome(
            request_id, self.account.subject_id, "chat", "normal", True, 1_700_000_000_000
        )
        outcome.usage, outcome.cost_nanousd, outcome.latency_ms = Usage(10, 20), 7, 30
        row = log_row(outcome)
        row[ENDING] = ending
        return row

    def begin(self, writer: int) -> str:
        request_id = f"req_{self.number}_{next(self.requests)}"
        payload = payload_of(self.row(request_id, "interrupted"), [], HELD, self.held)
        self.writers[writer].append(OPENING, payload)
        self.open[request_id] = writer
        self.expected[request_id] = "interrupted"
        return request_id

    def end(self, request_id: str, **changes: Any) -> None:
        row = self.row(request_id)
        row[INPUT_TOKENS] = changes.get("input_tokens", row[INPUT_TOKENS])
        tries = [attempt_row(Attempt("m", "p", 0, 5))]
        writer = self.open.pop(request_id)
        self.writers[writer].append(END, payload_of(row, tries, True, self.held))
        self.expected[request_id] = "answered"

    def whole(self, writer: int, **changes: Any) -> str:
        request_id = f"req_{self.number}_{next(self.requests)}"
        row = self.row(request_id)
        row[INPUT_TOKENS] = changes.get("input_tokens", row[INPUT_TOKENS])
        tries = [attempt_row(Attempt("m", "p", 0, 5))]
        self.writers[writer].append(END, payload_of(row, tries, False, self.held))
        self.expected[request_id] = "answered"
        return request_id

    def note(self, writer: int, kind: bytes) -> None:
        """Write down an event, or what was said of an answer; each with a time of its own."""
        at = next(self.requests)
        host = self.host_id  # told apart by it: the database is all worlds'
        event = [at, "health", "", orjson.dumps({"of": host}).decode()]
        said = [at, f"req_{at}", "key_1", host, 0.5, "good"]
        self.writers[writer].append(kind, orjson.dumps(event if kind == EVENT else said))
        self.notes.append((kind, at))

    def leave(self, writer: int, *, is_killed: bool) -> None:
        """End a writer; its open requests die with it. Another one takes its place."""
        left = self.writers[writer]
        if is_killed:
            segments = [left._current, *left._spares]
            for fd in [*(each.fd for each in segments if each), *left._retired]:
                os.close(fd)
        else:
            left.close()
        self.open = {name: at for name, at in self.open.items() if at != writer}
        self.writers[writer] = self.new_writer()

    def step(self, *faults: str) -> None:
        self.flaky.faults = list(faults)
        with suppress(DatabaseAway):
            self.ingester.step()
        self.flaky.faults = []

    def settle(self) -> None:
        for writer in range(len(self.writers)):
            self.leave(writer, is_killed=writer % 2 == 0)
        for left in self.writers:
            left.close()
        quiet = 0
        for _ in range(200):
            quiet = 0 if self.ingester.step() else quiet + 1
            if quiet == 4:
                return
        raise AssertionError("never came to rest")

    def query(self, statement: Any) -> Any:
        return self.database.read(lambda connection: connection.execute(statement).all())

    def endings(self) -> list[tuple[str, str]]:
        columns = select(request_logs.c.request_id, request_logs.c.ending)
        found = self.query(columns.where(request_logs.c.host_id == self.host_id))
        return sorted(tuple(row) for row in found)

    def check(self) -> None:
        """Nothing lost, doubled or left, and the sums are the rows'."""
        assert self.endings() == sorted(self.expected.items())
        assert journal.list_segments(self.directory) == []
        for table in (journal_offsets, openings):
            assert self.query(select(table).where(table.c.host_id == self.host_id)) == []
        counted = select(
            func.coalesce(func.sum(buckets.c.requests), 0),
            func.coalesce(func.sum(buckets.c.input_tokens), 0),
            func.coalesce(func.sum(buckets.c.cost_nanousd), 0),
        )
        rows = len(self.expected)
        [found] = self.query(counted.where(buckets.c.host_id == self.host_id))
        assert tuple(map(int, found)) == (rows, 10 * rows, 7 * rows)
        self.check_money()
        tried = select(attempts.c.request_id).where(attempts.c.host_id == self.host_id)
        answered = [name for name, ending in self.expected.items() if ending == "answered"]
        assert sorted(row[0] for row in self.query(tried)) == sorted(answered)
        calls = select(func.coalesce(func.sum(attempt_buckets.c.attempts), 0))
        [[count]] = self.query(calls.where(attempt_buckets.c.host_id == self.host_id))
        assert count == len(answered)
        self.check_notes()

    def check_notes(self) -> None:
        """Events and feedback came once, each writer's in their order."""
        happened = select(events.c.at).where(events.c.host_id == self.host_id)
        said = select(feedback.c.at).where(feedback.c.actor == self.host_id)
        for kind, query in ((EVENT, happened), (FEEDBACK, said)):
            noted = sorted(at for each, at in self.notes if each == kind)
            assert sorted(row[0] for row in self.query(query)) == noted

    def check_money(self) -> None:
        """Each request is in the books once, and what it was paid from is off the host's share."""
        endings, rows = Counter(self.expected.values()), len(self.expected)
        left = LEASED - 7 * endings["answered"] - HELD * endings["interrupted"]
        books = self.database.read(partial(store.find_ledgers, accounts=[self.account]))
        assert books[self.account] == store.Ledger(
            self.account, spent_nanousd=7 * rows, leased_nanousd=left, requests=rows
        )
        shares = self.database.read(partial(store.list_shares, host_id=self.host_id))
        assert shares[self.account][0] == left


@pytest.fixture
def world(tmp_path, database):
    return World(tmp_path, database)


def some_traffic(world: World) -> None:
    for writer in (0, 1):
        begun = [world.begin(writer) for _ in range(3)]
        for _ in range(6):
            world.whole(writer)
        world.end(begun[0])
        world.end(begun[1])
        for kind in (EVENT, FEEDBACK):
            world.note(writer, kind)


@pytest.mark.parametrize("fault", ["before", "after"])
@pytest.mark.parametrize("call", range(6))
@pytest.mark.parametrize("is_new_leader", [False, True])
def test_an_outage_at_any_call_neither_loses_nor_doubles(world, fault, call, is_new_leader):
    some_traffic(world)
    world.leave(0, is_killed=True)
    faults = [""] * call + [fault]
    while faults:
        world.flaky.faults = faults
        try:
            world.ingester.step()
        except DatabaseAway:
            break
        some_traffic(world)
    world.flaky.faults = []
    if is_new_leader:
        world.lead()
    some_traffic(world)
    world.settle()
    world.check()


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["begin", "begin", "end", "end", "whole", "note", "close", "kill", "lead",
                         "step", "step", "away"]),
        st.integers(0, 1),
        st.lists(st.sampled_from(["", "", "before", "after"]), max_size=4),
    ),
    max_size=60,
)  # fmt: skip


@given(actions=ACTIONS)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_in_whatever_order_things_happen_every_request_has_its_one_row(tmp_path, database, actions):
    world = World(tmp_path, database)
    for action, writer, faults in actions:
        match action:
            case "begin":
                world.begin(writer)
            case "end" if world.open:
                world.end(next(iter(world.open)))
            case "whole":
                world.whole(writer)
            case "note":
                world.note(writer, EVENT if faults else FEEDBACK)
            case "close" | "kill":
                world.leave(writer, is_killed=action == "kill")
            case "lead":
                world.lead()
            case "step":
                world.step()
            case "away":
                world.step(*faults)
    world.settle()
    world.check()


def test_a_writer_that_moves_on_while_it_is_read_leaves_no_opening_behind(world, monkeypatch):
    """Its opening comes after we read the old segment, its end before we read the new one."""
    real_read = journal.read
    world.whole(0)
    segments: list[Path] = []

    def read(path: Path, position: int, **limits: int) -> Any:
        found = real_read(path, position, **limits)
        if not found[0] and not segments:
            segments.append(path)
            begun = world.begin(0)
            while world.writers[0]._current.path == path:
                world.whole(0)
            world.end(begun)
        return found

    monkeypatch.setattr(journal, "read", read)
    for _ in range(6):
        world.step()
    assert segments
    assert "interrupted" not in dict(world.endings()).values()
    world.settle()
    world.check()


def test_a_segment_that_is_being_made_is_not_taken_for_a_dead_writers(world, monkeypatch):
    real_lock = fcntl.flock

    def lock(fd: int, how: int) -> None:
        if how == fcntl.LOCK_EX:
            monkeypatch.setattr(fcntl, "flock", real_lock)
            world.step()
        real_lock(fd, how)

    monkeypatch.setattr(fcntl, "flock", lock)
    world.writers.append(world.new_writer())
    world.whole(2)
    world.settle()
    world.check()


def test_batches_are_bounded_also_when_a_whole_segment_is_waiting(world, monkeypatch):
    monkeypatch.setattr(ingest, "ROWS_MAX", 2)
    some_traffic(world)
    assert world.ingester.step() == 2
    assert len(world.endings()) <= 2
    world.settle()
    world.check()


def test_what_a_killed_leader_had_left_behind_is_cleared_away(world):
    some_traffic(world)
    world.leave(0, is_killed=True)
    # Rows and positions are in; the files are gone, and then it dies.
    world.flaky.faults = ["", "", "before"]
    with pytest.raises(DatabaseAway):
        world.ingester.step()
    world.lead()
    world.settle()
    world.check()


def set_aside(world: World) -> list[Any]:
    path = world.directory / SET_ASIDE
    return [orjson.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


@pytest.mark.parametrize("faults", [0, 1, 3])
def test_records_that_the_database_refuses_are_set_aside_and_keep_nobody_out(world, faults):
    refused = []
    some_traffic(world)
    for _ in range(faults):
        refused.append(world.whole(0, input_tokens=2**64 - 1))
        some_traffic(world)
    begun = world.begin(1)
    world.end(begun, input_tokens=2**64 - 1)
    refused.append(begun)
    some_traffic(world)
    for name in refused:
        del world.expected[name]
    world.settle()
    world.check()
    kept = [parse_request(each["payload"].encode())[0][0] for each in set_aside(world)]
    assert Counter(kept) == Counter(refused)
    assert (world.directory / SET_ASIDE).stat().st_mode & 0o777 == 0o600


def test_an_id_that_is_opened_twice_stops_nobody(world):
    begun = world.begin(0)
    payload = payload_of(world.row(begun, "interrupted"), [], HELD, world.held)
    world.writers[1].append(OPENING, payload)
    world.step()
    world.end(begun)
    world.whole(1)
    world.settle()
    world.check()


def test_an_outage_is_no_reason_to_set_anything_aside(world):
    some_traffic(world)
    for _ in range(3):
        world.step("", "before")
        world.step("", "after")
    assert set_aside(world) == []
    world.settle()
    world.check()

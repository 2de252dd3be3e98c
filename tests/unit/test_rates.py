"""Limits that all workers keep together: real processes, one board."""

from __future__ import annotations

import os
import random
import struct
import time
from collections.abc import Callable
from functools import partial

import pytest

from tokenhub import limits
from tokenhub.board import Board, Rates, rates
from tokenhub.board.memory import Memory
from tokenhub.board.places import REACH, Places
from tokenhub.board.rates import Claim, Refusal, Scope, fingerprint_of
from tokenhub.domain import Limits

SEC = limits.NS_PER_SEC


class Clock:
    def __init__(self) -> None:
        self.ns = 10**15

    def __call__(self) -> int:
        return self.ns

    def go(self, secs: float) -> None:
        self.ns += round(secs * SEC)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def counted(clock: Clock) -> Rates:
    return Rates(Memory(rates.words_for(2)), slots=2, now_ns=clock)


def claim_of(name: str = "key_1", scope: Scope = "key", hosts: int = 1, **allowed: float) -> Claim:
    share = limits.share_of(Limits(**allowed), hosts)  # type: ignore[arg-type]  # the test's own
    return Claim(fingerprint_of(scope, name), scope, share)


def in_children(count: int, work: Callable[[int], int]) -> list[int]:
    """Run `work(slot)` in forked processes, all at once; returns what each has returned."""
    gate, opener = os.pipe()
    found, into = os.pipe()
    pids = []
    for slot in range(count):
        pid = os.fork()
        if pid == 0:
            os.read(gate, 1)
            os.write(into, struct.pack("q", work(slot)))
            os._exit(0)
        pids.append(pid)
    os.write(opener, bytes(count))  # they start
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * count
    sums = [struct.unpack("q", os.read(found, 8))[0] for _ in pids]
    for fd in (gate, opener, found, into):
        os.close(fd)
    return sums


def try_many(board: Board, claim: Claim, times: int) -> Callable[[int], int]:
    def work(slot: int) -> int:
        return sum(board.rates.take([claim], slot) is None for _ in range(times))

    return work


def test_four_workers_let_pass_exactly_what_a_minute_allows():
    board = Board(slots=4)
    passed = in_children(4, try_many(board, claim_of(rpm=500), 400))
    assert sum(passed) == 500


def test_four_workers_keep_a_rate_within_a_percent():
    board = Board(slots=4)
    bucket = limits.bucket_of(2000, 200)
    assert bucket is not None
    name = fingerprint_of("address", "192.0.2.1")

    def work(_: int) -> int:
        until, passed = time.monotonic() + 0.5, 0
        while time.monotonic() < until:
            passed += not board.rates.take_address(name, "address", bucket)
        return passed

    began = time.monotonic()
    passed = sum(in_children(4, work))
    took = time.monotonic() - began
    assert 200 + 2000 * 0.5 * 0.99 <= passed <= 200 + 2000 * took * 1.01


def test_four_workers_keep_exactly_so_many_in_flight():
    board = Board(slots=4)
    claim = claim_of(parallel=7)
    assert sum(in_children(4, try_many(board, claim, 50))) == 7
    assert board.rates.take([claim], 0) is not None


def test_a_dead_workers_requests_are_no_longer_in_flight():
    board = Board(slots=2)
    claim = claim_of(parallel=3)
    board.rates.take([claim], 0)

    def work(slot: int) -> int:
        board.sit_down(1)
        return try_many(board, claim, 5)(1) * 10**9 + os.getpid()

    taken, pid = divmod(in_children(1, work)[0], 10**9)
    assert taken == 2
    board.clear_slot_of(pid)
    assert try_many(board, claim, 5)(0) == 2  # one of this worker's own is still in flight


def test_a_finished_request_makes_room_for_the_next(counted: Rates):
    claim = claim_of(parallel=1)
    for _ in range(3):
        assert counted.take([claim], 0) is None
        assert counted.take([claim], 1) == Refusal(claim, "parallel", 1)
        counted.give_back([claim], 0)


def test_a_request_of_two_claims_takes_of_both_or_of_none(counted: Rates):
    key, team = claim_of(rpm=10), claim_of("team_1", "team", rpm=2)
    assert [counted.take([key, team], 0) for _ in range(2)] == [None, None]
    refusal = counted.take([key, team], 0)
    assert refusal is not None
    assert (refusal.claim.scope, refusal.limit) == ("team", "rpm")
    assert counted.standing(key).requests == 8
    assert counted.refusals() == {"address": 0, "admin": 0, "key": 0, "team": 1, "key and model": 0}


def test_the_limit_that_takes_longest_is_the_one_that_is_told(counted: Rates, clock: Clock):
    claim = claim_of(rps=1, rpm=2)
    assert [counted.take([claim], 0) for _ in range(2)] == [None, None]
    refusal = counted.take([claim], 0)
    assert refusal is not None and refusal.wait_ns is not None
    assert refusal.limit == "rpm"
    clock.go(refusal.wait_ns / SEC - 0.001)
    assert counted.take([claim], 0) is not None
    clock.go(0.001)
    assert counted.take([claim], 0) is None


def test_a_request_and_its_tokens_are_taken_together_or_neither(counted: Rates, clock: Clock):
    claim = claim_of(rpm=3, tpm=100, parallel=2)
    taken_at = counted.take_all([claim], 0, 60)
    assert taken_at == clock.ns
    refusal = counted.take_all([claim], 0, 60)
    assert isinstance(refusal, Refusal) and refusal.limit == "tpm"
    assert isinstance(counted.take_all([claim], 0, 40), int)
    assert counted.take_all([claim], 0, 1) != clock.ns  # two are in flight
    now = counted.standing(claim)
    assert (now.requests, now.tokens) == (1, 0)
    counted.give_back([claim], 0)
    counted.correct_tokens([claim], taken_at, -60)
    assert isinstance(counted.take_all([claim], 1, 60), int)
    never = counted.take_all([claim], 1, 101)
    assert isinstance(never, Refusal) and never.wait_ns is None


def test_four_workers_let_pass_exactly_what_requests_and_tokens_allow_together():
    board = Board(slots=4)

    def work(slot: int, claim: Claim) -> int:
        return sum(isinstance(board.rates.take_all([claim], slot, 7), int) for _ in range(200))

    for name, allowed in (("a", {"rpm": 333}), ("b", {"tpm": 7 * 250}), ("c", {"parallel": 9})):
        claim = claim_of(name, "key and model", **allowed)
        passed = in_children(4, partial(work, claim=claim))
        assert sum(passed) == {"a": 333, "b": 250, "c": 9}[name]


def test_tokens_are_taken_when_they_are_known_and_corrected_when_they_are_used(counted: Rates):
    claim = claim_of(tpm=100)
    assert counted.take([claim], 0) is None
    taken_at = counted.take_tokens([claim], 60)
    assert isinstance(taken_at, int)
    assert isinstance(counted.take_tokens([claim], 60), Refusal)
    counted.correct_tokens([claim], taken_at, -30)
    assert counted.standing(claim).tokens == 70
    counted.correct_tokens([claim], taken_at, 90)
    assert counted.standing(claim).tokens == 0
    refusal = counted.take([claim], 0)  # nothing passes while more was used than is allowed
    assert refusal is not None
    assert refusal.limit == "tpm"


def test_a_request_larger_than_the_limit_never_passes(counted: Rates):
    claim = claim_of(tpm=100)
    assert counted.take_tokens([claim], 101) == Refusal(claim, "tpm", None)


def test_a_request_larger_than_this_hosts_part_passes_alone(counted: Rates, clock: Clock):
    claim = claim_of(tpm=100, hosts=4)
    assert isinstance(counted.take_tokens([claim], 80), int)
    refusal = counted.take_tokens([claim], 80)
    assert isinstance(refusal, Refusal) and refusal.wait_ns is not None
    clock.go(refusal.wait_ns / SEC)
    assert isinstance(counted.take_tokens([claim], 80), int)


def test_a_row_that_was_forgotten_meanwhile_is_found_again_at_the_end(counted: Rates, clock: Clock):
    claim = claim_of(tpm=100)
    counted.take([claim], 0)
    taken_at = counted.take_tokens([claim], 40)
    assert isinstance(taken_at, int)
    clock.go(600)
    counted.correct_tokens([claim], taken_at, -10)
    assert counted.standing(claim).tokens == 100
    counted.correct_tokens([claim], taken_at, 60)
    assert counted.standing(claim).tokens == 40
    counted.give_back([claim], 0)


def test_addresses_are_limited_each_for_itself_and_by_surface(counted: Rates):
    bucket = limits.bucket_of(1, 3)
    assert bucket is not None
    surfaces: tuple[Scope, ...] = ("address", "admin")
    for scope in surfaces:
        for address in ("192.0.2.1", "192.0.2.2"):
            name = fingerprint_of(scope, address)
            waits = [counted.take_address(name, scope, bucket) for _ in range(4)]
            assert waits == [0, 0, 0, SEC]
    assert counted.refusals() == {"address": 2, "admin": 2, "key": 0, "team": 0, "key and model": 0}


def test_a_flood_of_addresses_stops_nobody_and_a_row_once_idle_is_given_away(
    counted: Rates, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    bucket = limits.bucket_of(1, 2)
    assert bucket is not None
    rng = random.Random(7)
    for _ in range(20_000):
        assert (
            counted.take_address(rng.getrandbits(40) * rates.ADDRESSES | 1, "address", bucket) == 0
        )
    for _ in range(3):
        wait_ns = counted.take_address(1, "address", bucket)
    assert wait_ns > 0
    clock.go(10)
    assert counted.take_address(1, "address", bucket) == 0


def test_ten_thousand_busy_keys_find_rows_of_their_own():
    rows = rates.SUBJECTS
    places = Places(Memory(2 * (rows + REACH)), rows)
    rng = random.Random(11)
    names = [rng.getrandbits(63) | 1 for _ in range(10_000)]
    taken = [places.take(name, 1, until_ns=10**18) for name in names]
    lost = len(names) - len(set(taken))
    assert lost < 10
    assert sum(places.find(name) is not None for name in names) == len(names) - lost


def test_a_key_with_requests_in_flight_keeps_its_row_however_long_they_take(
    counted: Rates, clock: Clock
):
    held = claim_of(parallel=1)
    assert counted.take([held], 0) is None
    clock.go(3600)
    for name in range(3 * REACH):  # all want the same places
        other = Claim(held.fingerprint + rates.SUBJECTS * (name + 1), "key", held.share)
        assert counted.take([other], 0) is None  # the last ones find none, and are let pass
    refusal = counted.take([held], 0)
    assert refusal is not None
    assert refusal.limit == "parallel"


def test_a_clock_of_the_board_is_shared_by_all_processes():
    board = Board(slots=2)
    claim = claim_of(rpm=1)
    assert in_children(1, try_many(board, claim, 1)) == [1]
    assert board.rates.take([claim], 0) is not None


def test_the_number_of_live_hosts_is_one_until_it_is_told():
    board = Board(slots=1)
    assert board.live_hosts == 1
    board.live_hosts = 3
    assert board.live_hosts == 3
    board.live_hosts = 0
    assert board.live_hosts == 1

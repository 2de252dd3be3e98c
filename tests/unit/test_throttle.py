"""Wrong guesses are counted for each who makes them, by all workers together, in bounded memory."""

from __future__ import annotations

import pytest

from tests.unit.test_board import in_child
from tokenhub.board.memory import Memory
from tokenhub.board.throttle import FORGET_MS, ROWS, THROTTLE_WORDS, Throttle


class Clock:
    now_ms = 10_000_000

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def throttle(clock):
    rests = {0: 0, 1: 0, 2: 10}
    return Throttle(Memory(THROTTLE_WORDS), rest_secs=lambda n: rests.get(n, 20), now_ms=clock)


def test_the_wait_begins_with_the_last_guess_and_is_told_in_whole_seconds(throttle, clock):
    assert (throttle.wait_secs("a"), throttle.fail("a"), throttle.wait_secs("a")) == (0, 1, 0)
    assert (throttle.fail("a"), throttle.wait_secs("a"), throttle.wait_secs("b")) == (2, 10, 0)
    clock.now_ms += 9001
    assert throttle.wait_secs("a") == 1
    clock.now_ms += 999
    assert throttle.wait_secs("a") == 0
    assert (throttle.fail("a"), throttle.wait_secs("a")) == (3, 20)


def test_guesses_are_forgotten_when_they_are_cleared_or_old(throttle, clock):
    throttle.clear("a")
    throttle.fail("a")
    throttle.clear("a")
    assert throttle.fail("a") == 1
    clock.now_ms += FORGET_MS
    assert throttle.fail("a") == 2
    clock.now_ms += FORGET_MS + 1
    assert throttle.fail("a") == 1


def test_all_processes_count_together(throttle):
    assert in_child(lambda: throttle.fail("a") and None) == 0
    assert throttle.fail("a") == 2


def test_notes_are_few_in_each_minute(throttle, clock):
    assert [throttle.may_note("a", 2) for _ in range(4)] == [True, True, False, False]
    assert throttle.may_note("b", 2)
    clock.now_ms += 60_000
    assert throttle.may_note("a", 2)
    assert throttle.wait_secs("a") == 0


def test_what_is_noted_of_all_together_is_no_more_for_a_flood(throttle, clock):
    noted = 0
    for number in range(3 * ROWS):
        throttle.fail(f"flood-{number}")
        noted += throttle.may_note(None, 60)
        clock.now_ms += number % 2
    assert noted <= 120


def test_a_flood_takes_no_more_memory_and_whoever_was_quiet_longest_makes_way(throttle, clock):
    throttle.fail("old")
    clock.now_ms += 1000
    for number in range(3 * ROWS):
        throttle.fail(f"flood-{number}")
    assert throttle.fail("old") == 1
    recent = [throttle.fail(f"flood-{number}") for number in range(3 * ROWS - 100, 3 * ROWS)]
    assert sum(count == 2 for count in recent) > 50

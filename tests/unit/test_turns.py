"""Turns on the board: counted for each name, once for all who share it."""

from __future__ import annotations

import os

from tokenhub.board import Board
from tokenhub.board.turns import NAMES_MAX


def test_every_name_counts_for_itself_and_looking_takes_nothing():
    turns = Board(slots=1).turns
    assert [turns.take("a") for _ in range(3)] == [0, 1, 2]
    assert [turns.take("b"), turns.peek("a"), turns.peek("a"), turns.take("a")] == [0, 3, 3, 3]


def test_long_names_are_told_apart():
    turns = Board(slots=1).turns
    names = ["x" * 500 + end for end in "ab"]
    assert [turns.take(name) for name in names] == [0, 0]


def test_names_beyond_the_last_share_a_counter():
    turns = Board(slots=1).turns
    assert all(turns.take(f"n{number}") == 0 for number in range(NAMES_MAX - 1))
    assert [turns.take("late"), turns.take("later"), turns.take("late")] == [0, 1, 2]
    assert turns.take("n5") == 1


def test_another_process_takes_the_next_turn():
    turns = Board(slots=2).turns
    turns.take("a")
    child = os.fork()
    if child == 0:
        turns.take("a")
        os._exit(0)
    os.waitpid(child, 0)
    assert turns.take("a") == 2

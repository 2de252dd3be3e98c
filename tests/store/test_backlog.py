"""What waits for the database is known to every worker, also after one was killed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tokenhub import ingest
from tokenhub.board import Board
from tokenhub.db import Database
from tokenhub.domain import Outcome
from tokenhub.ingest import SET_ASIDE, Ingester
from tokenhub.journal import END, Journal
from tokenhub.recorder import log_row, payload_of

NUMBERS = itertools.count(1)


@pytest.fixture
def board() -> Board:
    return Board(slots=2)


@pytest.fixture
def journal(tmp_path: Path, board: Board) -> Iterator[Journal]:
    made = Journal(
        tmp_path,
        "w1",
        board.next_segment,
        bytes_max=1 << 30,
        segment_bytes=1 << 20,
        on_append=lambda size: board.backlog.note_appended(1, size),
    )
    yield made
    made.close()


@pytest.fixture
def ingester(tmp_path: Path, board: Board, database: Database) -> Ingester:
    return Ingester(database=database, board=board, directory=tmp_path, host_id="host-1")


def write(journal: Journal, times: int) -> None:
    for _ in range(times):
        outcome = Outcome(f"req_{next(NUMBERS)}", "key_1", "chat", "normal", False, 1)
        journal.append(END, payload_of(log_row(outcome), [], False, []))


def test_what_was_appended_waits_until_the_database_has_it(board, journal, ingester):
    board.backlog.catch_up(0, -60_000)
    write(journal, 3)
    assert board.backlog.waiting_bytes == board.backlog.appended_bytes > 300
    assert board.backlog.lag_secs > 60
    assert ingester.step() == 3
    assert board.backlog.waiting_bytes == 0
    assert board.backlog.lag_secs < 60


def test_as_long_as_batches_are_full_the_rest_waits(board, journal, ingester, monkeypatch):
    monkeypatch.setattr(ingest, "ROWS_MAX", 4)
    board.backlog.catch_up(0, -60_000)
    write(journal, 10)
    before = board.backlog.waiting_bytes
    assert ingester.step() == 4
    assert 0 < board.backlog.waiting_bytes < before
    assert board.backlog.lag_secs > 60, "there are older ones than what was just written"
    for _ in range(3):
        ingester.step()
    assert board.backlog.waiting_bytes == 0
    assert board.backlog.lag_secs < 60


def test_what_a_killed_worker_had_no_time_to_count_does_not_stay_wrong(board, journal, ingester):
    write(journal, 1)
    journal._on_append = lambda _: None
    write(journal, 1)
    for _ in range(2):
        ingester.step()
    journal._on_append = lambda size: board.backlog.note_appended(1, size)
    write(journal, 1)
    assert board.backlog.waiting_bytes > 100


def test_records_that_were_set_aside_are_counted(tmp_path, board, journal, ingester):
    journal.append(END, b"[]")
    write(journal, 1)
    ingester.step()
    assert (tmp_path / SET_ASIDE).exists()
    assert board.backlog.set_aside == 1

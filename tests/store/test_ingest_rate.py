"""How fast the journal gets into a database that is already large; counted, and printed."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from tests.big_tables import Size, fill, key_id, model_id, provider_id
from tokenhub.board import Board
from tokenhub.db import Database
from tokenhub.db.traffic_tables import request_logs
from tokenhub.domain import Attempt, Outcome, Policy, Usage
from tokenhub.ingest import ROWS_MAX, Ingester
from tokenhub.journal import Journal
from tokenhub.recorder import Recorder

pytestmark = pytest.mark.rehearse

THERE = 200_000
ROWS = 30_000
A_SECOND = 1000
"""Rows that must be taken in each second, on two cores that also serve what makes them."""


@pytest.fixture
def large(database_dsn: str) -> Iterator[Database]:
    fill(database_dsn, Size(THERE, int(time.time() * 1000)))
    database = Database(database_dsn)
    yield database
    database.close()


def outcomes() -> Iterator[Outcome]:
    """A thousand in each second, of 200 keys and 40 models; each twentieth was failed over."""
    begin_at = int(time.time() * 1000) - ROWS
    for number in range(ROWS):
        key, model = number * 7919 % 200, number * 104729 % 40
        found = Outcome(
            f"req_{number:032x}", key_id(key), "/v1/chat/completions", "normal", False,
            begin_at + number,
        )  # fmt: skip
        found.ending, found.status, found.latency_ms = "answered", 200, 300 + number % 900
        found.model_id, found.provider_id = model_id(model), provider_id(model % 6)
        found.policy = Policy()
        for at in range(2 if number % 20 == 0 else 1):
            used: dict[str, Any] = {"usage": Usage(900, 200), "cost_nanousd": 1_300_000}
            found.attempts.append(Attempt(found.model_id, found.provider_id, at * 100, 250, **used))
        yield found


def test_a_thousand_rows_a_second_are_a_part_of_one_core(large, tmp_path, capsys):
    directory: Path = tmp_path / "journal"
    numbers = itertools.count(1)
    board = Board(slots=1)
    journal = Journal(directory, "w", lambda: next(numbers), bytes_max=1 << 30)
    recorder = Recorder(journal=journal, board=board)
    for outcome in outcomes():
        recorder.admit()
        recorder.record(outcome)
    ingester = Ingester(database=large, board=board, directory=directory, host_id="host-1")
    wall, cpu = time.monotonic(), time.process_time()
    while ingester.step() == ROWS_MAX:
        pass
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    journal.close()
    query = select(func.count()).select_from(request_logs)
    assert large.read(lambda each: each.scalar(query)) == THERE + ROWS
    with capsys.disabled():
        print(
            f"\n{large.dialect}: {ROWS / wall:.0f} rows a second, {cpu / ROWS * 1e6:.0f} µs of"
            " our own processor time each"
        )
    assert ROWS / wall > A_SECOND
    assert cpu / ROWS < 0.1 / A_SECOND  # a tenth of a core: the rest is for the requests

"""Carries the journal into the database, every record exactly once.

One ingester runs on a host at a time (the leader's). A batch moves the read position of each
segment in the same transaction as the rows it wrote, so a crash anywhere repeats nothing and skips
nothing. An opening that no end will ever follow, because its writer is dead, becomes an
`interrupted` row. Whatever fails, the next step starts again from what the database says.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Connection

from tokenhub import journal, recorder, store
from tokenhub.board import Board
from tokenhub.board.counters import HISTOGRAM, LATENCY_EDGES_MS
from tokenhub.db import Database
from tokenhub.journal import Record, SegmentFile

BUCKET_MS = 10_000
ROWS_MAX = 2000
"""Records in one transaction."""

log = logging.getLogger("tokenhub.ingest")


@dataclass(frozen=True, slots=True)
class Opening:
    """A request that has begun and not ended, as far as the journal was read."""

    writer: str
    segment: int
    position: int
    payload: bytes


@dataclass
class _Step:
    """What one step found; it becomes the truth only when the transaction has committed."""

    positions: dict[int, tuple[int, int]] = field(default_factory=dict)
    logs: list[tuple[Any, ...]] = field(default_factory=list)
    attempts: list[tuple[Any, ...]] = field(default_factory=list)
    opened: dict[str, Opening] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)
    buckets: dict[tuple[Any, ...], list[int]] = field(default_factory=dict)
    records: int = 0
    finished: list[SegmentFile] = field(default_factory=list)
    living: set[str] = field(default_factory=set)


class Ingester:
    """Reads the segments of one host.

    Args:
        directory: where the host's workers write.
        host_id: names the host in every row.
    """

    def __init__(self, *, database: Database, board: Board, directory: Path, host_id: str) -> None:
        self._database = database
        self._board = board
        self._directory = directory
        self._host_id = host_id
        self._positions: dict[int, int] | None = None
        self._open: dict[str, Opening] = {}
        self._suspects: set[str] = set()

    def step(self) -> int:
        """Ingest one batch; returns how many records it held, 0 when there was nothing new.

        Raises:
            DatabaseAway: nothing is lost; call again later.
        """
        if self._positions is None:
            self._positions, self._open = self._load()
        step = _Step()
        for segment in journal.list_segments(self._directory):
            # Sealed so far as read() below sees it: asked before reading, so that nothing can be
            # appended between the last read and the verdict.
            is_complete = _is_complete(segment)
            if self._read(segment, step, self._positions.get(segment.number, 0)) and is_complete:
                step.finished.append(segment)
            else:
                step.living.add(segment.writer)
        self._settle_dead_writers(step)
        try:
            self._commit(step, self._positions)
        except BaseException:
            # Perhaps it was committed and perhaps not: the database knows.
            self._positions = None
            raise
        return step.records

    def _load(self) -> tuple[dict[int, int], dict[str, Opening]]:
        def work(connection: Connection) -> tuple[dict[int, int], dict[str, Opening]]:
            openings = store.load_openings(connection, self._host_id)
            positions = store.load_positions(connection, self._host_id)
            return positions, {row[0]: Opening(*row[1:]) for row in openings}

        return self._database.read(work)

    def _read(self, segment: SegmentFile, step: _Step, start: int) -> bool:
        """Take what is new in a segment; returns whether its end was reached."""
        position = start
        while step.records < ROWS_MAX:
            try:
                records, after = journal.read(segment.path, position)
            except FileNotFoundError:  # sealed since it was listed: found again next time
                return False
            if not records:
                return True
            for record in records:
                self._take(record, segment, step)
            position = after
            step.positions[segment.number] = (start, position)
        return False

    def _take(self, record: Record, segment: SegmentFile, step: _Step) -> None:
        step.records += 1
        identity = (self._host_id, segment.number, record.position)
        row, attempts, *was_opened = orjson.loads(record.payload)
        request_id = row[0]
        if record.kind == journal.OPENING:
            step.opened[request_id] = Opening(
                segment.writer, segment.number, record.position, record.payload
            )
            return
        if was_opened[0] and step.opened.pop(request_id, None) is None:
            step.ended.append(request_id)
        step.logs.append((*identity, *row))
        for number, attempt in enumerate(attempts):
            step.attempts.append((*identity, number, request_id, *attempt))
        self._add_to_bucket(row, step)

    def _settle_dead_writers(self, step: _Step) -> None:
        """Openings of writers that are gone, with every record of theirs read, become rows.

        Gone means gone in two steps running: a listing taken while a writer moves on to its next
        segment may miss that segment.
        """
        waiting = {**self._open, **step.opened}
        for request_id in step.ended:
            waiting.pop(request_id, None)
        gone = {opening.writer for opening in waiting.values()} - step.living
        confirmed, self._suspects = gone & self._suspects, gone
        for request_id, opening in waiting.items():
            if opening.writer not in confirmed:
                continue
            row, _ = orjson.loads(opening.payload)
            step.logs.append((self._host_id, opening.segment, opening.position, *row))
            self._add_to_bucket(row, step)
            if step.opened.pop(request_id, None) is None:
                step.ended.append(request_id)
            log.warning("request was interrupted", extra={"request_id": request_id})

    def _add_to_bucket(self, row: list[Any], step: _Step) -> None:
        key = (
            self._host_id,
            row[recorder.STARTED_AT] // BUCKET_MS * BUCKET_MS,
            row[recorder.MODEL_ID],
            row[recorder.PROVIDER_ID],
            row[recorder.KEY_ID],
            row[recorder.MODE],
            row[recorder.ENDPOINT],
            row[recorder.ENDING],
        )
        sums = step.buckets.get(key)
        if sums is None:
            sums = step.buckets[key] = [0] * (len(store.BUCKET_SUMS) + HISTOGRAM)
        latency_ms, ttft_ms, cost = (
            row[recorder.LATENCY_MS], row[recorder.TTFT_MS], row[recorder.COST],
        )  # fmt: skip
        sums[0] += 1
        sums[1] += row[recorder.INPUT_TOKENS]
        sums[2] += row[recorder.OUTPUT_TOKENS]
        sums[3] += cost or 0
        sums[4] += cost is None
        sums[5] += latency_ms
        sums[6] += ttft_ms or 0
        sums[7] += ttft_ms is not None
        sums[len(store.BUCKET_SUMS) + bisect_left(LATENCY_EDGES_MS, latency_ms)] += 1

    def _commit(self, step: _Step, positions: dict[int, int]) -> None:
        """Write a batch; then what is wholly in the database may leave the disk."""
        if step.positions or step.logs or step.ended:
            batch = self._batch_of(step)
            self._database.write(
                lambda connection: store.ingest(connection, batch), timeout_secs=30
            )
            self._board.saw_database()
            positions.update({number: new for number, (_, new) in step.positions.items()})
            self._open.update(step.opened)
            for request_id in step.ended:
                self._open.pop(request_id, None)
        if step.finished:
            for segment in step.finished:
                segment.path.unlink(missing_ok=True)
                positions.pop(segment.number, None)
            numbers = [segment.number for segment in step.finished]
            self._database.write(
                lambda connection: store.forget_positions(connection, self._host_id, numbers)
            )

    def _batch_of(self, step: _Step) -> store.Batch:
        return store.Batch(
            host_id=self._host_id,
            positions=step.positions,
            logs=step.logs,
            attempts=step.attempts,
            openings_new=[
                (request_id, self._host_id, opening.writer, opening.segment, opening.position,
                 orjson.loads(opening.payload)[0][recorder.STARTED_AT], opening.payload)
                for request_id, opening in step.opened.items()
            ],
            openings_done=step.ended,
            buckets=step.buckets,
        )  # fmt: skip


def _is_complete(segment: SegmentFile) -> bool:
    """Whether nothing more will be appended: sealed, or its writer is dead."""
    try:
        return segment.is_sealed or journal.is_abandoned(segment)
    except FileNotFoundError:
        return False

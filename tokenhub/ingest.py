"""Carries the journal into the database, every record exactly once.

One ingester runs on a host at a time (the leader's). A batch moves the read position of each
segment in the same transaction as the rows it wrote, so a crash anywhere repeats nothing and skips
nothing. An opening that no end will ever follow, because its writer is dead, becomes an
`interrupted` row. Whatever fails, the next step starts again from what the database says. A record
that the database will never take is set aside in a file, so that it does not keep the others out.
"""

from __future__ import annotations

import logging
import os
import struct
import time
from bisect import bisect_left
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Connection
from sqlalchemy.exc import DataError, IntegrityError

from tokenhub import journal, recorder, store
from tokenhub.board import Board
from tokenhub.board.counters import HISTOGRAM, LATENCY_EDGES_MS
from tokenhub.budgets import Account, accounts_of
from tokenhub.db import Database
from tokenhub.journal import Record, SegmentFile

BUCKET_MS = 10_000
DAY_MS = 86_400_000
ROWS_MAX = 2000
"""Records in one transaction."""

SET_ASIDE = "refused.jsonl"
"""Where records are kept that do not fit into the database, beside the segments."""

# What is wrong with the data rather than with the database: a row that breaks a constraint, and
# values that SQL or a driver cannot express. Anything else is worth waiting for.
_REFUSED = (IntegrityError, DataError, ValueError, TypeError, OverflowError, struct.error)

_UNREADABLE = (ValueError, TypeError, LookupError)
_ROW_WIDTH, _ATTEMPT_WIDTH = len(store.LOG_COLUMNS), len(store.ATTEMPT_COLUMNS)

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
    """What one step found; it becomes the truth only when the transaction has committed.

    Args:
        room: how many more records and interrupted requests it may take.
        spent: by key, team and UTC day: nano-dollars, and requests.
        unleased: what goes off this host's shares of hard budgets.
        taken: those it took, as they would be set aside.
    """

    room: int
    positions: dict[int, tuple[int, int]] = field(default_factory=dict)
    logs: list[tuple[Any, ...]] = field(default_factory=list)
    attempts: list[tuple[Any, ...]] = field(default_factory=list)
    opened: dict[str, Opening] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)
    buckets: dict[tuple[Any, ...], list[int]] = field(default_factory=dict)
    spent: dict[tuple[str, str, int], list[int]] = field(default_factory=dict)
    unleased: dict[Account, int] = field(default_factory=dict)
    taken: list[tuple[int, int, bytes]] = field(default_factory=list)
    damaged: list[tuple[int, int, bytes]] = field(default_factory=list)
    finished: list[SegmentFile] = field(default_factory=list)
    living: set[str] = field(default_factory=set)

    def drop_rows(self) -> None:
        """Keep only that it was read."""
        self.damaged = self.taken
        for rows in (
            self.logs,
            self.attempts,
            self.opened,
            self.buckets,
            self.spent,
            self.unleased,
        ):
            rows.clear()


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
        self.caught_up_at = float("-inf")
        """When a step began that left nothing behind, what dead writers had begun included;
        monotonic seconds."""

    def step(self) -> int:
        """Ingest one batch; returns how many records it held, 0 when there was nothing new.

        Raises:
            DatabaseAway: nothing is lost; call again later.
        """
        room = ROWS_MAX
        while True:
            try:
                return self._step(room)
            except _REFUSED as error:
                # One of them cannot be written: go on without it as soon as it stands alone.
                log.warning("batch refused", extra={"records": room, "error": type(error).__name__})
                if room == 1:
                    raise
                room //= 2

    def _step(self, room: int) -> int:
        if self._positions is None:
            self._positions, self._open = self._load()
        step, began = _Step(room), time.monotonic()
        for segment in journal.list_segments(self._directory):
            # A writer fills its segments in their order. The later ones wait until all of an
            # earlier one was read: what ended there may have begun in what was not read here.
            if segment.writer in step.living:
                continue
            # Asked before reading, so that nothing can be appended between the last read and the
            # verdict.
            is_complete = _is_complete(segment)
            if self._read(segment, step, self._positions.get(segment.number, 0)) and is_complete:
                step.finished.append(segment)
            else:
                step.living.add(segment.writer)
        self._settle_dead_writers(step)
        try:
            self._commit_or_set_aside(step, self._positions)
        except BaseException:
            # Perhaps it was committed and perhaps not: the database knows.
            self._positions = None
            raise
        if step.room and step.living.issuperset(each.writer for each in self._open.values()):
            self.caught_up_at = began
        return len(step.taken)

    def _load(self) -> tuple[dict[int, int], dict[str, Opening]]:
        def work(connection: Connection) -> tuple[dict[int, int], dict[str, Opening]]:
            openings = store.load_openings(connection, self._host_id)
            positions = store.load_positions(connection, self._host_id)
            return positions, {row[0]: Opening(*row[1:]) for row in openings}

        positions, openings = self._database.read(work)
        # Left by a leader that died between removing a segment and forgetting its position. Looked
        # for twice: a listing may miss a file that is being renamed, but not the same one again.
        left = set(positions)
        for _ in range(2):
            left -= {each.number for each in journal.list_segments(self._directory)}
        self._forget(positions, left)
        return positions, openings

    def _read(self, segment: SegmentFile, step: _Step, start: int) -> bool:
        """Take what is new in a segment; returns whether its end was reached."""
        position = start
        while step.room:
            try:
                records, after = journal.read(segment.path, position, records_max=step.room)
            except FileNotFoundError:  # sealed since it was listed: found again next time
                return False
            if not records:
                return True
            step.room -= len(records)
            for record in records:
                self._take(record, segment, step)
            position = after
            step.positions[segment.number] = (start, position)
        return False

    def _take(self, record: Record, segment: SegmentFile, step: _Step) -> None:
        identity = (self._host_id, segment.number, record.position)
        step.taken.append((segment.number, record.position, record.payload))
        try:
            row, attempts, was_opened, accounts = _parse(record.payload)
        except _UNREADABLE:
            step.damaged.append(step.taken[-1])
            return
        request_id = row[0]
        if record.kind == journal.OPENING:
            if request_id in self._open and request_id not in step.opened:
                step.ended.append(request_id)  # the new one takes its place
            step.opened[request_id] = Opening(
                segment.writer, segment.number, record.position, record.payload
            )
            return
        if was_opened and step.opened.pop(request_id, None) is None:
            step.ended.append(request_id)
        step.logs.append((*identity, *row))
        _charge(row, accounts, row[recorder.COST] or 0, step)
        for number, attempt in enumerate(attempts):
            step.attempts.append((*identity, number, request_id, *attempt))
        self._add_to_bucket(row, step)

    def _settle_dead_writers(self, step: _Step) -> None:
        """Openings of writers that are gone, with every record of theirs read, become rows.

        Gone means gone in two steps running: a listing taken while a writer moves on to its next
        segment may miss that segment.
        """
        ended = set(step.ended)
        waiting = {id_: each for id_, each in self._open.items() if id_ not in ended}
        waiting.update(step.opened)
        gone = {opening.writer for opening in waiting.values()} - step.living
        confirmed, self._suspects = gone & self._suspects, gone
        for request_id, opening in waiting.items():
            if opening.writer not in confirmed or not step.room:
                continue
            step.room -= 1
            step.taken.append((opening.segment, opening.position, opening.payload))
            if step.opened.pop(request_id, None) is None:
                step.ended.append(request_id)
            try:
                row, _, reserved_nanousd, accounts = _parse(opening.payload)
            except _UNREADABLE:  # opened by another version
                step.damaged.append(step.taken[-1])
                continue
            step.logs.append((self._host_id, opening.segment, opening.position, *row))
            # As the board has: what a dead worker had reserved is off this host's share.
            _charge(row, accounts, reserved_nanousd, step)
            self._add_to_bucket(row, step)
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
            row[recorder.TEAM_ID],
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

    def _commit_or_set_aside(self, step: _Step, positions: dict[int, int]) -> None:
        try:
            self._commit(step, positions)
        except _REFUSED as error:
            if len(step.taken) != 1:
                raise
            log.warning("record refused", extra={"error": type(error).__name__})
            step.drop_rows()
            self._commit(step, positions)

    def _commit(self, step: _Step, positions: dict[int, int]) -> None:
        """Write a batch; then what is wholly in the database may leave the disk."""
        self._set_aside(step.damaged)
        if step.taken:
            batch = self._batch_of(step)
            self._database.write(
                lambda connection: store.ingest(connection, batch), timeout_secs=30
            )
            self._board.saw_database()
            positions.update({number: new for number, (_, new) in step.positions.items()})
            for request_id in step.ended:
                self._open.pop(request_id, None)
            self._open.update(step.opened)
        for segment in step.finished:
            segment.path.unlink(missing_ok=True)
        self._forget(positions, {segment.number for segment in step.finished})

    def _forget(self, positions: dict[int, int], segments: set[int]) -> None:
        """Drop the positions of segments that are not on the disk any more."""
        for number in segments:
            positions.pop(number, None)
        if segments:
            numbers = list(segments)
            self._database.write(
                lambda connection: store.forget_positions(connection, self._host_id, numbers)
            )

    def _set_aside(self, records: list[tuple[int, int, bytes]]) -> None:
        """Keep records on disk before their position moves on: twice perhaps, but never lost."""
        if not records:
            return
        lines = [
            orjson.dumps({"segment": segment, "position": position,
                          "payload": payload.decode(errors="replace")})
            for segment, position, payload in records
        ]  # fmt: skip
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        fd = os.open(self._directory / SET_ASIDE, flags, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(b"\n".join([*lines, b""]))
            file.flush()
            os.fsync(file.fileno())
        log.error("records set aside", extra={"records": len(records), "file": SET_ASIDE})

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
            charges=_charges_of(step),
        )  # fmt: skip


def _parse(payload: bytes) -> list[Any]:
    """A record's parts: the row, its attempts, of an end whether it had been opened and of an
    opening what was set aside (in each account), and the accounts.

    Raises:
        ValueError, TypeError, LookupError: not written by this version.
    """
    row, attempts, third, accounts = orjson.loads(payload)
    if len(row) != _ROW_WIDTH or not all(len(each) == _ATTEMPT_WIDTH for each in attempts):
        raise ValueError("the columns of another version")
    return [row, attempts, third, [Account(*each) for each in accounts]]


def _charge(row: list[Any], accounts: list[Account], unleased_nanousd: int, step: _Step) -> None:
    """Note what a request costs its key and its team, and takes off the host's shares."""
    key = (row[recorder.KEY_ID], row[recorder.TEAM_ID], row[recorder.STARTED_AT] // DAY_MS)
    sums = step.spent.get(key)
    if sums is None:
        sums = step.spent[key] = [0, 0]
    sums[0] += row[recorder.COST] or 0
    sums[1] += 1
    for account in accounts:
        step.unleased[account] = step.unleased.get(account, 0) + unleased_nanousd


def _charges_of(step: _Step) -> dict[Account, store.Charge]:
    """What a batch adds to the books, by account."""
    charges: dict[Account, store.Charge] = {}
    for (key_id, team_id, day), (spent, requests) in step.spent.items():
        for kind, id_ in (("key", key_id), ("team", team_id)):
            for account in accounts_of(kind, id_, day * DAY_MS) if id_ else ():
                charge = charges.setdefault(account, store.Charge())
                charge.spent_nanousd += spent
                charge.requests += requests
    for account, unleased in step.unleased.items():
        charges.setdefault(account, store.Charge()).unleased_nanousd += unleased
    return charges


def _is_complete(segment: SegmentFile) -> bool:
    """Whether nothing more will be appended: sealed, or its writer is dead."""
    try:
        return segment.is_sealed or journal.is_abandoned(segment)
    except FileNotFoundError:
        return False

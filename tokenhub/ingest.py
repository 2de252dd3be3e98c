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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Connection
from sqlalchemy.exc import DataError, IntegrityError

from tokenhub import journal, recorder, store
from tokenhub.board import Board
from tokenhub.budgets import Account, accounts_of
from tokenhub.db import Database
from tokenhub.journal import Record, SegmentFile
from tokenhub.records import NOTES, UNREADABLE, list_escalations, parse_note, parse_request
from tokenhub.tally import Sums, add_request, empty

DAY_MS = 86_400_000
ROWS_MAX = 2000
"""Records in one transaction."""

SET_ASIDE = "refused.jsonl"
"""Where records are kept that do not fit into the database, beside the segments."""

# What is wrong with the data rather than with the database: a row that breaks a constraint, and
# values that SQL or a driver cannot express. Anything else is worth waiting for.
_REFUSED = (IntegrityError, DataError, ValueError, TypeError, OverflowError, struct.error)

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
    sums: Sums = field(default_factory=empty)
    events: list[tuple[Any, ...]] = field(default_factory=list)
    feedback: list[tuple[Any, ...]] = field(default_factory=list)
    spent: dict[tuple[str, str, int], list[int]] = field(default_factory=dict)
    unleased: dict[Account, int] = field(default_factory=dict)
    taken: list[tuple[int, int, bytes]] = field(default_factory=list)
    damaged: list[tuple[int, int, bytes]] = field(default_factory=list)
    finished: list[SegmentFile] = field(default_factory=list)
    living: set[str] = field(default_factory=set)

    def drop_rows(self) -> None:
        """Keep only that it was read."""
        self.damaged = self.taken
        for rows in (self.logs, self.attempts, self.events, self.feedback):
            rows.clear()
        self.opened.clear()
        self.spent.clear()
        self.unleased.clear()
        self.sums = empty()


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
        step, began, appended = _Step(room), time.monotonic(), self._board.backlog.appended_bytes
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
        self._board.backlog.note_ingested(step.positions)
        if step.room and step.living.issuperset(each.writer for each in self._open.values()):
            self.caught_up_at = began
            self._board.backlog.catch_up(appended, int(began * 1000))
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
        if record.kind in NOTES:
            self._take_note(record, step)
            return
        try:
            row, attempts, was_opened, accounts = parse_request(record.payload)
        except UNREADABLE:
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
        add_request(step.sums, self._host_id, row, attempts)
        if len(attempts) > 1:
            escalations = list_escalations(row, attempts)
            step.events += [(self._host_id, *each) for each in escalations]

    def _take_note(self, record: Record, step: _Step) -> None:
        """An event, or what was said of an answer: rows as they are."""
        try:
            row = parse_note(record.kind, record.payload)
        except UNREADABLE:
            step.damaged.append(step.taken[-1])
            return
        if record.kind == journal.EVENT:
            step.events.append((self._host_id, *row))
        else:
            step.feedback.append(row)

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
                row, _, reserved_nanousd, accounts = parse_request(opening.payload)
            except UNREADABLE:  # opened by another version
                step.damaged.append(step.taken[-1])
                continue
            step.logs.append((self._host_id, opening.segment, opening.position, *row))
            # As the board has: what a dead worker had reserved is off this host's share.
            _charge(row, accounts, reserved_nanousd, step)
            add_request(step.sums, self._host_id, row, ())
            log.warning("request was interrupted", extra={"request_id": request_id})

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
        self._board.backlog.note_set_aside(len(records))
        log.error("records set aside", extra={"records": len(records), "file": SET_ASIDE})

    def _batch_of(self, step: _Step) -> store.Batch:
        return store.Batch(
            host_id=self._host_id,
            positions=step.positions,
            logs=step.logs,
            attempts=step.attempts,
            openings_new=[
                (request_id, self._host_id, opening.writer, opening.segment, opening.position,
                 parse_request(opening.payload)[0][recorder.STARTED_AT], opening.payload)
                for request_id, opening in step.opened.items()
            ],
            openings_done=step.ended,
            sums=step.sums,
            charges=_charges_of(step),
            events=step.events,
            feedback=step.feedback,
        )  # fmt: skip


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

"""The journal keeps what it accepted, says when it has no room, and knows a dead writer."""

from __future__ import annotations

import itertools
import os
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenhub import journal
from tokenhub.errors import Unavailable
from tokenhub.journal import END, HEADER_BYTES, OPENING, ROOM_BYTES, Journal

SEGMENT = 8 * ROOM_BYTES


def make_journal(directory: Path, writer: str = "w1", *, limit: int = 100 << 20) -> Journal:
    numbers = itertools.count(journal.first_segment_number(directory))
    return Journal(directory, writer, lambda: next(numbers), bytes_max=limit, segment_bytes=SEGMENT)


def read_all(directory: Path) -> list[tuple[bytes, bytes]]:
    found = []
    for segment in journal.list_segments(directory):
        position, more = 0, True
        while more:
            records, position = journal.read(segment.path, position, 4096 + ROOM_BYTES)
            found += [(record.kind, record.payload) for record in records]
            more = bool(records)
    return found


def test_everything_appended_is_read_back_in_order(tmp_path):
    writer = make_journal(tmp_path)
    wanted = [(OPENING if i % 3 else END, os.urandom(1 + i * 37 % 9000)) for i in range(200)]
    for kind, payload in wanted:
        writer.append(kind, payload)
    writer.sync()
    assert read_all(tmp_path) == wanted
    writer.close()
    assert read_all(tmp_path) == wanted
    assert all(segment.is_sealed for segment in journal.list_segments(tmp_path))


def test_a_full_journal_refuses_at_admission_and_serves_all_that_were_admitted(tmp_path):
    writer = make_journal(tmp_path, limit=2 * SEGMENT + 100)
    admitted = 0
    with pytest.raises(Unavailable) as refused:
        for _ in range(100):
            writer.admit()
            admitted += 1
    assert refused.value.code == "journal_full"
    assert admitted >= 8
    for number in range(admitted):
        writer.append(END, bytes([number]) * (ROOM_BYTES - 16))
    assert len(read_all(tmp_path)) == admitted
    writer.close()


def test_room_comes_back_when_old_segments_go(tmp_path):
    writer = make_journal(tmp_path, limit=2 * SEGMENT + 100)
    while True:
        try:
            writer.admit()
        except Unavailable:
            break
        writer.append(END, b"x" * (ROOM_BYTES - 16))
        writer.release()
    for segment in journal.list_segments(tmp_path):
        if segment.is_sealed:
            segment.path.unlink()
    writer.admit()
    writer.close()


def test_a_worker_that_starts_without_room_refuses_until_there_is_some(tmp_path):
    tight = make_journal(tmp_path, limit=SEGMENT - 1)
    with pytest.raises(Unavailable):
        tight.admit()
    tight._bytes_max = 100 << 20
    tight.admit()
    tight.append(END, b"at last")
    assert read_all(tmp_path) == [(END, b"at last")]
    tight.close()


def test_a_torn_record_ends_the_reading_and_hides_nothing_before_it(tmp_path):
    writer = make_journal(tmp_path)
    writer.append(END, b"whole")
    writer.append(END, b"torn-torn-torn")
    segment = journal.list_segments(tmp_path)[0]
    with segment.path.open("r+b") as file:
        file.seek(HEADER_BYTES + 9 + 5 + 9 + 4)
        file.write(b"\0")
    records, position = journal.read(segment.path, 0)
    assert [record.payload for record in records] == [b"whole"]
    assert position == HEADER_BYTES + 9 + 5
    writer.close()


def test_a_killed_writer_leaves_an_abandoned_segment_with_all_its_records(tmp_path):
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        child = make_journal(tmp_path, "child")
        child.append(OPENING, b"before the end")
        os.write(tell, b"x")
        signal.pause()
        os._exit(0)
    os.read(ready, 1)
    segments = journal.list_segments(tmp_path)
    assert [journal.is_abandoned(segment) for segment in segments] == [False, False]
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert [journal.is_abandoned(segment) for segment in segments] == [True, True]
    assert read_all(tmp_path) == [(OPENING, b"before the end")]
    os.close(ready)
    os.close(tell)


def test_segment_numbers_are_never_used_twice(tmp_path):
    assert journal.first_segment_number(tmp_path) < journal.first_segment_number(tmp_path)


@given(st.binary(max_size=400))
def test_any_bytes_where_records_should_be_are_survived(data):
    assert len(list(journal._parse(data, 64))) <= len(data)

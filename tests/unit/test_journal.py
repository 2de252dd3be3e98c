"""The journal keeps what it accepted, says when it has no room, and knows a dead writer."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenhub import journal
from tokenhub.errors import ConfigError, Unavailable
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


def open_below(directory: Path) -> int:
    """How many of this process's descriptors are files of a directory, removed ones included."""
    found = 0
    for fd in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found += os.readlink(f"/proc/self/fd/{fd}").startswith(f"{directory}/")
    return found


def test_more_requests_in_flight_than_two_segments_hold_get_as_many_as_it_takes(tmp_path):
    writer = make_journal(tmp_path)
    for _ in range(100):
        writer.admit()
    for number in range(100):
        writer.append(END, bytes([number]) * (ROOM_BYTES - 16))
        writer.release()
    assert [payload[0] for _, payload in read_all(tmp_path)] == list(range(100))
    writer.close()


def test_what_is_written_after_the_close_is_kept_and_touches_no_descriptor_of_others(tmp_path):
    writer = make_journal(tmp_path / "journal")
    writer.append(END, b"before")
    writer.close()
    others = [os.open(tmp_path / f"other-{each}", os.O_RDWR | os.O_CREAT) for each in range(3)]
    writer.append(END, b"after")
    writer.sync()
    assert read_all(tmp_path / "journal") == [(END, b"before"), (END, b"after")]
    assert [os.fstat(fd).st_size for fd in others] == [0, 0, 0]
    writer.close()
    writer.close()
    for fd in others:
        os.close(fd)


def test_a_sync_that_failed_is_tried_again_and_keeps_no_descriptor(tmp_path):
    is_broken = [True]

    def run(work: Callable[[], None]) -> None:
        if is_broken.pop() if is_broken else False:
            raise OSError("on purpose")
        work()
        synced.append(work)

    synced: list[object] = []
    numbers = itertools.count(1)
    writer = Journal(tmp_path, "w1", lambda: next(numbers), bytes_max=100 << 20,
                     run_blocking=run, segment_bytes=SEGMENT)  # fmt: skip
    for _ in range(20):
        writer.append(END, b"x" * (ROOM_BYTES - 16))
    with pytest.raises(OSError, match="on purpose"):
        writer.sync()
    before = open_below(tmp_path)
    writer.sync()
    assert len(synced) == 4  # the directory, the current segment, two that were left
    assert open_below(tmp_path) == before - 2
    writer.sync()
    assert len(synced) == 4
    writer.close()


def test_a_disk_that_cannot_give_a_segment_leaves_nothing_behind(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    writer = make_journal(tmp_path)
    with pytest.raises(Unavailable):
        writer.admit()
    assert [path.name for path in tmp_path.iterdir()] == ["sequence"]
    assert open_below(tmp_path) == 0


def test_numbers_go_on_after_a_clock_that_was_set_back_or_a_lost_file(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 2_000_000_000.0)
    late = journal.first_segment_number(tmp_path)
    monkeypatch.setattr(time, "time", lambda: 1_000.0)
    assert journal.first_segment_number(tmp_path) == late + journal.SEGMENTS_A_RUN
    (tmp_path / "sequence").unlink()
    monkeypatch.setattr(time, "time", lambda: 2_000_000_009.0)
    assert journal.first_segment_number(tmp_path) > late + journal.SEGMENTS_A_RUN


@pytest.mark.parametrize("text", ["", "x", "1.5"])
def test_a_damaged_sequence_is_told(tmp_path, text):
    (tmp_path / "sequence").write_text(text)
    with pytest.raises(ConfigError, match="sequence"):
        journal.first_segment_number(tmp_path)


def test_a_crash_before_the_new_number_is_in_place_repeats_none(tmp_path, monkeypatch):
    first = journal.first_segment_number(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            journal.first_segment_number(tmp_path)
    assert journal.first_segment_number(tmp_path) > first

"""What must not be lost, on disk before the caller has its answer.

Each worker appends to segments of its own: files whose blocks are allocated before they are used,
so that a full disk is met at admission and never half-way through a request. A record is written
with one `pwrite`, which survives the death of the process; `sync` bounds what a power loss costs.
A writer holds a kernel lock on its open segment: when the lock is free, the writer is dead and its
segment is complete. Knows nothing of what a record means, and nothing of the database.

Segment file: 64 bytes of header (magic, format), then records: length and CRC-32 of the payload
(two little-endian 32-bit words), one byte of kind, the payload. A length of 0 ends the segment.
Name: `<number>-<writer>.new` until its writer has locked it, then `.open`, and `.sealed` when
nothing more will be appended.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from tokenhub.errors import ConfigError, Unavailable

MAGIC = b"THJ1"
HEADER_BYTES = 64
SEGMENT_BYTES = 16 << 20
ROOM_BYTES = 40 << 10
"""Set aside for each request in flight: its openings, one for each attempt of a request that draws
on a budget, and its end together never need more."""

OPENING = b"O"
END = b"E"
EVENT = b"V"
FEEDBACK = b"F"

SEGMENTS_A_RUN = 10**6
"""Numbers in a block: more than a run will ever use before the second of the next block begins."""

_FRAME = struct.Struct("<II")
_FRAME_BYTES = _FRAME.size + 1
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Record:
    """One record as the ingester reads it; `position` is where it starts in its segment."""

    position: int
    kind: bytes
    payload: bytes


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """A segment on disk."""

    number: int
    writer: str
    path: Path

    @property
    def is_sealed(self) -> bool:
        return self.path.suffix == ".sealed"


class _Segment:
    """A segment that is being written."""

    def __init__(self, directory: Path, number: int, writer: str, size: int) -> None:
        fresh = directory / f"{number:016d}-{writer}.new"
        self.path = fresh.with_suffix(".open")
        self.size = size
        self.position = HEADER_BYTES
        self.fd = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX)
            os.posix_fallocate(self.fd, 0, size)
            os.pwrite(self.fd, MAGIC.ljust(HEADER_BYTES, b"\0"), 0)
            # Only now does anybody look at it: without its lock it would pass for a dead writer's,
            # empty and of no use any more.
            fresh.rename(self.path)
        except OSError:
            os.close(self.fd)
            fresh.unlink(missing_ok=True)
            raise

    @property
    def left(self) -> int:
        return self.size - self.position

    def seal(self) -> None:
        self.path.rename(self.path.with_suffix(".sealed"))


class Journal:
    """One worker's end of the journal.

    Args:
        directory: shared by the workers of the host; on a local disk.
        writer: names this worker's life, never used twice.
        next_number: gives out segment numbers.
        bytes_max: most that all segments of the host may take.
        run_blocking: runs a system call that may wait for the disk, off the hub.
        on_append: told of every record how many bytes it takes.
    """

    def __init__(
        self,
        directory: Path,
        writer: str,
        next_number: Callable[[], int],
        *,
        bytes_max: int,
        run_blocking: Callable[[Callable[[], None]], None] = lambda work: work(),
        segment_bytes: int = SEGMENT_BYTES,
        on_append: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._directory = directory
        self._writer = writer
        self._next_number = next_number
        self._bytes_max = bytes_max
        self._run_blocking = run_blocking
        self._on_append = on_append
        self._segment_bytes = segment_bytes
        self._admitted = 0
        self._is_dirty = False
        self._retired: list[int] = []
        self._has_new_names = False
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._current: _Segment | None = None
        self._spares: deque[_Segment] = deque()
        self._prepare()  # on a full disk there is none yet, and `admit` refuses

    def admit(self) -> None:
        """Set room aside for one more request; pair with `release`.

        Raises:
            Unavailable: `journal_full`, and nothing was set aside.
        """
        wanted = (self._admitted + 1) * ROOM_BYTES
        if self._room() < wanted:
            self._prepare()
        # More in flight than two segments hold: as many spare ones as it takes.
        while self._room() < wanted and self._add_spare():
            pass
        if self._room() < wanted:
            raise Unavailable(
                "the gateway cannot record this request: its journal is full",
                code="journal_full",
                headers={"Retry-After": "5"},
            )
        self._admitted += 1

    def release(self) -> None:
        """Give back what `admit` set aside."""
        self._admitted -= 1

    def append(self, kind: bytes, payload: bytes) -> None:
        """Write one record; on return it survives the death of this process.

        Raises:
            OSError: the disk failed; the caller must not answer as if it had been recorded.
        """
        frame = _FRAME.pack(len(payload), zlib.crc32(payload)) + kind + payload
        # Room for the length of 0 that ends a segment must stay.
        segment = self._current
        if segment is None or segment.left < len(frame) + _FRAME.size:
            segment = self._roll()
        written = os.pwrite(segment.fd, frame, segment.position)
        if written != len(frame):
            raise OSError(f"journal: {written} of {len(frame)} bytes written")
        segment.position += len(frame)
        self._is_dirty = True
        self._on_append(len(frame))

    def sync(self) -> None:
        """Force to disk what was appended since the last call. Waits for the disk off the hub.

        Raises:
            OSError: the disk failed; the next call tries again.
        """
        if not self._is_dirty or self._current is None:
            return
        self._is_dirty, has_new_names, self._has_new_names = False, self._has_new_names, False
        retired, self._retired = self._retired, []
        try:
            if has_new_names:
                self._run_blocking(partial(_sync_directory, self._directory))
            for fd in (self._current.fd, *retired):
                self._run_blocking(partial(os.fdatasync, fd))
        except OSError:
            self._is_dirty, self._has_new_names = True, has_new_names
            self._retired += retired
            raise
        for fd in retired:
            os.close(fd)

    def close(self) -> None:
        """Seal everything: a clean end, after which nothing counts as interrupted.

        Who appends all the same, because it could not be stopped in time, does so to a segment of
        its own, never to a descriptor that may be somebody else's by now.
        """
        segments, self._current = [self._current, *self._spares], None
        self._spares.clear()
        retired, self._retired = self._retired, []
        for fd in retired:
            os.fdatasync(fd)
            os.close(fd)
        for segment in segments:
            if segment is not None:
                os.fdatasync(segment.fd)
                segment.seal()
                os.close(segment.fd)

    def _room(self) -> int:
        # A record that does not fit wholly moves on, so the last ROOM_BYTES may go unused.
        room = max(0, self._current.left - ROOM_BYTES) if self._current else 0
        if not self._spares:
            return room
        each = self._segment_bytes - HEADER_BYTES
        return room + each + (len(self._spares) - 1) * (each - ROOM_BYTES)

    def _prepare(self) -> None:
        """Have a current segment and a spare one, as far as the disk allows."""
        if self._current is None:
            with suppress(OSError):
                self._current = self._allocate()
        if not self._spares:
            self._add_spare()

    def _add_spare(self) -> bool:
        with suppress(OSError):
            self._spares.append(self._allocate())
            return True
        return False

    def _roll(self) -> _Segment:
        """Go on in the spare segment and prepare the next one."""
        full = self._current
        segment = self._spares.popleft() if self._spares else self._allocate()
        self._current = segment
        if full is not None:
            self._retired.append(full.fd)
            full.seal()
        self._prepare()
        return segment

    def _allocate(self) -> _Segment:
        if bytes_in(self._directory) + self._segment_bytes > self._bytes_max:
            raise OSError("journal: at its size limit")
        segment = _Segment(self._directory, self._next_number(), self._writer, self._segment_bytes)
        self._has_new_names = True
        return segment


def bytes_in(directory: Path) -> int:
    """What the journal takes on the disk."""
    total = 0
    for entry in os.scandir(directory):
        with suppress(FileNotFoundError):  # the leader has just removed it
            total += entry.stat().st_size
    return total


def _sync_directory(directory: Path) -> None:
    """Force to disk which files there are: a file's own sync need not do that."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def list_segments(directory: Path) -> list[SegmentFile]:
    """Every segment of the host, oldest first."""
    found = []
    for path in directory.iterdir():
        number, _, writer = path.stem.partition("-")
        if path.suffix in (".open", ".sealed") and number.isdigit():
            found.append(SegmentFile(int(number), writer, path))
    return sorted(found, key=lambda segment: segment.number)


def is_abandoned(segment: SegmentFile) -> bool:
    """Whether the writer of an open segment is dead: the kernel has dropped its lock.

    Raises:
        FileNotFoundError: it was sealed or removed meanwhile.
    """
    fd = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(fd)


def read(
    path: Path, position: int, bytes_max: int = _READ_BYTES, records_max: int | None = None
) -> tuple[list[Record], int]:
    """Records from `position` on (0 = the beginning), and where to go on.

    Stops at the end of the segment, and before a record that is not whole: one that is being
    written now, or the torn last one of a writer that was killed, whose request got no answer.

    Raises:
        FileNotFoundError: the segment was sealed (renamed) or removed meanwhile.
    """
    position = max(position, HEADER_BYTES)
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Mostly there is nothing new, and a megabyte of zeros costs more than this look.
        if not any(os.pread(fd, _FRAME.size, position)):
            return [], position
        data = os.pread(fd, bytes_max, position)
    finally:
        os.close(fd)
    records = list(islice(_parse(data, position), records_max))
    if records:
        last = records[-1]
        position = last.position + _FRAME_BYTES + len(last.payload)
    return records, position


def _parse(data: bytes, start: int) -> Iterator[Record]:
    at = 0
    while at + _FRAME_BYTES <= len(data):
        length, checksum = _FRAME.unpack_from(data, at)
        end = at + _FRAME_BYTES + length
        if not length or end > len(data):
            return
        payload = data[at + _FRAME_BYTES : end]
        if zlib.crc32(payload) != checksum:
            return
        yield Record(start + at, data[at + _FRAME.size : at + _FRAME_BYTES], payload)
        at = end


def first_segment_number(directory: Path) -> int:
    """Where this run's segment numbers start; never one that an earlier run may have used.

    Each start takes a block of a million numbers, named after the second or after the block before
    it, whichever is later, and writes that down first. So neither a clock that was set back nor a
    directory that came from a backup makes two records with the same identity.

    Raises:
        ConfigError: what an earlier run wrote down cannot be read.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / "sequence"
    try:
        last = int(path.read_text())
    except FileNotFoundError:
        last = 0
    except ValueError:
        raise ConfigError(f"{path} is damaged: remove it if the clock is right") from None
    block = max(last + 1, int(time.time()))
    fresh = path.with_suffix(".next")
    with fresh.open("w") as file:
        file.write(str(block))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    _sync_directory(directory)
    return block * SEGMENTS_A_RUN


def remove_unfinished(directory: Path) -> None:
    """Remove segments whose writer died before they were ready. Before any writer starts."""
    for path in directory.glob("*.new"):
        path.unlink()

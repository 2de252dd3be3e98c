"""The key is the same for every process, and whatever is not a whole key reads as locked."""

from __future__ import annotations

import ctypes
import logging
import mmap
import os
import random
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from logging.handlers import BufferingHandler
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenhub.secret_memory import KEY_BYTES, SecretMemory, locked_page, secret_page

# From Python 3.12 on a fork beside gevent's threads warns; the children here touch no lock.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")

USED_BYTES = 8 + 32 + KEY_BYTES
KEY = bytes(range(KEY_BYTES))
OTHER_KEY = bytes(reversed(KEY))


def make_memory(page: mmap.mmap | None = None) -> SecretMemory:
    return SecretMemory(nullcontext, page or mmap.mmap(-1, mmap.PAGESIZE))


@pytest.fixture(params=["memfd_secret", "anonymous"])
def page(request: pytest.FixtureRequest) -> mmap.mmap:
    found = secret_page() if request.param == "memfd_secret" else locked_page()
    if found is None:
        pytest.skip("this kernel or container has no memfd_secret")
    return found


def start_child(work: Callable[[], bool]) -> int:
    pid = os.fork()
    if pid == 0:
        status = 2
        try:
            status = 0 if work() else 1
        finally:
            os._exit(status)  # nothing of pytest may run twice
    return pid


def holds_in_child(work: Callable[[], bool]) -> bool:
    _, status = os.waitpid(start_child(work), 0)
    return os.waitstatus_to_exitcode(status) == 0


def spin_until(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        os.sched_yield()
    return True


def test_nothing_written_reads_as_locked(page):
    assert make_memory(page).read() is None


def test_a_key_is_read_back_until_it_is_wiped(page):
    memory = make_memory(page)
    memory.write(KEY)
    assert memory.read() == KEY
    memory.write(None)
    assert memory.read() is None


def test_a_child_sees_what_the_parent_wrote_before_the_fork(page):
    memory = make_memory(page)
    memory.write(KEY)
    assert holds_in_child(lambda: memory.read() == KEY)


def test_a_child_sees_what_the_parent_writes_after_the_fork(page):
    memory = make_memory(page)
    pid = start_child(lambda: spin_until(lambda: memory.read() == KEY))
    memory.write(KEY)
    assert os.waitpid(pid, 0)[1] == 0


def test_the_parent_sees_what_a_child_writes_and_wipes(page):
    memory = make_memory(page)
    before = memory.generation
    assert holds_in_child(lambda: memory.write(KEY))
    assert memory.read() == KEY
    after = memory.generation
    assert after != before
    assert holds_in_child(lambda: memory.write(None))
    assert memory.read() is None
    assert memory.generation not in (before, after)


def test_the_generation_moves_on_each_write_even_of_the_same_key():
    memory = make_memory()
    seen = {memory.generation}
    for key in (KEY, KEY, None, None, OTHER_KEY):
        memory.write(key)
        seen.add(memory.generation)
    assert len(seen) == 6


def test_write_says_whether_readers_get_something_else():
    memory = make_memory()
    written = [memory.write(key) for key in (None, KEY, KEY, OTHER_KEY, None, None)]
    assert written == [False, True, False, True, True, False]


def test_a_wipe_leaves_only_zeros_and_the_generation(page):
    memory = make_memory(page)
    memory.write(b"\xff" * KEY_BYTES)
    memory.write(None)
    assert page[8:] == bytes(len(page) - 8)


def test_a_wipe_also_clears_what_a_killed_writer_left():
    page = mmap.mmap(-1, mmap.PAGESIZE)
    memory = make_memory(page)
    memory.write(KEY)
    page[0] |= 1
    memory.write(None)
    assert page[8:] == bytes(len(page) - 8)
    assert memory.generation % 2 == 0


@given(bit=st.integers(0, USED_BYTES * 8 - 1))
def test_one_wrong_bit_anywhere_reads_as_locked(bit):
    page = mmap.mmap(-1, mmap.PAGESIZE)
    memory = make_memory(page)
    memory.write(KEY)
    page[bit // 8] ^= 1 << bit % 8
    assert memory.read() is None
    assert memory.write(KEY)
    assert memory.read() == KEY


@given(
    written=st.integers(0, USED_BYTES),
    old=st.sampled_from([None, KEY]),
    new=st.sampled_from([None, OTHER_KEY]),
)
def test_a_page_written_up_to_any_byte_reads_as_locked_or_as_one_of_the_two_keys(written, old, new):
    page = mmap.mmap(-1, mmap.PAGESIZE)
    memory = make_memory(page)
    memory.write(old)
    before = page[:USED_BYTES]
    memory.write(new)
    page[:USED_BYTES] = page[:written] + before[written:]
    assert memory.read() in (None, old if written == 0 else new)


def test_a_writer_killed_anywhere_leaves_it_locked_or_whole_and_writable():
    memory = make_memory()

    def write_forever() -> bool:
        while True:
            for byte in range(1, 256):
                memory.write(bytes([byte]) * KEY_BYTES)

    rng = random.Random(7)
    for _ in range(20):
        pid = start_child(write_forever)
        _spin_for_writes(memory, 1 + rng.randrange(100))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        found = memory.read()
        assert found is None or found == found[:1] * KEY_BYTES
        memory.write(KEY)
        assert memory.read() == KEY


def _spin_for_writes(memory: SecretMemory, writes: int) -> None:
    enough = memory.generation + 2 * writes
    spin_until(lambda: memory.generation >= enough)


def test_a_reader_never_sees_parts_of_two_keys():
    memory = make_memory()
    last_key = bytes(KEY_BYTES - 1) + b"."

    def write_in_turn() -> bool:
        for _ in range(3000):
            memory.write(KEY)
            memory.write(OTHER_KEY)
        return memory.write(last_key)

    pid = start_child(write_in_turn)
    seen = set()

    def reads_the_last_key() -> bool:
        seen.add(memory.read())
        return last_key in seen

    spin_until(reads_the_last_key)
    assert seen <= {None, KEY, OTHER_KEY, last_key}
    assert os.waitpid(pid, 0)[1] == 0


def test_the_whole_write_happens_inside_the_lock_that_was_given():
    seen = []

    @contextmanager
    def lock() -> Iterator[None]:
        seen.append((memory.generation, memory.read()))
        yield
        seen.append((memory.generation, memory.read()))

    memory = SecretMemory(lock, mmap.mmap(-1, mmap.PAGESIZE))
    memory.write(KEY)
    memory.write(OTHER_KEY)
    assert seen == [(0, None), (2, KEY), (2, KEY), (4, OTHER_KEY)]


def test_a_key_of_another_length_is_refused_without_being_named():
    with pytest.raises(ValueError, match="32 bytes") as caught:
        make_memory().write(b"short secret")
    assert "secret" not in str(caught.value)


def test_the_key_is_not_in_its_representation():
    memory = make_memory()
    memory.write(b"K" * KEY_BYTES)
    assert "KKKK" not in repr(memory)


def test_the_kernel_does_not_hand_out_a_secret_page():
    page = secret_page()
    if page is None:
        pytest.skip("this kernel or container has no memfd_secret")
    make_memory(page).write(KEY)
    with Path("/proc/self/mem").open("rb", buffering=0) as memory:
        memory.seek(_address_of(page))
        with pytest.raises(OSError, match="Input/output error"):
            memory.read(USED_BYTES)


def test_an_anonymous_page_stays_out_of_dumps_and_of_the_swap():
    page = locked_page()
    page[0] = 1
    flags = _flags_of(_address_of(page))
    assert "dd" in flags
    assert "lo" in flags


def test_without_any_right_to_lock_memory_it_works_with_one_warning():
    assert holds_in_child(_works_without_locked_memory)


def _works_without_locked_memory() -> bool:
    warnings = BufferingHandler(100)
    logging.getLogger("tokenhub.secret_memory").addHandler(warnings)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
    if os.getuid() == 0:
        os.setuid(65534)  # root may lock whatever the limit says
    memory = SecretMemory(nullcontext)
    memory.write(KEY)
    return memory.read() == KEY and [each.levelname for each in warnings.buffer] == ["WARNING"]


def _address_of(page: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(page))


def _flags_of(address: int) -> list[str]:
    """The VmFlags of a mapping; neighbours with equal flags may share one entry."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split()[0]
        if "-" in first and not first.endswith(":"):
            low, high = (int(part, 16) for part in first.split("-"))
            inside = low <= address < high
        elif inside and first == "VmFlags:":
            return line.split()[1:]
    return []

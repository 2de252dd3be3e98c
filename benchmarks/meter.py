"""CPU time and memory of a process tree, read from /proc.

Knows nothing of gateways. CPU is user and system time as the kernel counts it for each process
(proc(5), `stat` fields 14-17), children that were already waited for included, in ticks of 10 ms.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_PROC = Path("/proc")
_WINDOW_SECS = 0.3
_QUIET_WINDOWS = 2  # in a row
_QUIET_CPU_SECS = 0.02  # at most, in a window: two ticks, so 7 % of one core


@dataclass(frozen=True)
class Stat:
    """The fields of `/proc/<pid>/stat` that matter here."""

    parent_pid: int
    ticks: int


@dataclass(frozen=True)
class Memory:
    """Of a tree, in MiB: resident, and resident with shared pages divided by their users."""

    rss_mib: float
    pss_mib: float


@dataclass(frozen=True)
class Used:
    """What a stretch of work cost."""

    cpu_secs: float
    settle_secs: float  # how long the tree went on after the load had ended
    became_quiet: bool


def parse_stat(text: str) -> Stat:
    """Read `/proc/<pid>/stat`; the name in it may hold spaces and brackets."""
    fields = text[text.rindex(")") + 2 :].split()
    return Stat(parent_pid=int(fields[1]), ticks=sum(map(int, fields[11:15])))


def parse_rollup(text: str) -> Memory:
    """Read `/proc/<pid>/smaps_rollup`."""
    kib = {"Rss": 0, "Pss": 0}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        if name in kib:
            kib[name] = int(rest.split()[0])
    return Memory(kib["Rss"] / 1024, kib["Pss"] / 1024)


def tree_of(root: int, stats: dict[int, Stat]) -> list[int]:
    """`root` and everything below it."""
    children: dict[int, list[int]] = {}
    for pid, stat in stats.items():
        children.setdefault(stat.parent_pid, []).append(pid)
    found: list[int] = []
    ahead = [root]
    while ahead:
        pid = ahead.pop()
        found.append(pid)
        ahead += children.get(pid, [])
    return found


def read_stats() -> dict[int, Stat]:
    """Every process of the machine."""
    stats: dict[int, Stat] = {}
    for entry in os.scandir(_PROC):
        if entry.name.isdigit():
            text = _read_process(int(entry.name), "stat")
            if text:
                stats[int(entry.name)] = parse_stat(text)
    return stats


def cpu_secs(root: int) -> float:
    """CPU seconds the tree has used so far.

    Raises:
        ProcessLookupError: the root is gone, and with it the count.
    """
    stats = read_stats()
    if root not in stats:
        raise ProcessLookupError(f"process {root} has ended")
    ticks = sum(stats[pid].ticks for pid in tree_of(root, stats))
    return ticks / os.sysconf("SC_CLK_TCK")


def memory(root: int) -> Memory:
    """What the tree holds now."""
    pids = tree_of(root, read_stats())
    return total(parse_rollup(_read_process(pid, "smaps_rollup")) for pid in pids)


def total(parts: Iterable[Memory]) -> Memory:
    """The sum over processes."""
    each = list(parts)
    return Memory(sum(part.rss_mib for part in each), sum(part.pss_mib for part in each))


def _read_process(pid: int, name: str) -> str:
    try:
        return (_PROC / str(pid) / name).read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""  # it ended between listing and reading


@dataclass
class CpuMeter:
    """CPU of one stretch of work, deferred work included.

    `clock` and `sleep` are those of the real world but in tests.
    """

    read: Callable[[], float]
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _before: float = field(init=False)

    def __post_init__(self) -> None:
        self._before = self.read()

    def so_far(self) -> float:
        """CPU seconds since the start."""
        return self.read() - self._before

    def settle(self, done: Callable[[], bool], *, secs_max: float) -> Used:
        """Wait until the tree is quiet and `done()`, at most `secs_max`; then read the meter.

        Batched writers go on after the last answer; what they use belongs to the requests that
        caused it. `done` is asked only while the tree is quiet.
        """
        started = self.clock()
        readings = [self.read()]
        quiet = False
        while not quiet and self.clock() - started < secs_max:
            self.sleep(_WINDOW_SECS)
            readings.append(self.read())
            quiet = is_quiet(readings) and done()
        spent_waiting = self.clock() - started
        idle = _QUIET_WINDOWS * _WINDOW_SECS if quiet else 0.0
        return Used(
            cpu_secs=readings[-1] - self._before,
            settle_secs=max(spent_waiting - idle, 0.0),
            became_quiet=quiet,
        )


def is_quiet(readings: Sequence[float]) -> bool:
    """Whether the last windows between CPU readings were (next to) idle."""
    if len(readings) <= _QUIET_WINDOWS:
        return False
    recent = readings[-_QUIET_WINDOWS - 1 :]
    steps = [later - earlier for earlier, later in itertools.pairwise(recent)]
    return all(step <= _QUIET_CPU_SECS + 1e-9 for step in steps)

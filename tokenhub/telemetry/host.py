"""Metrics of the host: its workers, its catalog, its database, its vault, the board itself.

What a worker's process uses is asked of the kernel, two small files each.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from tokenhub.board import Board, counters, vitals

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_USER_TICKS, _RESIDENT_PAGES = 11, 1  # of /proc/<pid>/stat behind the name, and of statm: proc(5)


def host_metrics(
    board: Board, *, version: str, catalog_version: int, vault_is_locked: bool
) -> Iterable[Metric]:
    """All of it.

    Args:
        version: of this program.
        catalog_version: what this worker serves from.
    """
    build = GaugeMetricFamily(
        "tokenhub_build_info", "Always 1", labels=["version", "python_version"]
    )
    build.add_metric([version, platform.python_version()], 1)
    yield build
    yield GaugeMetricFamily(
        "tokenhub_start_time_seconds", "When the arbiter started", value=board.started_at / 1000
    )
    yield CounterMetricFamily(
        "tokenhub_heartbeat", "Every 15 s while a worker leads", value=board.heartbeats
    )
    yield GaugeMetricFamily(
        "tokenhub_requests_in_flight", "Requests being served", value=board.in_flight
    )
    yield from _config(board, catalog_version)
    yield GaugeMetricFamily(
        "tokenhub_database_age_seconds",
        "Since the database last answered",
        value=board.database_age_secs,
    )
    yield GaugeMetricFamily("tokenhub_vault_locked", "1 locked, 0 open", value=vault_is_locked)
    yield from _workers(board)
    yield from _feeds(board)
    yield from _rows(board)


def _config(board: Board, catalog_version: int) -> Iterable[Metric]:
    yield GaugeMetricFamily(
        "tokenhub_config_version", "Version of the catalog in use", value=catalog_version
    )
    yield GaugeMetricFamily(
        "tokenhub_config_version_heard",
        "Newest version that this host has heard of",
        value=board.generation,
    )


def _workers(board: Board) -> Iterable[Metric]:
    memory = GaugeMetricFamily(
        "tokenhub_worker_resident_memory_bytes", "Memory of a worker", labels=["slot"]
    )
    cpu = CounterMetricFamily(
        "tokenhub_worker_cpu_seconds", "CPU time of a worker", labels=["slot"]
    )
    workers = board.workers()
    for slot, pid in workers.items():
        with suppress(OSError):  # it has just ended
            memory.add_metric([str(slot)], _resident_bytes(pid))
            cpu.add_metric([str(slot)], _cpu_secs(pid))
    yield GaugeMetricFamily("tokenhub_workers", "Workers of this host", value=len(workers))
    yield CounterMetricFamily(
        "tokenhub_worker_exits", "Workers that have ended", value=board.worker_exits
    )
    yield memory
    yield cpu


def _feeds(board: Board) -> Iterable[Metric]:
    yield GaugeMetricFamily(
        "tokenhub_event_streams", "Streams of events that are open", value=board.feeds.clients
    )
    yield CounterMetricFamily(
        "tokenhub_events_dropped", "Events that slow readers missed", value=board.feeds.dropped
    )
    yield CounterMetricFamily(
        "tokenhub_events_unpublished",
        "Events that could not be written down",
        value=board.feeds.unpublished,
    )


def _rows(board: Board) -> Iterable[Metric]:
    """What is past the end of a table is counted as "other"."""
    used = GaugeMetricFamily("tokenhub_board_rows", "Rows in use", labels=["table"])
    most = GaugeMetricFamily("tokenhub_board_rows_limit", "Rows there are", labels=["table"])
    count = board.counters
    for table, rows, rows_max in (
        ("requests", len(count), counters.ROWS_MAX),
        ("attempts", len(count.attempts), count.attempts.rows_max),
        ("errors", len(count.errors), count.errors.rows_max),
        ("skips", len(count.skips), count.skips.rows_max),
        ("health", len(board.vitals), vitals.ROWS_MAX),
    ):
        used.add_metric([table], rows)
        most.add_metric([table], rows_max)
    return used, most


def _resident_bytes(pid: int) -> int:
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[_RESIDENT_PAGES]) * _PAGE_BYTES


def _cpu_secs(pid: int) -> float:
    # The name, in brackets, may have anything in it.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[_USER_TICKS : _USER_TICKS + 2])) / _TICKS_A_SECOND

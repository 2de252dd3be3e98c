"""Metrics of what is on its way into the database. Reads no record of the journal."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, Metric

from tokenhub.board.backlog import Backlog
from tokenhub.journal import bytes_in


def journal_metrics(backlog: Backlog, directory: Path, bytes_max: int) -> Iterable[Metric]:
    """How far the database is behind, and how much longer that can go on.

    Args:
        bytes_max: most that the journal may take.
    """
    used_bytes = bytes_in(directory)
    yield GaugeMetricFamily(
        "tokenhub_journal_lag_seconds",
        "No record that the database does not have yet is older",
        value=backlog.lag_secs,
    )
    yield GaugeMetricFamily(
        "tokenhub_journal_waiting_bytes",
        "Written down and not in the database yet",
        value=backlog.waiting_bytes,
    )
    yield GaugeMetricFamily(
        "tokenhub_journal_size_bytes", "What the journal takes on the disk", value=used_bytes
    )
    yield GaugeMetricFamily(
        "tokenhub_journal_room_bytes",
        "What it may still take",
        value=max(0, bytes_max - used_bytes),
    )

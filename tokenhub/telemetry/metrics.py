"""Prometheus metrics: a view of the board.

So every worker gives the same answer, nothing is lost when one dies, and what a scrape costs
depends on how many labels there are, never on how many requests or workers there were. Labels come
from closed sets and from the board's bounded directories; what finds no row is counted as "other".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from tokenhub.board import Board
from tokenhub.telemetry.health import health_metrics
from tokenhub.telemetry.host import host_metrics
from tokenhub.telemetry.journal import journal_metrics
from tokenhub.telemetry.requests import request_metrics
from tokenhub.telemetry.trouble import trouble_metrics


@dataclass(frozen=True)
class Facts:
    """What a metric needs and the board does not know.

    Args:
        catalog_version: the version of the Snapshot that this worker serves from.
        exists: whether there is such a model or provider (kind, id) still.
        vault_is_locked: whether administrators need to unlock it.
        journal_directory, journal_bytes_max: where the host's journal is, and how much it may take.
        version: of this program.
    """

    catalog_version: Callable[[], int]
    exists: Callable[[str, str], bool]
    vault_is_locked: Callable[[], bool]
    journal_directory: Path
    journal_bytes_max: int
    version: str


class BoardCollector(Collector):
    """Prometheus metrics of this host.

    Args:
        pause: called after each metric, for a thousand series are some milliseconds of work.
    """

    def __init__(
        self, board: Board, facts: Facts, *, pause: Callable[[], object] = lambda: None
    ) -> None:
        self._board = board
        self._facts = facts
        self._pause = pause

    def collect(self) -> Iterable[Metric]:
        for metric in self._metrics():
            yield metric
            self._pause()

    def _metrics(self) -> Iterable[Metric]:
        board, facts = self._board, self._facts
        yield from request_metrics(board.counters)
        yield from trouble_metrics(board)
        yield from health_metrics(board, facts.exists)
        yield from journal_metrics(board.backlog, facts.journal_directory, facts.journal_bytes_max)
        yield from host_metrics(
            board,
            version=facts.version,
            catalog_version=facts.catalog_version(),
            vault_is_locked=facts.vault_is_locked(),
        )

"""What operators read: JSON log lines and Prometheus metrics.

Metrics are a view of the board, so every worker gives the same answer and nothing is lost when one
dies. Labels come from closed sets and from the board's bounded directory.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Iterable

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from tokenhub.board import Board, counters
from tokenhub.board.counters import ENDING_AT, HISTOGRAM, LATENCY_EDGES_MS
from tokenhub.domain import ENDINGS, NANOS_PER_USD

OK_ENDINGS = frozenset({"answered", "rescued"})
LABELS = ["mode", "model", "provider"]
_STATES = {"healthy": 2, "degraded": 1, "down": 0}
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING,
           "error": logging.ERROR}  # fmt: skip
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, the constant message, and the facts."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{key: value for key, value in vars(record).items() if key not in _PLAIN},
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure_logging(level: str) -> None:
    """Log to standard error at `level` (debug, info, warn, error). May be called again."""
    logger = logging.getLogger("tokenhub")
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        formatter = JsonFormatter()
        formatter.converter = time.gmtime
        handler.setFormatter(formatter)
        logger.addHandler(handler)
        logger.propagate = False
    logger.setLevel(_LEVELS[level])


class BoardCollector(Collector):
    """Prometheus metrics of this host.

    Args:
        catalog_version: the version of the Snapshot that this worker serves from.
        exists: whether there is such a model or provider (kind, id) still.
    """

    def __init__(
        self,
        board: Board,
        catalog_version: Callable[[], int],
        exists: Callable[[str, str], bool],
    ) -> None:
        self._board = board
        self._catalog_version = catalog_version
        self._exists = exists

    def collect(self) -> Iterable[Metric]:
        yield from self._requests()
        yield from self._spending()
        yield from self._refusals()
        yield from self._gauges()

    def _requests(self) -> Iterable[Metric]:
        requests = CounterMetricFamily(
            "tokenhub_requests", "Requests by outcome", labels=[*LABELS, "status", "outcome"]
        )
        attempts = CounterMetricFamily("tokenhub_attempts", "Calls to providers", labels=LABELS)
        latency = HistogramMetricFamily(
            "tokenhub_request_latency_ms", "From first byte in to last byte out", labels=LABELS
        )
        ttft = HistogramMetricFamily("tokenhub_ttft_ms", "To the first event", labels=LABELS)
        for labels, row in self._board.counters.rows():
            for ending in ENDINGS:
                count = row[ENDING_AT[ending]]
                if count:
                    status = "ok" if ending in OK_ENDINGS else "error"
                    requests.add_metric([*labels, status, ending], count)
            attempts.add_metric(list(labels), row[counters.ATTEMPTS])
            _add_histogram(latency, labels, row, counters.LATENCY_AT, counters.LATENCY_SUM_MS)
            _add_histogram(ttft, labels, row, counters.TTFT_AT, counters.TTFT_SUM_MS)
        return requests, attempts, latency, ttft

    def _spending(self) -> Iterable[Metric]:
        """What has no mode among its labels: added up over the modes, for the same series given
        twice spoils the whole scrape."""
        cost = CounterMetricFamily("tokenhub_cost_usd", "Cost", labels=["model", "provider"])
        unpriced = CounterMetricFamily(
            "tokenhub_unpriced_requests", "Requests of unknown cost", labels=["model", "provider"]
        )
        tokens = CounterMetricFamily(
            "tokenhub_tokens", "Tokens", labels=["model", "provider", "direction"]
        )
        sums: dict[tuple[str, str], list[int]] = {}
        for (_, model, provider), row in self._board.counters.rows():
            before = sums.get((model, provider), [0] * len(row))
            sums[model, provider] = [old + new for old, new in zip(before, row, strict=True)]
        for (model, provider), row in sums.items():
            cost.add_metric([model, provider], row[counters.COST_NANOUSD] / NANOS_PER_USD)
            unpriced.add_metric([model, provider], row[counters.UNPRICED])
            tokens.add_metric([model, provider, "input"], row[counters.INPUT_TOKENS])
            tokens.add_metric([model, provider, "output"], row[counters.OUTPUT_TOKENS])
        return cost, unpriced, tokens

    def _refusals(self) -> Iterable[Metric]:
        refused = CounterMetricFamily(
            "tokenhub_rate_limited", "Requests beyond a limit", labels=["scope"]
        )
        for scope, count in self._board.rates.refusals().items():
            refused.add_metric([scope], count)
        unpaid = CounterMetricFamily(
            "tokenhub_budget_refusals", "Requests without money", labels=["code"]
        )
        for code, count in self._board.purse.refusals().items():
            unpaid.add_metric([code], count)
        repeated = CounterMetricFamily(
            "tokenhub_idempotent_requests", "Requests with an idempotency key", labels=["fate"]
        )
        for fate, count in self._board.replays.counts().items():
            repeated.add_metric([fate], count)
        return refused, unpaid, repeated

    def _gauges(self) -> Iterable[Metric]:
        models = GaugeMetricFamily(
            "tokenhub_model_health_state", "2 healthy, 1 degraded, 0 down", labels=["model"]
        )
        providers = GaugeMetricFamily(
            "tokenhub_provider_health_state", "2 healthy, 1 degraded, 0 down", labels=["provider"]
        )
        health = {"model": models, "provider": providers}
        for vital in self._board.vitals.list_all():
            if self._exists(vital.kind, vital.id):
                health[vital.kind].add_metric([vital.id], _STATES[vital.state])
        yield from health.values()
        yield GaugeMetricFamily(
            "tokenhub_requests_in_flight", "Requests being served", value=self._board.in_flight
        )
        yield GaugeMetricFamily(
            "tokenhub_config_version", "Version of the catalog", value=self._catalog_version()
        )
        yield GaugeMetricFamily(
            "tokenhub_database_age_seconds",
            "Since the database last answered",
            value=self._board.database_age_secs,
        )
        yield GaugeMetricFamily(
            "tokenhub_workers", "Workers of this host", value=len(self._board.worker_pids())
        )


def _add_histogram(
    family: HistogramMetricFamily, labels: Iterable[str], row: list[int], at: int, sum_at: int
) -> None:
    total = 0
    buckets: list[tuple[str, float]] = []
    edges = [str(edge) for edge in LATENCY_EDGES_MS] + ["+Inf"]
    for edge, count in zip(edges, row[at : at + HISTOGRAM], strict=True):
        total += count
        buckets.append((edge, total))
    family.add_metric(list(labels), buckets=buckets, sum_value=row[sum_at])

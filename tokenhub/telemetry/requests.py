"""Metrics of what was asked and answered. Knows the counters, and nothing of how a request runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from tokenhub.board import counters
from tokenhub.board.counters import (
    ENDING_AT,
    HISTOGRAM,
    LATENCY_AT,
    LATENCY_EDGES_MS,
    LATENCY_SUM_MS,
    OK_ENDINGS,
    OVERHEAD_AT,
    OVERHEAD_EDGES_US,
    OVERHEAD_SUM_US,
    TTFT_AT,
    TTFT_SUM_MS,
    Counters,
)
from tokenhub.domain import ENDINGS, NANOS_PER_USD

LABELS = ["mode", "model", "provider"]
WHO = ["model", "provider"]

MS, SECS = [*map(str, LATENCY_EDGES_MS)], [str(edge / 1000) for edge in LATENCY_EDGES_MS]
OVERHEAD_SECS = [str(edge / 1e6) for edge in OVERHEAD_EDGES_US]

_Row = tuple[tuple[str, ...], Sequence[int]]


def request_metrics(found: Counters) -> Iterable[Metric]:
    """All that is counted of requests; the counters are read once."""
    rows = list(found.rows())
    yield from _by_mode(rows)
    yield from _by_model(_summed(rows))
    yield _overhead(found.overhead())
    yield _attempts(found)
    yield _errors(found)
    yield _skips(found)


def _by_mode(rows: Sequence[_Row]) -> Iterable[Metric]:
    requests = CounterMetricFamily(
        "tokenhub_requests", "Requests by outcome", labels=[*LABELS, "status", "outcome"]
    )
    latency = HistogramMetricFamily(
        "tokenhub_request_latency_ms", "From first byte in to last byte out", labels=LABELS
    )
    ttft = HistogramMetricFamily("tokenhub_ttft_ms", "To the first event", labels=LABELS)
    for labels, row in rows:
        for ending in ENDINGS:
            count = row[ENDING_AT[ending]]
            if count:
                status = "ok" if ending in OK_ENDINGS else "error"
                requests.add_metric([*labels, status, ending], count)
        _add(latency, labels, MS, row[LATENCY_AT : LATENCY_AT + HISTOGRAM], row[LATENCY_SUM_MS])
        _add(ttft, labels, MS, row[TTFT_AT : TTFT_AT + HISTOGRAM], row[TTFT_SUM_MS])
    return requests, latency, ttft


def _by_model(rows: Sequence[_Row]) -> Iterable[Metric]:
    cost = CounterMetricFamily("tokenhub_cost_usd", "Cost", labels=WHO)
    unpriced = CounterMetricFamily(
        "tokenhub_unpriced_requests", "Requests of unknown cost", labels=WHO
    )
    tokens = CounterMetricFamily("tokenhub_tokens", "Tokens", labels=[*WHO, "direction"])
    duration = HistogramMetricFamily(
        "tokenhub_request_duration_seconds", "From first byte in to last byte out", labels=WHO
    )
    ttft = HistogramMetricFamily(
        "tokenhub_time_to_first_token_seconds", "Streams, to the first event", labels=WHO
    )
    for labels, row in rows:
        cost.add_metric(labels, row[counters.COST_NANOUSD] / NANOS_PER_USD)
        unpriced.add_metric(labels, row[counters.UNPRICED])
        tokens.add_metric([*labels, "input"], row[counters.INPUT_TOKENS])
        tokens.add_metric([*labels, "output"], row[counters.OUTPUT_TOKENS])
        buckets = row[LATENCY_AT : LATENCY_AT + HISTOGRAM]
        _add(duration, labels, SECS, buckets, row[LATENCY_SUM_MS] / 1000)
        _add(ttft, labels, SECS, row[TTFT_AT : TTFT_AT + HISTOGRAM], row[TTFT_SUM_MS] / 1000)
    return cost, unpriced, tokens, duration, ttft


def _summed(rows: Sequence[_Row]) -> list[_Row]:
    """What has no mode among its labels: added up over the modes, for the same series given twice
    spoils the whole scrape."""
    sums: dict[tuple[str, ...], Sequence[int]] = {}
    for (_, *who), row in rows:
        before = sums.get(tuple(who))
        sums[tuple(who)] = row if before is None else [*map(sum, zip(before, row, strict=True))]
    return list(sums.items())


def _overhead(row: Sequence[int]) -> Metric:
    family = HistogramMetricFamily(
        "tokenhub_overhead_seconds", "What the gateway itself added", labels=[]
    )
    _add(family, [], OVERHEAD_SECS, row[OVERHEAD_AT:], row[OVERHEAD_SUM_US] / 1e6)
    return family


def _attempts(found: Counters) -> Metric:
    family = CounterMetricFamily(
        "tokenhub_attempts", "Calls to providers", labels=[*WHO, "outcome"]
    )
    for labels, count in found.attempts.items():
        family.add_metric(labels, count)
    return family


def _errors(found: Counters) -> Metric:
    family = CounterMetricFamily(
        "tokenhub_request_errors",
        "Requests that came to nothing",
        labels=[*LABELS, "http_status", "error_class"],
    )
    for labels, count in found.errors.items():
        family.add_metric(labels, count)
    return family


def _skips(found: Counters) -> Metric:
    family = CounterMetricFamily(
        "tokenhub_provider_skips", "Models left out of a choice", labels=["provider", "reason"]
    )
    for labels, count in found.skips.items():
        family.add_metric(labels, count)
    return family


def _add(
    family: HistogramMetricFamily,
    labels: Sequence[str],
    edges: Sequence[str],
    counts: Sequence[int],
    total: float,
) -> None:
    """One series; none while there is nothing in it: it would be as long as all the others."""
    if labels and not any(counts):
        return
    seen = 0
    buckets: list[tuple[str, float]] = []
    for edge, count in zip([*edges, "+Inf"], counts, strict=True):
        seen += count
        buckets.append((edge, seen))
    family.add_metric(labels, buckets=buckets, sum_value=total)

"""What one request, and each of its attempts, adds to the sums of its time.

Pure: rows as the journal has them in, numbers in the order of the tables' columns out. Knows
nothing of the database, nor of who reads the sums.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from tokenhub import recorder
from tokenhub.board.counters import LATENCY_EDGES_MS
from tokenhub.db.sums_tables import ATTEMPTS, REQUESTS, Family

BUCKET_MS = 10_000

OVERHEAD_EDGES_US = (
    50, 100, 200, 300, 500, 700, 1000, 1500, 2000, 3000, 5000, 10_000, 20_000, 100_000, 1_000_000,
)  # fmt: skip
"""Upper edges of the histogram of what we add ourselves; one more class holds what is slower."""

Sums = dict[Family, dict[tuple[Any, ...], list[int]]]
"""By family, then by host, beginning and the family's key: numbers as its `values`."""

_REQUEST_ZEROS = [0] * len(REQUESTS.values)
_ATTEMPT_ZEROS = [0] * len(ATTEMPTS.values)
_summed_by = itemgetter(*recorder.SUMMED_BY)

# Where each sum stands among its family's.
_R = {name: index for index, name in enumerate(REQUESTS.values)}
_REQUESTS, _ATTEMPTS, _COST, _UNPRICED = (
    _R[name] for name in ("requests", "attempts", "cost_nanousd", "unpriced")
)
_LATENCY_SUM, _TTFT_SUM, _TTFT_COUNT, _OVERHEAD_SUM = (
    _R[name] for name in ("latency_ms_sum", "ttft_ms_sum", "ttft_count", "overhead_us_sum")
)
_LATENCY_MAX, _TTFT_MAX, _OVERHEAD_MAX = (_R[name] for name in REQUESTS.maxima)
_LATENCY, _TTFT, _OVERHEAD = _R["h0"], _R["t0"], _R["o0"]
_TOKENS = [
    (_R["input_tokens"] + kind, recorder.INPUT_TOKENS + kind)
    for kind in range(recorder.TOKEN_KINDS)
]
"""Where each kind of tokens stands there, and in a request's row."""
_A = {name: index for index, name in enumerate(ATTEMPTS.values)}


def empty() -> Sums:
    """Nothing so far."""
    return {REQUESTS: {}, ATTEMPTS: {}}


def add_request(
    sums: Sums, host_id: str, row: Sequence[Any], attempts: Sequence[Sequence[Any]]
) -> None:
    """Add a request, as `recorder.log_row` has it, and its attempts, as `recorder.attempt_row`."""
    start_at = row[recorder.STARTED_AT] // BUCKET_MS * BUCKET_MS
    key = (host_id, start_at, *_summed_by(row))
    found = sums[REQUESTS].get(key)
    if found is None:
        found = sums[REQUESTS][key] = _REQUEST_ZEROS.copy()
    cost, latency_ms, ttft_ms = row[recorder.COST], row[recorder.LATENCY_MS], row[recorder.TTFT_MS]
    overhead_us = max(0, row[recorder.OVERHEAD_US])
    found[_REQUESTS] += 1
    found[_ATTEMPTS] += len(attempts)
    for at, number in _TOKENS:
        found[at] += row[number]
    if cost is None:
        found[_UNPRICED] += 1
    else:
        found[_COST] += cost
    found[_LATENCY_SUM] += latency_ms
    found[_OVERHEAD_SUM] += overhead_us
    found[_LATENCY_MAX] = max(found[_LATENCY_MAX], latency_ms)
    found[_OVERHEAD_MAX] = max(found[_OVERHEAD_MAX], overhead_us)
    found[_LATENCY + bisect_left(LATENCY_EDGES_MS, latency_ms)] += 1
    found[_OVERHEAD + bisect_left(OVERHEAD_EDGES_US, overhead_us)] += 1
    if ttft_ms is not None:
        found[_TTFT_SUM] += ttft_ms
        found[_TTFT_COUNT] += 1
        found[_TTFT_MAX] = max(found[_TTFT_MAX], ttft_ms)
        found[_TTFT + bisect_left(LATENCY_EDGES_MS, ttft_ms)] += 1
    for attempt in attempts:
        _add_attempt(sums[ATTEMPTS], (host_id, start_at), attempt)


def _add_attempt(
    sums: dict[tuple[Any, ...], list[int]], of: tuple[str, int], attempt: Sequence[Any]
) -> None:
    """In the bucket of its request, so that a request and its attempts are found together."""
    key = (*of, attempt[0], attempt[1], attempt[recorder.ERROR_CLASS_OF_ATTEMPT])
    found = sums.get(key)
    if found is None:
        found = sums[key] = _ATTEMPT_ZEROS.copy()
    duration_ms, ttft_ms = attempt[recorder.DURATION_MS], attempt[recorder.TTFT_OF_ATTEMPT_MS]
    cost = attempt[recorder.COST_OF_ATTEMPT]
    found[_A["attempts"]] += 1
    found[_A["input_tokens"]] += attempt[recorder.INPUT_OF_ATTEMPT]
    found[_A["output_tokens"]] += attempt[recorder.INPUT_OF_ATTEMPT + 1]
    found[_A["cost_nanousd"]] += cost or 0
    found[_A["unpriced"]] += cost is None
    found[_A["duration_ms_sum"]] += duration_ms
    found[_A["duration_ms_max"]] = max(found[_A["duration_ms_max"]], duration_ms)
    found[_A["h0"] + bisect_left(LATENCY_EDGES_MS, duration_ms)] += 1
    if ttft_ms is not None:
        found[_A["ttft_ms_sum"]] += ttft_ms
        found[_A["ttft_count"]] += 1
        found[_A["t0"] + bisect_left(LATENCY_EDGES_MS, ttft_ms)] += 1

"""Request counters that outlive the worker that counted.

One row for each (mode, model, provider), one column for each worker slot, so adding needs no lock;
a dead worker's column keeps counting. What the fields mean to Prometheus is telemetry's business.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from tokenhub.board.memory import Directory, Memory
from tokenhub.domain import ENDINGS, Outcome

LATENCY_EDGES_MS = (
    10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 60_000, 120_000, 300_000, 600_000,
)  # fmt: skip
"""Upper edges of the histograms; one more bucket holds what is slower."""

HISTOGRAM = len(LATENCY_EDGES_MS) + 1

ENDING_AT = {ending: index for index, ending in enumerate(ENDINGS)}
INPUT_TOKENS = len(ENDINGS)
OUTPUT_TOKENS = INPUT_TOKENS + 1
COST_NANOUSD = INPUT_TOKENS + 2
UNPRICED = INPUT_TOKENS + 3
ATTEMPTS = INPUT_TOKENS + 4
LATENCY_SUM_MS = INPUT_TOKENS + 5
LATENCY_AT = INPUT_TOKENS + 6
TTFT_SUM_MS = LATENCY_AT + HISTOGRAM
TTFT_AT = TTFT_SUM_MS + 1
FIELDS = TTFT_AT + HISTOGRAM

ROWS_MAX = 1024


class Counters:
    """Sums over all requests of this host since its arbiter started."""

    def __init__(self, memory: Memory, *, slots: int) -> None:
        self._words = memory.words
        self._slots = slots
        self._directory = Directory(memory, rows=ROWS_MAX, name_bytes=240)
        self._start = memory.reserve(ROWS_MAX * slots * FIELDS)
        self._bases: dict[tuple[str, str, str, int], int] = {}

    def count(self, outcome: Outcome, slot: int) -> None:
        """Add one finished request to the column of `slot`."""
        labels = (outcome.mode, outcome.model_id, outcome.provider_id, slot)
        base = self._bases.get(labels)
        if base is None:
            row = self._directory.row_of("\n".join(labels[:3]))
            base = self._bases[labels] = self._start + (row * self._slots + slot) * FIELDS
        words = self._words
        words[base + ENDING_AT[outcome.ending]] += 1
        words[base + ATTEMPTS] += len(outcome.attempts)
        words[base + INPUT_TOKENS] += outcome.usage.input_tokens
        words[base + OUTPUT_TOKENS] += outcome.usage.output_tokens
        if outcome.cost_nanousd is None:
            words[base + UNPRICED] += 1
        else:
            words[base + COST_NANOUSD] += outcome.cost_nanousd
        words[base + LATENCY_SUM_MS] += outcome.latency_ms
        words[base + LATENCY_AT + bisect_left(LATENCY_EDGES_MS, outcome.latency_ms)] += 1
        if outcome.ttft_ms is not None:
            words[base + TTFT_SUM_MS] += outcome.ttft_ms
            words[base + TTFT_AT + bisect_left(LATENCY_EDGES_MS, outcome.ttft_ms)] += 1

    def rows(self) -> Iterator[tuple[tuple[str, str, str], list[int]]]:
        """Each (mode, model, provider) with its fields, summed over the slots."""
        for row in range(len(self._directory)):
            name = self._directory.name_at(row)
            mode, model, provider = name.split("\n") if name else ("other", "other", "other")
            start = self._start + row * self._slots * FIELDS
            columns = [
                self._words[start + slot * FIELDS : start + (slot + 1) * FIELDS]
                for slot in range(self._slots)
            ]
            sums = [sum(values) for values in zip(*columns, strict=True)]
            if any(sums):
                yield (mode, model, provider), sums

"""Request counters that outlive the worker that counted.

One row for each (mode, model, provider), one column for each worker slot, so adding needs no lock;
a dead worker's column keeps counting. Beside it are rows of one figure each: attempts, errors and
skips. What the fields mean to Prometheus is telemetry's business.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping

from tokenhub.board.memory import Directory, Memory
from tokenhub.board.tallies import OTHER, Tallies
from tokenhub.board.tallies import words_for as words_for_tallies
from tokenhub.domain import ENDINGS, Model, Outcome

LATENCY_EDGES_MS = (
    10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 60_000, 120_000, 300_000, 600_000,
)  # fmt: skip
"""Upper edges of the histograms; one more bucket holds what is slower."""

OVERHEAD_EDGES_US = (
    100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 1_000_000, 10_000_000,
)  # fmt: skip
"""Of the histogram of what we add ourselves."""

HISTOGRAM = len(LATENCY_EDGES_MS) + 1

ENDING_AT = {ending: index for index, ending in enumerate(ENDINGS)}
INPUT_TOKENS = len(ENDINGS)
OUTPUT_TOKENS = INPUT_TOKENS + 1
COST_NANOUSD = INPUT_TOKENS + 2
UNPRICED = INPUT_TOKENS + 3
LATENCY_SUM_MS = INPUT_TOKENS + 4
LATENCY_AT = INPUT_TOKENS + 5
TTFT_SUM_MS = LATENCY_AT + HISTOGRAM
TTFT_AT = TTFT_SUM_MS + 1
FIELDS = TTFT_AT + HISTOGRAM

OVERHEAD_SUM_US, OVERHEAD_AT = range(2)
OVERHEAD_FIELDS = OVERHEAD_AT + len(OVERHEAD_EDGES_US) + 1

ROWS_MAX = 1024
NAME_BYTES = 240
ATTEMPT_ROWS_MAX = ERROR_ROWS_MAX = 2048
SKIP_ROWS_MAX = 1024

OK_ENDINGS = frozenset({"answered", "rescued"})
OK = "ok"
"""The outcome of an attempt that no error class is held against."""


class Counters:
    """Sums over all requests of this host since its arbiter started.

    Attributes:
        attempts: by model, provider and error class, or `OK`.
        errors: requests that came to nothing, by mode, model, provider, status and error class.
        skips: models left out of a choice, by provider and reason.
    """

    def __init__(self, memory: Memory, *, slots: int) -> None:
        self._words = memory.words
        self._slots = slots
        self._directory = Directory(memory, rows=ROWS_MAX, name_bytes=NAME_BYTES)
        self._start = memory.reserve(ROWS_MAX * slots * FIELDS)
        self._overhead = memory.reserve(slots * OVERHEAD_FIELDS)
        self._bases: dict[tuple[str, str, str, int], int] = {}
        self._models: Mapping[str, Model] = {}
        self._provider_of: dict[str, str] = {}
        self.attempts = Tallies(memory, slots=slots, rows=ATTEMPT_ROWS_MAX, labels=3)
        self.errors = Tallies(memory, slots=slots, rows=ERROR_ROWS_MAX, labels=5)
        self.skips = Tallies(memory, slots=slots, rows=SKIP_ROWS_MAX, labels=2)

    def __len__(self) -> int:
        """Rows of (mode, model, provider) in use."""
        return len(self._directory)

    def count(self, outcome: Outcome, slot: int) -> None:
        """Add one finished request to the column of `slot`."""
        base = self._bases.get((outcome.mode, outcome.model_id, outcome.provider_id, slot))
        if base is None:
            base = self._base_of(outcome, slot)
        words = self._words
        words[base + ENDING_AT[outcome.ending]] += 1
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
        base = self._overhead + slot * OVERHEAD_FIELDS
        words[base + OVERHEAD_SUM_US] += max(0, outcome.overhead_us)
        words[base + OVERHEAD_AT + bisect_left(OVERHEAD_EDGES_US, outcome.overhead_us)] += 1
        for attempt in outcome.attempts:
            self.attempts.add((attempt[0], attempt[1], attempt.error_class or OK), slot)
        if outcome.ending not in OK_ENDINGS:
            self._count_error(outcome, slot)

    def count_skips(self, skips: Mapping[str, str], models: Mapping[str, Model], slot: int) -> None:
        """Add what one request left out: reasons, by model.

        Args:
            models: all there are, by id; the same mapping until they change.
        """
        if models is not self._models:
            self._models = models
            self._provider_of = {id_: model.provider_id for id_, model in models.items()}
        providers = map(self._provider_of.get, skips)
        for (provider, reason), count in Counter(
            zip(providers, skips.values(), strict=True)
        ).items():
            self.skips.add((provider or OTHER, reason), slot, count)

    def rows(self) -> Iterator[tuple[tuple[str, str, str], list[int]]]:
        """Each (mode, model, provider) with its fields, summed over the slots."""
        for row in range(len(self._directory)):
            name = self._directory.name_at(row)
            mode, model, provider = name.split("\n") if name else (OTHER, OTHER, OTHER)
            sums = self._sums(self._start + row * self._slots * FIELDS, FIELDS)
            if any(sums):
                yield (mode, model, provider), sums

    def overhead(self) -> list[int]:
        """What we added to all requests: the sum, then the histogram."""
        return self._sums(self._overhead, OVERHEAD_FIELDS)

    def _count_error(self, outcome: Outcome, slot: int) -> None:
        status = outcome.status
        # What a provider answers is relayed, and it may answer anything.
        said = str(status) if status in _STATUSES else f"{status // 100}xx"
        self.errors.add(
            (outcome.mode, outcome.model_id, outcome.provider_id, said,
             outcome.error_class or outcome.ending),
            slot,
        )  # fmt: skip

    def _base_of(self, outcome: Outcome, slot: int) -> int:
        labels = (outcome.mode, outcome.model_id, outcome.provider_id)
        row = self._directory.row_of("\n".join(labels))
        base = self._start + (row * self._slots + slot) * FIELDS
        if row != Directory.OVERFLOW:  # or a flood of names would fill our own memory
            self._bases[(*labels, slot)] = base
        return base

    def _sums(self, start: int, fields: int) -> list[int]:
        columns = (
            self._words[start + slot * fields : start + (slot + 1) * fields]
            for slot in range(self._slots)
        )
        return [sum(values) for values in zip(*columns, strict=True)]


_STATUSES = frozenset({
    0, 200, 400, 401, 402, 403, 404, 405, 408, 409, 413, 414, 415, 422, 424, 429, 431, 499,
    500, 501, 502, 503, 504, 529,
})  # fmt: skip


def words_for(slots: int) -> int:
    """How many words `Counters` need; most are never touched."""
    tallies = ATTEMPT_ROWS_MAX + ERROR_ROWS_MAX + SKIP_ROWS_MAX
    own = ROWS_MAX * (slots * FIELDS + 1 + NAME_BYTES // 8) + slots * OVERHEAD_FIELDS + 1
    return own + words_for_tallies(slots, tallies) + 2

"""Tables of sums: what requests and attempts add up to by time and by what they were about.

A bucket is 10 seconds of one host. Rolled up, it has also been added to its hour, its day and its
week (seven days, counted from 1970-01-01), which are of all hosts; what comes later for the same
10 seconds is a bucket of its own. Requests and attempts have each a family of four tables, kept
apart by other columns.

`migrations/` makes them and a test compares the two. Runs no statement.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import BigInteger, Column, Index, Table
from sqlalchemy import text as sql

from tokenhub.db.columns import AnyColumn, integer, metadata, text

HISTOGRAM = 16
"""Classes of a histogram; their edges are the writer's."""


@dataclass(frozen=True, eq=False)
class Family:
    """Four tables that sum up the same.

    Args:
        key: what their sums are kept apart by, besides host and time.
        sums: columns that grow.
        maxima: columns that hold the largest.
        histograms: the letters of the histograms, whose classes are columns (h0, h1 …).
    """

    buckets: str
    hours: str
    days: str
    weeks: str
    key: tuple[str, ...]
    sums: tuple[str, ...]
    maxima: tuple[str, ...]
    histograms: str

    @property
    def added(self) -> tuple[str, ...]:
        """All columns that grow, those of the histograms last."""
        classes = (f"{name}{each}" for name in self.histograms for each in range(HISTOGRAM))
        return (*self.sums, *classes)

    @property
    def values(self) -> tuple[str, ...]:
        """Everything but the key, in the tables' order."""
        return (*self.sums, *self.maxima, *self.added[len(self.sums) :])


REQUESTS = Family(
    buckets="buckets",
    hours="rollup_hours",
    days="rollup_days",
    weeks="rollup_weeks",
    key=("model_id", "provider_id", "api_key_id", "team_id", "mode", "endpoint", "ending",
         "error_class", "alias_from"),
    sums=("requests", "attempts", "input_tokens", "output_tokens", "cache_read_tokens",
          "cache_write_tokens", "reasoning_tokens", "cost_nanousd", "unpriced", "latency_ms_sum",
          "ttft_ms_sum", "ttft_count", "overhead_us_sum"),
    maxima=("latency_ms_max", "ttft_ms_max", "overhead_us_max"),
    histograms="hto",
)  # fmt: skip
"""By the model that answered or was the last to fail: h is latency, t first token, o overhead."""

ATTEMPTS = Family(
    buckets="attempt_buckets",
    hours="attempt_hours",
    days="attempt_days",
    weeks="attempt_weeks",
    key=("model_id", "provider_id", "error_class"),
    sums=("attempts", "input_tokens", "output_tokens", "cost_nanousd", "unpriced",
          "duration_ms_sum", "ttft_ms_sum", "ttft_count"),
    maxima=("duration_ms_max",),
    histograms="ht",
)  # fmt: skip
"""Calls to providers, whatever became of the request: h is duration, t first token."""

FAMILIES = (REQUESTS, ATTEMPTS)


def _words(family: Family) -> tuple[AnyColumn, ...]:
    return tuple(text(name, primary_key=True) for name in family.key)


def _values(family: Family) -> tuple[AnyColumn, ...]:
    return tuple(integer(name) for name in family.values)


def _buckets(family: Family) -> Table:
    return Table(
        family.buckets,
        metadata,
        text("host_id", primary_key=True),
        integer("start_at", primary_key=True),
        *_words(family),
        Column(  # when it was rolled up; 0 = not yet
            "rolled_at",
            BigInteger,
            primary_key=True,
            nullable=False,
            autoincrement=False,
            server_default="0",
        ),
        *_values(family),
        Index(None, "start_at"),
        Index(
            f"ix_{family.buckets}_unrolled",
            "start_at",
            sqlite_where=sql("rolled_at = 0"),
            postgresql_where=sql("rolled_at = 0"),
        ),
    )


def _rollup(name: str, family: Family) -> Table:
    return Table(
        name, metadata, integer("start_at", primary_key=True), *_words(family), *_values(family)
    )


buckets = _buckets(REQUESTS)
rollup_hours = _rollup(REQUESTS.hours, REQUESTS)
rollup_days = _rollup(REQUESTS.days, REQUESTS)
rollup_weeks = _rollup(REQUESTS.weeks, REQUESTS)
attempt_buckets = _buckets(ATTEMPTS)
attempt_hours = _rollup(ATTEMPTS.hours, ATTEMPTS)
attempt_days = _rollup(ATTEMPTS.days, ATTEMPTS)
attempt_weeks = _rollup(ATTEMPTS.weeks, ATTEMPTS)

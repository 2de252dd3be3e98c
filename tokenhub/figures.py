"""What sums say of how it went: counts, shares, means and quantiles, as they are shown.

A request is an error unless it was answered, by whichever model: as in `tokenhub_requests_total`.
Numbers out of `store.series` in, fields of JSON out. Knows no database.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import add
from typing import Any

from tokenhub.board.counters import LATENCY_EDGES_MS, OK_ENDINGS
from tokenhub.db.sums_tables import HISTOGRAM, REQUESTS
from tokenhub.domain import ENDINGS
from tokenhub.histograms import quantile
from tokenhub.pricing import usd
from tokenhub.store.series import Point, classes_of

TOKENS = (
    "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens",
)  # fmt: skip
GROWING = (
    "requests", "attempts", *TOKENS, "cost_nanousd", "unpriced", "latency_ms_sum", "ttft_ms_sum",
    "ttft_count", "overhead_us_sum", *classes_of("h"), *classes_of("t"),
)  # fmt: skip
LARGEST = REQUESTS.maxima
VALUES = (*GROWING, *LARGEST)
"""What `Tally` needs of requests; their points must be grouped by `ending` last."""
ATTEMPT_VALUES = ("attempts",)
"""What it needs of attempts; their points must be grouped by `error_class` last."""

_GROWING_COUNT = len(GROWING)
_SHOWN_SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}

Group = tuple[str, ...]


class Tally:
    """What a group of requests came to.

    Attributes:
        tried, tried_in_vain: calls to the group's models and providers, where it is one by those;
            None = it is not.
    """

    __slots__ = ("endings", "grown", "largest", "tried", "tried_in_vain")

    def __init__(self) -> None:
        self.grown: list[int] = [0] * _GROWING_COUNT
        self.largest: list[int] = [0] * len(LARGEST)
        self.endings: dict[str, int] = {}
        self.tried: int | None = None
        self.tried_in_vain: int | None = None

    def add(self, numbers: Sequence[int], ending: str) -> None:
        """Add numbers in the order of `VALUES`."""
        self.grown = list(map(add, self.grown, numbers))
        self.largest = list(map(max, self.largest, numbers[_GROWING_COUNT:]))
        self.endings[ending] = self.endings.get(ending, 0) + numbers[0]

    def add_attempts(self, count: int, error_class: str) -> None:
        """Add calls, all of which failed in this way; "" = none of them."""
        self.tried = (self.tried or 0) + count
        self.tried_in_vain = (self.tried_in_vain or 0) + (count if error_class else 0)


def fold(points: Iterable[Point], positions: Sequence[int]) -> dict[Group, Tally]:
    """Requests by some of the words that their points are grouped by.

    Args:
        points: with `VALUES`, grouped by `ending` last.
        positions: of the words, among the points' group.
    """
    found: dict[Group, Tally] = {}
    for group, _, values in points:
        key = tuple([group[at] for at in positions])
        tally = found.get(key)
        if tally is None:
            tally = found[key] = Tally()
        tally.add(list(values.values()), group[-1])
    return found


def fold_attempts(
    points: Iterable[Point], positions: Sequence[int], into: dict[Group, Tally]
) -> None:
    """Add attempts to the tallies of requests; those that only failed get one of their own.

    Args:
        points: with `ATTEMPT_VALUES`, grouped by `error_class` last.
        positions: as those of `fold`.
    """
    for group, _, values in points:
        key = tuple([group[at] for at in positions])
        into.setdefault(key, Tally()).add_attempts(values["attempts"], group[-1])
    for tally in into.values():
        tally.tried, tally.tried_in_vain = tally.tried or 0, tally.tried_in_vain or 0


def figures(tally: Tally) -> dict[str, Any]:
    """A tally as it is shown.

    Quantiles are those of `histograms.quantile`; what there is none of is 0, but for the first
    token, which not every answer has: null.
    """
    value = dict(zip(VALUES, (*tally.grown, *tally.largest), strict=True))
    requests, at = value["requests"], GROWING.index("h0")
    errors = requests - sum(tally.endings.get(each, 0) for each in OK_ENDINGS)
    latency = (tally.grown[at : at + HISTOGRAM], value["latency_ms_max"])
    ttft = (tally.grown[at + HISTOGRAM :], value["ttft_ms_max"])
    quantiles = {name: _ms(latency, share) or 0 for name, share in _SHOWN_SHARES.items()}
    return {
        "request_count": requests,
        "error_count": errors,
        "error_rate": _share(errors, requests),
        "outcomes": {each: tally.endings.get(each, 0) for each in ENDINGS},
        "avg_latency_ms": _mean(value["latency_ms_sum"], requests) or 0,
        **{f"{name}_latency_ms": each for name, each in quantiles.items()},
        "max_latency_ms": value["latency_ms_max"],
        "avg_ttft_ms": _mean(value["ttft_ms_sum"], value["ttft_count"]),
        "p50_ttft_ms": _ms(ttft, 0.5),
        "p95_ttft_ms": _ms(ttft, 0.95),
        "avg_overhead_ms": _mean(value["overhead_us_sum"] / 1000, requests) or 0,
        "total_cost_usd": usd(value["cost_nanousd"]),
        "unpriced_requests": value["unpriced"],
        **{name: value[name] for name in TOKENS},
        "total_tokens": value["input_tokens"] + value["output_tokens"],
        **_attempts(tally, value["attempts"]),
    }


def _attempts(tally: Tally, attempts: int) -> dict[str, int]:
    if tally.tried is None:
        return {"attempts": attempts}
    return {"attempts": tally.tried, "failed_attempts": tally.tried_in_vain or 0}


def _ms(histogram: tuple[list[int], int], share: float) -> float | None:
    found = quantile(LATENCY_EDGES_MS, histogram[0], share, histogram[1])
    return None if found is None else round(found, 1)


def _mean(total: float, count: int) -> float | None:
    return round(total / count, 3) if count else None


def _share(part: int, whole: int) -> float:
    return round(part / whole, 6) if whole else 0.0


def attempts_group(group: Sequence[str]) -> bool:
    """Whether attempts are told apart by all of these columns of requests. By `error_class` they
    are, too, but there it is theirs and not the request's."""
    return set(group) <= {"model_id", "provider_id"}


def in_order(found: Mapping[Group, Tally], by: str = "requests") -> list[tuple[Group, Tally]]:
    """The largest first."""
    at = VALUES.index(by)

    def rank(item: tuple[Group, Tally]) -> tuple[int, int, Group]:
        return -item[1].grown[at], -(item[1].tried or 0), item[0]

    return sorted(found.items(), key=rank)

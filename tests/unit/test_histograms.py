"""Quantiles of histograms are near those of the values, and never beyond what is known."""

from __future__ import annotations

from bisect import bisect_left
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenhub.board.counters import LATENCY_EDGES_MS
from tokenhub.histograms import merge, quantile
from tokenhub.tally import OVERHEAD_EDGES_US

EDGES = (10, 100, 1000)
VALUES = st.lists(st.integers(0, 700_000), min_size=1, max_size=60)


def classes(values, edges=LATENCY_EDGES_MS) -> list[int]:
    counts = [0] * (len(edges) + 1)
    for each in values:
        counts[bisect_left(edges, each)] += 1
    return counts


@pytest.mark.parametrize(
    ("counts", "share", "largest", "expected"),
    [
        ([0, 0, 0, 0], 0.5, None, None),
        ([4, 0, 0, 0], 0.5, None, 5),
        ([4, 0, 0, 0], 1, 7, 7),
        ([0, 10, 0, 0], 0.5, None, 55),
        ([5, 0, 5, 0], 0.5, None, 10),
        ([5, 0, 5, 0], 0.75, None, 550),
        ([0, 0, 0, 2], 0.5, None, 1000),  # beyond the last edge nothing is known
        ([0, 0, 0, 2], 0.5, 3000, 2000),
        ([1, 1, 1, 1], 0, 3000, 0),
    ],
)
def test_a_quantile_lies_as_far_in_its_class_as_its_rank(counts, share, largest, expected):
    assert quantile(EDGES, counts, share, largest) == expected


@given(VALUES, st.sampled_from([0.5, 0.9, 0.95, 0.99, 1.0]))
def test_a_quantile_is_in_the_class_of_the_true_one_and_below_the_largest(values, share):
    true = sorted(values)[ceil(share * len(values)) - 1]
    found = quantile(LATENCY_EDGES_MS, classes(values), share, max(values))
    assert found is not None
    at = bisect_left(LATENCY_EDGES_MS, true)
    assert (LATENCY_EDGES_MS[at - 1] if at else 0) <= found <= max(values)
    if at < len(LATENCY_EDGES_MS):
        assert found <= LATENCY_EDGES_MS[at]


@given(VALUES, st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_quantiles_ascend(values, shares):
    low, high = (
        quantile(LATENCY_EDGES_MS, classes(values), each, max(values)) for each in sorted(shares)
    )
    assert low is not None
    assert high is not None
    assert low <= high


@given(VALUES, VALUES)
def test_merged_histograms_are_the_histogram_of_all_values(some, others):
    assert merge([classes(some), classes(others)]) == classes(some + others)


@pytest.mark.parametrize("edges", [LATENCY_EDGES_MS, OVERHEAD_EDGES_US])
def test_edges_ascend_and_make_sixteen_classes(edges):
    assert sorted(set(edges)) == list(edges)
    assert len(edges) == 15

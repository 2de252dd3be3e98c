"""What requests and attempts add up to is what their rows say."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tokenhub import recorder
from tokenhub.board.counters import LATENCY_EDGES_MS
from tokenhub.db.sums_tables import ATTEMPTS, REQUESTS, Family
from tokenhub.domain import ENDINGS, Attempt, Outcome, Usage
from tokenhub.recorder import attempt_row, log_row
from tokenhub.store import ATTEMPT_COLUMNS, LOG_COLUMNS
from tokenhub.tally import BUCKET_MS, OVERHEAD_EDGES_US, Sums, add_request, empty

START = 1_700_000_000_000
TOKENS = st.integers(0, 10**6)
TIMES = st.integers(0, 700_000)
USAGES = st.builds(Usage, TOKENS, TOKENS, TOKENS, TOKENS, TOKENS)
COSTS = st.none() | st.integers(0, 10**12)
ATTEMPTS_MADE = st.builds(
    Attempt,
    st.sampled_from(["m", "m2"]),
    st.sampled_from(["p", "p2"]),
    st.just(0),
    TIMES,
    st.none() | TIMES,
    st.just(200),
    st.sampled_from(["", "timeout"]),
    USAGES,
    COSTS,
)


@st.composite
def outcomes(draw) -> Outcome:
    outcome = Outcome(
        "req_1",
        draw(st.sampled_from(["key_1", "key_2"])),
        draw(st.sampled_from(["chat", "messages"])),
        draw(st.sampled_from(["normal", "cheap"])),
        False,
        START + draw(st.integers(0, 3 * BUCKET_MS)),
        team_id=draw(st.sampled_from(["", "team_1"])),
        alias_from=draw(st.sampled_from(["", "fast"])),
        ending=draw(st.sampled_from(ENDINGS)),
        error_class=draw(st.sampled_from(["", "timeout"])),
        model_id=draw(st.sampled_from(["", "m", "m2"])),
        provider_id=draw(st.sampled_from(["", "p"])),
    )
    outcome.usage, outcome.cost_nanousd = draw(USAGES), draw(COSTS)
    outcome.latency_ms, outcome.ttft_ms = draw(TIMES), draw(st.none() | TIMES)
    outcome.overhead_us = draw(st.integers(-5, 2_000_000))
    outcome.attempts = draw(st.lists(ATTEMPTS_MADE, max_size=3))
    return outcome


def tallied(found: list[Outcome]) -> Sums:
    sums = empty()
    for outcome in found:
        add_request(sums, "host", log_row(outcome), list(map(attempt_row, outcome.attempts)))
    return sums


def named(family: Family, sums: Sums) -> list[tuple[dict[str, Any], dict[str, int]]]:
    names = ("host_id", "start_at", *family.key)
    return [
        (dict(zip(names, key, strict=True)), dict(zip(family.values, numbers, strict=True)))
        for key, numbers in sums[family].items()
    ]


def histogram(values: list[int], edges) -> list[int]:
    counts = Counter(bisect_left(edges, each) for each in values)
    return [counts[each] for each in range(16)]


def total(rows: list[tuple[Any, dict[str, int]]], name: str) -> int:
    return sum(values[name] for _, values in rows)


@given(st.lists(outcomes(), max_size=12))
def test_sums_over_buckets_are_sums_over_rows(found):
    rows = [dict(zip(LOG_COLUMNS, log_row(each), strict=True)) for each in found]
    summed = named(REQUESTS, tallied(found))
    assert total(summed, "requests") == len(rows)
    assert total(summed, "attempts") == sum(row["attempt_count"] for row in rows)
    for name in REQUESTS.sums[2:7]:  # tokens by kind
        assert total(summed, name) == sum(row[name] for row in rows)
    assert total(summed, "cost_nanousd") == sum(row["cost_nanousd"] or 0 for row in rows)
    assert total(summed, "unpriced") == sum(row["cost_nanousd"] is None for row in rows)
    for letter, name, edges in (
        ("h", "latency_ms", LATENCY_EDGES_MS),
        ("t", "ttft_ms", LATENCY_EDGES_MS),
        ("o", "overhead_us", OVERHEAD_EDGES_US),
    ):
        values = [max(0, row[name]) for row in rows if row[name] is not None]
        assert total(summed, f"{name}_sum") == sum(values)
        largest = max((numbers[f"{name}_max"] for _, numbers in summed), default=0)
        assert largest == max(values, default=0)
        counted = [total(summed, f"{letter}{each}") for each in range(16)]
        assert counted == histogram(values, edges)
    assert total(summed, "ttft_count") == sum(row["ttft_ms"] is not None for row in rows)


@given(st.lists(outcomes(), max_size=12))
def test_each_request_is_in_the_bucket_of_its_time_and_of_what_it_was_about(found):
    rows = [dict(zip(LOG_COLUMNS, log_row(each), strict=True)) for each in found]
    expected = Counter(
        (row["started_at"] // BUCKET_MS * BUCKET_MS, *(row[name] for name in REQUESTS.key))
        for row in rows
    )
    summed = named(REQUESTS, tallied(found))
    assert {
        (key["start_at"], *(key[name] for name in REQUESTS.key)): values["requests"]
        for key, values in summed
    } == expected
    assert {key["host_id"] for key, _ in summed} <= {"host"}


@given(st.lists(outcomes(), max_size=12))
def test_attempts_are_summed_beside_their_request(found):
    tried = [
        (each.started_at // BUCKET_MS * BUCKET_MS, dict(zip(ATTEMPT_COLUMNS, row, strict=True)))
        for each in found
        for row in map(attempt_row, each.attempts)
    ]
    summed = named(ATTEMPTS, tallied(found))
    assert {
        (key["start_at"], key["model_id"], key["provider_id"], key["error_class"]):
        values["attempts"] for key, values in summed
    } == Counter(
        (at, row["model_id"], row["provider_id"], row["error_class"]) for at, row in tried
    )  # fmt: skip
    for name in ("input_tokens", "output_tokens"):
        assert total(summed, name) == sum(row[name] for _, row in tried)
    assert total(summed, "cost_nanousd") == sum(row["cost_nanousd"] or 0 for _, row in tried)
    assert total(summed, "unpriced") == sum(row["cost_nanousd"] is None for _, row in tried)
    for letter, name in (("h", "duration_ms"), ("t", "ttft_ms")):
        values = [row[name] for _, row in tried if row[name] is not None]
        assert total(summed, f"{name}_sum") == sum(values)
        counted = [total(summed, f"{letter}{each}") for each in range(16)]
        assert counted == histogram(values, LATENCY_EDGES_MS)
    largest = max((values["duration_ms_max"] for _, values in summed), default=0)
    assert largest == max((row["duration_ms"] for _, row in tried), default=0)


def test_nothing_adds_up_to_nothing():
    assert empty() == {REQUESTS: {}, ATTEMPTS: {}}
    assert tallied([]) == empty()
    assert len(REQUESTS.sums[2:7]) == recorder.TOKEN_KINDS

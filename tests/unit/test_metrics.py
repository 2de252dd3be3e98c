"""What Prometheus scrapes is complete, correct and bounded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tokenhub.board import Board, counters
from tokenhub.board.memory import Directory
from tokenhub.domain import ENDINGS, Attempt, Model, Outcome, Usage
from tokenhub.telemetry import BoardCollector, Facts


def count(board: Board, slot: int = 0, **fields: object) -> None:
    outcome = Outcome("req_1", "key_1", "chat", "normal", False, 0)
    outcome.model_id, outcome.provider_id, outcome.ending = "small", "acme", "answered"
    for name, value in fields.items():
        setattr(outcome, name, value)
    board.counters.count(outcome, slot)


def exposed(board: Board, **facts: object) -> str:
    """What Prometheus is given."""
    registry = CollectorRegistry()
    registry.register(BoardCollector(board, replace(FACTS, **facts)))  # type: ignore[arg-type]
    return generate_latest(registry).decode()


def series_of(text: str) -> list[str]:
    """Names with their labels, as they come."""
    return [line.rpartition(" ")[0] for line in text.splitlines() if line[0] != "#"]


def scrape(board: Board) -> dict[tuple[str, ...], float]:
    """Every sample, by name and then label values in the labels' own order of name."""
    families = text_string_to_metric_families(exposed(board))
    return {
        (sample.name, *(f"{key}={value}" for key, value in sorted(sample.labels.items()))):
        sample.value
        for family in families
        for sample in family.samples
    }  # fmt: skip


GONE = "gone"
"""A model and a provider that the catalog no longer has."""

FACTS = Facts(
    catalog_version=lambda: 7,
    exists=lambda kind, id_: id_ != GONE,
    vault_is_locked=lambda: False,
    # Any that is there.
    journal_directory=Path(__file__).parent,
    journal_bytes_max=1000,
    version="1.2.3",
)

SMALL = ("mode=normal", "model=small", "provider=acme")


def test_the_metrics_are_what_all_workers_counted():
    board = Board(slots=3)
    for slot in range(3):
        count(board, slot, attempts=[Attempt("small", "acme", 0, 5)] * 2, usage=Usage(10, 20),
              cost_nanousd=500_000_000, latency_ms=45, ttft_ms=12)  # fmt: skip
    count(board, 1, ending="failed", cost_nanousd=None, latency_ms=700_000)
    found = scrape(board)
    assert found["tokenhub_requests_total", *SMALL[:2], "outcome=answered", SMALL[2], "status=ok"
                 ] == 3  # fmt: skip
    assert found["tokenhub_requests_total", *SMALL[:2], "outcome=failed", SMALL[2], "status=error"
                 ] == 1  # fmt: skip
    assert found["tokenhub_attempts_total", SMALL[1], "outcome=ok", SMALL[2]] == 6
    assert found["tokenhub_cost_usd_total", *SMALL[1:]] == 1.5
    assert found["tokenhub_unpriced_requests_total", *SMALL[1:]] == 1
    assert found["tokenhub_tokens_total", "direction=input", *SMALL[1:]] == 30
    assert found["tokenhub_tokens_total", "direction=output", *SMALL[1:]] == 60


def test_histograms_are_cumulative_and_end_in_the_count():
    board = Board(slots=1)
    for latency_ms in (5, 10, 11, 700_000):
        count(board, latency_ms=latency_ms, ttft_ms=None)
    found = scrape(board)
    name = "tokenhub_request_latency_ms"
    edges = {edge: found[f"{name}_bucket", f"le={edge}", *SMALL] for edge in
             ("10", "20", "600000", "+Inf")}  # fmt: skip
    assert list(edges.values()) == [2, 3, 3, 4]
    assert found[f"{name}_count", *SMALL] == 4
    assert found[f"{name}_sum", *SMALL] == 700_026
    assert ("tokenhub_ttft_ms_count", *SMALL) not in found, "nothing was streamed"
    name = "tokenhub_request_duration_seconds"
    assert found[f"{name}_bucket", "le=0.02", *SMALL[1:]] == 3
    assert found[f"{name}_bucket", "le=600.0", *SMALL[1:]] == 3
    assert found[f"{name}_sum", *SMALL[1:]] == 700.026


@pytest.mark.parametrize("ending", ENDINGS)
def test_only_answers_count_as_ok(ending):
    board = Board(slots=1)
    count(board, ending=ending)
    [key] = [key for key in scrape(board) if key[0] == "tokenhub_requests_total"]
    assert f"outcome={ending}" in key
    assert ("status=ok" in key) == (ending in ("answered", "rescued"))


def test_modes_of_the_same_model_do_not_add_up_to_more_than_there_was():
    board = Board(slots=1)
    for mode in ("normal", "cheap"):
        count(board, mode=mode, cost_nanousd=1_000_000_000, usage=Usage(5, 5))
    series = series_of(exposed(board))
    assert len(series) == len(set(series)), "the same series twice: Prometheus refuses the scrape"
    assert scrape(board)["tokenhub_cost_usd_total", *SMALL[1:]] == 2


def test_gauges_show_the_board():
    board = Board(slots=2)
    board.sit_down(1)
    board.enter()
    board.saw_database()
    board.vitals.succeed("small", "acme", 10, 0)
    board.vitals.succeed(GONE, GONE, 10, 0)
    board.feeds.enter(1)
    board.feeds.note_dropped(0, 3)
    board.feeds.note_unpublished(1)
    found = scrape(board)
    assert found["tokenhub_event_streams",] == 1
    assert found["tokenhub_events_dropped_total",] == 3
    assert found["tokenhub_events_unpublished_total",] == 1
    assert found["tokenhub_requests_in_flight",] == 1
    assert found["tokenhub_workers",] == 1
    assert found["tokenhub_config_version",] == 7
    assert 0 <= found["tokenhub_database_age_seconds",] < 60
    assert found["tokenhub_model_health_state", "model=small"] == 2
    assert found["tokenhub_provider_health_state", "provider=acme"] == 2
    assert ("tokenhub_model_health_state", "model=gone") not in found
    assert ("tokenhub_provider_health_state", "provider=gone") not in found


@pytest.mark.parametrize("name", ['quo"te', "back\\slash", "naïve/☃", "{}", "x" * 150, "ü" * 75])
def test_any_model_id_is_a_label_that_can_be_read_back(name):
    board = Board(slots=1)
    count(board, model_id=name)
    assert ("tokenhub_cost_usd_total", f"model={name}", "provider=acme") in scrape(board)


def test_a_request_that_comes_to_nothing_is_counted_by_status_and_class():
    board = Board(slots=1)
    count(board, ending="failed", status=502, error_class="all_attempts_failed")
    count(board, ending="refused", status=418, error_class="client_error")
    count(board, ending="client_closed", status=499)
    found = {key[1:3]: value for key, value in scrape(board).items()
             if key[0] == "tokenhub_request_errors_total"}  # fmt: skip
    assert found == {
        ("error_class=all_attempts_failed", "http_status=502"): 1,
        ("error_class=client_error", "http_status=4xx"): 1,
        ("error_class=client_closed", "http_status=499"): 1,
    }


def test_attempts_are_counted_by_their_own_model_and_error_class():
    board = Board(slots=2)
    tries = [Attempt("big", "acme", 0, 5, error_class="timeout"), Attempt("small", "other", 5, 5)]
    for slot in range(2):
        count(board, slot, ending="rescued", provider_id="other", attempts=tries)
    found = scrape(board)
    assert found["tokenhub_attempts_total", "model=big", "outcome=timeout", "provider=acme"] == 2
    assert found["tokenhub_attempts_total", "model=small", "outcome=ok", "provider=other"] == 2


def test_skips_are_counted_by_provider_and_reason():
    board = Board(slots=1)
    models = {id_: Model(id_, "acme", id_) for id_ in ("a", "b")}
    for _ in range(2):
        board.counters.count_skips({"a": "health", "b": "health", "gone": "tag"}, models, 0)
    found = scrape(board)
    assert found["tokenhub_provider_skips_total", "provider=acme", "reason=health"] == 4
    assert found["tokenhub_provider_skips_total", "provider=other", "reason=tag"] == 2
    board.counters.count_skips({"gone": "tag"}, {"gone": Model("gone", "late", "gone")}, 0)
    assert scrape(board)["tokenhub_provider_skips_total", "provider=late", "reason=tag"] == 1


def test_what_we_add_is_in_seconds():
    board = Board(slots=2)
    count(board, 0, overhead_us=150)
    count(board, 1, overhead_us=-5)
    found = scrape(board)
    assert found["tokenhub_overhead_seconds_sum",] == 0.00015
    assert found["tokenhub_overhead_seconds_bucket", "le=0.0001"] == 1
    assert found["tokenhub_overhead_seconds_count",] == 2


def test_the_journal_is_shown_with_what_waits_and_what_was_set_aside(tmp_path):
    board = Board(slots=2)
    (tmp_path / "1-w.open").write_bytes(b"x" * 300)
    board.backlog.note_appended(1, 250)
    board.backlog.note_ingested({0: (0, 9000), 1: (50, 150)})  # the first is of an earlier run
    board.backlog.note_set_aside(2)
    lines = exposed(board, journal_directory=tmp_path).splitlines()
    for line in (
        "tokenhub_journal_waiting_bytes 150.0",
        "tokenhub_journal_size_bytes 300.0",
        "tokenhub_journal_room_bytes 700.0",
        'tokenhub_store_dropped_total{op="log_request"} 2.0',
        'tokenhub_store_dropped_total{op="audit"} 0.0',
    ):
        assert line in lines
    board.backlog.catch_up(250, 0)
    found = scrape(board)
    assert found["tokenhub_journal_waiting_bytes",] == 0
    assert found["tokenhub_journal_lag_seconds",] > 0


def test_workers_breakers_and_the_vault_are_shown():
    board = Board(slots=4)
    board.sit_down(2)
    board.beat()
    board.clear_slot_of(12_345_678)
    for _ in range(5):
        board.vitals.fail("small", "acme", "timeout", 0, cooldown_seconds=None,
                          is_provider_wide=False)  # fmt: skip
    found = scrape(board)
    assert found["tokenhub_heartbeat_total",] == 1
    assert found["tokenhub_worker_exits_total",] == 0
    assert found["tokenhub_worker_resident_memory_bytes", "slot=2"] > 1 << 20
    assert found["tokenhub_worker_cpu_seconds_total", "slot=2"] > 0
    assert found["tokenhub_model_breaker_state", "model=small"] == 1
    assert found["tokenhub_provider_breaker_state", "provider=acme"] == 0
    assert found["tokenhub_vault_locked",] == 0
    assert any(key[0] == "tokenhub_build_info" and "version=1.2.3" in key for key in found)
    board.clear_slot_of(os.getpid())
    found = scrape(board)
    assert found["tokenhub_worker_exits_total",] == 1
    assert ("tokenhub_worker_resident_memory_bytes", "slot=2") not in found


class Counted:
    """The board's words, counting how many are read."""

    def __init__(self, words: Any) -> None:
        self._words = words
        self.read = 0

    def __getitem__(self, at: Any) -> Any:
        found = self._words[at]
        self.read += len(found) if isinstance(at, slice) else 1
        return found

    def __setitem__(self, at: Any, value: Any) -> None:
        self._words[at] = value

    def __len__(self) -> int:
        return len(self._words)


def work_of(board: Board) -> tuple[int, int]:
    """Samples of a scrape, and words of the counters that were read for it."""
    count = board.counters
    parts = (count, count.attempts, count.errors, count.skips)
    before = count._words
    words = Counted(before)
    for part in parts:
        part._words = words  # type: ignore[assignment]
    try:
        samples = len(series_of(exposed(board)))
    finally:
        for part in parts:
            part._words = before
    return samples, words.read


def test_a_scrape_costs_the_same_after_much_traffic_and_many_restarts():
    board = Board(slots=4)

    def traffic(times: int) -> None:
        for slot in range(4):
            for _ in range(times):
                count(board, slot, attempts=[Attempt("small", "acme", 0, 5)], ttft_ms=3)
                count(board, slot, ending="failed", status=502, error_class="timeout")

    traffic(1)
    first = work_of(board)
    for number in range(20):
        board.sit_down(number % 4)
        traffic(10)
        board.clear_slot_of(os.getpid())
    assert work_of(board) == first
    assert scrape(board)["tokenhub_worker_exits_total",] == 20
    assert scrape(board)["tokenhub_attempts_total", SMALL[1], "outcome=ok", SMALL[2]] == 804


def test_a_flood_of_names_is_counted_as_other_and_takes_no_memory(monkeypatch):
    monkeypatch.setattr(counters, "ROWS_MAX", 8)
    board = Board(slots=1)
    for number in range(2000):
        name = f"model-{number}"
        count(board, model_id=name, attempts=[Attempt(name, "acme", 0, 5, error_class=name)])
    count(board, model_id="model-3")
    found = scrape(board)
    total = sum(value for key, value in found.items() if key[0] == "tokenhub_requests_total")
    assert total == 2001
    others = ("mode=other", "model=other", "outcome=answered", "provider=other", "status=ok")
    assert found["tokenhub_requests_total", *others] == 2000 - 7
    assert found["tokenhub_board_rows", "table=requests"] == 8
    assert found["tokenhub_board_rows_limit", "table=requests"] == 8
    assert len(board.counters._bases) <= 8
    assert len(board.counters._directory._known) <= 8


def test_a_full_table_still_finds_what_another_worker_has_added():
    board = Board(slots=1)
    directory = Directory(board._memory, rows=3, name_bytes=16)
    assert [directory.row_of(name) for name in ("a", "b", "c", "a")] == [1, 2, 0, 1]
    directory._known.clear()  # a worker that comes later
    assert [directory.row_of(name) for name in ("d", "b", "a")] == [0, 2, 1]


@pytest.fixture
def busy() -> Iterator[Board]:
    """A board with something in every metric."""
    board = Board(slots=2)
    board.sit_down(0)
    for mode in ("normal", "cheap"):
        for provider in ("acme", "zenith"):
            count(board, mode=mode, provider_id=provider, ttft_ms=5, latency_ms=9,
                  attempts=[Attempt("small", provider, 0, 5)])  # fmt: skip
            count(board, mode=mode, provider_id=provider, ending="failed", status=502,
                  error_class="timeout")  # fmt: skip
    board.counters.count_skips({"a": "health"}, {}, 0)
    board.vitals.succeed("small", "acme", 10, 0)
    yield board
    board.clear_slot_of(os.getpid())


def test_no_series_comes_twice(busy):
    series = series_of(exposed(busy))
    assert len(series) == len(set(series)) > 100


def test_others_get_their_turn_between_two_metrics(busy):
    turns = []
    collector = BoardCollector(busy, FACTS, pause=lambda: turns.append(1))
    assert len(list(collector.collect())) == len(turns) > 30

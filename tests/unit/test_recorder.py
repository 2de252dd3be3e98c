"""A record has a value for every column, fits the room set aside for it, and is written once."""

from __future__ import annotations

import itertools

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tokenhub import journal, recorder, store
from tokenhub.board import Board
from tokenhub.budgets import PERIODS, Account
from tokenhub.db.sums_tables import REQUESTS
from tokenhub.domain import MODES, Attempt, Outcome, Policy, Usage
from tokenhub.gateway.course import ATTEMPTS_MAX
from tokenhub.journal import Journal
from tokenhub.recorder import Recorder, attempt_row, log_row, payload_of
from tokenhub.records import parse_request

USAGE = Usage(101, 102, 103, 104, 105, is_estimate=True)
USAGE_COLUMNS = {
    "input_tokens": 101, "output_tokens": 102, "cache_read_tokens": 103,
    "cache_write_tokens": 104, "reasoning_tokens": 105, "usage_is_estimate": True,
}  # fmt: skip
FRAME_BYTES = 9  # length, checksum, kind

ATTEMPT = Attempt(
    model_id="m-1",
    provider_id="p-1",
    started_ms=1,
    duration_ms=2,
    ttft_ms=3,
    status=504,
    error_class="timeout",
    usage=USAGE,
    cost_nanousd=5,
    price_version=6,
    reason="named",
    next_step="failover",
    response_bytes=7,
)


def make_outcome(**changes) -> Outcome:
    outcome = Outcome("req_1", "key_1", "/v1/chat/completions", "normal", False, 0)
    for name, value in changes.items():
        setattr(outcome, name, value)
    return outcome


@pytest.fixture
def board() -> Board:
    return Board(slots=1)


@pytest.fixture
def writer(tmp_path):
    numbers = itertools.count(1)
    made = Journal(tmp_path, "w", lambda: next(numbers), bytes_max=1 << 30, segment_bytes=1 << 20)
    yield made
    made.close()


def test_a_log_row_has_every_column_in_its_order():
    outcome = make_outcome(
        request_id="r", key_id="k", endpoint="/e", mode="cheap", stream=True, ending="rescued",
        status=201, error_class="ec", requested_model="rm", alias_from="af", model_id="m",
        provider_id="p", reason="why", snapshot_version=11, usage=USAGE, cost_nanousd=12,
        price_version=13, latency_ms=14, ttft_ms=15, overhead_us=16, estimated_input_tokens=17,
        response_bytes=18, attempts=[ATTEMPT, ATTEMPT], client_ip="::1", client_request_id="cr",
        skips={"x": "cooldown"}, started_at=19, team_id="t", trace_id="ab",
        policy=Policy(mode="cheap", max_latency_ms=20),
    )  # fmt: skip
    assert dict(zip(store.LOG_COLUMNS, log_row(outcome), strict=True)) == {
        "request_id": "r", "started_at": 19, "api_key_id": "k", "endpoint": "/e", "mode": "cheap",
        "stream": True, "ending": "rescued", "status_code": 201, "error_class": "ec",
        "requested_model": "rm", "alias_from": "af", "model_id": "m", "provider_id": "p",
        "reason": "why", "snapshot_version": 11, **USAGE_COLUMNS, "cost_nanousd": 12,
        "price_version": 13, "latency_ms": 14, "ttft_ms": 15, "overhead_us": 16,
        "estimated_input_tokens": 17, "response_bytes": 18, "attempt_count": 2,
        "client_ip": "::1", "client_request_id": "cr", "skips": '{"x":"cooldown"}',
        "team_id": "t", "latency_budget_ms": 20, "trace_id": "ab",
        "decision": log_row(outcome)[-1],
    }  # fmt: skip


def test_an_attempt_row_has_every_column_in_its_order():
    assert dict(zip(store.ATTEMPT_COLUMNS, attempt_row(ATTEMPT), strict=True)) == {
        "model_id": "m-1", "provider_id": "p-1", "started_ms": 1, "duration_ms": 2, "ttft_ms": 3,
        "status": 504, "error_class": "timeout", **USAGE_COLUMNS, "cost_nanousd": 5,
        "price_version": 6, "reason": "named", "next_step": "failover", "response_bytes": 7,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("position", "column"),
    [
        (recorder.STARTED_AT, "started_at"), (recorder.KEY_ID, "api_key_id"),
        (recorder.ENDPOINT, "endpoint"), (recorder.MODE, "mode"), (recorder.ENDING, "ending"),
        (recorder.MODEL_ID, "model_id"), (recorder.PROVIDER_ID, "provider_id"),
        (recorder.INPUT_TOKENS, "input_tokens"), (recorder.OUTPUT_TOKENS, "output_tokens"),
        (recorder.COST, "cost_nanousd"), (recorder.LATENCY_MS, "latency_ms"),
        (recorder.TTFT_MS, "ttft_ms"), (recorder.OVERHEAD_US, "overhead_us"),
        (recorder.TEAM_ID, "team_id"), (recorder.ERROR_CLASS, "error_class"),
        (recorder.ALIAS_FROM, "alias_from"),
    ],
)  # fmt: skip
def test_readers_of_a_row_look_at_the_right_column(position, column):
    assert store.LOG_COLUMNS[position] == column


@pytest.mark.parametrize(
    ("position", "column"),
    [
        (recorder.DURATION_MS, "duration_ms"), (recorder.TTFT_OF_ATTEMPT_MS, "ttft_ms"),
        (recorder.ERROR_CLASS_OF_ATTEMPT, "error_class"),
        (recorder.INPUT_OF_ATTEMPT, "input_tokens"),
        (recorder.INPUT_OF_ATTEMPT + 1, "output_tokens"),
        (recorder.COST_OF_ATTEMPT, "cost_nanousd"),
    ],
)  # fmt: skip
def test_readers_of_an_attempt_look_at_the_right_column(position, column):
    assert store.ATTEMPT_COLUMNS[position] == column


def test_sums_are_kept_apart_by_what_their_tables_say():
    assert tuple(store.LOG_COLUMNS[at] for at in recorder.SUMMED_BY) == REQUESTS.key


def test_texts_from_outside_are_cut_and_lose_their_control_characters():
    outcome = make_outcome(
        requested_model="a\0b\x1b" + "x" * 1000,
        client_request_id="y" * 500,
        client_ip="fe80::1%" + "z" * 500,
    )
    row = dict(zip(store.LOG_COLUMNS, log_row(outcome), strict=True))
    assert row["requested_model"] == "a\ufffdb\ufffd" + "x" * (recorder.TEXT_MAX - 4)
    assert row["client_request_id"] == "y" * recorder.TEXT_MAX
    assert len(row["client_ip"]) == recorder.CLIENT_IP_MAX


def test_skips_keep_what_fits_and_stay_json():
    outcome = make_outcome(skips={f"{number}" + '"' * 149: "cooldown" for number in range(40)})
    text = log_row(outcome)[store.LOG_COLUMNS.index("skips")]
    assert len(text) <= recorder.SKIPS_BYTES_MAX
    assert list(orjson.loads(text).values()) == ["cooldown"] * 3


def nasty(chars_max: int, *, printable: bool = False) -> st.SearchStrategy[str]:
    if printable:  # what the admin API lets through as an id
        characters = st.characters(exclude_categories=["Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"])
    else:
        characters = st.characters(exclude_categories=["Cs"])
    worst = st.sampled_from(['"', "\\", "😀"] if printable else ['"', "\\", "😀", "\0", "\x1f"])
    long = worst.map(lambda character: character * chars_max)
    return long | st.text(characters, max_size=chars_max)


IDS = nasty(150, printable=True).map(
    lambda text: text.encode()[:150].decode(errors="ignore") or "m"
)
BIG = st.integers(0, 2**62)


@given(
    texts=st.tuples(*[nasty(400)] * 4),
    ids=st.lists(IDS, min_size=6, max_size=6),
    skips=st.dictionaries(IDS, st.sampled_from(["weight_below_minimum", "cooldown"]), max_size=40),
    number=BIG,
)
@example(
    texts=("\0" * 400, "😀" * 400, "\x7f" * 400, '"' * 400),
    ids=['"' * 150] * 6,
    skips={f"{number:02}" + '"' * 148: "weight_below_minimum" for number in range(40)},
    number=2**62,
)
def test_an_opening_and_an_end_always_fit_the_room_set_aside(texts, ids, skips, number):
    usage = Usage(number, number, number, number, number, is_estimate=True)
    attempts = [
        Attempt(each, each[:64], number, number, number, 599, "x" * 20, usage, number, number)
        for each in ids[:5]
    ]
    requested, alias, address, client_id = texts
    outcome = make_outcome(
        mode=MODES[2], ending="client_closed", status=599, error_class="y" * 20,
        requested_model=requested, alias_from=alias, model_id=ids[5], provider_id=ids[5][:64],
        reason="routed-weight-100", usage=usage, cost_nanousd=number, started_at=number,
        latency_ms=number, ttft_ms=number, overhead_us=number, client_ip=address,
        client_request_id=client_id, skips=skips, request_id="r" * 36, key_id="k" * 20,
    )  # fmt: skip
    # A key and its team have an account for each period, and money is set aside for each attempt.
    held = [list(Account("team", "t" * 40, "month", number))] * 2 * len(PERIODS)
    size = (len(payload_of(log_row(outcome), [], number, held)) + FRAME_BYTES) * ATTEMPTS_MAX
    outcome.attempts = attempts
    rows = [attempt_row(attempt) for attempt in attempts]
    size += len(payload_of(log_row(outcome), rows, True, held)) + FRAME_BYTES
    assert size <= journal.ROOM_BYTES


def test_a_request_of_several_attempts_used_and_cost_what_they_did(board, writer):
    sink = Recorder(journal=writer, board=board)
    sink.admit()
    outcome = make_outcome(attempts=[Attempt("a", "p", 0, 1), ATTEMPT, ATTEMPT])
    sink.record(outcome)
    assert outcome.usage == Usage(202, 204, 206, 208, 210, is_estimate=True)
    assert (outcome.cost_nanousd, outcome.price_version) == (10, 6)
    assert board.in_flight == 0


def test_one_unknown_cost_makes_the_whole_unknown(board, writer):
    sink = Recorder(journal=writer, board=board)
    sink.admit()
    outcome = make_outcome(attempts=[ATTEMPT, Attempt("a", "p", 0, 1, cost_nanousd=None)])
    sink.record(outcome)
    assert outcome.cost_nanousd is None


def test_an_opening_is_the_row_of_an_interrupted_request_at_its_estimate(board, writer, tmp_path):
    sink = Recorder(journal=writer, board=board)
    sink.admit()
    sink.open(make_outcome(), 77)
    sink.open(make_outcome(), None)
    sink.open(make_outcome(), 2**80)
    [segment, _] = journal.list_segments(tmp_path)
    records, _ = journal.read(segment.path, 0)
    rows = [parse_request(record.payload)[0] for record in records]
    assert [record.kind for record in records] == [journal.OPENING] * 3
    assert [(row[recorder.ENDING], row[recorder.COST]) for row in rows] == [
        ("interrupted", 77), ("interrupted", None), ("interrupted", 2**63 - 1),
    ]  # fmt: skip
    assert board.in_flight == 1


def test_room_is_given_back_even_when_the_disk_fails(board, writer, monkeypatch):
    sink = Recorder(journal=writer, board=board)

    def fail(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(writer, "append", fail)
    sink.admit()
    with pytest.raises(OSError):
        sink.record(make_outcome())
    assert board.in_flight == 0
    assert writer._admitted == 0
    assert not list(board.counters.rows())

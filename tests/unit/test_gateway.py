"""Whole answers: who is asked, in what order, what the caller is told, and what is written down."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import gevent
import orjson
import pytest

from tests.unit.gateway_kit import (
    KEY,
    PROMPT,
    World,
    answer,
    fault,
    rate_limited,
)
from tokenhub.domain import Price
from tokenhub.errors import (
    AllAttemptsFailed,
    ClientClosed,
    NotFound,
    UpstreamRefused,
    VaultError,
    VaultLocked,
)
from tokenhub.providers.base import Answer

Make = Callable[..., World]


def no_retry_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenhub.gateway.course.RETRY_SECS", 0.0)


def test_an_answered_request_leaves_one_complete_row(make_world):
    world = make_world(a=[answer()])
    found = world.serve(model="a")
    row = world.row
    assert row.pop("latency_ms") >= 0
    assert 0 <= row.pop("overhead_us") < 1_000_000
    assert row.pop("started_at") > 1_600_000_000_000
    decision = orjson.loads(row.pop("decision"))
    assert row == {
        "request_id": "req_1", "api_key_id": "key_1", "endpoint": "/v1/chat/completions",
        "mode": "normal", "stream": False, "ending": "answered", "status_code": 200,
        "error_class": "", "requested_model": "a", "alias_from": "", "model_id": "a",
        "provider_id": "p-a", "reason": "routed-hint-exact", "snapshot_version": 3,
        "input_tokens": 10, "output_tokens": 5, "cache_read_tokens": 0, "cache_write_tokens": 0,
        "reasoning_tokens": 0, "usage_is_estimate": False, "cost_nanousd": 20,
        "price_version": 7, "ttft_ms": None, "estimated_input_tokens": PROMPT,
        "response_bytes": len(found.body), "attempt_count": 1, "client_ip": "10.0.0.9",
        "client_request_id": "theirs", "skips": "{}", "team_id": "", "latency_budget_ms": 0,
        "trace_id": "",
    }  # fmt: skip
    assert decision == {
        "candidates": [["a", "p-a", 0.0, 1.0, 1036]], "candidate_count": 1,
        "policy": {"mode": "normal", "max_budget_nanousd": 0, "max_latency_ms": 0},
    }  # fmt: skip
    assert world.failures == {"a": 0}


def test_failover_answers_from_the_next_model_and_keeps_the_first_error(make_world):
    world = make_world(a=[fault("server_error", status=500)], b=[answer()])
    world.serve()
    assert [(each["model_id"], each["status"], each["error_class"]) for each in world.attempts] == [
        ("a", 500, "server_error"),
        ("b", 200, ""),
    ]
    row = world.row
    assert (row["ending"], row["model_id"], row["attempt_count"]) == ("rescued", "b", 2)
    assert row["reason"] == "routed-weight-19"
    assert world.failures == {"a": 1, "b": 0}


def test_a_failed_attempt_costs_nothing_and_the_answer_costs_what_it_costs(make_world):
    world = make_world(a=[fault()], b=[answer(100, 50)])
    world.serve()
    assert [each["cost_nanousd"] for each in world.attempts] == [0, 200]
    assert (world.row["cost_nanousd"], world.row["price_version"]) == (200, 7)


def test_a_failed_attempt_that_the_provider_may_charge_for_costs_its_input(make_world):
    world = make_world(a=[fault("answer_cut", sent=True)], b=[answer(100, 50)])
    world.serve()
    assert [each["cost_nanousd"] for each in world.attempts] == [PROMPT, 200]
    assert [each["usage_is_estimate"] for each in world.attempts] == [True, False]
    assert world.row["cost_nanousd"] == PROMPT + 200


def test_an_unknown_price_gives_an_unknown_cost_and_never_a_free_one(make_world):
    world = make_world(a=[fault()], b=[answer()])
    world.models["b"] = replace(world.models["b"], price=Price())
    world.serve()
    assert world.row["cost_nanousd"] is None


def test_an_answer_without_usage_is_billed_by_an_estimate(make_world):
    world = make_world(a=[Answer(b"x" * 40, {}, None, 1)])
    world.serve()
    row = world.row
    assert (row["input_tokens"], row["output_tokens"], row["usage_is_estimate"]) == (
        PROMPT, 10, True,
    )  # fmt: skip


def test_the_providers_verdict_on_the_caller_is_relayed_and_nobody_else_is_asked(make_world):
    body = b'{"error":{"message":"no such tool"}}'
    stop = fault("client_error", next_step="stop", status=422, body=body)
    world = make_world(a=[stop], b=[answer()])
    with pytest.raises(UpstreamRefused) as refused:
        world.serve()
    assert (refused.value.status, refused.value.body) == (422, body)
    assert world.adapter.asked == ["a"]
    row = world.row
    assert (row["ending"], row["status_code"], row["cost_nanousd"]) == ("refused", 422, 0)
    assert world.attempts[0]["error_class"] == "client_error"
    assert world.failures == {}


@pytest.mark.parametrize("error_class", ["client_error", "context_overflow"])
def test_a_relayed_verdict_that_quotes_the_providers_key_is_withheld(make_world, error_class):
    step = "stop" if error_class == "client_error" else "failover"
    body = b'{"error":{"message":"bad key ' + KEY.encode() + b'"}}'
    world = make_world(a=[fault(error_class, next_step=step, status=400, body=body)])
    with pytest.raises(UpstreamRefused) as refused:
        world.serve()
    assert refused.value.body == b""


def test_a_request_too_long_for_every_model_is_refused_and_held_against_none(make_world):
    error = fault("context_overflow", status=400, body=b"{}")
    world = make_world(a=[error], b=[error])
    with pytest.raises(UpstreamRefused):
        world.serve()
    assert world.adapter.asked == ["a", "b"]
    assert world.row["ending"] == "refused"
    assert world.failures == {}


def test_when_all_are_rate_limited_the_caller_is_told_the_shortest_wait(make_world):
    world = make_world(a=[rate_limited(30)], b=[rate_limited(7.2)])
    with pytest.raises(AllAttemptsFailed) as failed:
        world.serve()
    assert (failed.value.status, failed.value.code) == (429, "rate_limited")
    assert failed.value.headers == {"Retry-After": "8", "X-TokenHub-Attempts": "2"}
    assert world.row["ending"] == "failed"
    cooling = world.board.vitals.view().cooling
    assert 29 < cooling["a"] <= 30
    assert 7 < cooling["b"] <= 7.2


@pytest.mark.parametrize(("waits", "told"), [((None, None), None), ((9.0, 2.1), "3")])
def test_when_all_are_overloaded_the_caller_is_told_so(make_world, waits, told):
    errors = [fault("overloaded", status=529, retry_after_seconds=wait) for wait in waits]
    world = make_world(a=[errors[0]] * 3, b=[errors[1]] * 3)
    with pytest.raises(AllAttemptsFailed) as failed:
        world.serve()
    assert (failed.value.status, failed.value.code) == (503, "overloaded")
    assert failed.value.headers.get("Retry-After") == told


def test_a_rate_limit_without_a_wait_rests_the_model_for_a_moment(make_world):
    world = make_world(a=[rate_limited()], b=[answer()])
    world.serve()
    assert 4 < world.board.vitals.view().cooling["a"] <= 5


@pytest.mark.parametrize(
    "error_class", ["first_byte_timeout", "answer_idle", "total_deadline", "timeout"]
)
def test_when_all_were_too_slow_the_caller_is_told_504(make_world, error_class):
    world = make_world(a=[fault(error_class)], b=[fault("total_deadline")])
    with pytest.raises(AllAttemptsFailed) as failed:
        world.serve()
    assert (failed.value.status, failed.value.type) == (504, "timeout_error")
    assert world.row["status_code"] == 504
    assert world.adapter.asked == ["a", "b"]  # and not once more


def test_when_they_failed_for_several_reasons_the_caller_is_told_502_in_our_words(make_world):
    secret = b"the provider's own words"
    world = make_world(
        a=[rate_limited()], b=[fault("auth_failed", next_step="cooldown", body=secret)]
    )
    with pytest.raises(AllAttemptsFailed) as failed:
        world.serve()
    assert failed.value.status == 502
    assert "own words" not in failed.value.message
    assert world.row["error_class"] == "all_attempts_failed"


def test_five_attempts_are_the_most(make_world):
    world = make_world(**{name: [fault()] for name in "abcdefg"})
    with pytest.raises(AllAttemptsFailed):
        world.serve()
    assert world.adapter.asked == list("abcde")
    assert world.row["attempt_count"] == 5


def test_a_passing_failure_is_retried_twice_when_nobody_else_is_left(make_world):
    world = make_world(a=[fault(), fault("overloaded"), fault(), answer()])
    began = time.monotonic()
    with pytest.raises(AllAttemptsFailed):
        world.serve()
    assert 0.14 <= time.monotonic() - began < 2.0
    assert world.adapter.asked == ["a"] * 3


def test_a_retry_that_is_answered_rescues_the_request(make_world, monkeypatch):
    no_retry_sleep(monkeypatch)
    world = make_world(a=[fault("connection_closed"), answer()], b=[rate_limited()])
    world.serve()
    assert world.adapter.asked == ["a", "b", "a"]
    assert (world.row["ending"], world.row["model_id"]) == ("rescued", "a")
    assert world.row["reason"] == "retried-transient"


@pytest.mark.parametrize(
    "latest", [rate_limited(60), fault("server_error", retry_after_seconds=30.0)]
)
def test_a_model_that_asked_us_to_wait_is_not_retried(make_world, monkeypatch, latest):
    no_retry_sleep(monkeypatch)
    world = make_world(a=[fault(), latest, answer()])
    with pytest.raises(AllAttemptsFailed):
        world.serve()
    assert world.adapter.asked == ["a", "a"]


def test_the_named_model_is_asked_first_and_the_others_follow(make_world):
    world = make_world(a=[answer()], b=[answer()], c=[fault()])
    world.serve(model="c")
    assert world.adapter.asked == ["c", "a"]


def test_a_name_nobody_knows_is_refused_before_anybody_is_asked(make_world):
    world = make_world(a=[answer()])
    with pytest.raises(NotFound):
        world.serve(model="nobody")
    row = world.row
    assert (row["ending"], row["status_code"], row["error_class"], row["requested_model"]) == (
        "refused", 404, "model_not_found", "nobody",
    )  # fmt: skip
    assert world.attempts == []


def test_a_resting_model_is_asked_only_when_all_others_failed(make_world):
    world = make_world(a=[answer()], b=[rate_limited()])
    world.board.vitals.fail(
        "a", "p-a", "rate_limited", 0, cooldown_seconds=60, is_provider_wide=False
    )
    world.serve()
    assert world.adapter.asked == ["b", "a"]
    row = world.row
    assert (row["reason"], row["skips"]) == ("last-resort-fallback", '{"a":"cooldown"}')


def test_the_last_resort_is_the_cheapest_first_and_unknown_prices_last(make_world):
    world = make_world(a=[fault("timeout")], b=[fault("timeout")], c=[fault("timeout")])
    world.models["a"] = replace(world.models["a"], price=Price())
    world.models["b"] = replace(world.models["b"], price=Price(2_000_000, 3_000_000))
    for name in "abc":
        world.board.vitals.fail(
            name, f"p-{name}", "rate_limited", 0, cooldown_seconds=60, is_provider_wide=False
        )
    with pytest.raises(AllAttemptsFailed):
        world.serve()
    assert world.adapter.asked == ["c", "b", "a"]


def test_a_locked_vault_is_told_when_nobody_could_be_asked(make_world):
    world = make_world(a=[answer()])
    world.locked["p-a"] = VaultLocked("the vault is locked")
    with pytest.raises(VaultLocked):
        world.serve()
    row = world.row
    assert (row["ending"], row["status_code"], row["error_class"], row["attempt_count"]) == (
        "failed", 503, "vault_locked", 0,
    )  # fmt: skip
    assert world.failures == {}


@pytest.mark.parametrize("error", [VaultLocked("locked"), VaultError("it does not open")])
def test_a_secret_that_cannot_be_read_leaves_the_other_models(make_world, error):
    world = make_world(a=[answer()], b=[answer()])
    world.locked["p-a"] = error
    world.serve()
    assert (world.row["ending"], world.row["model_id"]) == ("answered", "b")


def test_a_bug_of_ours_is_recorded_as_one_and_is_on_nobodys_bill(make_world):
    world = make_world(a=[ZeroDivisionError()], b=[answer()])
    with pytest.raises(ZeroDivisionError):
        world.serve()
    row = world.row
    assert (row["ending"], row["status_code"], row["error_class"], row["cost_nanousd"]) == (
        "failed", 500, "internal_error", 0,
    )  # fmt: skip
    assert world.attempts[0]["error_class"] == "internal_error"
    assert world.failures == {}


@pytest.mark.parametrize(
    ("leaving", "ending"),
    [(ClientClosed(), "client_closed"), (gevent.GreenletExit(), "interrupted")],
)
def test_a_request_that_is_broken_off_is_billed_for_what_was_asked(make_world, leaving, ending):
    world = make_world(a=[fault()], b=[leaving])
    with pytest.raises(type(leaving)):
        world.serve()
    row = world.row
    assert (row["ending"], row["status_code"]) == (ending, 499)
    assert (row["input_tokens"], row["cost_nanousd"], row["usage_is_estimate"]) == (
        PROMPT, PROMPT, True,
    )  # fmt: skip
    assert [(each["status"], each["error_class"]) for each in world.attempts] == [
        (None, "server_error"),
        (None, "client_closed"),
    ]
    assert world.failures == {"a": 1}


def test_a_caller_that_leaves_between_two_attempts_is_not_billed(make_world, monkeypatch):
    world = make_world(a=[fault()])

    def leave(_: float) -> None:
        raise ClientClosed

    monkeypatch.setattr(gevent, "sleep", leave)
    with pytest.raises(ClientClosed):
        world.serve()
    assert (world.row["ending"], world.row["cost_nanousd"]) == ("client_closed", 0)


def test_an_answer_that_cannot_be_written_down_is_not_given(make_world, monkeypatch):
    world = make_world(a=[answer()])

    def fail(*_: object) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(world.journal, "append", fail)
    with pytest.raises(OSError, match="disk"):
        world.serve()
    assert world.board.in_flight == 0
    assert world.journal._admitted == 0


def test_settling_twice_records_once(make_world):
    world = make_world(a=[answer()])
    world.serve()
    world.exchange.settle()
    assert world.row["ending"] == "answered"


def test_a_decision_that_cannot_be_made_is_recorded_with_its_reason(make_world):
    world = make_world(a=[answer()])
    world.models["a"] = replace(world.models["a"], max_context_tokens=5)
    with pytest.raises(Exception, match="no model can serve"):
        world.serve()
    row = world.row
    assert (row["ending"], row["status_code"], row["error_class"]) == (
        "failed", 503, "no_eligible_model",
    )  # fmt: skip

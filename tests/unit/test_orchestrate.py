"""Plans and refinements: who is asked what, what comes of it, what is left when a phase fails."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.orchestrate_kit import (
    AGE,
    BODY,
    COST,
    HISTORY,
    SYSTEM,
    Models,
    by_phase,
    is_review,
    last,
)
from tokenhub.domain import Policy
from tokenhub.errors import (
    AllAttemptsFailed,
    InvalidRequest,
    NotFound,
    SchemaUnmet,
    TokenHubError,
)
from tokenhub.orchestrate import Orchestration, read_orchestration
from tokenhub.orchestrate.prompts import read_verdict


def test_an_adversarial_plan_is_reviewed_and_written_anew():
    models = Models(by_phase)
    result, seen = models.run(
        Orchestration("adversarial", primary_model_id="a-small", review_model_id="b-large")
    )
    assert result.fields == {
        "initial_plan": "plan 1",
        "critique": "too short",
        "refined_plan": "plan 2",
    }
    assert [name for name, _, _ in models.asked] == ["a-small", "b-large", "a-small"]
    assert (result.reason, result.error, result.final.text) == (
        "adversarial-orchestration", None, "plan 2",
    )  # fmt: skip
    assert [(each.phase, each.number, each.status) for each in seen] == [
        ("plan", 1, "started"), ("plan", 1, "done"), ("critique", 1, "started"),
        ("critique", 1, "done"), ("refine", 1, "started"), ("refine", 1, "done"),
    ]  # fmt: skip
    assert "too short" in last(models.asked[2][1].body)


@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_each_round_is_a_review_and_a_new_plan(rounds):
    models = Models(by_phase)
    models.run(Orchestration("adversarial", iterations=rounds))
    assert len(models.asked) == 1 + 2 * rounds
    assert [policy.mode for _, _, policy in models.asked] == [
        "planning", *["adversarial", "planning"] * rounds,
    ]  # fmt: skip


def test_every_sub_request_keeps_what_the_caller_said():
    models = Models(by_phase)
    models.run(Orchestration("adversarial"))
    for _, request, _ in models.asked:
        messages = request.body["messages"]
        assert messages[0] == SYSTEM
        assert [each for each in messages if each in HISTORY] == HISTORY
        assert request.body["temperature"] == 0.3
        assert request.body["tools"] == BODY["tools"]
        assert not request.stream
        assert request.input_tokens > 0
    assert models.asked[1][1].body["tool_choice"] == "none"  # a review calls nothing


def test_a_plan_alone_is_one_request():
    for mode in ("adversarial", "planning"):
        models = Models(by_phase)
        result, _ = models.run(Orchestration(mode, return_plan_only=True))
        assert (result.fields, len(models.asked)) == ({"initial_plan": "plan 1"}, 1)


def test_planning_is_the_request_itself_with_whoever_is_named():
    models = Models(by_phase)
    result, _ = models.run(Orchestration("planning", primary_model_id="b-large"))
    assert (result.fields, result.final.model_id) == ({}, "b-large")
    assert models.asked[0][1].body == BODY


def test_a_failed_phase_leaves_what_there_was():
    def says(model: str, body: dict[str, Any]) -> str:
        if is_review(body):
            raise AllAttemptsFailed("nobody")
        return "plan 1"

    result, seen = Models(says).run(Orchestration("adversarial", iterations=3))
    assert result.fields == {"initial_plan": "plan 1", "critique": "", "refined_plan": ""}
    assert isinstance(result.error, AllAttemptsFailed)
    assert seen[-1].status == "failed"


def test_without_any_answer_the_failure_is_the_answer():
    def says(model: str, body: dict[str, Any]) -> str:
        raise AllAttemptsFailed("nobody")

    for mode in ("planning", "adversarial", "refine", "vote"):
        with pytest.raises(AllAttemptsFailed):
            Models(says).run(Orchestration(mode))


def test_an_unknown_reviewer_is_told_before_anything_is_paid():
    models = Models(by_phase)
    with pytest.raises(NotFound):
        models.run(Orchestration("adversarial", review_model_id="nobody"))
    assert models.asked == []


def test_refine_asks_the_same_model_again_and_counts_what_was_done():
    numbers = itertools.count(1)
    models = Models(lambda model, body: f"answer {next(numbers)}")
    result, _ = models.run(Orchestration("refine", iterations=3))
    assert {name for name, _, _ in models.asked} == {"a-large"}
    assert result.fields == {
        "refined_response": "answer 4", "iterations": 3, "model": "a-large",
    }  # fmt: skip


def test_refine_stops_at_a_failure_with_the_best_so_far():
    numbers = itertools.count(1)

    def says(model: str, body: dict[str, Any]) -> str:
        number = next(numbers)
        if number == 3:
            raise AllAttemptsFailed("nobody")
        return f"answer {number}"

    result, _ = Models(says).run(Orchestration("refine", iterations=5))
    assert (result.fields["refined_response"], result.fields["iterations"]) == ("answer 2", 1)
    assert result.error is not None


def test_an_answer_that_asks_for_tools_is_handed_out_at_once():
    call = {"id": "1", "type": "function", "function": {"name": "wind", "arguments": "{}"}}
    for mode in ("adversarial", "refine"):
        models = Models(lambda *_: {"role": "assistant", "content": None, "tool_calls": [call]})
        result, _ = models.run(Orchestration(mode))
        assert len(models.asked) == 1
        assert result.final.asks_for_tools


def test_a_budget_is_that_of_all_phases():
    models = Models(by_phase)
    policy = Policy(max_budget_nanousd=2 * COST, budget_is_hard=True)
    result, _ = models.run(Orchestration("adversarial", iterations=4), policy)
    assert len(models.asked) == 2
    assert isinstance(result.error, TokenHubError)
    assert [each.max_budget_nanousd for _, _, each in models.asked] == [2 * COST, COST]


@pytest.mark.parametrize("mode", ["planning", "adversarial", "refine"])
def test_an_answer_that_does_not_keep_to_its_schema_is_asked_for_again(mode):
    def says(model: str, body: dict[str, Any]) -> str:
        if is_review(body):
            assert "response_format" not in body
            return "fine"
        return 'So: {"age": 3}' if "does not keep" in last(body) else '{"name": 1}'

    models = Models(says)
    orchestration = Orchestration(mode, iterations=1, return_plan_only=mode == "planning")
    result, seen = models.run(orchestration, schema=AGE)
    assert result.final.text == '{"age": 3}'
    assert '{"age": 3}' in result.fields.values()
    assert (seen[-1].phase, seen[-1].status) == ("repair", "done")


def test_an_answer_that_never_keeps_to_its_schema_is_none():
    with pytest.raises(SchemaUnmet):
        Models(lambda *_: "no").run(Orchestration("refine"), schema=AGE)


FIELDS: dict[str, Any] = {
    "mode": "vote", "iterations": 4, "primary_min_weight": 1, "review_min_weight": 2,
    "primary_model_id": "a", "review_model_id": "b", "return_plan_only": True,
    "quorum": 2, "quorum_wait_ms": 100,
}  # fmt: skip


def test_every_field_is_read():
    assert read_orchestration({**FIELDS, "output_schema": "{}"}) == Orchestration(**FIELDS)
    assert read_orchestration(None) == read_orchestration({"mode": ""}) == Orchestration()


@pytest.mark.parametrize(
    "value",
    [
        [], "vote", {"mode": "VOTE"}, {"mode": 1}, {"iterations": 11}, {"iterations": -1},
        {"iterations": True}, {"iterations": 1.5}, {"iterations": "2"}, {"rounds": 2},
        {"primary_min_weight": 11}, {"return_plan_only": 1}, {"review_model_id": 1},
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(value):
    with pytest.raises(InvalidRequest) as refused:
        read_orchestration(value)
    assert (refused.value.param or "").startswith("orchestration")


@given(st.text() | st.from_regex(r"\s*\{.*\}\s*", fullmatch=True), st.integers(1, 9))
def test_any_verdict_is_a_number_of_an_answer_or_none(text, answers):
    found = read_verdict(text, answers)
    assert found is None or 0 <= found < answers

"""Votes: who is asked, who judges, and what counts."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import gevent
import pytest

from tests.unit.orchestrate_kit import (
    AGE,
    COST,
    POOL,
    SYSTEM,
    Models,
    is_judging,
)
from tokenhub.domain import Policy
from tokenhub.errors import (
    AllAttemptsFailed,
    SchemaUnmet,
)
from tokenhub.orchestrate import Orchestration


def vote_for(choice: object) -> Callable[[str, dict[str, Any]], str]:
    def says(model: str, body: dict[str, Any]) -> str:
        return f'{{"choice": {choice}, "reason": "so"}}' if is_judging(body) else f"by {model}"

    return says


def test_voters_are_of_different_providers_and_the_judge_is_none_of_them():
    models = Models(vote_for(1))
    result, _ = models.run(Orchestration("vote"))
    *voters, judge = [name for name, _, _ in models.asked]
    assert sorted(voters) == ["a-large", "b-large", "c-large"]
    assert judge == "a-small"
    # The order was turned around before the judge saw it: its first is our last.
    assert result.fields["selected"] == 2
    assert result.fields["judge"] == "a-small"
    assert [each["selected"] for each in result.fields["responses"]] == [False, False, True]
    assert result.final.text == result.fields["responses"][2]["content"]


def test_the_judge_sees_no_names_and_needs_no_tools():
    models = Models(vote_for(2))
    models.run(Orchestration("vote"))
    _, request, policy = models.asked[-1]
    text = "".join(each["content"] for each in request.body["messages"]).replace("by ", "")
    said = [f"by {name}" for name, _, _ in POOL]
    assert len(re.findall("<answer number=", text)) == 3
    assert not any(provider in text for _, provider, _ in POOL)
    assert "How do I sail" in text
    assert SYSTEM["content"] in text
    assert "tools" not in request.body
    assert "tools" not in request.needs
    assert policy.mode == "high_confidence"
    assert said


@pytest.mark.parametrize("said", ["9", "0", '"1"', "true", "1.5", "[1]", "{"])
def test_a_judge_that_cannot_be_understood_is_not_asked_again(said):
    models = Models(vote_for(said))
    result, _ = models.run(Orchestration("vote"))
    assert (result.fields["selected"], result.fields["judge"]) == (0, "")
    assert result.final.model_id == "a-large"
    assert len(models.asked) == 4


def test_a_named_judge_does_not_vote():
    models = Models(vote_for(1))
    result, _ = models.run(Orchestration("vote", iterations=4, review_model_id="a-large"))
    assert [name for name, _, _ in models.asked].count("a-large") == 1
    assert result.fields["judge"] == "a-large"


def test_one_answer_needs_no_judge():
    models = Models(vote_for(1), POOL[:1])
    result, _ = models.run(Orchestration("vote", iterations=5))
    assert (result.reason, len(models.asked)) == ("vote-single-response", 1)
    assert result.fields["selected"] == 0


def test_who_fails_is_told():
    def says(model: str, body: dict[str, Any]) -> str:
        if model == "b-large":
            raise AllAttemptsFailed("nobody")
        return vote_for(1)(model, body)

    result, _ = Models(says).run(Orchestration("vote"))
    assert result.fields["failures"] == [{"model": "b-large", "error": AllAttemptsFailed.code}]
    assert len(result.fields["responses"]) == 2


def test_who_is_too_slow_is_left_once_there_is_a_quorum():
    def says(model: str, body: dict[str, Any]) -> str:
        if model == "c-large" and not is_judging(body):
            gevent.sleep(30)
        return vote_for(1)(model, body)

    with gevent.Timeout(5):
        result, _ = Models(says).run(Orchestration("vote", quorum=2, quorum_wait_ms=20))
    assert result.fields["failures"] == [{"model": "c-large", "error": "too_late"}]


def test_voting_stops_where_the_budget_does():
    models = Models(vote_for(1))
    policy = Policy(max_budget_nanousd=2 * COST + 1, budget_is_hard=True)
    result, _ = models.run(Orchestration("vote"), policy)
    assert [name for name, _, _ in models.asked] == ["a-large", "b-large"]
    assert (result.fields["selected"], result.fields["judge"]) == (0, "")


def test_votes_that_do_not_keep_to_the_schema_do_not_count():
    def says(model: str, body: dict[str, Any]) -> str:
        if "verdict" in str(body.get("response_format")):
            return '{"choice": 1, "reason": ""}'
        return "no" if model == "a-large" else '{"age": 3}'

    result, _ = Models(says).run(Orchestration("vote"), schema=AGE)
    assert result.fields["failures"] == [{"model": "a-large", "error": SchemaUnmet.code}]
    assert result.final.text == '{"age": 3}'

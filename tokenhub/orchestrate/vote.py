"""Several models answer, and another one says whose answer is best (reference §15.3).

Voters are asked in parallel, each of another provider where there are as many. Once more than half
(or as many as the caller wants) have answered, the others get a moment longer and are then left.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import gevent
from gevent.queue import Empty, SimpleQueue

from tokenhub.domain import Candidate, ChatRequest
from tokenhub.errors import NoEligibleModel, TokenHubError
from tokenhub.gateway import NotNeeded
from tokenhub.orchestrate import prompts
from tokenhub.orchestrate.answers import Answered, Progress, Result
from tokenhub.orchestrate.calls import Calls, Whom
from tokenhub.orchestrate.orchestration import Orchestration
from tokenhub.structured import Schema, mend, unmet

ALONE = "vote-single-response"
VOTED = "vote-orchestration"


@dataclass
class _Ballot:
    """One voter: its model, and what it came to; neither when it was too late."""

    model_id: str
    number: int
    answered: Answered | None = None
    error: TokenHubError | None = None


def vote(calls: Calls) -> Generator[Progress, None, Result]:
    """Ask voters, then a judge; with one answer there is nothing to judge.

    Raises:
        NoEligibleModel: nobody may vote.
        TokenHubError: every voter failed; the best one's failure.
    """
    whom = Whom("normal", "", calls.orchestration.primary_min_weight)
    reviewer = calls.orchestration.review_model_id
    whom = whom._replace(exclude=frozenset({reviewer} if reviewer else ()))
    request = prompts.whole(calls.request)
    ballots = yield from _poll(calls, request, _choose(calls, request, whom))
    if calls.schema is not None:
        _turn_down(ballots, calls.schema)
    answers = [each.answered for each in ballots if each.answered is not None]
    if not answers:
        errors = (each.error for each in ballots if each.error is not None)
        raise next(errors, NoEligibleModel("no voter has answered"))
    chosen, judge, reason = 0, "", ALONE
    if len(answers) > 1:
        chosen, judge = yield from _judge(calls, answers)
        reason = VOTED
    fields = _fields(ballots, chosen, judge)
    return Result(answers[chosen], reason, fields, (fields["responses"][chosen], "content"))


def _choose(calls: Calls, request: ChatRequest, whom: Whom) -> list[str]:
    """The models that vote, the best first: one of each provider, then the second ones, as far as
    the budget goes."""
    decision = calls.decide(prompts.named(request, ""), calls.policy_for(whom))
    by_provider: dict[str, list[Candidate]] = {}
    for candidate in decision.candidates:
        by_provider.setdefault(candidate.model.provider_id, []).append(candidate)
    order = [each for turn in zip_longest(*by_provider.values()) for each in turn if each]
    if not order:
        raise NoEligibleModel("no eligible models for vote")
    budget_nanousd, spent_nanousd = calls.hard_budget_nanousd, 0
    chosen: list[str] = []
    for candidate in order:
        spent_nanousd += candidate.cost_nanousd or 0
        is_too_much = budget_nanousd is not None and spent_nanousd > budget_nanousd
        if len(chosen) == calls.orchestration.voters or (chosen and is_too_much):
            break
        chosen.append(candidate.model.id)
    return chosen


def _poll(
    calls: Calls, request: ChatRequest, voters: Sequence[str]
) -> Generator[Progress, None, list[_Ballot]]:
    """Have all of them answer at once; what came to nothing is told by its ballot."""
    ballots = [_Ballot(model_id, calls.begin("vote")) for model_id in voters]
    for ballot in ballots:
        yield Progress("vote", ballot.number, "started", ballot.model_id)
    filled: SimpleQueue[_Ballot] = SimpleQueue()

    def fill(ballot: _Ballot) -> None:
        try:
            ballot.answered = calls.call(request, Whom("normal", ballot.model_id, is_only=True))
        except TokenHubError as error:
            ballot.error = error
        finally:
            filled.put(ballot)

    greenlets = [gevent.spawn(fill, ballot) for ballot in ballots]
    try:
        yield from _count(calls.orchestration, filled, len(ballots))
    finally:  # whoever is late, or all of them when the caller has gone
        gevent.killall(greenlets, exception=NotNeeded)
    for greenlet in greenlets:
        if greenlet.exception is not None:  # a fault of ours
            raise greenlet.exception
    return ballots


def _count(
    asked: Orchestration, filled: SimpleQueue[_Ballot], voters: int
) -> Generator[Progress, None, None]:
    """Take what comes, until there is enough and the others have had their moment."""
    quorum = min(asked.quorum or voters // 2 + 1, voters)
    answers, deadline = 0, None
    for _ in range(voters):
        try:
            ballot = filled.get(timeout=deadline and max(0.0, deadline - time.monotonic()))
        except Empty:
            return
        if ballot.answered is None:
            yield Progress("vote", ballot.number, "failed", ballot.model_id, error=ballot.error)
            continue
        yield Progress("vote", ballot.number, "done", ballot.model_id, ballot.answered)
        answers += 1
        if answers == quorum:
            deadline = time.monotonic() + asked.quorum_wait_ms / 1000


def _turn_down(ballots: Sequence[_Ballot], schema: Schema) -> None:
    """Of the answers only those count that keep to the schema, if there are any."""
    found = [(each, mend(each.answered.text, schema)[1]) for each in ballots if each.answered]
    if all(errors for _, errors in found):
        return
    for ballot, errors in found:
        if errors:
            ballot.answered, ballot.error = None, unmet(errors)


def _judge(calls: Calls, answers: Sequence[Answered]) -> Generator[Progress, None, tuple[int, str]]:
    """Which answer is best, and who said so: the first one and "" when the judge fails or cannot
    be understood. The answers come in an order that says nothing of who gave them."""
    order = list(range(len(answers)))
    calls.shuffle(order)
    request = prompts.judged(calls.request, [answers[each].text for each in order])
    whom = calls.reviewer("high_confidence")
    if not whom.model:
        whom = _someone_else(calls, request, whom, [each.model_id for each in answers])
    try:
        verdict = yield from calls.ask("judge", request, whom)
    except TokenHubError:
        return 0, ""
    chosen = prompts.read_verdict(verdict.text, len(answers))
    return (0, "") if chosen is None else (order[chosen], verdict.model_id)


def _someone_else(calls: Calls, request: ChatRequest, whom: Whom, voters: Sequence[str]) -> Whom:
    """A judge that has not voted, if there is one."""
    others = whom._replace(exclude=whom.exclude | frozenset(voters))
    try:
        decision = calls.decide(prompts.named(request, ""), calls.policy_for(others))
    except TokenHubError:
        return whom
    return others if decision.candidates else whom


def _fields(ballots: Sequence[_Ballot], chosen: int, judge: str) -> dict[str, Any]:
    """What the caller is told: every answer, and who gave none for what reason."""
    fields: dict[str, Any] = {"responses": [], "selected": chosen, "judge": judge}
    failures = []
    for ballot in ballots:
        if ballot.answered is None:
            code = "too_late" if ballot.error is None else ballot.error.code
            failures.append({"model": ballot.model_id, "error": code})
            continue
        is_chosen = len(fields["responses"]) == chosen
        content = ballot.answered.text
        answer = {"model": ballot.model_id, "content": content, "selected": is_chosen}
        fields["responses"].append(answer)
    return {**fields, "failures": failures} if failures else fields

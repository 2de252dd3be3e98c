"""The modes of an orchestration, one function each; see reference §15.

A phase that fails does not take away what the earlier ones have paid for: their answer is the
result, and says what failed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any

from tokenhub.errors import NotFound, PermissionDenied, TokenHubError
from tokenhub.orchestrate import prompts
from tokenhub.orchestrate.answers import Answered, Progress, Result
from tokenhub.orchestrate.calls import Calls, Whom
from tokenhub.orchestrate.orchestration import Mode
from tokenhub.orchestrate.vote import vote
from tokenhub.structured import Schema, mend, repair, unmet

Outcome = Generator[Progress, None, Result]

PLAN_ONLY = "adversarial-plan-only"


def run(calls: Calls) -> Outcome:
    """Do what is asked, step by step; the generator's value is the result.

    Raises:
        TokenHubError: no phase came to anything.
    """
    _check_names(calls)
    result = yield from _MODES[calls.orchestration.mode](calls)
    if calls.schema is None or result.final.asks_for_tools:
        return result
    return (yield from _keep(calls, result, calls.schema))


def _keep(calls: Calls, result: Result, schema: Schema) -> Outcome:
    """Have the final text keep to the schema.

    Raises:
        SchemaUnmet: it does not, however often its model was asked again.
    """
    final = result.final
    for left in range(calls.repairs, -1, -1):
        text, errors = mend(final.text, schema)
        if not errors:
            return result.with_final(final._replace(text=text))
        if left:
            request = repair(prompts.whole(calls.request), final.text, errors)
            final = yield from calls.ask("repair", request, Whom(model=final.model_id))
    raise unmet(errors)


def _check_names(calls: Calls) -> None:
    """Whoever names a model wants to hear now that there is none, not after the first phases.

    Raises:
        NotFound, PermissionDenied: there is no such model, or not for this caller.
    """
    for name in (calls.orchestration.primary_model_id, calls.orchestration.review_model_id):
        if name:
            try:
                calls.decide(prompts.named(calls.request, name), calls.policy_for(Whom(model=name)))
            except (NotFound, PermissionDenied):
                raise
            except TokenHubError:
                continue  # it may not be had now: that is for its phase to find out


def _plan(calls: Calls) -> Outcome:
    """One request to whoever plans best; for the plan alone, if that is asked for."""
    is_plan_only = calls.orchestration.return_plan_only
    request = prompts.planned(calls.request) if is_plan_only else prompts.whole(calls.request)
    answered = yield from calls.ask("plan", request, calls.primary("planning"))
    if not is_plan_only:
        return Result(answered, "planning-orchestration")
    return _only_plan(answered, "planning-orchestration")


def _adversarial(calls: Calls) -> Outcome:
    """A plan, and as often as asked: a review of it, and the plan written anew."""
    first = yield from calls.ask("plan", prompts.planned(calls.request), calls.primary("planning"))
    if calls.orchestration.return_plan_only or first.asks_for_tools:
        return _only_plan(first, PLAN_ONLY)
    critique, refined = "", first
    error: TokenHubError | None = None
    for _ in range(calls.orchestration.rounds):
        try:
            request = prompts.reviewed(calls.request, refined.text)
            review = yield from calls.ask("critique", request, calls.reviewer("adversarial"))
            critique = review.text
            request = prompts.rewritten(calls.request, refined.text, critique)
            refined = yield from calls.ask("refine", request, calls.primary("planning"))
        except TokenHubError as failure:
            error = failure
            break
        if refined.asks_for_tools:
            break
    fields = {
        "initial_plan": first.text,
        "critique": critique,
        "refined_plan": refined.text if refined is not first else "",
    }
    place = fields, "initial_plan" if refined is first else "refined_plan"
    return Result(refined, "adversarial-orchestration", fields, place, error)


def _only_plan(answered: Answered, reason: str) -> Result:
    fields: dict[str, Any] = {"initial_plan": answered.text}
    return Result(answered, reason, fields, (fields, "initial_plan"))


def _refine(calls: Calls) -> Outcome:
    """An answer, improved as often as asked by the model that gave it."""
    best = yield from calls.ask(
        "answer", prompts.whole(calls.request), calls.primary("high_confidence")
    )
    error: TokenHubError | None = None
    done = 0
    while done < calls.orchestration.rounds and not best.asks_for_tools:
        whom = calls.primary("high_confidence")._replace(model=best.model_id)
        try:
            best = yield from calls.ask("refine", prompts.improved(calls.request, best.text), whom)
        except TokenHubError as failure:
            error = failure
            break
        done += 1
    fields = {"refined_response": best.text, "iterations": done, "model": best.model_id}
    return Result(best, "refine-orchestration", fields, (fields, "refined_response"), error)


_MODES: Mapping[Mode, Callable[[Calls], Outcome]] = {
    "planning": _plan,
    "adversarial": _adversarial,
    "refine": _refine,
    "vote": vote,
}

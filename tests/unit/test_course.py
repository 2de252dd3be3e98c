"""Whose turn it is: the order of a request's attempts, and what each kind of failure does to it."""

from __future__ import annotations

import random
from collections.abc import Container, Iterable

import pytest

from tests.unit.gateway_kit import fault, make_request, rate_limited
from tokenhub.domain import Candidate, Decision, Model
from tokenhub.errors import ProviderError
from tokenhub.gateway import course as course_module
from tokenhub.gateway.course import ATTEMPTS_MAX, RETRIES_MAX, Course, Step


def candidate(name: str, *, provider: str = "", context: int = 0, weight: int = 5) -> Candidate:
    model = Model(name, provider or f"p-{name}", name, weight=weight, max_context_tokens=context)
    return Candidate(model, 0.0, 0.0, 1)


def make_course(
    candidates: Iterable[Candidate],
    *,
    last_resort: Iterable[Candidate] = (),
    not_now: Container[str] = (),
    output_tokens_max: int | None = None,
) -> Course:
    decision = Decision(tuple(candidates), tuple(last_resort), {}, "routed-hint-exact", "normal", 1)
    return Course(
        decision,
        make_request(input_tokens=1000, output_tokens_max=output_tokens_max),
        admit=lambda each: each.model.id not in not_now,
        rng=random.Random(1),
    )


def take(course: Course) -> Step:
    step = course.next_step()
    assert step is not None
    return step


def names(course: Course, error: ProviderError) -> list[str]:
    """Everybody's turn when each fails in the same way."""
    found = []
    while (step := course.next_step()) is not None:
        found.append(step.candidate.model.id)
        course.fail(step, error)
    return found


def overflow(context_tokens: int | None = None, input_tokens: int | None = None) -> ProviderError:
    return fault(
        "context_overflow", status=400, context_tokens=context_tokens, input_tokens=input_tokens
    )


def test_the_first_keeps_the_decisions_reason_and_the_others_say_their_weight():
    course = make_course([candidate("a"), candidate("b", weight=7)], last_resort=[candidate("c")])
    reasons = []
    while (step := course.next_step()) is not None:
        reasons.append(step.reason)
        course.fail(step, fault("first_byte_timeout"))
    assert reasons == ["routed-hint-exact", "routed-weight-7", "last-resort-fallback"]


def test_a_recovering_candidate_waits_until_the_others_failed_and_goes_before_the_last_resort():
    course = make_course(map(candidate, "abc"), last_resort=[candidate("z")], not_now={"a", "c"})
    assert names(course, fault("first_byte_timeout")) == ["b", "a", "c", "z"]


def test_what_stops_a_whole_provider_puts_its_other_models_behind_those_of_others():
    theirs = [candidate("a1", provider="a"), candidate("a2", provider="a")]
    course = make_course([*theirs, candidate("b"), candidate("c")])
    assert names(course, fault("auth_failed", next_step="cooldown")) == ["a1", "b", "c", "a2"]
    course = make_course([*theirs, candidate("b")])
    assert names(course, rate_limited()) == ["a1", "b", "a2"]
    course = make_course([*theirs, candidate("b")])
    assert names(course, fault("model_not_found")) == ["a1", "a2", "b"]


def test_a_timeout_is_never_retried_on_the_same_model():
    assert names(make_course([candidate("a")]), fault("first_byte_timeout")) == ["a"]


def test_a_passing_failure_is_retried_after_a_growing_pause_with_jitter():
    course = make_course([candidate("a")])
    pauses = []
    while (step := course.next_step()) is not None:
        pauses.append(step.pause_secs)
        assert step.reason == ("retried-transient" if step.pause_secs else "routed-hint-exact")
        course.fail(step, fault("server_error"))
    assert len(pauses) == 1 + RETRIES_MAX
    base = course_module.RETRY_SECS
    assert pauses[0] == 0
    assert 0.5 * base <= pauses[1] <= 1.5 * base
    assert 1.0 * base <= pauses[2] <= 3.0 * base


def test_all_kinds_of_turns_share_one_budget():
    assert len(names(make_course(map(candidate, "abcdefgh")), fault())) == ATTEMPTS_MAX
    course = make_course(map(candidate, "abc"))
    step = take(course)
    for _ in range(3):
        course.fail_at_endpoint(Step(step.candidate, step.reason, urls=("x", "y")), fault())
        step = take(course)
    course.fail(step, fault())
    assert names(course, fault()) == ["b"]


def test_a_request_too_long_by_its_answer_is_asked_again_with_a_shorter_one():
    course = make_course([candidate("a", context=4096)], output_tokens_max=4000)
    step = take(course)
    course.fail(step, overflow())
    again = take(course)
    assert again.candidate.model.id == "a"
    assert again.reason == "reduced-max-tokens"
    assert again.output_tokens_max == 4096 - 1000 - 256
    course.fail(again, overflow())  # once is enough
    assert course.next_step() is None


def test_the_providers_own_count_is_believed_before_our_estimate():
    course = make_course([candidate("a", context=9999)], output_tokens_max=4000)
    course.fail(take(course), overflow(context_tokens=4096, input_tokens=3000))
    assert take(course).output_tokens_max == 1096


@pytest.mark.parametrize(
    ("context", "limit", "error"),
    [
        (0, 4000, overflow()),  # nobody knows the context
        (1300, 4000, overflow()),  # too little would be left
        (4096, 1000, overflow()),  # it should have fitted: our numbers are wrong
        (4096, 4000, overflow(4096, 5000)),  # the input alone is too long
    ],
)
def test_a_shorter_answer_is_not_tried_where_it_cannot_help(context, limit, error):
    course = make_course([candidate("a", context=context)], output_tokens_max=limit)
    course.fail(take(course), error)
    assert course.next_step() is None


def test_a_model_that_says_how_much_it_can_write_is_asked_for_that_much():
    course = make_course([candidate("a", context=200_000)], output_tokens_max=128_000)
    course.fail(take(course), fault("context_overflow", status=400, output_tokens_max=64_000))
    assert take(course).output_tokens_max == 64_000


def test_a_request_too_long_goes_to_the_next_larger_context_and_never_to_a_smaller_one():
    course = make_course(
        [candidate("a", context=8000), candidate("small", context=4000),
         candidate("huge", context=64_000), candidate("unknown"),
         candidate("large", context=16_000)],
        last_resort=[candidate("spare", context=32_000)],
    )  # fmt: skip
    course.fail(take(course), overflow(8000, 9000))
    step = take(course)
    assert (step.candidate.model.id, step.reason) == ("large", "escalated-context-overflow")
    course.fail(step, fault("first_byte_timeout"))
    assert names(course, fault("first_byte_timeout")) == ["spare", "huge", "unknown"]


def test_an_endpoint_that_failed_is_followed_by_the_providers_next_one():
    course = make_course([candidate("a"), candidate("b")])
    step = take(course)
    course.fail_at_endpoint(
        Step(step.candidate, step.reason, urls=("http://one", "http://two")), fault("unreachable")
    )
    again = take(course)
    assert again.candidate.model.id == "a"
    assert again.urls == ("http://two",)
    assert again.reason == "routed-hint-exact"


def test_one_providers_models_never_use_up_the_attempts_that_anothers_could_answer():
    theirs = [candidate(f"a{number}", provider="a") for number in range(6)]
    for error_class in ("server_error", "first_byte_timeout", "malformed_answer"):
        course = make_course([*theirs, candidate("b")])
        assert "b" in names(course, fault(error_class)), error_class
    course = make_course([*theirs, candidate("b")])
    assert names(course, fault("model_not_found"))[:3] == ["a0", "a1", "b"]


def test_who_may_not_be_tried_by_everybody_makes_way_for_other_providers_as_well():
    theirs = [candidate(f"a{number}", provider="a") for number in range(6)]
    error = fault("auth_failed", next_step="cooldown")
    course = make_course([*theirs, candidate("b")], not_now={each.model.id for each in theirs})
    assert names(course, error)[:2] == ["b", "a0"]
    course = make_course([], last_resort=[*theirs, candidate("b")])
    assert names(course, error)[:3] == ["a0", "b", "a1"]
    course = make_course(theirs[:1], not_now={"a1"}, last_resort=[*theirs[1:], candidate("b")])
    assert names(course, error)[:3] == ["a0", "b", "a1"]


def test_retries_go_round_among_those_that_may_have_recovered():
    assert names(make_course(map(candidate, "abc")), fault())[3:] == ["a", "b"]


def test_a_shorter_answer_is_never_a_longer_one_and_never_next_to_nothing():
    for limit in (4096, 4000, 9):
        course = make_course([candidate("a", context=0)], output_tokens_max=4000)
        course.fail(take(course), fault("context_overflow", output_tokens_max=limit))
        assert course.next_step() is None, limit


def test_smaller_contexts_are_left_for_the_end_where_the_provider_told_no_figure():
    course = make_course(
        [candidate("a", context=131_072), candidate("small", context=32_000),
         candidate("unknown"), candidate("large", context=200_000)]
    )  # fmt: skip
    course.fail(take(course), overflow())
    assert names(course, overflow()) == ["large", "unknown", "small"]


def test_who_was_named_keeps_that_reason_also_where_it_has_to_wait():
    course = make_course([candidate("a")], not_now={"a"})
    assert take(course).reason == "routed-hint-exact"


def beside(course: Course, *busy: str) -> str | None:
    step = course.next_beside(busy, len(busy))
    return None if step is None else step.candidate.model.id


def test_while_one_is_at_work_a_candidate_of_another_provider_is_asked_if_there_is_one():
    theirs = [candidate(name, provider="a") for name in ("a1", "a2", "a3")]
    course = make_course([*theirs, candidate("b")])
    assert take(course).candidate.model.id == "a1"
    assert beside(course, "a") == "b"
    assert beside(course, "a", "p-b") == "a2"
    assert beside(course, "a", "p-b", "a") == "a3"
    assert beside(course, "a") is None


def test_neither_a_last_resort_nor_a_retry_is_asked_while_one_is_at_work():
    course = make_course(map(candidate, "ab"), last_resort=[candidate("z")], not_now={"c"})
    first, second = take(course), take(course)
    course.fail(second, fault("overloaded"))
    assert beside(course, "p-a") is None
    course.fail(first, fault("overloaded"))
    assert take(course).candidate.model.id == "z"
    assert take(course).reason == course_module.RETRIED


def test_the_remedy_for_a_failure_comes_at_once_though_another_is_at_work():
    course = make_course([candidate("a", context=2000), candidate("b")], output_tokens_max=1900)
    first = take(course)
    take(course)
    course.fail(first, overflow())
    step = course.next_beside({"p-b"}, 1)
    assert step is not None
    assert (step.candidate.model.id, step.reason) == ("a", course_module.REDUCED)


def test_who_could_not_be_asked_beside_another_has_its_turn_when_that_has_failed():
    course = make_course(map(candidate, "ab"), last_resort=[candidate("z")])
    first = take(course)
    step = course.next_beside({"p-a"}, 1)
    assert step is not None
    course.defer(step)
    assert beside(course, "p-a") is None
    course.fail(first, fault("first_byte_timeout"))
    assert names(course, fault("first_byte_timeout")) == ["b", "z"]


def test_attempts_at_work_count_among_those_that_a_request_may_make():
    course = make_course(map(candidate, "abcdefg"))
    first = take(course)
    busy = [first.candidate.model.provider_id]
    while (step := course.next_beside(busy, len(busy))) is not None:
        busy.append(step.candidate.model.provider_id)
    assert len(busy) == ATTEMPTS_MAX


def test_a_candidate_with_a_reason_of_its_own_says_it_when_its_turn_comes():
    own = candidate("b")._replace(reason="fallback")
    course = make_course([candidate("a"), own])
    course.fail(take(course), fault("first_byte_timeout"))
    assert take(course).reason == "fallback"

"""Hedging: who is asked besides whom, when, who wins, and what the others cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import gevent
import pytest

from tests.unit.gateway_kit import (
    ANYTHING,
    DONE,
    PRICE,
    PROMPT,
    STOP,
    USAGE,
    Hang,
    World,
    answer,
    delta,
    fault,
    make_request,
    rate_limited,
)
from tests.unit.test_gateway_health import next_may_try, rest_is_over
from tokenhub import journal
from tokenhub.budgets import Account, Budget
from tokenhub.domain import Policy, Price
from tokenhub.errors import (
    AllAttemptsFailed,
    ClientClosed,
    DeadlineExceeded,
    QuotaExceeded,
    UpstreamRefused,
    VaultLocked,
)
from tokenhub.escrow import Escrow, Reservation
from tokenhub.gateway.course import ATTEMPTS_MAX
from tokenhub.pricing import upper_bound_cost
from tokenhub.providers.base import Answer

Make = Callable[..., World]
WHOLE = [delta("hello"), STOP, USAGE + DONE]
SOON = 0.01
ABOVE = Policy(min_weight=20)  # the first model alone weighs so much


def attempts_of(world: World) -> list[tuple[str, str]]:
    return [(each["model_id"], each["error_class"]) for each in world.attempts]


def costs_of(world: World) -> list[int]:
    return [each["cost_nanousd"] for each in world.attempts]


def release(*hung: Hang) -> None:
    for each in hung:
        each.release()


def let_others_run() -> None:
    """Whoever was told to stop does so now."""
    gevent.sleep(0)


def test_without_hedging_an_attempt_runs_in_the_greenlet_of_its_request(make_world):
    found = []

    def note() -> Answer:
        found.append(gevent.getcurrent())
        return answer()

    make_world(a=[note]).serve()
    assert found == [gevent.getcurrent()]


def test_who_answers_in_time_is_the_only_one_that_is_asked(make_world):
    world = make_world(a=[answer()], b=[answer()])
    world.hedge(30)
    world.serve(model="a")
    assert world.adapter.asked == ["a"]
    assert (world.row["ending"], world.row["reason"]) == ("answered", "routed-hint-exact")
    assert attempts_of(world) == [("a", "")]


def test_when_nobody_has_answered_for_a_while_another_is_asked_and_the_first_answer_wins(
    make_world,
):
    slow = Hang()
    world = make_world(a=[slow], b=[answer()], c=[answer()])
    world.hedge()
    found = world.serve(model="a")
    let_others_run()
    assert slow.has_ended
    assert world.adapter.asked == ["a", "b"]
    row = world.row
    assert (row["ending"], row["model_id"], row["reason"]) == ("answered", "b", "hedged")
    assert row["response_bytes"] == len(found.body)
    assert attempts_of(world) == [("a", "hedge_lost"), ("b", "")]
    assert costs_of(world) == [PROMPT, 20]
    assert (row["cost_nanousd"], row["usage_is_estimate"]) == (PROMPT + 20, True)
    assert world.failures == {"b": 0}  # the slow one is neither blamed nor praised


def test_the_one_that_was_asked_first_may_still_win_and_keeps_its_reason(make_world):
    slow, slower = Hang(), Hang()
    world = make_world(a=[slow], b=[slower])
    world.hedge()
    gevent.spawn_later(SOON, slow.release)
    world.serve(model="a")
    let_others_run()
    assert slower.has_ended
    assert (world.row["model_id"], world.row["reason"]) == ("a", "routed-hint-exact")
    assert attempts_of(world) == [("a", ""), ("b", "hedge_lost")]


def test_a_failure_starts_the_next_at_once(make_world):
    world = make_world(a=[fault()], b=[fault()], c=[answer()])
    world.hedge(30)
    began = time.monotonic()
    world.serve()
    assert time.monotonic() - began < 5
    assert (world.row["ending"], world.row["reason"]) == ("rescued", "routed-weight-18")
    assert world.failures == {"a": 1, "b": 1, "c": 0}


def test_who_stands_in_for_a_hedge_that_failed_is_asked_at_once(make_world):
    slow = Hang()
    world = make_world(a=[slow], b=[fault()], c=[answer()])
    world.hedge()
    world.serve()
    assert attempts_of(world) == [("a", "hedge_lost"), ("b", "server_error"), ("c", "")]
    assert (world.row["reason"], world.row["ending"]) == ("hedged", "rescued")
    assert world.failures == {"b": 1, "c": 0}


def test_no_more_are_asked_at_once_than_allowed(make_world):
    hung = [Hang(), Hang()]
    world = make_world(a=hung[:1], b=hung[1:], c=[answer()])
    world.hedge(lanes_max=2)
    gevent.spawn_later(2 * SOON, hung[1].release)
    world.serve()
    assert world.adapter.asked == ["a", "b"]
    assert world.row["model_id"] == "b"


def test_a_hard_budget_holds_for_all_that_are_asked_at_once(make_world):
    """Each of the three may cost up to half of it, and all three more than it."""
    hung = [Hang(), Hang(), Hang()]
    world = make_world(**{name: [each] for name, each in zip("abc", hung, strict=True)})
    world.hedge()
    gevent.spawn_later(5 * SOON, hung[1].release)
    cost = world.begin().foresee(make_request(), ANYTHING).candidates[0].cost_nanousd
    world.recorder.abandon()
    world.serve(Policy(max_budget_nanousd=2 * (cost or 0), budget_is_hard=True))
    let_others_run()
    assert world.adapter.asked == ["a", "b"]
    assert attempts_of(world) == [("a", "hedge_lost"), ("b", "")]


def test_who_was_too_dear_beside_others_is_asked_when_they_have_failed(make_world):
    slow = Hang(fault())
    world = make_world(a=[slow], b=[answer()])
    world.hedge()
    gevent.spawn_later(2 * SOON, slow.release)
    cost = world.begin().foresee(make_request(), ANYTHING).candidates[0].cost_nanousd
    world.recorder.abandon()
    world.serve(Policy(max_budget_nanousd=cost or 0, budget_is_hard=True))
    assert attempts_of(world) == [("a", "server_error"), ("b", "")]


def test_all_attempts_together_are_as_many_as_without_hedging(make_world):
    names = [f"m{number}" for number in range(ATTEMPTS_MAX + 2)]
    hung = {name: Hang() for name in names}
    world = make_world(**{name: [each] for name, each in hung.items()})
    world.hedge(lanes_max=len(names))
    gevent.spawn_later(3 * SOON, hung["m0"].release)
    world.serve()
    let_others_run()
    assert world.adapter.asked == names[:ATTEMPTS_MAX]
    assert world.row["attempt_count"] == ATTEMPTS_MAX
    assert all(hung[name].has_ended for name in names[:ATTEMPTS_MAX])


def test_when_all_have_failed_the_caller_is_told_as_without_hedging(make_world):
    world = make_world(a=[rate_limited(9)], b=[rate_limited(3)])
    world.hedge()
    with pytest.raises(AllAttemptsFailed) as failed:
        world.serve()
    assert (failed.value.status, failed.value.headers["Retry-After"]) == (429, "3")
    assert failed.value.headers["X-TokenHub-Attempts"] == "2"


def test_a_last_resort_is_asked_only_when_all_have_failed(make_world):
    slow = Hang()
    world = make_world(a=[slow], b=[answer()])
    world.hedge()
    gevent.spawn_later(SOON, slow.release)
    world.serve(ABOVE)
    assert world.adapter.asked == ["a"]


def test_when_all_have_failed_a_last_resort_is_asked(make_world):
    world = make_world(a=[fault("model_not_found")], b=[answer()])
    world.hedge()
    world.serve(ABOVE)
    assert world.adapter.asked == ["a", "b"]


def test_the_providers_verdict_on_the_caller_ends_it_for_all(make_world):
    slow = Hang()
    stop = fault("client_error", next_step="stop", status=422, body=b"{}")
    world = make_world(a=[slow], b=[stop], c=[answer()])
    world.hedge()
    with pytest.raises(UpstreamRefused):
        world.serve()
    let_others_run()
    assert slow.has_ended
    assert world.adapter.asked == ["a", "b"]
    assert sorted(attempts_of(world)) == [("a", "hedge_lost"), ("b", "client_error")]


def test_an_answer_that_comes_second_in_the_same_moment_costs_what_it_used(make_world):
    first, second = Hang(answer(10, 5)), Hang(answer(100, 50))
    world = make_world(a=[first], b=[second])
    world.hedge()
    gevent.spawn_later(SOON, release, first, second)
    world.serve()
    assert attempts_of(world) == [("a", ""), ("b", "hedge_lost")]
    assert costs_of(world) == [20, 200]
    assert world.row["model_id"] == "a"


def test_a_stream_is_hedged_until_its_first_event(make_world):
    slow = Hang(WHOLE)
    world = make_world(a=[slow], b=[WHOLE])
    world.hedge()
    relay = world.stream()
    text = b"".join(relay)
    relay.close()
    assert text.endswith(DONE)
    let_others_run()
    assert slow.has_ended
    assert (world.row["ending"], world.row["reason"]) == ("answered", "hedged")
    assert attempts_of(world) == [("a", "hedge_lost"), ("b", "")]
    assert costs_of(world) == [PROMPT, 20]
    assert world.failures == {"b": 0}


def test_a_stream_that_opens_second_in_the_same_moment_is_closed(make_world):
    first, second = Hang(WHOLE), Hang(WHOLE)
    world = make_world(a=[first], b=[second])
    world.hedge()
    gevent.spawn_later(SOON, release, first, second)
    relay = world.stream()
    winner, loser = world.adapter.sources
    assert (winner.is_closed, loser.is_closed) == (False, True)
    relay.close()
    assert attempts_of(world) == [("a", ""), ("b", "hedge_lost")]


def test_a_caller_that_leaves_stops_all_who_are_at_work_and_pays_for_them(make_world):
    hung = [Hang(), Hang()]
    world = make_world(a=hung[:1], b=hung[1:])
    world.hedge()
    request = gevent.spawn(world.serve)
    gevent.sleep(SOON)
    request.kill(ClientClosed)
    let_others_run()
    assert all(each.has_ended for each in hung)
    assert world.row["ending"] == "client_closed"
    assert attempts_of(world) == [("a", "client_closed"), ("b", "client_closed")]
    assert costs_of(world) == [PROMPT, PROMPT]
    assert world.failures == {}


def test_the_callers_deadline_stops_all_who_are_at_work(make_world):
    hung = [Hang(), Hang()]
    world = make_world(a=hung[:1], b=hung[1:])
    world.hedge()
    with pytest.raises(DeadlineExceeded):
        world.serve(Policy(max_latency_ms=30, latency_is_hard=True))
    let_others_run()
    assert all(each.has_ended for each in hung)
    assert attempts_of(world) == [("a", "deadline"), ("b", "deadline")]
    assert world.failures == {}


def test_a_fault_of_ours_in_one_attempt_ends_the_request_and_costs_what_the_others_did(make_world):
    slow = Hang()
    world = make_world(a=[slow], b=[ZeroDivisionError()])
    world.hedge()
    with pytest.raises(ZeroDivisionError):
        world.serve()
    let_others_run()
    assert slow.has_ended
    assert (world.row["ending"], world.row["error_class"]) == ("failed", "internal_error")
    assert attempts_of(world) == [("a", "hedge_lost"), ("b", "internal_error")]
    assert costs_of(world) == [PROMPT, 0]


def test_who_cannot_be_asked_is_passed_over_and_makes_no_attempt(make_world):
    slow = Hang()
    world = make_world(a=[slow], b=[answer()], c=[answer()])
    world.locked["p-b"] = VaultLocked("locked")
    world.hedge()
    world.serve()
    assert attempts_of(world) == [("a", "hedge_lost"), ("c", "")]
    assert world.row["reason"] == "hedged"


def test_a_loser_whose_price_is_unknown_leaves_the_cost_unknown(make_world):
    world = make_world(a=[Hang()], b=[answer()])
    world.models["a"] = replace(world.models["a"], price=Price())
    world.hedge()
    world.serve(model="a")
    assert world.row["cost_nanousd"] is None


def test_a_trial_of_a_recovering_model_that_lost_is_the_next_ones(make_world):
    """Who is on trial gets no verdict by being slow; its place must not stay taken."""
    world = make_world(a=[Hang()], b=[answer()])
    rest_is_over(world)
    world.hedge()
    world.serve(model="a")
    assert attempts_of(world) == [("a", "hedge_lost"), ("b", "")]
    assert next_may_try(world)


def test_what_the_books_say_of_a_hedged_request_adds_up(make_world):
    world = make_world(a=[Hang()], b=[Answer(b"x" * 40, {}, None, 1)])
    world.hedge()
    world.serve()
    row = world.row
    assert row["input_tokens"] == 2 * PROMPT
    assert row["output_tokens"] == 10
    assert 0 <= row["overhead_us"] < 1_000_000


class Purse:
    """Money for so much at a time; what is given back can be had again."""

    def __init__(self, nanousd: int) -> None:
        self.free = nanousd

    def reserve(self, accounts: tuple[Account, ...], amount_nanousd: int) -> Reservation:
        if amount_nanousd > self.free:
            raise QuotaExceeded("no")
        self.free -= amount_nanousd
        return Reservation(accounts, (), amount_nanousd)

    def settle(self, reservation: Reservation, cost_nanousd: int) -> None:
        self.free += reservation.amount_nanousd - cost_nanousd


def with_money(world: World, nanousd: int) -> Purse:
    """The key has a hard budget that allows for so much."""
    purse = Purse(nanousd)
    world.gateway = replace(world.gateway, escrow=cast(Escrow, purse))
    budget = Budget("key", "key_1", "total", nanousd)
    world.budgets = {("key", "key_1"): (budget,)}
    return purse


def test_who_is_asked_besides_has_money_of_its_own(make_world):
    world = make_world(a=[Hang()], b=[answer()])
    purse = with_money(world, 10**9)
    world.hedge()
    world.serve(output_tokens_max=5)
    openings = [payload for kind, payload in world.records if kind == journal.OPENING]
    first, second = [reserved for _, _, reserved, _ in openings]
    assert second == 2 * first
    assert purse.free == 10**9 - world.row["cost_nanousd"]


def test_where_the_money_does_not_do_for_two_the_second_is_asked_when_the_first_has_failed(
    make_world,
):
    slow = Hang(fault("server_error", sent=False))
    world = make_world(a=[slow], b=[answer(1, 1)])
    most = upper_bound_cost(PRICE, make_request(output_tokens_max=5))
    assert most is not None
    purse = with_money(world, 2 * most - 1)
    world.hedge()
    gevent.spawn_later(SOON, slow.release)
    world.serve(output_tokens_max=5)
    assert attempts_of(world) == [("a", "server_error"), ("b", "")]
    assert world.row["reason"] == "hedged"
    assert purse.free == 2 * most - 1 - world.row["cost_nanousd"]

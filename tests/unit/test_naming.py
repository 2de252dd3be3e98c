"""Whom a request means by its names, who may answer instead, and who takes the turn."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from tests.unit.gateway_kit import World, answer, fault
from tests.unit.routing_kit import ids, make_request
from tokenhub.catalog import Snapshot
from tokenhub.catalog.snapshot import Parts, assemble
from tokenhub.domain import (
    Alias,
    ApiKey,
    Decision,
    Model,
    Policy,
    Price,
    Provider,
    RoutingDefaults,
    Variant,
)
from tokenhub.errors import NoEligibleModel, NotFound, PermissionDenied
from tokenhub.gateway import Gateway

FREE = Price(0, 0)
KEY = ApiKey("key_1", "k", "tok", b"1", "")


def alias(name: str, sticky_by: str = "round_robin", enabled: bool = True, **weights: int) -> Alias:
    variants = tuple(Variant(model_id, weight) for model_id, weight in weights.items())
    return Alias(name, variants, enabled=enabled, sticky_by=sticky_by)


class Hub:
    """A gateway that only decides."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.models = {name: Model(name, "p", name, 9, price=FREE) for name in "abcd"}
        self.models["v/e"] = Model("v/e", "q", "e", 1, price=FREE)
        self.aliases: dict[str, Alias] = {}
        self.wildcard: tuple[str, ...] = ()

    def add(self, *aliases: Alias) -> None:
        self.aliases |= {each.name: each for each in aliases}

    def change(self, model_id: str, **fields: Any) -> None:
        self.models[model_id] = replace(self.models[model_id], **fields)

    def snapshot(self, **key: Any) -> Snapshot:
        providers = {name: Provider(name, "openai", "http://127.0.0.1") for name in "pq"}
        parts = Parts(providers, self.models, {}, None, {}, aliases=self.aliases)
        return assemble(
            7,
            parts,
            defaults=RoutingDefaults(),
            adapter_types=["openai"],
            with_demo=True,
            wildcard=self.wildcard,
        ).seen_by(replace(KEY, **key))

    def decide(self, model: str, key: dict[str, Any] | None = None, **more: Any) -> Decision:
        policy = Policy(**more.pop("policy", {}))
        request = make_request(model=model, **more.pop("request", {}))
        snapshot = self.snapshot(**(key or {}))
        return self.gateway.decide(snapshot, request, policy, key_id="key_1", **more)

    def order(self, model: str, **more: Any) -> list[str]:
        return ids(self.decide(model, **more).candidates)

    def firsts(self, model: str, count: int, **more: Any) -> str:
        return "".join(self.order(model, **more)[0] for _ in range(count))


@pytest.fixture
def hub(tmp_path) -> Hub:
    return Hub(World(tmp_path, {}).gateway)


# Aliases


def test_the_choice_goes_first_then_the_other_variants_by_weight_then_everybody(hub):
    hub.add(alias("x", c=1, b=5, d=3))
    decision = hub.decide("x")
    assert ids(decision.candidates) == ["b", "d", "c", "a", "v/e"]
    assert (decision.reason, decision.alias_from) == ("routed-alias", "x")
    reasons = [each.reason for each in decision.candidates]
    assert reasons == ["routed-alias", "routed-fallback", "routed-fallback", "", ""]


def test_turns_are_taken_and_a_trial_takes_none(hub):
    hub.add(alias("x", a=2, b=1))
    assert hub.firsts("x", 7) == "aabaaba"
    assert hub.firsts("x", 3, is_trial=True) == "aaa"
    assert hub.firsts("x", 2) == "ab"


def test_a_native_request_id_keeps_its_variant_and_nothing_else_does(hub):
    hub.add(alias("x", "request", a=80, b=20))
    assert hub.firsts("x", 5, request={"sticky_key": "req-2"}) == "bbbbb"
    assert hub.firsts("x", 5, request={"sticky_key": "req-1"}) == "aaaaa"
    found = Counter(hub.firsts("x", 500))
    assert found["a"] == pytest.approx(400, abs=40)


def test_a_key_keeps_its_variant(hub):
    hub.add(alias("x", "api_key", a=50, b=50))
    one = hub.firsts("x", 4, request={"sticky_key": "req-1"})
    assert one == hub.firsts("x", 4, request={"sticky_key": "req-2"})


@pytest.mark.parametrize(
    "change",
    [
        {"enabled": False},
        {"provider_id": "none"},
        {"capabilities": ("embeddings",)},
        {"id": "gone"},
    ],
)
@pytest.mark.parametrize("sticky_by", ["request", "api_key", "round_robin"])
def test_a_variant_that_cannot_serve_gives_its_share_to_the_others(hub, change, sticky_by):
    hub.add(alias("x", sticky_by, a=1000, b=1, c=1))
    hub.change("a", **change)
    if "id" in change:
        hub.models["gone"] = hub.models.pop("a")
    chosen = {hub.order("x", request={"sticky_key": f"r{number}"})[0] for number in range(40)}
    assert chosen <= {"b", "c"}
    if sticky_by != "api_key":
        assert chosen == {"b", "c"}


def test_a_resting_variant_is_passed_over_and_is_the_last_resort(hub, monkeypatch):
    hub.add(alias("x", a=9, b=1))
    view = hub.gateway.board.vitals.view()
    monkeypatch.setattr(hub.gateway.board.vitals, "view", lambda: replace(view, cooling={"a": 9.0}))
    decision = hub.decide("x")
    assert ids(decision.candidates)[0] == "b"
    assert decision.reason == "routed-alias"
    assert ids(decision.last_resort) == ["a"]


def test_when_no_variant_is_there_others_answer_and_say_so(hub):
    hub.add(alias("x", gone=1))
    decision = hub.decide("x")
    assert ids(decision.candidates) == ["a", "b", "c", "d", "v/e"]
    assert (decision.reason, decision.alias_from) == ("routed-weight-9", "x")


def test_a_disabled_alias_is_an_unknown_name_and_none_leads_to_another(hub):
    hub.add(alias("x", enabled=False, a=1), alias("y", x=1, b=1))
    with pytest.raises(NotFound):
        hub.decide("x")
    hub.add(alias("x", a=1))
    assert hub.firsts("y", 3) == "bbb"


def test_an_alias_goes_before_a_model_of_its_name(hub):
    hub.add(alias("a", b=1))
    assert hub.order("a")[0] == "b"
    assert hub.order("any/a")[0] == "a"


# Who may ask for what


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [
        (("x",), {"a", "b"}),
        (("a",), {"a"}),
        (("a", "c"), {"a"}),
        (("x", "c"), {"a", "b"}),
        (("*",), {"a", "b"}),
    ],
)
def test_a_list_allows_an_alias_by_its_name_or_those_of_its_models(hub, allowed, expected):
    hub.add(alias("x", a=1, b=1))
    assert set(hub.firsts("x", 4, key={"models": allowed})) == expected


def test_what_an_alias_opens_it_opens_for_itself_only(hub):
    hub.add(alias("x", a=1, b=1))
    key = {"models": ("x", "c")}
    assert sorted(hub.order("x", key=key)) == ["a", "b", "c"]
    assert hub.order("c", key=key) == ["c"]
    assert hub.order("", key=key) == ["c"]
    with pytest.raises(PermissionDenied):
        hub.decide("a", key=key)


@pytest.mark.parametrize("allowed", [("c",), ("x*",), ("none",)])
def test_an_alias_without_any_model_for_the_key_is_refused(hub, allowed):
    hub.add(alias("x", a=1, b=1))
    with pytest.raises(PermissionDenied) as refused:
        hub.decide("x", key={"models": allowed})
    assert (refused.value.code, refused.value.param) == ("model_not_allowed", "model")
    assert hub.snapshot(models=allowed).offered_aliases() == []


def test_only_what_can_be_asked_for_is_offered(hub):
    hub.add(alias("x", a=1), alias("off", enabled=False, a=1), alias("*", a=1), alias("y", no=1))
    assert [each.name for each in hub.snapshot().offered_aliases()] == ["x"]


# The pool


@pytest.mark.parametrize("name", ["", "*"])
def test_without_a_pool_everything_is_tried_in_order_of_score(hub, name):
    decision = hub.decide(name)
    assert ids(decision.candidates) == ["a", "b", "c", "d", "v/e"]
    assert (decision.reason, decision.alias_from) == ("routed-weight-9", "")


@pytest.mark.parametrize("name", ["", "*"])
def test_the_pool_of_the_settings_takes_turns_and_nobody_else_answers(hub, name):
    hub.wildcard = ("b", "unknown", "e", "b")
    decisions = [hub.decide(name) for _ in range(4)]
    assert [ids(each.candidates) for each in decisions] == [["b", "v/e"], ["v/e", "b"]] * 2
    assert {each.alias_from for each in decisions} == {"*"}
    assert all(each.last_resort == () for each in decisions)


def test_of_the_pool_only_those_are_asked_that_the_key_may_use(hub):
    hub.wildcard = ("a", "b")
    assert hub.order("*", key={"models": ("b", "c")}) == ["b"]
    assert hub.order("*", key={"models": ("c", "d")}) == ["c", "d"]


def test_an_alias_of_that_name_is_the_pool_unless_it_is_disabled(hub):
    hub.wildcard = ("a",)
    hub.add(alias("*", c=1, d=1))
    assert [sorted(hub.order("")), hub.firsts("*", 2)] == [["c", "d"], "dc"]
    hub.add(alias("*", enabled=False, c=1))
    assert hub.order("*") == ["a"]


def test_a_pool_of_which_nobody_is_there_is_none(hub):
    hub.add(alias("*", none=1))
    decision = hub.decide("*")
    assert (len(decision.candidates), decision.alias_from) == (5, "")


def test_a_pool_of_models_that_converse_says_nothing_of_who_embeds(hub):
    hub.wildcard = ("a", "b")
    hub.change("c", capabilities=frozenset({"embeddings"}))
    vectors = {"dialect": "embeddings"}
    assert hub.order("*", request=vectors) == ["c"]
    hub.wildcard = ("a", "c")
    assert hub.decide("*", request=vectors).alias_from == "*"


# Fallbacks


def test_it_is_known_by_which_alias_a_fallback_came_in(hub):
    hub.add(alias("x", c=1, d=1))
    decision = hub.decide("a", policy={"fallbacks": ("x", "b")})
    assert dict(decision.brought_by) == {"c": "x", "d": "x"}
    hub.change("a", fallbacks=("x",))
    assert dict(hub.decide("a").brought_by) == {"c": "x", "d": "x"}
    assert dict(hub.decide("b").brought_by) == {}


def test_a_models_own_fallbacks_follow_it_and_nobody_else(hub):
    hub.change("a", fallbacks=("d", "gone", "any/b", "a"))
    decision = hub.decide("a")
    assert ids(decision.candidates) == ["a", "d", "b"]
    assert decision.reason == "routed-hint-exact"
    assert [each.reason for each in decision.candidates[1:]] == ["routed-fallback"] * 2
    assert hub.order("b") == ["b", "a", "c", "d", "v/e"]


def test_the_requests_fallbacks_beat_the_models_own(hub):
    hub.change("a", fallbacks=("d",))
    assert hub.order("a", policy={"fallbacks": ("c", "b")}) == ["a", "c", "b"]
    assert hub.order("a", policy={"fallbacks": ()}) == ["a"]


def test_fallbacks_of_a_request_that_names_nobody_are_all_there_is(hub):
    assert hub.order("", policy={"fallbacks": ("d", "b")}) == ["d", "b"]
    assert len(hub.order("", policy={"fallbacks": ()})) == 5


def test_nobody_else_answers_when_the_named_one_and_its_fallbacks_cannot(hub):
    hub.change("a", fallbacks=("b",), enabled=False)
    hub.change("b", max_context_tokens=5)
    with pytest.raises(NoEligibleModel) as refused:
        hub.decide("a")
    assert refused.value.details == {"skips": {"context_overflow": 1}}


def test_a_fallback_that_is_an_alias_stands_for_all_its_models_and_takes_no_turn(hub):
    hub.add(alias("x", b=1, d=5))
    hub.change("a", fallbacks=("x", "c"))
    assert [hub.order("a") for _ in range(2)] == [["a", "d", "b", "c"]] * 2
    assert hub.decide("a").alias_from == ""
    assert hub.firsts("x", 1) == "d"


def test_after_an_aliass_models_come_the_requests_fallbacks_or_their_own(hub):
    hub.add(alias("x", b=5, d=1))
    assert hub.order("x", policy={"fallbacks": ("c",)}) == ["b", "d", "c"]
    hub.change("d", fallbacks=("a",))
    assert hub.order("x")[-1] == "a"
    assert len(hub.order("x")) == 3


def test_unknown_and_forbidden_fallbacks_are_refused_in_requests_and_passed_over_in_models(hub):
    with pytest.raises(NotFound) as unknown:
        hub.decide("a", policy={"fallbacks": ("nobody",)})
    assert unknown.value.param == "fallbacks"
    key = {"models": ("a", "b")}
    with pytest.raises(PermissionDenied) as forbidden:
        hub.decide("a", key=key, policy={"fallbacks": ("c",)})
    assert forbidden.value.param == "fallbacks"
    hub.change("a", fallbacks=("nobody", "c", "b"))
    assert hub.order("a", key=key) == ["a", "b"]


def test_where_unknown_names_are_routed_they_have_no_effect(hub):
    hub.gateway = replace(hub.gateway, unknown_model="route")
    assert hub.decide("nobody").reason == "routed-weight-9"
    assert hub.order("a", policy={"fallbacks": ("nobody", "c")}) == ["a", "c"]
    assert hub.order("nobody", policy={"fallbacks": ("c",)}) == ["c"]


# Tags and exclusions


def test_tags_and_exclusions_hold_for_everybody_even_the_named_and_the_last_resort(hub):
    for name in ("a", "b", "v/e"):
        hub.change(name, tags=("eu", name))
    hub.change("a", fallbacks=("c", "b", "v/e"))
    decision = hub.decide("a", policy={"tags": frozenset({"eu"}), "exclude": frozenset({"q", "a"})})
    assert ids(decision.candidates) == ["b"]
    assert decision.reason == "routed-fallback"
    assert decision.skips == {"a": "excluded", "c": "tag", "v/e": "excluded"}
    assert decision.last_resort == ()


def test_nobody_with_the_tags_is_no_eligible_model(hub):
    with pytest.raises(NoEligibleModel) as refused:
        hub.decide("", policy={"tags": frozenset({"moon"})})
    assert refused.value.details == {"skips": {"tag": 5}}


# What becomes of it


def test_the_alias_and_who_answered_for_it_are_in_the_row(tmp_path):
    world = World(tmp_path, {"a": [fault()], "b": [answer()]})
    begin = world.begin

    def with_alias(*args: Any, **named: Any) -> Any:
        exchange = begin(*args, **named)
        aliases = MappingProxyType({"x": alias("x", a=5, b=1)})
        exchange._snapshot = replace(exchange._snapshot, aliases=aliases)
        return exchange

    world.begin = with_alias  # type: ignore[method-assign]
    world.serve(model="x")
    row = world.row
    assert (row["alias_from"], row["requested_model"], row["model_id"]) == ("x", "x", "b")
    assert row["reason"] == "routed-fallback"

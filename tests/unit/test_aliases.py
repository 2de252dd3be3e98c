"""Which model an alias stands for: the original's vectors, fair shares, callers that stay."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenhub.aliases import check, choose, fnv1a, others_of, usable_of, variant_at
from tokenhub.domain import Alias, Variant
from tokenhub.errors import InvalidRequest

AB = Alias("ab", (Variant("a", 80), Variant("b", 20)))
BOTH = {"a", "b"}
NO_RNG = random.Random(0)

some_variants = st.lists(
    st.builds(Variant, st.text("abcdef", min_size=1, max_size=2), st.integers(1, 50)),
    min_size=1,
    max_size=6,
    unique_by=lambda variant: variant.model_id,
).map(tuple)


@pytest.mark.parametrize(
    ("key", "hashed", "variant"),
    [
        ("req-1", 3675655953, "a"),
        ("req-2", 3625323096, "b"),
        ("req-3", 3642100715, "a"),
        ("req-7", 3709211191, "b"),
        ("user-alice", 2658330783, "b"),
        ("stable-req-id", 2779311387, "b"),
    ],
)
def test_keys_choose_as_in_the_original(key: str, hashed: int, variant: str) -> None:
    assert fnv1a(key) == hashed
    assert choose(AB, BOTH, key=key, rng=NO_RNG).model_id == variant


def test_without_a_key_the_choice_is_random_by_weight() -> None:
    rng = random.Random(5)
    found = Counter(choose(AB, BOTH, key="", rng=rng).model_id for _ in range(10_000))
    assert found["a"] == pytest.approx(8000, abs=200)


@given(some_variants, st.text(min_size=1), st.data())
def test_only_who_has_lost_its_variant_gets_another(variants, key, data) -> None:
    alias = Alias("x", variants)
    ids = [variant.model_id for variant in variants]
    before = choose(alias, ids, key=key, rng=NO_RNG).model_id
    usable = data.draw(st.sets(st.sampled_from(ids), min_size=1))
    after = choose(alias, usable, key=key, rng=NO_RNG).model_id
    assert after in usable
    assert after == before or before not in usable
    assert choose(alias, usable, key=key, rng=random.Random(9)).model_id == after


def test_who_has_lost_its_variant_is_spread_over_the_others_by_weight() -> None:
    alias = Alias("x", (Variant("a", 50), Variant("b", 30), Variant("c", 10)))
    found = Counter(
        choose(alias, {"b", "c"}, key=f"key-{number}", rng=NO_RNG).model_id
        for number in range(8000)
    )
    assert found["b"] == pytest.approx(6000, abs=200)


@given(some_variants, st.integers(0, 1000))
def test_in_a_round_everybody_has_its_weight_in_turns(variants, start) -> None:
    total = sum(weight for _, weight in variants)
    found = Counter(variant_at(variants, start + turn).model_id for turn in range(total))
    assert found == Counter(dict(variants))


@given(some_variants)
def test_at_no_time_in_a_round_is_anybody_far_from_its_share(variants) -> None:
    total, had = sum(weight for _, weight in variants), Counter[str]()
    for turn in range(total):
        had[variant_at(variants, turn).model_id] += 1
        for model_id, weight in variants:
            assert abs(had[model_id] - (turn + 1) * weight / total) < len(variants)


@pytest.mark.parametrize(
    ("weights", "turns"),
    [((2, 1), "aabaab"), ((1, 1), "ababab"), ((3, 1), "aaabaaab"), ((7,), "aa")],
)
def test_turns_are_spread_evenly(weights: tuple[int, ...], turns: str) -> None:
    variants = [Variant(name, weight) for name, weight in zip("abc", weights, strict=False)]
    assert "".join(variant_at(variants, turn).model_id for turn in range(len(turns))) == turns


def test_a_turn_among_the_largest_weights_is_found_at_once() -> None:
    variants = [Variant(str(number), 1_000_000 - number) for number in range(50)]
    assert {variant_at(variants, turn).model_id for turn in range(50)} == {
        str(number) for number in range(50)
    }
    assert variant_at(variants, 10**12).model_id


def test_the_others_stand_in_heaviest_first() -> None:
    variants = (Variant("a", 1), Variant("b", 5), Variant("c", 1), Variant("d", 9))
    assert others_of(variants, "d") == ["b", "a", "c"]
    assert usable_of(Alias("x", variants), {"c", "a", "z"}) == [variants[0], variants[2]]


@pytest.mark.parametrize(
    ("alias", "param"),
    [
        (Alias("", (Variant("a", 1),)), "name"),
        (Alias("x", ()), "variants"),
        (Alias("x", (Variant("", 1),)), "variants"),
        (Alias("x", (Variant("x", 1),)), "variants"),
        (Alias("x", (Variant("a", 0),)), "variants"),
        (Alias("x", (Variant("a", 1_000_001),)), "variants"),
        (Alias("x", (Variant("a", 1), Variant("a", 2))), "variants"),
        (Alias("x", tuple(Variant(str(number), 1) for number in range(51))), "variants"),
        (Alias("x", (Variant("a", 1),), sticky_by="mood"), "sticky_by"),
    ],
)
def test_what_cannot_be_resolved_is_refused_by_its_field(alias: Alias, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check(alias)
    assert refused.value.param == param


@pytest.mark.parametrize("sticky_by", ["request", "api_key", "round_robin"])
def test_what_can_be_resolved_is_taken(sticky_by: str) -> None:
    check(Alias("x", (Variant("a", 1), Variant("b", 1_000_000)), sticky_by=sticky_by))

"""Scores: the reference's vectors, unknown values, ties, and the two ways to add up."""

from __future__ import annotations

import random
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.routing_kit import decided, ids, make_model
from tokenhub.domain import MODES, Decision, Mode, Price
from tokenhub.health import HealthView
from tokenhub.pricing import per_mtok_from_usd_per_1k
from tokenhub.routing import COEFFICIENTS, scores

DOLLAR = 10**9


def make_price(input_usd_per_1k: float, output_usd_per_1k: float) -> Price:
    return Price(
        per_mtok_from_usd_per_1k(input_usd_per_1k), per_mtok_from_usd_per_1k(output_usd_per_1k)
    )


def scores_of(decision: Decision) -> dict[str, float]:
    return {each.model.id: each.score for each in decision.candidates}


PAIR = [
    make_model("A", 10, price=make_price(0.01, 0.03)),
    make_model("B", 3, price=make_price(0.0005, 0.0015)),
]
TRIO = [
    make_model("A", 8, price=make_price(0.0025, 0.01)),
    make_model("B", 6, price=make_price(0.003, 0.015)),
    make_model("C", 5, price=make_price(0, 0)),
]
TRIO_HEALTH = HealthView({}, {"A": 800, "B": 1600, "C": 400}, {"A": 0.02, "B": 0.10, "C": 0.0})


@pytest.mark.parametrize(
    ("mode", "a", "b", "winner"),
    [
        ("cheap", 0.6, 0.005, "B"),
        ("normal", 0.0, -0.0625, "B"),
        ("high_confidence", -0.65, -0.2075, "A"),
        ("planning", -0.5, -0.175, "A"),
    ],
)
def test_scores_without_health_agree_with_the_reference(
    mode: Mode, a: float, b: float, winner: str
) -> None:
    decision = decided(PAIR, policy={"mode": mode})
    assert scores_of(decision) == pytest.approx({"A": a, "B": b}, abs=1e-9)
    assert ids(decision.candidates)[0] == winner
    assert {each.model.id: each.cost_nanousd for each in decision.candidates} == {
        "A": 16_360_000,
        "B": 818_000,
    }


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("cheap", {"A": 0.469438, "B": 0.825, "C": -0.0375}),
        ("normal", {"A": 0.103371, "B": 0.5625, "C": -0.09375}),
        ("high_confidence", {"A": -0.584326, "B": -0.225, "C": -0.4125}),
        ("planning", {"A": -0.438652, "B": -0.05, "C": -0.35}),
    ],
)
@pytest.mark.parametrize("numpy_above", [0, 32])
def test_scores_with_health_agree_with_the_reference(
    mode: Mode, expected: dict[str, float], numpy_above: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scores, "NUMPY_ABOVE", numpy_above)
    decision = decided(
        TRIO, policy={"mode": mode}, request={"input_tokens": 1000}, health=TRIO_HEALTH
    )
    assert scores_of(decision) == pytest.approx(expected, abs=1e-6)
    assert ids(decision.candidates) == sorted(expected, key=expected.__getitem__)


def test_every_mode_has_coefficients_that_add_up_to_one() -> None:
    assert set(COEFFICIENTS) == set(MODES) == set(get_args(Mode))
    assert all(sum(each) == pytest.approx(1) for each in COEFFICIENTS.values())
    assert COEFFICIENTS["thompson"] == COEFFICIENTS["normal"]
    assert COEFFICIENTS["adversarial"] == COEFFICIENTS["planning"]


@pytest.mark.parametrize("numpy_above", [0, 32])
def test_what_is_unknown_counts_as_the_mean_of_the_known(
    numpy_above: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scores, "NUMPY_ABOVE", numpy_above)
    models = [
        make_model("a", price=Price(0, 100 * DOLLAR)),
        make_model("b", price=Price(0, 300 * DOLLAR)),
        make_model("c", price=Price()),
    ]
    health = HealthView({}, {"a": 100, "c": 300}, {"b": 0.5})
    decision = decided(models, health=health)
    # cost 1/3, 1, mean 2/3 · latency 1/3, mean 2/3, 1 · failure all 1 · weight all 1
    assert scores_of(decision) == pytest.approx(
        {"a": 0.25 * 2 / 3, "b": 0.25 * 5 / 3, "c": 0.25 * 5 / 3}
    )
    assert {each.model.id: each.cost_nanousd for each in decision.candidates}["c"] is None


@pytest.mark.parametrize("numpy_above", [0, 32])
def test_a_term_nobody_knows_or_everybody_has_at_zero_counts_nothing(
    numpy_above: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scores, "NUMPY_ABOVE", numpy_above)
    health = HealthView({}, {"else": 5.0}, {"a": 0.0, "b": 0.0})
    models = [make_model("a", 0, price=Price()), make_model("b", 0, price=Price())]
    assert scores_of(decided(models, health=health)) == {"a": 0.0, "b": 0.0}


def test_equal_scores_are_ordered_by_id() -> None:
    models = [make_model(name) for name in "dbeac"]
    assert ids(decided(models).candidates) == list("abcde")


def test_the_cost_estimate_takes_the_limit_and_the_number_of_choices() -> None:
    models = [make_model("a", price=Price(0, 10**6))]

    def cost(**request: Any) -> int | None:
        return decided(models, request=request).candidates[0].cost_nanousd

    assert cost() == 512
    assert cost(choices=2) == 1024
    assert cost(output_tokens_max=100) == 100
    assert cost(output_tokens_max=100, choices=3) == 300


def test_numpy_and_plain_scores_are_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(11)
    models = [
        make_model(
            f"m{number:03d}",
            rng.randint(1, 10),
            price=rng.choice([Price(), Price(rng.randint(0, 10**10), rng.randint(0, 10**11))]),
        )
        for number in range(100)
    ]
    some = rng.sample([model.id for model in models], 60)
    health = HealthView({}, {id_: rng.random() * 1e4 for id_ in some}, dict.fromkeys(some[9:], 0.1))
    with_numpy = decided(models, health=health)
    monkeypatch.setattr(scores, "NUMPY_ABOVE", 1000)
    assert decided(models, health=health) == with_numpy


@given(
    st.lists(st.tuples(st.none() | st.integers(0, 10**9), st.integers(0, 10)), min_size=1),
    st.sampled_from(MODES),
)
def test_a_score_is_the_sum_of_its_parts(rows, mode):
    models = [make_model(f"m{number}", weight) for number, (_, weight) in enumerate(rows)]
    costs = [cost for cost, _ in rows]
    health = HealthView({}, {"m0": 120.0}, {"m0": 0.5})
    expected = scores.scores_of(models, costs, health, mode)
    parts = scores.parts_of(models, costs, health, mode)
    assert [sum(each) for each in parts] == pytest.approx(expected)

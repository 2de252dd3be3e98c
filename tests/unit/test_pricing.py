"""Token estimates, costs, and the units money is written in."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenhub.domain import ChatRequest, Price, Usage
from tokenhub.errors import InvalidRequest
from tokenhub.pricing import (
    OUTPUT_TOKENS_UNLIMITED,
    cost_of,
    estimate_cost,
    estimate_input_tokens,
    nanos_from_usd,
    per_mtok_from_usd_per_1k,
    upper_bound_cost,
    usd,
    usd_per_1k,
)

DOLLAR = 10**9
FREE = Price(0, 0)
UNKNOWN = Price()

tokens = st.integers(0, 10**7)
per_mtok = st.integers(0, 10**12)
prices = st.builds(Price, per_mtok, per_mtok, st.none() | per_mtok, st.none() | per_mtok)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    uncached, read, written, output = (draw(tokens) for _ in range(4))
    return Usage(uncached + read + written, output, read, written)


def said(*contents: Any, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": each} for each in contents], **more}


def make_request(**changes: Any) -> ChatRequest:
    return ChatRequest(**{"body": {}, "model": "", "stream": False, "input_tokens": 100, **changes})


# Input estimates


def test_short_messages_are_added_up_before_rounding() -> None:
    # The original rounds each message and says 1: a deviation on purpose (weak spot W31).
    assert estimate_input_tokens(said("abc", "def", "ghi", "jklmnop")) == 4


def test_twenty_four_bytes_are_six_tokens() -> None:
    assert estimate_input_tokens(said("x" * 24)) == 6


@pytest.mark.parametrize(("content", "expected"), [("", 0), (None, 0), ([], 0), ("a", 1)])
def test_any_text_is_at_least_one_token(content: Any, expected: int) -> None:
    assert estimate_input_tokens(said(content)) == expected


def test_text_counts_in_bytes_not_characters() -> None:
    assert estimate_input_tokens(said("é" * 8)) == 4
    assert estimate_input_tokens(said("日本語文")) == 3


def test_text_parts_count_as_text_and_images_are_flat() -> None:
    text = {"type": "text", "text": "x" * 40}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    assert estimate_input_tokens(said([text])) == 10
    assert estimate_input_tokens(said([text, image, image])) == 2010


def test_tool_call_arguments_in_the_history_count() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "x" * 80}}
    body = {"messages": [{"role": "assistant", "content": None, "tool_calls": [call, call]}]}
    assert estimate_input_tokens(body) == 40


@pytest.mark.parametrize("name", ["tools", "functions"])
def test_tool_definitions_count_by_their_json(name: str) -> None:
    tools = [{"type": "function", "function": {"name": "f", "description": "d" * 100}}]
    expected = (8 + len(orjson.dumps(tools))) // 4
    assert estimate_input_tokens(said("x" * 8, **{name: tools})) == expected


def test_tools_that_cannot_be_written_again_are_the_callers_fault() -> None:
    deep: list[Any] = []
    for _ in range(600):
        deep = [deep]
    with pytest.raises(InvalidRequest) as refused:
        estimate_input_tokens(said("hi", tools=deep))
    assert refused.value.param == "tools"


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["content", "text", "type", "tool_calls", "function", "arguments", "role"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(st.lists(anything, max_size=5), anything)
def test_odd_messages_are_estimated_without_an_error(messages: list[Any], tools: Any) -> None:
    assert estimate_input_tokens({"messages": messages, "tools": tools}) >= 0


@given(st.lists(st.text(max_size=50), max_size=6), st.text(max_size=50))
def test_more_text_is_never_fewer_tokens(contents: list[str], more: str) -> None:
    fewer = estimate_input_tokens(said(*contents))
    assert fewer == estimate_input_tokens(said("".join(contents)))
    assert fewer <= estimate_input_tokens(said(*contents, more))


# Costs


@pytest.mark.parametrize(
    ("input_tokens", "output_tokens", "input_usd_per_1k", "output_usd_per_1k", "cost_usd"),
    [
        (1000, 500, 0.01, 0.03, 0.025),
        (100, 512, 0.01, 0.03, 0.01636),
        (100, 512, 0.0005, 0.0015, 0.000818),
        (1000, 512, 0.0025, 0.01, 0.00762),
        (1000, 512, 0.003, 0.015, 0.01068),
    ],
)
def test_costs_agree_with_the_reference(
    input_tokens: int,
    output_tokens: int,
    input_usd_per_1k: float,
    output_usd_per_1k: float,
    cost_usd: float,
) -> None:
    price = Price(
        per_mtok_from_usd_per_1k(input_usd_per_1k), per_mtok_from_usd_per_1k(output_usd_per_1k)
    )
    expected = nanos_from_usd(cost_usd)
    assert estimate_cost(price, input_tokens, output_tokens) == expected
    assert cost_of(price, Usage(input_tokens, output_tokens)) == expected


def test_a_cost_is_rounded_half_up_and_only_once() -> None:
    assert estimate_cost(Price(499_999, 0), 1, 0) == 0
    assert estimate_cost(Price(500_000, 0), 1, 0) == 1
    assert estimate_cost(Price(250_000, 250_000), 1, 1) == 1
    assert cost_of(Price(250_000, 250_000, 250_000, 250_000), Usage(3, 1, 1, 1)) == 1


@given(prices, usages(), usages())
def test_cost_adds_up_to_within_rounding(price: Price, one: Usage, other: Usage) -> None:
    both = Usage(
        one.input_tokens + other.input_tokens,
        one.output_tokens + other.output_tokens,
        one.cache_read_tokens + other.cache_read_tokens,
        one.cache_write_tokens + other.cache_write_tokens,
    )
    costs = [cost_of(price, usage) for usage in (one, other, both)]
    assert all(cost is not None and cost >= 0 for cost in costs)
    first, second, together = (cost or 0 for cost in costs)
    assert abs(first + second - together) <= 1


@given(usages())
def test_free_costs_nothing_and_unknown_is_not_free(usage: Usage) -> None:
    assert cost_of(FREE, usage) == 0
    used = usage.input_tokens + usage.output_tokens > 0
    assert cost_of(UNKNOWN, usage) == (None if used else 0)
    assert estimate_cost(UNKNOWN, usage.input_tokens, usage.output_tokens) == (None if used else 0)


def test_a_side_without_tokens_needs_no_price() -> None:
    assert estimate_cost(Price(input_per_mtok=DOLLAR), 1000, 0) == DOLLAR // 1000
    assert estimate_cost(Price(input_per_mtok=DOLLAR), 1000, 1) is None
    assert estimate_cost(Price(output_per_mtok=DOLLAR), 0, 1000) == DOLLAR // 1000
    assert estimate_cost(Price(output_per_mtok=DOLLAR), 1, 1000) is None


@given(per_mtok, per_mtok, usages())
def test_cached_tokens_without_a_price_of_their_own_cost_the_input_price(
    input_price: int, output_price: int, usage: Usage
) -> None:
    plain = Usage(usage.input_tokens, usage.output_tokens)
    price = Price(input_price, output_price)
    assert cost_of(price, usage) == cost_of(price, plain)


def test_cached_tokens_with_a_price_cost_that() -> None:
    price = Price(3 * DOLLAR, 15 * DOLLAR, 3 * DOLLAR // 10, 15 * DOLLAR // 4)
    usage = Usage(10_000, 1_000, cache_read_tokens=6_000, cache_write_tokens=3_000)
    expected = nanos_from_usd("0.003") + nanos_from_usd("0.0018")  # uncached, read
    expected += nanos_from_usd("0.01125") + nanos_from_usd("0.015")  # written, output
    assert cost_of(price, usage) == expected


def test_a_free_cache_read_is_free() -> None:
    assert cost_of(Price(DOLLAR, 0, cache_read_per_mtok=0), Usage(1000, 0, 1000)) == 0


def test_more_cached_than_input_tokens_never_gives_money_back() -> None:
    assert cost_of(Price(DOLLAR, 0, 0, 0), Usage(10, 0, 50, 50)) == 0


# Upper bounds


def test_the_upper_bound_takes_bytes_by_three_and_every_choice() -> None:
    price = Price(DOLLAR * 1000, DOLLAR * 1000)
    request = make_request(input_tokens=100, output_tokens_max=50, choices=3)
    assert upper_bound_cost(price, request) == (135 + 150) * DOLLAR // 1000


def test_the_upper_bound_without_a_limit_reserves_a_long_answer() -> None:
    request = make_request(choices=2)
    bound = upper_bound_cost(Price(0, 10**6), request)
    assert bound == 2 * OUTPUT_TOKENS_UNLIMITED


@pytest.mark.parametrize("price", [UNKNOWN, Price(1, None), Price(None, 1)])
def test_the_upper_bound_of_an_unknown_price_is_unknown(price: Price) -> None:
    assert upper_bound_cost(price, make_request()) is None


@given(
    prices,
    st.text(max_size=400),
    st.integers(1, 10_000),
    st.integers(1, 5),
    st.integers(0, 100),
    st.integers(0, 100),
)
def test_nothing_within_the_bounds_costs_more_than_the_upper_bound(
    price: Price, text: str, output_max: int, choices: int, read: int, written: int
) -> None:
    request = make_request(
        input_tokens=estimate_input_tokens(said(text)),
        output_tokens_max=output_max,
        choices=choices,
    )
    input_tokens = -(-len(text.encode()) // 3)
    read = min(read, input_tokens)
    usage = Usage(input_tokens, output_max * choices, read, min(written, input_tokens - read))
    cost, bound = cost_of(price, usage), upper_bound_cost(price, request)
    assert cost is not None
    assert bound is not None
    assert cost <= bound


# Units


@given(st.integers(0, 10**15))
def test_dollars_and_nano_dollars_round_trip(nanos: int) -> None:
    amount = usd(nanos)
    assert amount is not None
    assert nanos_from_usd(amount) == nanos


@given(st.integers(0, 10**15))
def test_prices_round_trip(price: int) -> None:
    shown = usd_per_1k(price)
    assert shown is not None
    assert per_mtok_from_usd_per_1k(shown) == price


@pytest.mark.parametrize("value", [0.0005, "0.0005", Decimal("0.0005")])
def test_a_price_means_what_was_written(value: float | str | Decimal) -> None:
    assert per_mtok_from_usd_per_1k(value) == 500_000_000
    assert nanos_from_usd(value) == 500_000


def test_amounts_below_a_nano_dollar_are_rounded_half_up() -> None:
    assert nanos_from_usd("0.0000000005") == 1
    assert nanos_from_usd("0.00000000049") == 0
    assert nanos_from_usd(1) == DOLLAR


def test_unknown_stays_unknown() -> None:
    assert usd(None) is None
    assert usd_per_1k(None) is None


@pytest.mark.parametrize(
    "value",
    [-0.01, float("nan"), float("inf"), "", "much", True, "1e400", "1e999999", 1e10, "sNaN"],
)
def test_amounts_that_make_no_sense_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"must be|too large"):
        nanos_from_usd(value)

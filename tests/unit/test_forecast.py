"""What will have been spent: a range that narrows as the end comes, and never lies behind."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenhub.forecast import DAY_MS, DAYS, Forecast, forecast, ms_until, whole_days

MONEY = st.integers(0, 10**15)
WEEKS = st.lists(MONEY, min_size=1, max_size=DAYS)
LEFT = st.integers(0, 366 * DAY_MS)


def made(spent: int, by_day: list[int], left_ms: int) -> Forecast:
    found = forecast(spent, by_day, left_ms)
    assert found is not None
    return found


@given(MONEY, WEEKS, LEFT)
def test_what_is_expected_is_in_the_range_and_nothing_is_unspent(spent, by_day, left_ms):
    found = made(spent, by_day, left_ms)
    assert spent <= found.low_nanousd <= found.expected_nanousd <= found.high_nanousd
    assert found.days == len(by_day)


@given(MONEY, WEEKS)
def test_at_the_end_it_is_what_was_spent(spent, by_day):
    for left_ms in (0, -DAY_MS):
        assert made(spent, by_day, left_ms)[:3] == (spent, spent, spent)


@given(MONEY, st.lists(MONEY, min_size=2, max_size=2), LEFT)
def test_days_that_are_alike_leave_no_doubt(spent, days, left_ms):
    found = made(spent, [days[0]] * DAYS, left_ms)
    assert found.low_nanousd == found.expected_nanousd == found.high_nanousd


@given(MONEY, WEEKS, LEFT, LEFT)
def test_the_longer_the_time_the_more_and_the_less_certain(spent, by_day, one, other):
    near, far = (made(spent, by_day, each) for each in sorted((one, other)))
    assert near.expected_nanousd <= far.expected_nanousd
    assert near.high_nanousd <= far.high_nanousd


@given(MONEY, st.permutations(range(0, 7 * 10**9, 10**9)), LEFT)
def test_the_order_of_days_does_not_matter(spent, by_day, left_ms):
    assert made(spent, by_day, left_ms) == made(spent, sorted(by_day), left_ms)


def test_the_formula_is_the_one_that_is_documented():
    # Mean 4, s = √((9+1+1+9)/3), t = 1.638 of four days, √(2 + 4/4).
    found = made(100, [1, 3, 5, 7], 2 * DAY_MS)
    half = 1.638 * (20 / 3) ** 0.5 * 3**0.5
    assert found == Forecast(100 + round(8 - half), 108, 100 + round(8 + half), 4, 4)
    assert made(0, [10], DAY_MS)[:3] == (0, 10, round(10 + 3.078 * 10 * 2**0.5))


def test_without_a_whole_day_nobody_knows():
    assert forecast(5, [], DAY_MS) is None


@pytest.mark.parametrize(
    ("left", "per_day", "expected"),
    [(10, 5, 2 * DAY_MS), (10, 0, None), (0, 0, 0), (-3, 5, 0), (1, 3, DAY_MS // 3)],
)
def test_money_lasts_as_long_as_the_mean_says(left, per_day, expected):
    assert ms_until(left, per_day) == expected


def test_days_before_anybody_was_there_do_not_count():
    today = 100 * DAY_MS
    spent = {today: 9, today - DAY_MS: 5, today - 8 * DAY_MS: 7}
    assert whole_days({today: 9}, today - DAY_MS // 2, today) == []
    assert whole_days({today - DAY_MS: 5}, today, today) == [5]
    assert whole_days(spent, 0, today) == [5, 0, 0, 0, 0, 0, 0]

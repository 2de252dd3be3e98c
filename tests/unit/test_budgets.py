"""Periods follow the UTC calendar, and only budgets that refuse need money first."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenhub.budgets import (
    PERIODS,
    Account,
    Budget,
    accounts_of,
    alert_percent,
    hard_accounts,
    period_end,
    period_start,
)

MOMENTS = st.integers(0, 253_402_300_799_000 - 40 * 86_400_000)
"""Unix milliseconds, up to a while before the year 10000."""


def at(*when: int) -> int:
    return int(datetime(*when, tzinfo=UTC).timestamp() * 1000)  # type: ignore[misc,arg-type]


@pytest.mark.parametrize(
    ("period", "when", "start", "end"),
    [
        ("day", (2024, 2, 29, 23, 59, 59), (2024, 2, 29), (2024, 3, 1)),
        ("day", (2023, 12, 31, 0, 0, 0), (2023, 12, 31), (2024, 1, 1)),
        ("month", (2024, 2, 29, 12), (2024, 2, 1), (2024, 3, 1)),
        ("month", (2023, 12, 31, 23), (2023, 12, 1), (2024, 1, 1)),
        ("month", (2024, 1, 1), (2024, 1, 1), (2024, 2, 1)),
    ],
)
def test_a_period_is_one_of_the_calendar(period, when, start, end):
    assert period_start(period, at(*when)) == at(*start)
    assert period_end(period, at(*when)) == at(*end)


def test_the_total_has_neither_beginning_nor_end():
    assert period_start("total", at(2024, 5, 5)) == 0
    assert period_end("total", at(2024, 5, 5)) is None


@given(moment=MOMENTS, period=st.sampled_from(["day", "month"]))
def test_every_moment_is_in_exactly_one_period(moment, period):
    start, end = period_start(period, moment), period_end(period, moment)
    assert end is not None
    assert start <= moment < end
    assert period_start(period, end) == end
    assert period_start(period, end - 1) == period_start(period, start) == start


@given(moment=MOMENTS)
def test_a_subject_has_one_account_for_each_period(moment):
    found = accounts_of("key", "k", moment)
    assert [account.period for account in found] == list(PERIODS)
    assert [account.start_at for account in found] == [
        period_start(period, moment) for period in PERIODS
    ]


def budget(kind: Any, id_: str, period: Any, **fields: Any) -> Budget:
    return Budget(kind, id_, period, 100, **fields)


def test_only_hard_budgets_that_are_enforced_need_money_first_in_one_order():
    now = at(2024, 5, 5)
    budgets = {
        ("team", "t"): (budget("team", "t", "day"),),
        ("key", "k"): (
            budget("key", "k", "total"),
            budget("key", "k", "month", mode="shadow"),
            budget("key", "k", "day", is_hard=False),
        ),
        ("key", "other"): (budget("key", "other", "total"),),
    }
    subjects = [("team", "t"), ("key", "k"), ("team", "")]
    assert hard_accounts(budgets, subjects, now) == (
        Account("key", "k", "total", 0),
        Account("team", "t", "day", now),
    )
    assert hard_accounts({}, subjects, now) == ()


@pytest.mark.parametrize(
    ("spent", "percent"), [(0, 0), (79, 0), (80, 80), (99, 80), (100, 100), (500, 100)]
)
def test_an_operator_is_told_at_eighty_and_at_a_hundred_percent(spent, percent):
    assert alert_percent(spent, 100) == percent

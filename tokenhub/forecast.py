"""What will have been spent by the end of a period, if it goes on as in the last days.

Pure arithmetic on whole UTC days; the time is an argument. Money is integer nano-dollars.

With the spending of k days, their mean m and their standard deviation s (of a sample, k - 1), what
n further days come to is expected to be m·n, and lies with four chances in five within

    m·n ± t · s · √(n + n²/k)

if days are alike and know nothing of each other: n·s² is their own variance, n²·s²/k that of the
mean being one of k days only, and t Student's 90 % quantile with k - 1 degrees of freedom
(https://en.wikipedia.org/wiki/Prediction_interval). Of a single day s is taken to be as large as m.
What was spent already is never unspent, so the lower end is no less.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

DAY_MS = 86_400_000

DAYS = 7
"""How many days are looked back on: a week has all weekdays once."""

_T90 = (3.078, 3.078, 1.886, 1.638, 1.533, 1.476, 1.440)
"""Student's 90 % quantiles for samples of 1 (as 2) to 7."""


class Forecast(NamedTuple):
    """What will have been spent at the end.

    Args:
        low_nanousd, high_nanousd: with four chances in five it is between them.
        per_day_nanousd: the mean of the days behind it.
        days: how many those are.
    """

    low_nanousd: int
    expected_nanousd: int
    high_nanousd: int
    per_day_nanousd: int
    days: int


def forecast(spent_nanousd: int, by_day: Sequence[int], left_ms: int) -> Forecast | None:
    """Look ahead to the end of a period.

    Args:
        spent_nanousd: in the period so far; less than nothing if more was credited.
        by_day: what the last whole days came to, at most `DAYS` of them, in any order.
        left_ms: until the end.

    Returns: None if there is no whole day to go by.
    """
    count = len(by_day)
    if not count:
        return None
    left_days = max(0, left_ms) / DAY_MS
    mean = sum(by_day) / count
    spread = mean
    if count > 1:
        spread = math.sqrt(sum((each - mean) ** 2 for each in by_day) / (count - 1))
    width = _T90[min(count, DAYS) - 1] * spread * math.sqrt(left_days + left_days**2 / count)
    more = mean * left_days
    return Forecast(
        low_nanousd=spent_nanousd + max(0, round(more - width)),
        expected_nanousd=spent_nanousd + round(more),
        high_nanousd=spent_nanousd + round(more + width),
        per_day_nanousd=round(mean),
        days=count,
    )


def ms_until(left_nanousd: int, per_day_nanousd: int) -> int | None:
    """How long the money lasts at so much a day; 0 = it is spent, None = for ever."""
    if left_nanousd <= 0:
        return 0
    if per_day_nanousd <= 0:
        return None
    return math.ceil(left_nanousd * DAY_MS / per_day_nanousd)


def whole_days(by_day_at: dict[int, int], since_at: int, today_at: int) -> list[int]:
    """The spending of the whole days before today on which there was anybody to spend.

    Args:
        by_day_at: spending by the beginning of its day, unix ms; a day that is not there had none.
        since_at: when whoever spends began to exist.
        today_at: when this day began.
    """
    began = min([since_at, *by_day_at])
    days = (today_at - number * DAY_MS for number in range(1, DAYS + 1))
    return [by_day_at.get(at, 0) for at in days if at >= began]

"""Judges money: budgets that are spent or will be, and traffic that nobody knows the price of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tokenhub.budgets import alert_percent, period_end
from tokenhub.events.shapes import moment
from tokenhub.forecast import Forecast, ms_until
from tokenhub.pricing import usd
from tokenhub.views.facts import BudgetFact, Facts
from tokenhub.views.items import Item, act, see


def find_money_trouble(facts: Facts) -> Iterator[Item]:
    """Budgets of which 80 % are spent, or that will not last; models without a price."""
    for each in facts.budgets:
        yield from _of_budget(each, facts.now)
    for model_id, count in sorted(facts.unpriced.items()):
        model = facts.snapshot.models.get(model_id)
        if count and model is not None and not model.price.is_known:
            yield Item(
                "unpriced_traffic", "warning", "model", model_id, model_id, None,
                {"provider_id": model.provider_id, "attempts": count, "window_secs": 86_400},
                {
                    "requests": see("logs", model=model_id),
                    "model": act("PATCH", "models", model_id),
                },
            )  # fmt: skip


def show_budget(fact: BudgetFact, now: int) -> dict[str, Any]:
    """A budget, what was spent of it and how it will go on."""
    budget, ahead = fact.budget, fact.ahead
    return {
        "period": budget.period,
        "hard": budget.is_hard,
        "mode": budget.mode,
        "limit_usd": usd(budget.limit_nanousd),
        "spent_usd": usd(fact.spent_nanousd),
        "resets_at": _time(period_end(budget.period, now)),
        "forecast": None if ahead is None else show_forecast(ahead),
        "lasts_until": _time(_lasts_until(fact, now)),
    }


def show_forecast(ahead: Forecast) -> dict[str, Any]:
    """A forecast, in dollars."""
    return {
        "low_usd": usd(ahead.low_nanousd),
        "expected_usd": usd(ahead.expected_nanousd),
        "high_usd": usd(ahead.high_nanousd),
        "per_day_usd": usd(ahead.per_day_nanousd),
        "days": ahead.days,
    }


def is_beyond(fact: BudgetFact) -> bool:
    """Whether a budget that begins anew is expected to be spent before it does."""
    is_periodic = fact.budget.period != "total"
    return bool(
        is_periodic and fact.ahead and fact.ahead.expected_nanousd > fact.budget.limit_nanousd
    )


def _of_budget(fact: BudgetFact, now: int) -> Iterator[Item]:
    budget = fact.budget
    percent = alert_percent(fact.spent_nanousd, budget.limit_nanousd)
    if not percent and not is_beyond(fact):
        return
    # The same budget again for another period must not be the same item.
    subject_id = f"{budget.subject_kind}:{budget.subject_id}:{budget.period}"
    owner = {"subject_kind": budget.subject_kind, "subject_id": budget.subject_id}
    facts = {**owner, **show_budget(fact, now)}
    links = {
        "budget": see("budgets", **owner),
        "requests": see("logs", **{budget.subject_kind: budget.subject_id}),
    }
    common = ("budget", subject_id, fact.name, None, facts, links)
    if percent >= 100:
        yield Item("budget_spent", "critical" if budget.refuses else "warning", *common)
    elif percent:
        yield Item("budget_nearly_spent", "warning", *common)
    else:
        yield Item("forecast_over_budget", "warning", *common)


def _lasts_until(fact: BudgetFact, now: int) -> int | None:
    """When it will be spent at the mean of the last days; None = never, or not in this period."""
    if fact.ahead is None:
        return None
    left = fact.budget.limit_nanousd - fact.spent_nanousd
    ms = ms_until(left, fact.ahead.per_day_nanousd)
    at = None if ms is None else now + ms
    end = period_end(fact.budget.period, now)
    is_in_time = at is not None and (at < end if end is not None else at < now + 3650 * 86_400_000)
    return at if is_in_time else None


def _time(at: int | None) -> str | None:
    return None if at is None else moment(at)

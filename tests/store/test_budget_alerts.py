"""Operators are told once of each mark that a budget passes, whatever the amounts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from tokenhub import budget_alerts, store
from tokenhub.board.board import unix_ms
from tokenhub.budgets import Budget, accounts_of

BILLION = 10**18  # nano-dollars: the largest limit


@pytest.fixture
def spend(database) -> Callable[[str, int], None]:
    def work(key_id: str, nanousd: int) -> None:
        charges = dict.fromkeys(accounts_of("key", key_id, unix_ms()), store.Charge(nanousd, 0, 1))
        database.write(lambda found: store.charge_ledgers(found, "host_1", charges))

    return work


@pytest.fixture
def limit(database) -> Callable[..., None]:
    def work(key_id: str, nanousd: int, **fields: Any) -> None:
        budget = Budget("key", key_id, "total", nanousd, **fields)
        database.write(lambda found: store.save_budget(found, budget, 1))

    return work


@pytest.fixture
def told(database, caplog) -> Callable[[], list[tuple[str, int]]]:
    """Looks, and returns of whom and of what was told."""
    caplog.set_level(logging.WARNING, "tokenhub.budgets")

    def work() -> list[tuple[str, int]]:
        caplog.clear()
        budget_alerts.tell(database)
        return [(vars(each)["subject"], vars(each)["percent"]) for each in caplog.records]

    return work


@pytest.mark.parametrize("kind", [{"is_hard": False}, {"mode": "shadow"}, {}])
def test_each_mark_is_told_once(spend, limit, told, kind):
    limit("a", 100, **kind)
    spend("a", 79)
    assert told() == []
    spend("a", 1)
    assert told() == [("key:a", 80)]
    assert told() == []
    spend("a", 50)
    assert told() == [("key:a", 100)]
    assert told() == []


def test_the_largest_budget_there_can_be_keeps_nobody_from_being_told(spend, limit, told):
    limit("rich", BILLION)
    limit("poor", 1000)
    spend("rich", BILLION // 2)
    spend("poor", 900)
    assert told() == [("key:poor", 80)]


def test_what_was_credited_does_not_count(database, spend, limit, told):
    limit("a", 100)
    spend("a", 90)
    account = accounts_of("key", "a", unix_ms())[2]
    database.write(
        lambda found: store.credit_ledger(found, account, 50, 1, reason="paid", actor="owner")
    )
    assert told() == []

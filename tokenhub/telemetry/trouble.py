"""Metrics of what was refused, repeated or lost. Knows the board's counts, and not the reasons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, Metric

from tokenhub.board import Board

STORE_OPS = ("log_request", "log_reward", "audit", "save_vault", "upsert_model")
"""What the original could drop. Here only rows of the log can miss the database: the database
refused them, and they are in a file. The others are part of what they belong to, or an error."""


def trouble_metrics(board: Board) -> Iterable[Metric]:
    """Limits, money, repetition, loss."""
    limited = CounterMetricFamily(
        "tokenhub_rate_limited", "Requests beyond a limit", labels=["scope"]
    )
    admin = CounterMetricFamily("tokenhub_admin_rate_limited", "Admin requests beyond a limit")
    unpaid = CounterMetricFamily(
        "tokenhub_budget_refusals", "Requests without money", labels=["code"]
    )
    repeated = CounterMetricFamily(
        "tokenhub_idempotent_requests", "Requests with an idempotency key", labels=["fate"]
    )
    dropped = CounterMetricFamily(
        "tokenhub_store_dropped", "Rows that the database has not taken", labels=["op"]
    )
    refusals = board.rates.refusals()
    _add(limited, refusals)
    admin.add_metric([], refusals["admin"])
    _add(unpaid, board.purse.refusals())
    _add(repeated, board.replays.counts())
    _add(dropped, dict.fromkeys(STORE_OPS, 0) | {"log_request": board.backlog.set_aside})
    return limited, admin, unpaid, repeated, dropped


def _add(family: CounterMetricFamily, counts: Mapping[Any, int]) -> None:
    for label, count in counts.items():
        family.add_metric([label], count)

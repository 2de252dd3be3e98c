"""Metrics of how models and providers are doing. Knows the board's vitals alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client.core import GaugeMetricFamily, Metric

from tokenhub.board import Board

_STATES = {"healthy": 2, "degraded": 1, "down": 0}
_BREAKERS = {"closed": 0, "open": 1, "half_open": 2, "ramping": 3}


def health_metrics(board: Board, exists: Callable[[str, str], bool]) -> Iterable[Metric]:
    """Health and breakers of what was tried or probed.

    Args:
        exists: whether there is such a model or provider (kind, id) still.
    """
    health = {
        "model": GaugeMetricFamily(
            "tokenhub_model_health_state", "2 healthy, 1 degraded, 0 down", labels=["model"]
        ),
        "provider": GaugeMetricFamily(
            "tokenhub_provider_health_state", "2 healthy, 1 degraded, 0 down", labels=["provider"]
        ),
    }
    says = "0 closed, 1 open, 2 half-open, 3 ramping"
    breakers = {
        "model": GaugeMetricFamily("tokenhub_model_breaker_state", says, labels=["model"]),
        "provider": GaugeMetricFamily("tokenhub_provider_breaker_state", says, labels=["provider"]),
    }
    for vital in board.vitals.list_all():
        if exists(vital.kind, vital.id):
            health[vital.kind].add_metric([vital.id], _STATES[vital.state])
            breakers[vital.kind].add_metric([vital.id], _BREAKERS[vital.breaker])
    return *health.values(), *breakers.values()

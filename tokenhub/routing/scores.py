"""How well models suit a mode: what they cost, how fast and how reliable they are, their weight.

Pure arithmetic (reference §10); who may be asked at all is not its business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import fsum
from typing import NamedTuple

import numpy as np

from tokenhub.domain import Mode, Model
from tokenhub.health import HealthView

NUMPY_ABOVE = 32
"""Larger sets are scored in one numpy pass; below, plain floats are faster."""


class Coefficients(NamedTuple):
    """What a mode cares about; they add up to 1."""

    cost: float
    latency: float
    failure: float
    weight: float


class Parts(NamedTuple):
    """What a score is the sum of; below 0 speaks for the model."""

    cost: float
    latency: float
    failure: float
    weight: float


_EVEN = Coefficients(0.25, 0.25, 0.25, 0.25)
COEFFICIENTS: Mapping[Mode, Coefficients] = {
    "cheap": Coefficients(0.7, 0.1, 0.1, 0.1),
    "normal": _EVEN,
    "high_confidence": Coefficients(0.05, 0.1, 0.15, 0.7),
    "planning": Coefficients(0.1, 0.1, 0.2, 0.6),
    "adversarial": Coefficients(0.1, 0.1, 0.2, 0.6),
    "thompson": _EVEN,
}
"""Reference §10."""


_Column = tuple[float, Sequence[float | None]]
"""A coefficient and the value of each model; None = unknown."""


def scores_of(
    models: Sequence[Model], costs: Sequence[int | None], health: HealthView, mode: Mode
) -> list[float]:
    """Lower is better: cost + latency + failure - weight, each times its coefficient.

    Every value counts as a share of the largest in the set (reference §10); an unknown one counts
    as the mean of the known, and a column without a known value above 0 counts nothing.

    Args:
        costs: the estimate of each, in nano-dollars; None = its price is unknown.
    """
    coefficients, ids = COEFFICIENTS[mode], [model.id for model in models]
    columns: list[_Column] = [(coefficients.cost, costs)]
    if health.latency_ms:
        columns.append((coefficients.latency, [health.latency_ms.get(id_) for id_ in ids]))
    if health.failure_rate:
        columns.append((coefficients.failure, [health.failure_rate.get(id_) for id_ in ids]))
    columns.append((-coefficients.weight, [model.weight for model in models]))
    add = _add_plainly if len(ids) <= NUMPY_ABOVE else _add_with_numpy
    return add(columns)


def parts_of(
    models: Sequence[Model], costs: Sequence[int | None], health: HealthView, mode: Mode
) -> list[Parts]:
    """What each score is made of: the same as `scores_of`, not added up.

    Args:
        costs: see `scores_of`.
    """
    coefficients, ids = COEFFICIENTS[mode], [model.id for model in models]
    columns: tuple[_Column, ...] = (
        (coefficients.cost, costs),
        (coefficients.latency, [health.latency_ms.get(id_) for id_ in ids]),
        (coefficients.failure, [health.failure_rate.get(id_) for id_ in ids]),
        (-coefficients.weight, [model.weight for model in models]),
    )
    return [Parts(*parts) for parts in zip(*map(_shares, columns), strict=True)]


def _shares(column: _Column) -> list[float]:
    coefficient, values = column
    complete = _completed(values)
    top = max(complete, default=0)
    return [coefficient * (value / top) if top > 0 else 0.0 for value in complete]


def _add_plainly(columns: Sequence[_Column]) -> list[float]:
    totals = [0.0] * len(columns[0][1])
    for coefficient, values in columns:
        complete = _completed(values)
        top = max(complete)
        if top > 0:
            totals = [
                total + coefficient * (value / top)
                for total, value in zip(totals, complete, strict=True)
            ]
    return totals


def _completed(values: Sequence[float | None]) -> Sequence[float]:
    """The mean of the known in the place of the unknown; 0 when nothing is known."""
    known = [value for value in values if value is not None]
    if len(known) == len(values):
        return known
    mean = fsum(known) / len(known) if known else 0.0
    return [mean if value is None else value for value in values]


def _add_with_numpy(columns: Sequence[_Column]) -> list[float]:
    """The same operations in the same order as `_add_plainly`, so the same bits."""
    matrix = np.array([values for _, values in columns], dtype=np.float64)  # None becomes NaN
    is_unknown = np.isnan(matrix)
    if is_unknown.any():
        for row, gaps in zip(matrix, is_unknown, strict=True):
            known: list[float] = row[~gaps].tolist()
            row[gaps] = fsum(known) / len(known) if known else 0.0
    tops = matrix.max(axis=1, keepdims=True)
    tops[tops <= 0] = np.inf
    coefficients = np.array([[coefficient] for coefficient, _ in columns])
    scores: list[float] = (coefficients * (matrix / tops)).sum(axis=0).tolist()
    return scores

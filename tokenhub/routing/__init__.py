"""Choose which models may serve a request, and in what order. Pure: no clock, no I/O."""

from tokenhub.routing.decision import (
    RATE_LIMITED,
    RECOVERING,
    ROUTED_AS_FALLBACK,
    ROUTED_AS_LAST_RESORT,
    ROUTED_AS_NAMED,
    ROUTED_BY_ALIAS,
    SKIP_REASONS,
    Choose,
    decide,
)
from tokenhub.routing.scores import COEFFICIENTS, NUMPY_ABOVE

__all__ = [
    "COEFFICIENTS",
    "NUMPY_ABOVE",
    "RATE_LIMITED",
    "RECOVERING",
    "ROUTED_AS_FALLBACK",
    "ROUTED_AS_LAST_RESORT",
    "ROUTED_AS_NAMED",
    "ROUTED_BY_ALIAS",
    "SKIP_REASONS",
    "Choose",
    "decide",
]

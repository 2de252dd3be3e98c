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
    propensities_of,
)
from tokenhub.routing.scores import COEFFICIENTS, NUMPY_ABOVE, Parts, parts_of

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
    "Parts",
    "decide",
    "parts_of",
    "propensities_of",
]

"""The nouns: frozen values that every layer passes around.

Money is integer nano-dollars (1 USD = 10**9). Prices are nano-dollars per million tokens, so that
any published price is exact. Times are unix milliseconds, UTC, and end in `_at`; durations carry
their unit. Nothing here does I/O or knows the clock.
"""

from tokenhub.domain.catalog import (
    CAPABILITIES,
    DEFAULT_SCOPES,
    MODES,
    NANOS_PER_USD,
    NO_LIMITS,
    SCOPES,
    SECRET_PREFIX,
    Alias,
    ApiKey,
    Limits,
    Mode,
    Model,
    Price,
    Provider,
    RoutingDefaults,
    Team,
    Variant,
    VaultRow,
)
from tokenhub.domain.requests import (
    ENDINGS,
    Attempt,
    Caller,
    Candidate,
    ChatRequest,
    Decision,
    Dialect,
    Ending,
    Outcome,
    Policy,
    Usage,
)

__all__ = [
    "CAPABILITIES",
    "DEFAULT_SCOPES",
    "ENDINGS",
    "MODES",
    "NANOS_PER_USD",
    "NO_LIMITS",
    "SCOPES",
    "SECRET_PREFIX",
    "Alias",
    "ApiKey",
    "Attempt",
    "Caller",
    "Candidate",
    "ChatRequest",
    "Decision",
    "Dialect",
    "Ending",
    "Limits",
    "Mode",
    "Model",
    "Outcome",
    "Policy",
    "Price",
    "Provider",
    "RoutingDefaults",
    "Team",
    "Usage",
    "Variant",
    "VaultRow",
]

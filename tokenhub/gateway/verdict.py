"""What failures mean: whose they are, whom to ask again, what the caller is told in the end.

The caller is told in our words, never the provider's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from gevent import GreenletExit

from tokenhub.domain import Candidate, Ending
from tokenhub.errors import (
    AllAttemptsFailed,
    ClientClosed,
    ProviderError,
    RateLimited,
    RequestRefused,
    RoutingError,
    TokenHubError,
    UpstreamRefused,
)
from tokenhub.gateway.ledger import INTERNAL_ERROR
from tokenhub.providers.errors import ERROR_CLASSES

CONTEXT_OVERFLOW = "context_overflow"
OVERLOADED = "overloaded"

CLIENT_CLOSED_STATUS = 499  # nginx's word for it; nobody receives it

_TIMEOUTS = frozenset(
    {
        "connect_timeout", "first_byte_timeout", "answer_idle", "stream_idle", "total_deadline",
        "timeout",
    }
)  # fmt: skip

RETRYABLE = frozenset(
    {
        "server_error", "overloaded", "unreachable", "connect_timeout", "connection_closed",
        "conflict",
    }
)  # fmt: skip
"""Failures that may be gone a moment later, so that the same model is worth another try when no
other one is left. Not timeouts: the caller has waited long enough."""

PROVIDER_WIDE = frozenset(name for name, each in ERROR_CLASSES.items() if each.is_provider_wide)
"""Failures that count against the provider. Limits are most often of one model."""

OF_THE_PROVIDER = PROVIDER_WIDE | _TIMEOUTS | {"rate_limited"}
"""Failures that the provider's other models are likely to share: those are tried last. After a
timeout also because the caller has waited long enough for this provider."""

UNREACHABLE = frozenset({"unreachable", "connect_timeout"})

OF_THE_ENDPOINT = UNREACHABLE | {
    "connection_closed", "server_error", "overloaded", "answer_cut", "stream_cut",
}  # fmt: skip
"""Failures after which another endpoint of the same provider is asked."""

OF_ONE_ENDPOINT = OF_THE_ENDPOINT | _TIMEOUTS
"""Failures that count against the endpoint: others need not share them."""


def find_recovering(failures: Sequence[tuple[Candidate, ProviderError]]) -> Candidate | None:
    """The candidate whose latest failure may be gone already, the one that failed longest ago.

    Not one that asked us to wait: a caller waits no longer for a retry than a moment.
    """
    latest: dict[str, tuple[Candidate, ProviderError]] = {}
    for candidate, error in failures:
        latest.pop(candidate.model.id, None)  # to the end
        latest[candidate.model.id] = candidate, error
    for candidate, error in latest.values():
        if error.error_class in RETRYABLE and not error.retry_after_seconds:
            return candidate
    return None


def without_key(body: bytes, api_key: str | None) -> bytes:
    """A provider's error body as it may be relayed: none at all if it quotes the key we sent."""
    if body and api_key and api_key.encode("utf-8", "surrogatepass") in body:
        return b""
    return body


def last_word(errors: Sequence[ProviderError]) -> RoutingError:
    """The error for a request whose every attempt failed.

    429 with the shortest wait when all were rate limited; 503 when all were overloaded; 504 when
    all were too slow; the provider's own 400 when the request was too long for all of them; else
    502.
    """
    classes = {error.error_class for error in errors}
    if classes == {OVERLOADED}:
        waits = [error.retry_after_seconds for error in errors if error.retry_after_seconds]
        failed = AllAttemptsFailed(
            "every provider is overloaded",
            code="overloaded",
            headers={"Retry-After": str(math.ceil(min(waits)))} if waits else None,
        )
        failed.status = 503
        return failed
    if classes == {"rate_limited"}:
        wait = min(error.retry_after_seconds or 1.0 for error in errors)
        failed = AllAttemptsFailed(
            "every provider is rate limiting us",
            code="rate_limited",
            headers={"Retry-After": str(max(1, math.ceil(wait)))},
        )
        failed.status, failed.type = 429, "rate_limit_error"
        return failed
    if classes and classes <= _TIMEOUTS:
        failed = AllAttemptsFailed("no provider answered in time", code="timeout")
        failed.status, failed.type = 504, "timeout_error"
        return failed
    if classes == {CONTEXT_OVERFLOW}:
        return UpstreamRefused(errors[-1].status or 400, errors[-1].body)
    return AllAttemptsFailed(f"no provider answered; {len(errors)} attempts were made")


def sooner(before: TokenHubError | None, error: TokenHubError) -> TokenHubError:
    """Why nobody could be asked, of two reasons: the first, but of two limits the one that is
    sooner over."""
    if isinstance(before, RateLimited) and isinstance(error, RateLimited):
        return min(before, error, key=_wait_secs)
    return before or error


def end_of(error: BaseException) -> tuple[Ending, int, str]:
    """How a request ends that came to nothing: the word for it, its status and its error class."""
    match error:
        case ClientClosed() | GeneratorExit():  # whoever reads what we make has gone
            return "client_closed", CLIENT_CLOSED_STATUS, ""
        case GreenletExit():  # the worker is going
            return "interrupted", CLIENT_CLOSED_STATUS, ""
        case RequestRefused() | UpstreamRefused():
            return "refused", error.status, error.code
        case TokenHubError():
            return "failed", error.status, error.code
    return "failed", 500, INTERNAL_ERROR


def _wait_secs(error: RateLimited) -> float:
    return float(error.headers.get("Retry-After", math.inf))

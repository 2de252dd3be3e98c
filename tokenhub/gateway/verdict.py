"""What the caller is told when nobody answered: in our words, never the provider's."""

from __future__ import annotations

from collections.abc import Sequence

from tokenhub.errors import AllAttemptsFailed, ProviderError, RoutingError, UpstreamRefused

_TIMEOUTS = frozenset({"first_byte_timeout", "total_deadline", "connect_timeout", "timeout"})


def last_word(errors: Sequence[ProviderError]) -> RoutingError:
    """The error for a request whose every attempt failed.

    429 with the shortest wait when all were rate limited; 504 when all were too slow; the
    provider's own 400 when the request was too long for all of them; else 502.
    """
    classes = {error.error_class for error in errors}
    if classes == {"rate_limited"}:
        wait = min(error.retry_after_seconds or 1.0 for error in errors)
        failed = AllAttemptsFailed(
            "every provider is rate limiting us",
            code="rate_limited",
            headers={"Retry-After": str(max(1, round(wait)))},
        )
        failed.status, failed.type = 429, "rate_limit_error"
        return failed
    if classes and classes <= _TIMEOUTS:
        failed = AllAttemptsFailed("no provider answered in time", code="timeout")
        failed.status, failed.type = 504, "timeout_error"
        return failed
    if classes == {"context_overflow"}:
        return UpstreamRefused(errors[-1].status or 400, errors[-1].body)
    return AllAttemptsFailed(f"no provider answered; {len(errors)} attempts were made")

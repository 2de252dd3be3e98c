"""One attempt's line in the books: what it was, how long it took, what it cost.

Knows nothing of providers or of what comes next.
"""

from __future__ import annotations

from dataclasses import dataclass

from tokenhub.domain import Attempt, Candidate, ChatRequest, Span, Usage
from tokenhub.errors import ProviderError
from tokenhub.pricing import cost_of

INTERNAL_ERROR = "internal_error"
CLIENT_CLOSED = "client_closed"
DEADLINE = "deadline"
HEDGE_LOST = "hedge_lost"
NOT_NEEDED = "not_needed"

NO_FAILURE = frozenset({"", HEDGE_LOST, NOT_NEEDED})
"""What attempts end with of whom nobody had to make anything good."""


@dataclass(slots=True)
class Try:
    """A call to a provider, and when it began (monotonic seconds and since the request came).

    Args:
        reason: why it was made.
        ttft_ms: set when a stream has opened.
        response_bytes: of its answer so far.
        span: None = nothing is traced.
    """

    candidate: Candidate
    began: float
    started_ms: int
    reason: str = ""
    ttft_ms: int | None = None
    response_bytes: int = 0
    span: Span | None = None


def worked(
    made: Try,
    usage: Usage,
    duration_ms: int,
    *,
    error_class: str = "",
    status: int | None = 200,
    next_step: str = "",
) -> Attempt:
    """The provider worked for it, to the end or not: it costs what was used."""
    model = made.candidate.model
    return Attempt(
        model_id=model.id,
        provider_id=model.provider_id,
        started_ms=made.started_ms,
        duration_ms=duration_ms,
        ttft_ms=made.ttft_ms,
        status=status,
        error_class=error_class,
        usage=usage,
        cost_nanousd=cost_of(model.price, usage),
        price_version=model.price.version,
        reason=made.reason,
        next_step=next_step,
        response_bytes=made.response_bytes,
        span=made.span,
    )


def failed(made: Try, error: ProviderError, request: ChatRequest, duration_ms: int) -> Attempt:
    """It gave nothing. Where the provider may charge for it all the same, its input is billed."""
    asked = Usage(request.input_tokens, 0, is_estimate=True) if error.sent else Usage()
    made.response_bytes = error.response_bytes
    return worked(
        made,
        asked,
        duration_ms,
        error_class=error.error_class,
        status=error.status,
        next_step=error.next_step,
    )


def broken_off(made: Try, error_class: str, request: ChatRequest, duration_ms: int) -> Attempt:
    """It ended by no doing of the provider's: the caller left or its time was over, another was
    faster, or we have a bug."""
    if error_class == INTERNAL_ERROR:  # that is on nobody's bill
        return worked(made, Usage(), duration_ms, error_class=error_class, status=None)
    asked = Usage(request.input_tokens, 0, is_estimate=True)  # it was at work all the same
    return worked(made, asked, duration_ms, error_class=error_class, status=None)

"""W3C Trace Context (https://www.w3.org/TR/trace-context/): read from callers, said to providers.

Pure but for the random numbers that it is handed. What a caller sends is looked at closely: it goes
into header lines. `baggage` stays here, for it may say anything about the caller's own business.
"""

from __future__ import annotations

import random
import re

from tokenhub.domain import Span, Trace

STATE_CHARS_MAX = 512
"""Of `tracestate`: what the recommendation asks everybody to carry at least. Longer ones go."""

SAMPLED = 1

_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_STATE = re.compile(r"[\x20-\x7e]+")
_ZERO_TRACE, _ZERO_SPAN = "0" * 32, "0" * 16


def trace_of(parent: str, state: str, *, rng: random.Random, ratio: float) -> Trace:
    """Where a request stands: below its caller's span, or at the beginning of a new trace.

    Whether it is sampled is the caller's decision, if there is one.

    Args:
        parent, state: the headers `traceparent` and `tracestate` as they came; "" = not at all.
        ratio: the share of new traces that are sampled, 0 to 1.
    """
    found = _PARENT.fullmatch(parent) if parent else None
    if found is None or not _is_valid(found):
        trace_id = rng.getrandbits(128) or 1
        is_sampled = ratio >= 1 or (trace_id >> 64) < ratio * 2**64
        return Trace(f"{trace_id:032x}", _span_id(rng), is_sampled=is_sampled)
    is_handed_on = len(state) <= STATE_CHARS_MAX and _STATE.fullmatch(state)
    return Trace(
        found[2],
        _span_id(rng),
        parent_id=found[3],
        state=state if is_handed_on else "",
        is_sampled=bool(int(found[4], 16) & SAMPLED),
    )


def new_span(rng: random.Random) -> Span:
    """A span for an attempt."""
    return Span(_span_id(rng))


def trace_lines(trace: Trace, span_id: str) -> bytes:
    """The header lines for a provider, each with its CRLF.

    Args:
        span_id: of the attempt that they are for.
    """
    lines = f"traceparent: 00-{trace.id}-{span_id}-{trace.is_sampled:02x}\r\n"
    if trace.state:
        lines += f"tracestate: {trace.state}\r\n"
    return lines.encode("ascii")


def _is_valid(found: re.Match[str]) -> bool:
    version, trace_id, span_id, _, more = found.groups()
    if version == "ff" or (version == "00" and more):
        return False
    return trace_id != _ZERO_TRACE and span_id != _ZERO_SPAN


def _span_id(rng: random.Random) -> str:
    return f"{rng.getrandbits(64) or 1:016x}"

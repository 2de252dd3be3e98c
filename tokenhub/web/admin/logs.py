"""The request log: pages, exports, how many requests there were when, and of what.

What is asked is read here; how it is found quickly is the store's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from flask import Blueprint, Response

from tokenhub import store
from tokenhub.board.board import unix_ms
from tokenhub.domain import ENDINGS, MODES
from tokenhub.errors import InvalidRequest
from tokenhub.pricing import nanos_from_usd, usd
from tokenhub.store.log_sums import Counted
from tokenhub.web import forms, guards
from tokenhub.web.admin import asking
from tokenhub.web.admin.feeds import Feed, late_after
from tokenhub.web.answers import answer, read, rfc3339

routes = Blueprint("logs", __name__)

AS_THEY_ARE = (
    "request_id", "client_request_id", "trace_id", "client_ip", "host_id", "api_key_id",
    "team_id", "endpoint", "mode", "stream", "requested_model", "alias_from", "model_id",
    "provider_id", "reason", "status_code", "error_class", "input_tokens", "output_tokens",
    "cache_read_tokens", "cache_write_tokens", "reasoning_tokens", "usage_is_estimate",
    "estimated_input_tokens", "latency_ms", "latency_budget_ms", "ttft_ms", "overhead_us",
    "response_bytes", "snapshot_version", "price_version",
)  # fmt: skip
COLUMNS = (
    "id", "timestamp", *AS_THEY_ARE, "outcome", "attempts", "total_tokens", "estimated_cost_usd",
    "cost_known", "skips",
)  # fmt: skip

WORDS = {
    "model": "model_id",
    "requested_model": "requested_model",
    "provider": "provider_id",
    "key": "api_key_id",
    "team": "team_id",
    "error_class": "error_class",
    "endpoint": "endpoint",
    "alias": "alias_from",
    "host": "host_id",
}
"""Columns of the log by what they are called when they are asked for."""

FILTERS: dict[str, asking.Ask] = {
    **asking.TIMES,
    **dict.fromkeys(WORDS, asking.words),
    "outcome": asking.words_of(*ENDINGS),
    "mode": asking.words_of(*MODES),
    "status": asking.statuses,
    "stream": asking.one(asking.flag),
    "request_id": asking.one(asking.identifier),
    "min_latency_ms": asking.one(asking.integer(0, 2**31)),
    "min_cost_usd": asking.one(asking.amount),
    "min_attempts": asking.one(asking.integer(0, 1000)),
}

FACETS = {
    **WORDS, "outcome": "ending", "mode": "mode", "status": "status_code", "stream": "stream",
}  # fmt: skip
FACET_VALUES = 50

SECOND_MS, MINUTE_MS, HOUR_MS = 1000, 60_000, 3_600_000
DAY_MS = 24 * HOUR_MS
FINE_MS = 3 * DAY_MS - HOUR_MS
"""How long there are sums below the hour."""
STEPS_MS = (
    (15 * MINUTE_MS, 10 * SECOND_MS), (HOUR_MS, MINUTE_MS), (6 * HOUR_MS, 5 * MINUTE_MS),
    (7 * DAY_MS, HOUR_MS),
)  # fmt: skip
"""Up to how long a time the step is how long; beyond, a day. Sums of the hour are far fewer."""
BARS_MAX = 1000
SPAN_DEFAULT_MS = HOUR_MS
COUNT_SECS = 0.1


@routes.get("/logs")
def list_all() -> Response:
    """Requests as they ended, newest first: a page, or all of them as CSV or JSON lines."""
    asked = asking.read_query({**FILTERS, **asking.PAGING})
    return LOGS.serve(guards.services(), filters_of(asked), asked)


@routes.get("/logs/histogram")
def histogram() -> Response:
    """How many requests ended how, by step of time; steps without any are left out."""
    asked = asking.read_query({**FILTERS, "step_secs": asking.one(_step_secs)})
    hub, filters, span = guards.services(), filters_of(asked), _span_of(asked)
    found = read(
        hub,
        lambda connection: store.count_by_step(
            connection, filters, span, is_late=late_after(COUNT_SECS)
        ),
    )
    bars: dict[int, dict[str, int]] = {}
    for (number, ending), count in sorted(found.counts.items()):
        bars.setdefault(number * span.step_ms, {})[ending] = count
    shown = [
        {"at": rfc3339(at), "total": sum(counts.values()), "outcomes": counts}
        for at, counts in bars.items()
    ]
    return answer({**_counted(span, found), "buckets": shown})


@routes.get("/logs/facets")
def facets() -> Response:
    """The most frequent values of a field, and how many requests have each."""
    asked = asking.read_query({**FILTERS, "field": asking.one(forms.one_of(*FACETS))})
    if "field" not in asked:
        known = ", ".join(FACETS)
        message = f"field is required: one of {known}"
        raise InvalidRequest(message, code="missing_field", param="field")
    hub, filters, span = guards.services(), filters_of(asked), _span_of(asked)
    found = read(
        hub,
        lambda connection: store.count_by_word(
            connection, filters, span, FACETS[asked["field"]], is_late=late_after(COUNT_SECS)
        ),
    )
    ranked = sorted(found.counts.items(), key=lambda each: (-each[1], each[0]))
    shown = [{"value": value, "count": count} for (value,), count in ranked[:FACET_VALUES]]
    facts = {"field": asked["field"], "values": shown, "value_count": len(ranked)}
    return answer({**_counted(span, found), **facts})


def filters_of(asked: Mapping[str, Any]) -> store.LogFilters:
    """Which requests are asked for.

    Raises:
        InvalidRequest: the time ends before it begins.
    """
    from_at, to_at = asking.times_of(asked)
    words = {column: asked[name] for name, column in WORDS.items() if name in asked}
    for name, column in (("outcome", "ending"), ("mode", "mode")):
        if name in asked:
            words[column] = asked[name]
    cost = asked.get("min_cost_usd")
    return store.LogFilters(
        from_at=from_at,
        to_at=to_at,
        words=words,
        statuses=asked.get("status", ()),
        stream=asked.get("stream"),
        request_id=asked.get("request_id", ""),
        min_latency_ms=asked.get("min_latency_ms"),
        min_cost_nanousd=None if cost is None else nanos_from_usd(cost),
        min_attempts=asked.get("min_attempts"),
    )


def record(row: dict[str, Any]) -> dict[str, Any]:
    """A request in the original's fields, and what we know besides."""
    return {
        "id": row["id"],
        "timestamp": rfc3339(row["started_at"]),
        **{name: row[name] for name in AS_THEY_ARE},
        "outcome": row["ending"],
        "attempts": row["attempt_count"],
        "total_tokens": row["input_tokens"] + row["output_tokens"],
        "estimated_cost_usd": usd(row["cost_nanousd"]),
        "cost_known": row["cost_nanousd"] is not None,
        "skips": orjson.loads(row["skips"]),
    }


LOGS = Feed("logs", "logs", COLUMNS, store.find_logs, store.count_logs, record)


def _step_secs(name: str, value: str) -> int:
    step: int = asking.integer(10, 366 * DAY_MS // SECOND_MS)(name, value)
    if step % 10:
        raise InvalidRequest(f"{name} must be a multiple of 10", param=name)
    return step


def _span_of(asked: Mapping[str, Any]) -> store.Span:
    """The time that is asked for, in whole steps: the last hour if nothing is said. What is too
    long ago for the step has a longer one.

    Raises:
        InvalidRequest: more steps than anybody can look at.
    """
    now = unix_ms()
    to_at = asked.get("to", now)
    from_at = min(asked.get("from", to_at - SPAN_DEFAULT_MS), to_at)
    length_ms = to_at - from_at
    step_ms = asked.get("step_secs", 0) * SECOND_MS or _step_for(length_ms)
    if from_at < now - FINE_MS:
        step_ms = max(step_ms, HOUR_MS)
    if step_ms > HOUR_MS:  # whole hours, or whole days
        unit = DAY_MS if step_ms >= DAY_MS else HOUR_MS
        step_ms = -(-step_ms // unit) * unit
    first, last = from_at // step_ms, -(-to_at // step_ms)
    if last - first > BARS_MAX + 1:
        message = f"step_secs must be at least {-(-length_ms // BARS_MAX // SECOND_MS)} here"
        raise InvalidRequest(message, param="step_secs")
    return store.Span(first * step_ms, last * step_ms, step_ms)


def _step_for(length_ms: int) -> int:
    days = -(-length_ms // BARS_MAX // DAY_MS)
    return next((step for longest, step in STEPS_MS if length_ms <= longest), days * DAY_MS)


def _counted(span: store.Span, found: Counted) -> dict[str, Any]:
    return {
        "from": rfc3339(span.from_at),
        "to": rfc3339(span.to_at),
        "step_secs": span.step_ms // SECOND_MS,
        "total": sum(found.counts.values()),
        "searched_to": rfc3339(found.searched_to),
    }

"""The spans of a request, as OTLP's JSON (https://opentelemetry.io/docs/specs/otlp/#json-protobuf).

A server span for the request, and a client span for each attempt with the attributes of
https://github.com/open-telemetry/semantic-conventions-genai, which is still being made: all of its
names are here. Pure. Never a prompt, an answer, a key or a header.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tokenhub import __version__
from tokenhub.domain import NANOS_PER_USD, Attempt, Outcome, Trace

SERVER, CLIENT = 2, 3
ERROR = 2
FAILED_ENDINGS = frozenset({"failed", "cut", "interrupted"})

OPERATIONS = {"/v1/embeddings": "embeddings", "/v1/completions": "text_completion"}
"""`gen_ai.operation.name` by endpoint; all others are chats, whatever their dialect."""

Value = str | bool | int | float | Sequence[str] | None
Json = dict[str, Any]


class Asked(NamedTuple):
    """What a span says of whom an attempt asked.

    Args:
        provider: the type of the provider.
        model: by the provider's own name.
    """

    provider: str
    model: str
    base_url: str


def request_span(outcome: Outcome, trace: Trace) -> Json:
    """The server span of a request."""
    span = _span(trace, trace.span_id, f"POST {outcome.endpoint}", SERVER)
    if trace.parent_id:
        span["parentSpanId"] = trace.parent_id
    _time(span, outcome.started_at, outcome.latency_ms)
    cost = outcome.cost_nanousd
    span["attributes"] = attributes(
        {
            "http.request.method": "POST",
            "http.route": outcome.endpoint,
            "url.path": outcome.endpoint,
            "http.response.status_code": outcome.status,
            "http.response.body.size": outcome.response_bytes,
            "client.address": outcome.client_ip,
            "error.type": outcome.error_class,
            "tokenhub.request_id": outcome.request_id,
            "tokenhub.client_request_id": outcome.client_request_id,
            "tokenhub.api_key_id": outcome.key_id,
            "tokenhub.team_id": outcome.team_id,
            "tokenhub.mode": outcome.mode,
            "tokenhub.requested_model": outcome.requested_model,
            "tokenhub.alias": outcome.alias_from,
            "tokenhub.model": outcome.model_id,
            "tokenhub.provider": outcome.provider_id,
            "tokenhub.reason": outcome.reason,
            "tokenhub.outcome": outcome.ending,
            "tokenhub.attempts": len(outcome.attempts),
            "tokenhub.cost_usd": None if cost is None else cost / NANOS_PER_USD,
            "tokenhub.ttft_ms": outcome.ttft_ms,
            "tokenhub.overhead_us": outcome.overhead_us,
            "tokenhub.stream": outcome.stream,
            "tokenhub.snapshot_version": outcome.snapshot_version,
        }
    )
    if outcome.status >= 500 or outcome.ending in FAILED_ENDINGS:
        span["status"] = {"code": ERROR, "message": outcome.error_class}
    return span


def attempt_span(outcome: Outcome, trace: Trace, attempt: Attempt, asked: Asked) -> Json:
    """The client span of an attempt, which must have been traced."""
    found = attempt.span
    if found is None:
        raise ValueError("the attempt was not traced")
    operation = OPERATIONS.get(outcome.endpoint, "chat")
    span = _span(trace, found.id, f"{operation} {asked.model}", CLIENT)
    span["parentSpanId"] = trace.span_id
    _time(span, outcome.started_at + attempt.started_ms, attempt.duration_ms)
    usage, cost = attempt.usage, attempt.cost_nanousd
    host, port = _place(asked.base_url)
    span["attributes"] = attributes(
        {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": asked.provider,
            "gen_ai.system": asked.provider,  # its older name
            "gen_ai.request.model": asked.model,
            "gen_ai.request.stream": outcome.stream,
            "gen_ai.response.model": found.response_model,
            "gen_ai.response.finish_reasons": found.finish_reasons,
            "gen_ai.usage.input_tokens": usage.input_tokens,
            "gen_ai.usage.output_tokens": usage.output_tokens,
            "gen_ai.usage.cache_read.input_tokens": usage.cache_read_tokens,
            "gen_ai.usage.cache_creation.input_tokens": usage.cache_write_tokens,
            "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
            "server.address": host,
            "server.port": port,
            "http.response.status_code": attempt.status,
            "http.response.body.size": attempt.response_bytes,
            "error.type": attempt.error_class,
            "tokenhub.model": attempt.model_id,
            "tokenhub.provider": attempt.provider_id,
            "tokenhub.reason": attempt.reason,
            "tokenhub.outcome": "failed" if attempt.error_class else "answered",
            "tokenhub.next_step": attempt.next_step,
            "tokenhub.usage_is_estimate": usage.is_estimate,
            "tokenhub.cost_usd": None if cost is None else cost / NANOS_PER_USD,
            "tokenhub.ttft_ms": attempt.ttft_ms,
        }
    )
    if attempt.next_step:  # who was stopped by us, or by its caller, has not failed
        span["status"] = {"code": ERROR, "message": attempt.error_class}
    return span


def export_request(spans: Sequence[Json], service: str) -> Json:
    """The body of what is sent to a collector."""
    resource = attributes({"service.name": service, "service.version": __version__})
    scope = {"name": "tokenhub", "version": __version__}
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": resource},
                "scopeSpans": [{"scope": scope, "spans": spans}],
            }
        ]
    }


def attributes(values: Mapping[str, Value]) -> list[Json]:
    """Attributes as OTLP has them; what is not known ("", None, an empty list) is left out."""
    return [
        {"key": name, "value": _value(value)}
        for name, value in values.items()
        if value is not None and value != "" and value != ()
    ]


def _value(value: Value) -> Json:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}  # 64 bits are text in JSON
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, str):
        return {"stringValue": value}
    return {"arrayValue": {"values": [{"stringValue": each} for each in value or ()]}}


def _span(trace: Trace, span_id: str, name: str, kind: int) -> Json:
    span: Json = {"traceId": trace.id, "spanId": span_id, "name": name, "kind": kind, "flags": 1}
    if trace.state:
        span["traceState"] = trace.state
    return span


def _time(span: Json, started_at: int, duration_ms: int) -> None:
    span["startTimeUnixNano"] = str(started_at * 1_000_000)
    span["endTimeUnixNano"] = str((started_at + duration_ms) * 1_000_000)


@lru_cache(maxsize=1000)
def _place(base_url: str) -> tuple[str, int | None]:
    try:
        parts = urlsplit(base_url)
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return "", None

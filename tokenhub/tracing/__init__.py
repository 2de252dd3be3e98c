"""OpenTelemetry traces: where a request stands in one, its spans, and their way to a collector.

Spans are made from the finished Outcome, when nobody waits any more, and are sent as OTLP over
HTTP in JSON, which every collector takes: a few lines here, where the official SDK would bring a
thread, a second HTTP client and its own idea of forking along. With tracing off there is no
`Tracer`, and a request costs nothing but to see that. Knows no catalog and nothing of Flask.
"""

from tokenhub.tracing.context import new_span, trace_lines, trace_of
from tokenhub.tracing.notes import note_answer, note_stream
from tokenhub.tracing.spans import Asked
from tokenhub.tracing.tracer import Tracer, find_tracer

__all__ = [
    "Asked",
    "Tracer",
    "find_tracer",
    "new_span",
    "note_answer",
    "note_stream",
    "trace_lines",
    "trace_of",
]

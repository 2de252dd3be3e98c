"""What an answer says of itself that only a trace shows: the model by its own name, and why it
stopped. Read from the parsed answer, whatever its dialect; of a stream from its meter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenhub.domain import Span

CHARS_MAX = 200
REASONS_MAX = 8


def note_answer(span: Span, parsed: Mapping[str, Any]) -> None:
    """Note it of a whole answer."""
    model = parsed.get("model")
    if isinstance(model, str):
        span.response_model = model[:CHARS_MAX]
    choices = parsed.get("choices")
    if isinstance(choices, list):
        found = [each.get("finish_reason") for each in choices if isinstance(each, dict)]
    else:  # Anthropic's word, or that of OpenAI's Responses
        found = [parsed.get("stop_reason") or parsed.get("status")]
    words = [word[:CHARS_MAX] for word in found if isinstance(word, str)]
    span.finish_reasons = tuple(words[:REASONS_MAX])


def note_stream(span: Span, finish_reason: str | None) -> None:
    """Note it of a stream that has ended."""
    if finish_reason:
        span.finish_reasons = (finish_reason[:CHARS_MAX],)

"""Anthropic's Messages dialect as one that callers speak: through, or by way of the chat dialect.

The other direction, for providers that speak it, is `dialects.anthropic`; its tables are used
here. Pure: nothing does I/O or reads a clock. What becomes of every field: docs/translation.md.
"""

from tokenhub.dialects.anthropic.streams import ends_stream, opens_stream
from tokenhub.dialects.dialect import Dialect
from tokenhub.dialects.messages.answers import to_message
from tokenhub.dialects.messages.errors import error_body, relayed_error
from tokenhub.dialects.messages.mending import as_anthropic_takes
from tokenhub.dialects.messages.passing import (
    StreamMeter,
    is_answer,
    is_event,
    reports_error,
    usage_of,
)
from tokenhub.dialects.messages.reading import read_count, read_request, with_output_limit
from tokenhub.dialects.messages.streams import Events
from tokenhub.dialects.messages.to_chat import to_chat, without_effort
from tokenhub.dialects.messages.tokens import count_tokens

__all__ = [
    "MESSAGES",
    "StreamMeter",
    "as_anthropic_takes",
    "count_tokens",
    "ends_stream",
    "is_answer",
    "is_event",
    "opens_stream",
    "read_count",
    "reports_error",
    "usage_of",
    "without_effort",
]

MESSAGES = Dialect(
    name="messages",
    read=read_request,
    limit_output=with_output_limit,
    to_chat=to_chat,
    answer=to_message,
    translator=Events,
    error_body=error_body,
    relayed_error=relayed_error,
)

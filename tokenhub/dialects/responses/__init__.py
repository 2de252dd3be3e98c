"""OpenAI's Responses as a dialect that callers speak, stateless: nothing is kept between requests.

reading.py and fields.py check a request, to_chat.py says it in chat, answers.py and streams.py say
what comes back; passing.py is for providers that speak the dialect themselves. Wire format:
https://platform.openai.com/docs/api-reference/responses. Nothing here does I/O.
"""

from __future__ import annotations

from typing import Any

from tokenhub.dialects import openai
from tokenhub.dialects.chat import relayed_error
from tokenhub.dialects.dialect import Dialect
from tokenhub.dialects.responses.answers import to_response
from tokenhub.dialects.responses.reading import read_request, with_output_limit
from tokenhub.dialects.responses.streams import ResponseEvents
from tokenhub.dialects.responses.to_chat import to_chat
from tokenhub.errors import TokenHubError


def _error_body(error: TokenHubError, request_id: str) -> dict[str, Any]:
    return openai.error_body(error)


RESPONSES = Dialect(
    name="responses",
    read=read_request,
    limit_output=with_output_limit,
    to_chat=to_chat,
    answer=to_response,
    translator=ResponseEvents,
    error_body=_error_body,
    relayed_error=relayed_error,
)

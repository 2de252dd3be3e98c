"""The chat dialect as one that callers speak: in the middle, so there is nothing to translate."""

from __future__ import annotations

from typing import Any

import orjson

from tokenhub.dialects import openai
from tokenhub.dialects.dialect import Dialect, InChat
from tokenhub.domain import ChatRequest
from tokenhub.errors import ProviderError, TokenHubError


class _AsItIs:
    """The chunks as they came."""

    def feed(self, block: bytes) -> bytes:
        return block

    def fail(self, error: ProviderError) -> bytes:
        return openai.error_event(error)


def relayed_error(body: bytes, status: int, request_id: str) -> bytes | None:
    """A provider's refusal as it came, if it is an error envelope."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return body if isinstance(found, dict) and isinstance(found.get("error"), dict) else None


def _answer(completion: dict[str, Any], request: ChatRequest) -> dict[str, Any]:
    return completion


def _error_body(error: TokenHubError, request_id: str) -> dict[str, Any]:
    return openai.error_body(error)


def _translator(request: ChatRequest) -> _AsItIs:
    return _AsItIs()


CHAT = Dialect(
    name="chat",
    read=openai.read_request,
    limit_output=openai.with_output_limit,
    to_chat=InChat,
    answer=_answer,
    translator=_translator,
    error_body=_error_body,
    relayed_error=relayed_error,
)

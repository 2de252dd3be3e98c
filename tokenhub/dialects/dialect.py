"""What a client dialect is: how its requests are read, and how a chat completion is said in it.

The chat dialect is the middle: whatever a provider does not speak itself is translated to it and
from it. Pure; nothing here does I/O or reads a clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from tokenhub.domain import ChatRequest
from tokenhub.errors import ProviderError, TokenHubError


class InChat(NamedTuple):
    """A request in the words of the chat dialect.

    Args:
        dropped: the fields that it cannot say and that may be left out (docs/translation.md).
    """

    request: ChatRequest
    dropped: tuple[str, ...] = ()


class Translator(Protocol):
    """A stream of chat completion chunks in the words of another dialect, as it passes."""

    def feed(self, block: bytes) -> bytes:
        """Take a block of whole chat events, the last with `data: [DONE]`; returns whole events of
        the dialect, or b"" if there is nothing to say yet."""

    def fail(self, error: ProviderError) -> bytes:
        """What ends a stream that broke off."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """One dialect that callers may speak.

    Args:
        read: parse and check a body, once; raises InvalidRequest.
        limit_output: the same request with an answer of at most so many tokens.
        to_chat: the request in the chat dialect; raises Untranslatable, InvalidRequest.
        answer: a whole chat completion in this dialect, for the request it answers.
        translator: the same for a stream. The request's `stream` and `wants_usage` are what the
            caller has asked for; the chunks always end with one that has the usage.
        error_body: the error envelope, with our id of the request.
        relayed_error: the body of a provider's refusal (in the chat dialect or in this one) as the
            caller gets it, with the status and our id of the request; None = it is no envelope.
    """

    name: str
    read: Callable[[bytes], ChatRequest]
    limit_output: Callable[[ChatRequest, int], ChatRequest]
    to_chat: Callable[[ChatRequest], InChat]
    answer: Callable[[dict[str, Any], ChatRequest], dict[str, Any]]
    translator: Callable[[ChatRequest], Translator]
    error_body: Callable[[TokenHubError, str], dict[str, Any]]
    relayed_error: Callable[[bytes, int, str], bytes | None]

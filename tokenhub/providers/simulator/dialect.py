"""What the simulator asks of a dialect: the checks, the answers and the errors of one wire format.

Connections and the choice of faults are not its business.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from tokenhub.providers.simulator.client import Request
from tokenhub.providers.simulator.content import Pacing
from tokenhub.providers.simulator.errors import Refused
from tokenhub.providers.simulator.memory import Memory


class Answer(Protocol):
    """An answer worked out."""

    interval_ms: int
    latency_ms: int

    @property
    def whole(self) -> bytes:
        """The answer in one piece."""

    @property
    def events(self) -> Iterator[bytes]:
        """The answer as server-sent events, to the one that ends the stream."""

    @property
    def opening(self) -> bytes:
        """The very first event, which holds no text yet."""


@dataclass(slots=True)
class Whole:
    """An answer that is never streamed."""

    whole: bytes
    latency_ms: int
    interval_ms: int = 0
    opening: bytes = b""

    @property
    def events(self) -> Iterator[bytes]:
        return iter(())


class Dialect(Protocol):
    """One wire format at one endpoint, for one request."""

    extra: str
    """Header lines of every answer, each with its CRLF."""
    broken_event: ClassVar[bytes]
    """An event whose JSON breaks off."""

    def authenticate(self, request: Request, api_key: str) -> None:
        """Raises Refused with the status 401 unless the request has the key, if one is set."""

    def check(self, request: Request, body: dict[str, Any]) -> None:
        """Raises Refused when the provider would not take the request."""

    def answer(self, body: dict[str, Any], pacing: Pacing, memory: Memory) -> Answer:
        """Work out the answer to a request that has been checked."""

    def error(self, refused: Refused) -> bytes:
        """The body of an error answer."""

    def error_event(self, refused: Refused) -> bytes:
        """An error in a stream, and whatever comes after it."""

    def refusal(self, fault: str) -> Refused:
        """How the provider says a fault that has the name of an error."""

    def overflow(self, context_tokens: int, input_tokens: int, asked_tokens: int) -> Refused:
        """Too long for the model: the input alone if `asked_tokens` is 0, else with the output."""

    def models(self, models: list[dict[str, Any]]) -> bytes:
        """The list of models."""

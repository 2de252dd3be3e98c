"""What all adapters do: choose the wire that a request is spoken on, ask, and listen.

A dialect that the provider does not speak is said in the chat dialect, which all do. Knows no wire
format of its own.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from tokenhub.dialects import DIALECTS
from tokenhub.dialects.dialect import InChat
from tokenhub.domain import ChatRequest, Dialect
from tokenhub.errors import ProviderError
from tokenhub.providers.base import Answer, Headers, ModelListing, Stream, Target, Timeouts
from tokenhub.providers.calls import (
    Calls,
    expect_events,
    ms_since,
    normalise_base_url,
    read_listings,
    read_object,
)
from tokenhub.providers.upstream import Exchange, Upstream, header_line
from tokenhub.providers.wires import Wire

MODELS_PATH = "/v1/models"


class _Asked(NamedTuple):
    """A request on its wire, in the words of that, and the answer that has begun."""

    wire: Wire
    request: ChatRequest
    exchange: Exchange
    dropped: tuple[str, ...]

    @property
    def handed_on(self) -> Headers:
        """The headers of the answer that the caller gets too."""
        wanted = self.wire.handed_on
        return () if wanted is None else self.exchange.headers(wanted)


class WiredAdapter(ABC):
    """An adapter whose dialects are wires; see base.Adapter.

    Attributes:
        wires: by dialect; there is always one for `chat`.
        speaks: which of them every such provider has; the others only where the Target says so.
        health_path: what is asked to see whether the provider is there: by default the list of
            models, which is cheap, and checks the key as well.
    """

    wires: ClassVar[Mapping[Dialect, Wire]]
    speaks: ClassVar[frozenset[Dialect]] = frozenset({"chat"})
    health_path: ClassVar[str] = MODELS_PATH

    def __init__(self, upstream: Upstream) -> None:
        self._calls = Calls(upstream)

    @abstractmethod
    def head(self, target: Target, request: ChatRequest | None = None) -> bytes:
        """The header lines that carry the key, and whatever else each call needs.

        Args:
            request: what is asked, in the words of its wire; None = nothing that has a caller.
        """

    def send(
        self, target: Target, request: ChatRequest, timeouts: Timeouts, request_id: str
    ) -> Answer:
        """See base.Adapter.send.

        Raises:
            Untranslatable: the provider's dialects cannot say what is asked for; nothing was sent.
        """
        started = time.monotonic()
        asked = self._ask(target, request, timeouts, request_id, stream=False)
        ttft_ms, wire = ms_since(started), asked.wire
        raw, parsed = read_object(asked.exchange)
        try:
            wire.judge(raw, parsed)
            usage = wire.usage_of(parsed)
            body, parsed = wire.hear(raw, parsed)
        except ProviderError as error:
            error.response_bytes = asked.exchange.response_bytes
            raise
        return Answer(
            body,
            parsed,
            usage,
            ttft_ms,
            dropped=asked.dropped,
            dialect=wire.dialect,
            headers=asked.handed_on,
            response_bytes=asked.exchange.response_bytes,
        )

    def stream(
        self, target: Target, request: ChatRequest, timeouts: Timeouts, request_id: str
    ) -> Stream:
        """See base.Adapter.stream.

        Raises:
            Untranslatable: as for `send`.
        """
        started = time.monotonic()
        asked = self._ask(target, request, timeouts, request_id, stream=True)
        expect_events(asked.exchange)
        wire = asked.wire
        stream = Stream(
            asked.exchange,
            fault_of=wire.fault_of,
            opens=wire.opens,
            ends=wire.ends,
            meter=wire.meter(asked.request),
            dropped=asked.dropped,
            dialect=wire.dialect,
            headers=asked.handed_on,
            event_bytes_max=wire.event_bytes_max,
        )
        try:
            stream.begin()
        except ProviderError as error:
            error.response_bytes = stream.response_bytes
            raise
        stream.ttft_ms = ms_since(started)
        return stream

    def count_tokens(
        self, target: Target, request: ChatRequest, timeouts: Timeouts, request_id: str
    ) -> Mapping[str, Any] | None:
        """See base.Adapter.count_tokens: most have no endpoint for it."""
        return None

    def health_url(self, base_url: str) -> str:
        """See base.Adapter.health_url."""
        return normalise_base_url(base_url) + self.health_path

    def check(self, target: Target, timeouts: Timeouts) -> int:
        """See base.Adapter.check."""
        return self._calls.check(self.health_url(target.base_url), self.head(target), timeouts)

    def list_models(self, target: Target, timeouts: Timeouts) -> list[ModelListing]:
        """See base.Adapter.list_models."""
        url = normalise_base_url(target.base_url) + MODELS_PATH
        return read_listings(self._calls.get(url, self.head(target), timeouts))

    def find_milder(
        self, error: ProviderError, request: ChatRequest, said: ChatRequest
    ) -> InChat | None:
        """How to ask once more what a provider refuses for a field that only the translation has.

        A refusal costs nothing, and nobody has heard anything yet.

        Args:
            request: in its caller's words.
            said: in those of the wire.

        Returns:
            None if the error is no such refusal, or that field is gone already.
        """
        return None

    def _choose(
        self, target: Target, request: ChatRequest
    ) -> tuple[Wire, ChatRequest, tuple[str, ...]]:
        """The wire for a request, and the request in its words; what those cannot say."""
        dialect = request.dialect
        if dialect in self.speaks or dialect in target.speaks:
            wire = self.wires.get(dialect)
            if wire is not None:
                return wire, request, ()
        return self.wires["chat"], *DIALECTS[dialect].to_chat(request)

    def _ask(
        self,
        target: Target,
        request: ChatRequest,
        timeouts: Timeouts,
        request_id: str,
        *,
        stream: bool,
    ) -> _Asked:
        wire, said, dropped = self._choose(target, request)
        fields = header_line(b"X-Request-Id", request_id) + target.trace + self.head(target, said)
        where = (target.base_url, wire.path)
        while True:
            spoken = wire.say(said, target.model, stream)
            try:
                exchange = self._calls.post(where, fields, spoken.body, timeouts)
            except ProviderError as error:
                milder = self.find_milder(error, request, said)
                if milder is None:
                    raise wire.word(error) from None
                said, dropped = milder.request, dropped + milder.dropped
            else:
                return _Asked(wire, said, exchange, dropped + spoken.dropped)

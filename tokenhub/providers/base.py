"""What every adapter shares: the call's nouns, the adapter protocol, and the stream of an answer.

Pure: it reads from whatever `Source` it is handed and knows no sockets, no clock and no dialect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from tokenhub.dialects.sse import EVENT_BYTES_MAX, EventBuffer, each_event, events, malformed
from tokenhub.domain import ChatRequest, Dialect, Usage
from tokenhub.errors import ProviderError

OPENING_SECS = 1.0
"""How long a stream that has opened, and said nothing yet, is held back: see Stream.begin."""
END_GRACE_SECS = 1.0
"""After the dialect's end mark nothing is missing: how long to wait for the HTTP end, at most."""


Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Target:
    """Which model at which endpoint; `model` is the provider's own name for it.

    Args:
        speaks: the dialects that it takes besides those that every provider of its type does.
        trace: header lines that say which trace the call is part of.
    """

    provider_id: str
    base_url: str
    model: str
    api_key: str | None = field(default=None, repr=False)
    speaks: frozenset[Dialect] = frozenset()
    trace: bytes = b""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long each part of a call may take, in seconds.

    Args:
        connect_secs: name lookup, TCP and TLS together.
        first_byte_secs: from the connection until the head of the answer. A provider that does not
            stream sends its head only when the whole answer is ready.
        idle_secs: between two reads once the answer has begun.
        total_secs: everything.
    """

    connect_secs: float
    first_byte_secs: float
    idle_secs: float
    total_secs: float


@dataclass(slots=True)
class Answer:
    """A whole answer: `body` as it is handed on, `parsed` from the one parse of it.

    Args:
        dropped: what the caller asked for and the provider's dialect cannot say.
        dialect: what it is written in: the caller's own, or the chat dialect.
        headers: those of the provider's that its caller gets too, as (name, value).
        response_bytes: of the body as the provider sent it.
    """

    body: bytes
    parsed: dict[str, Any]
    usage: Usage | None
    ttft_ms: int
    status: int = 200
    dropped: tuple[str, ...] = ()
    dialect: Dialect = "chat"
    headers: Headers = ()
    response_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ModelListing:
    """A model as a provider lists it; 0 = it does not say."""

    id: str
    owned_by: str = ""
    max_context_tokens: int = 0
    max_output_tokens: int = 0


class Meter(Protocol):
    """Follows a stream on its way to the caller, in whose dialect `pass_on` hands it out."""

    def pass_on(self, block: bytes) -> bytes:
        """Take note of a block of whole events; returns what of it the caller may see."""

    def finish(self) -> bytes:
        """What the caller must still get when the provider's end brought nothing to see."""

    def fail(self, error: ProviderError) -> bytes:
        """What ends a stream that broke off."""

    @property
    def usage(self) -> Usage | None:
        """What the provider said that it used."""

    @property
    def output_tokens(self) -> int:
        """Our estimate of what was produced so far."""

    @property
    def finish_reason(self) -> str | None:
        """Why the model stopped, if it said so."""


class Source(Protocol):
    """An answer's body as it arrives."""

    def read(self, longest_secs: float | None = None) -> bytes:
        """The next bytes, b"" at the clean end; raises ProviderError for anything else."""

    def wait(self, longest_secs: float) -> float:
        """Wait for something to read; returns the seconds left, 0.0 when nothing came in time."""

    def close(self) -> None:
        """Give the connection up unless the answer is complete; any number of times."""


class Stream:
    """Iterates over a streamed answer in blocks of complete events, one block per read.

    Each event in a block ends with its blank line, so a block can be relayed with one write. Only
    the greenlet that iterates may close it; what is thrown into it closes the connection at once.

    Args:
        source: the body.
        fault_of: judges the data of one event: None, or the error that it reports.
        opens: whether the data of one event only opens the stream: nothing is said by it yet.
        ends: whether a block (without white space at its end) ends with the dialect's last event.
        meter: follows the stream for whoever relays it.
        dropped, dialect, headers: see Answer.
        event_bytes_max: how large an event may be.

    Raises:
        ProviderError: while iterating, when the stream breaks, falls silent, runs out of time or
            reports an error itself. The events before it have been handed out.
    """

    __slots__ = ("_buffer", "_ends", "_fault", "_fault_of", "_held", "_opens", "_source",
                 "dialect", "dropped", "headers", "is_done", "meter", "response_bytes",
                 "ttft_ms")  # fmt: skip

    def __init__(
        self,
        source: Source,
        *,
        fault_of: Callable[[bytes], ProviderError | None],
        opens: Callable[[bytes], bool],
        ends: Callable[[bytes], bool],
        meter: Meter,
        dropped: tuple[str, ...] = (),
        dialect: Dialect = "chat",
        headers: Headers = (),
        event_bytes_max: int = EVENT_BYTES_MAX,
    ) -> None:
        self._source = source
        self._fault_of = fault_of
        self._opens = opens
        self._ends = ends
        self._buffer = EventBuffer(event_bytes_max)
        self.meter = meter
        self.dropped = dropped
        self.dialect = dialect
        self.headers = headers
        self._held = b""  # read by begin(), not handed out yet
        self._fault: ProviderError | None = None
        self.ttft_ms = 0
        self.response_bytes = 0  # of the body, so far
        self.is_done = False  # the end mark has come: whatever follows, nothing is missing

    def begin(self) -> None:
        """Read until the first event that says something, so that a failure can still fail over.

        Providers open a stream before they know whether they can serve it: under load, Anthropic's
        `overloaded_error` follows right after its `message_start`. So what only opens a stream is
        held back, but for OPENING_SECS at most: a model may think long.

        Raises:
            ProviderError: as when iterating; `malformed_answer` if it has no event, or no sense.
        """
        block, first = self._begin()
        self._held = self._hold(block) if self._opens(first) else block

    def _hold(self, block: bytes) -> bytes:
        """Read on while there are only openings; returns all that was read."""
        held, left_secs = block, OPENING_SECS
        while left_secs and all(self._opens(data) for _, data in each_event(block) if data):
            if self._fault is not None:
                raise self._abandon(self._fault)
            left_secs = self._source.wait(left_secs)
            if left_secs:
                block = next(self, b"")
                if not block:
                    raise ProviderError("nothing was said", error_class="stream_cut")
                held += block
        return held

    def _begin(self) -> tuple[bytes, bytes]:
        """Read up to the end of the block with the first event that has data; returns both."""
        block = data = b""
        while not data:
            more = next(self, b"")
            block += more
            data = next((data for _, data in each_event(more) if data), b"")
            if not data and (not more or len(block) > EVENT_BYTES_MAX):
                raise self._abandon(malformed("the stream has no events"))
        if self._ends(data):
            raise self._abandon(malformed("the stream is empty"))
        fault = self._fault_of(data)
        if fault is not None:
            raise self._abandon(fault)
        return block, data

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> bytes:
        if self._held:
            block, self._held = self._held, b""
            return block
        if self._fault is not None:
            raise self._abandon(self._fault)
        while True:
            data = self._read()
            self.response_bytes += len(data)
            block = self._feed(data) if data else self._rest()
            if block.strip(b"\r\n"):  # empty lines alone are no event
                # A quote inside a JSON text is escaped, so this is a key or a bare word.
                if b'"error"' in block:
                    block = self._before_fault(block)
                if self._ends(block.rstrip()):
                    self.is_done = True
                return block
            if not data:
                self.is_done = True
                self._source.close()
                raise StopIteration

    def close(self) -> None:
        """Stop: closes the provider's connection unless the answer is complete."""
        self._source.close()

    def _read(self) -> bytes:
        if not self.is_done:
            return self._source.read()
        try:
            return self._source.read(END_GRACE_SECS)
        except ProviderError:
            return b""  # the provider closed without the HTTP end, or keeps the line open

    def _feed(self, data: bytes) -> bytes:
        try:
            return self._buffer.feed(data)
        except ProviderError as error:
            raise self._abandon(error) from None

    def _rest(self) -> bytes:
        # The HTTP message is whole, so an event without its blank line is only badly terminated.
        rest = self._buffer.take_rest()
        return rest + b"\n\n" if rest.strip() else b""

    def _before_fault(self, block: bytes) -> bytes:
        """The part of the block before an error event; the error is raised on the next read."""
        good = b""
        for raw, data in events(block):
            self._fault = self._fault_of(data) if b'"error"' in data else None
            if self._fault is not None:
                if not good:
                    raise self._abandon(self._fault)
                return good
            good += raw
        return block

    def _abandon(self, error: ProviderError) -> ProviderError:
        self._source.close()
        return error


class Adapter(Protocol):
    """One provider dialect. Adapters hold no secrets and no state about a provider's health."""

    def send(
        self, target: Target, request: ChatRequest, timeouts: Timeouts, request_id: str
    ) -> Answer:
        """Ask for a whole answer.

        Raises:
            ProviderError: for anything but a well-formed answer.
        """

    def stream(
        self, target: Target, request: ChatRequest, timeouts: Timeouts, request_id: str
    ) -> Stream:
        """Ask for a streamed answer; returns when the first event is here.

        Raises:
            ProviderError: for anything up to and including the first event.
        """

    def count_tokens(
        self, target: Target, request: ChatRequest, timeouts: Timeouts, request_id: str
    ) -> Mapping[str, Any] | None:
        """What the provider says it counts, at least `input_tokens`; None = it cannot count.

        Raises:
            ProviderError: it did not say.
            Untranslatable: its dialects cannot say what is to be counted.
        """

    def health_url(self, base_url: str) -> str:
        """What to GET to see whether the provider is there."""

    def check(self, target: Target, timeouts: Timeouts) -> int:
        """GET the health URL, with the key if there is one; returns the status, whatever it is.

        Raises:
            ProviderError: no answer.
        """

    def list_models(self, target: Target, timeouts: Timeouts) -> list[ModelListing]:
        """What the provider lists, with the key if there is one.

        Raises:
            ProviderError: no answer, or none that lists models; `status` is the provider's.
        """

"""The body of a streamed answer, metered and put into its caller's words as it passes.

Knows nothing of candidates: what happens when a stream ends is the exchange's business, told
through `on_end`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Self

import gevent

from tokenhub.dialects import DIALECTS
from tokenhub.domain import ChatRequest, Ending, Usage
from tokenhub.errors import ProviderError
from tokenhub.providers.base import Stream

OnEnd = Callable[["Relay", Ending, ProviderError | None], None]
Pass = Callable[[bytes], bytes]
"""Whole events in, whole events out; b"" while there is nothing to say yet."""


class Relay:
    """Blocks of whole events for the caller, in order, and one ending.

    The block that ends the stream is held back until `on_end` has recorded it, so that nobody has
    seen the end of an answer that a crash could still make us forget.

    Args:
        on_end: called exactly once: answered, cut (with the error, unless it is our own),
            client_closed or interrupted.
        stages: what the chunks of a chat completion go through, in this order.
    """

    def __init__(
        self, stream: Stream, request: ChatRequest, on_end: OnEnd, stages: Sequence[Pass] = ()
    ) -> None:
        self._stream = stream
        self._request = request
        self._on_end = on_end
        self._meter = stream.meter
        self._error_event = stream.meter.fail
        self._stages = tuple(stages) if stream.dialect == "chat" else ()
        if stream.dialect != request.dialect:
            translator = DIALECTS[request.dialect].translator(request)
            self._stages += (translator.feed,)
            self._error_event = translator.fail
        self._is_over = False
        self._began = time.monotonic()
        self.upstream_secs = 0.0
        self.bytes_sent = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        while not self._is_over:
            block = self._read()
            if block:
                return block
        # Read on to the end of the HTTP message, so that the connection can be used again. What
        # breaks now, nobody misses.
        with suppress(ProviderError):
            next(self._stream, None)
        raise StopIteration

    def __length_hint__(self) -> int:
        """0 once the last block was handed out (PEP 424): the worker sends the end with it."""
        return 0 if self._is_over else 1

    def close(self) -> None:
        """The caller has gone, or the answer was sent whole."""
        try:
            if not self._is_over:
                self._finish("client_closed", None)
        finally:
            self._stream.close()

    @property
    def client_secs(self) -> float:
        """How long this stream waited for its reader, and not for its provider."""
        return time.monotonic() - self._began - self.upstream_secs

    @property
    def usage(self) -> Usage:
        """What the provider said it used, or our estimate of what was produced so far."""
        return self._meter.usage or Usage(
            self._request.input_tokens, self._meter.output_tokens, is_estimate=True
        )

    @property
    def response_bytes(self) -> int:
        """How much of its answer the provider has sent."""
        return self._stream.response_bytes

    @property
    def finish_reason(self) -> str | None:
        """Why the model stopped, if it said so."""
        return self._meter.finish_reason

    def _read(self) -> bytes:
        """The next block for the caller; b"" if all of it is hidden."""
        waiting = time.monotonic()
        try:
            try:
                block = next(self._stream, b"")
            finally:  # before the ending is recorded
                self.upstream_secs += time.monotonic() - waiting
        except ProviderError as error:
            return self._break(error)
        except BaseException as error:
            self._finish(_ending_of(error), None)
            raise
        is_done = self._stream.is_done
        try:
            visible = self._say(block, is_done=is_done)
        except ProviderError as error:
            return self._break(error)
        except Exception:  # a fault of ours; what was produced is still billed
            self._finish("cut", None)
            raise
        self.bytes_sent += len(visible)
        if is_done:
            self._finish("answered", None)
        return visible

    def _say(self, block: bytes, *, is_done: bool) -> bytes:
        """A block in the caller's words.

        Raises:
            ProviderError: the stream is over without an end.
        """
        visible = self._meter.pass_on(block)
        if is_done and not block and self._meter.finish_reason is None:
            raise ProviderError("no end", error_class="stream_cut")
        if is_done and not visible:
            visible = self._meter.finish()
        for stage in self._stages:
            if visible:
                visible = stage(visible)
        return visible

    def _break(self, error: ProviderError) -> bytes:
        event = self._error_event(error)
        self.bytes_sent += len(event)
        self._finish("cut", error)
        self._stream.close()
        return event

    def _finish(self, ending: Ending, error: ProviderError | None) -> None:
        self._is_over = True
        self._on_end(self, ending, error)


def _ending_of(error: BaseException) -> Ending:
    """What it means that reading was broken off by something that is no ProviderError."""
    if isinstance(error, gevent.GreenletExit):
        return "interrupted"  # the worker is going
    return "cut" if isinstance(error, Exception) else "client_closed"

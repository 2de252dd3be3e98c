"""Server-sent events: cut from a byte stream, and taken apart.

https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream: a line ends
with CRLF, LF or CR; an event ends with an empty line. Pure; knows nothing of what events say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tokenhub.errors import ProviderError

EVENT_BYTES_MAX = 1 << 20
"""How large an event may be where its dialect does not say otherwise."""

# A CR that ends what we have so far and follows LF is the first half of CRLF: wait for the LF.
# After CR it is taken as the empty line: a stream of bare CRs must not lag one event behind.
_EVENT_END = re.compile(rb"(?:\r\n|\n)(?:\r\n|\n|\r(?=[^\n]))|\r\r\n?")
_LINE_END = re.compile(rb"\r\n|\n|\r")
# One line of data, perhaps named, ended by LF: nearly every event of nearly every provider.
_PLAIN = re.compile(rb"(?:event: [^\r\n]*\n)?data: ([^\r\n]*)\n\n")


class EventBuffer:
    """Cuts a byte stream after its last complete event, wherever the reads fall.

    Args:
        event_bytes_max: how large an event may be.
    """

    __slots__ = ("_event_bytes_max", "_pending")

    def __init__(self, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._event_bytes_max = event_bytes_max
        self._pending = bytearray()

    def feed(self, data: bytes) -> bytes:
        """Take one read; returns all events that are complete now, as they came, or b"".

        Raises:
            ProviderError: `malformed_answer` when one event is larger than may be.
        """
        pending = self._pending
        if not pending:
            cut = _last_end(data, 0)
            if cut == len(data):
                return data
            pending += data[cut:]
            block = data[:cut]
        else:
            seen = len(pending)
            pending += data
            cut = _last_end(pending, max(0, seen - 3))
            block = bytes(pending[:cut])
            del pending[:cut]
        if len(pending) > self._event_bytes_max:
            raise malformed("an event of the stream is too large")
        return block

    def take_rest(self) -> bytes:
        """What follows the last complete event; to be asked once the input has ended."""
        rest = bytes(self._pending)
        self._pending.clear()
        return rest


def _last_end(data: bytes | bytearray, start: int) -> int:
    """Where the last complete event ends, looking from `start`; 0 when there is none."""
    if data.find(b"\r", start) < 0:
        at = data.rfind(b"\n\n", start)
        return at + 2 if at >= 0 else 0
    cut = 0
    for match in _EVENT_END.finditer(data, start):
        cut = match.end()
    return cut


def events(block: bytes) -> list[tuple[bytes, bytes]]:
    """The events of a block: each as it came (blank line included) and its joined data lines.
    Comments, and events without data, have b"" as theirs. Empty lines between are left out."""
    return list(each_event(block))


def each_event(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The same one by one: whoever wants the first need not pay for all."""
    end = 0
    for match in _PLAIN.finditer(block):
        if match.start() != end:
            break
        yield match[0], match[1]
        end = match.end()
    for raw in _events_raw(block[end:]):
        if rest := raw.lstrip(b"\r\n"):
            yield rest, _data_of(rest)


def _events_raw(block: bytes) -> Iterator[bytes]:
    start = 0
    if b"\r" not in block:
        while (at := block.find(b"\n\n", start)) >= 0:
            yield block[start : at + 2]
            start = at + 2
        return
    for match in _EVENT_END.finditer(block + b" "):  # so that the last CR is not waited for
        yield block[start : match.end()]
        start = match.end()


def _data_of(raw: bytes) -> bytes:
    lines = [line[5:] for line in _LINE_END.split(raw) if line.startswith(b"data:")]
    return b"\n".join(line.removeprefix(b" ") for line in lines)


def malformed(message: str) -> ProviderError:
    """An answer that is not what it should be; the message is ours."""
    return ProviderError(message, error_class="malformed_answer")

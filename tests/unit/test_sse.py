"""Cutting server-sent events out of reads, and the stream that hands them on."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenhub.dialects.openai import StreamMeter, ends_stream, opens_stream
from tokenhub.dialects.sse import EVENT_BYTES_MAX, EventBuffer, events
from tokenhub.errors import ProviderError
from tokenhub.providers.base import Stream
from tokenhub.providers.chat_completions import CHAT

ENDS = [b"\n", b"\r\n", b"\r"]
LINES = st.one_of(
    st.binary(max_size=12).map(lambda text: b"data: " + re.sub(b"[\r\n]", b"", text)),
    st.sampled_from([b"data:{}", b": ping", b"event: message", b"data", b"id: 7", b"x"]),
)
# Every line with an ending of its own, so that all mixtures occur, and an empty line at the end.
EVENTS = st.lists(st.tuples(LINES, st.sampled_from(ENDS)), min_size=1, max_size=3).flatmap(
    lambda lines: st.sampled_from(ENDS).map(
        lambda end: b"".join(line + ending for line, ending in lines) + end
    )
)
STREAMS = st.lists(EVENTS, min_size=1, max_size=5).map(b"".join)
CHUNK = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
ERROR = b'data: {"error":{"message":"overloaded","type":"overloaded_error"}}\n\n'
DONE = b"data: [DONE]\n\n"
ROLE = b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'


def feed_all(pieces: list[bytes]) -> list[bytes]:
    buffer = EventBuffer()
    blocks = [buffer.feed(piece) for piece in pieces]
    return [*blocks, buffer.take_rest()]


def seen(blocks: list[bytes]) -> list[tuple[bytes, bytes]]:
    """Events without their empty lines: which read brings the LF of a CR LF does not matter."""
    found = [event for block in blocks for event in events(block)]
    return [(raw.strip(b"\r\n"), data) for raw, data in found]


@given(STREAMS, st.data())
def test_however_the_reads_fall_the_bytes_and_the_events_are_the_same(
    stream: bytes, data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    edges = [0, *cuts, len(stream)]
    blocks = feed_all([stream[a:b] for a, b in pairwise(edges)])
    assert b"".join(blocks) == stream
    assert seen(blocks) == seen([stream])


@given(STREAMS)
def test_byte_by_byte_is_the_same_as_at_once(stream: bytes) -> None:
    blocks = feed_all([stream[i : i + 1] for i in range(len(stream))])
    assert b"".join(blocks) == stream
    assert seen(blocks) == seen([stream])


@given(STREAMS, st.data())
def test_a_block_never_ends_inside_an_event(stream: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(stream)))
    blocks = feed_all([stream[:at], stream[at:]])[:-1]
    for block in filter(None, blocks):
        assert re.search(rb"(\r\n|\n|\r)(\r\n|\n|\r)\Z", block)


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r\n", b"\r\n\n"])
def test_an_event_is_handed_on_the_moment_its_blank_line_is_here(end: bytes) -> None:
    buffer = EventBuffer()
    assert buffer.feed(b"data: a") == b""
    for byte in end[:-1]:
        assert buffer.feed(bytes([byte])) == b""
    assert buffer.feed(end[-1:]) == b"data: a" + end
    assert buffer.take_rest() == b""


def test_one_read_of_many_events_is_one_block() -> None:
    buffer = EventBuffer()
    assert buffer.feed(CHUNK * 3 + CHUNK[:10]) == CHUNK * 3
    assert buffer.feed(CHUNK[10:]) == CHUNK


def test_an_event_without_end_is_refused_before_it_fills_the_memory() -> None:
    buffer = EventBuffer()
    with pytest.raises(ProviderError) as caught:
        for _ in range(EVENT_BYTES_MAX // 1000 + 1):
            buffer.feed(b"x" * 1000)
    assert caught.value.error_class == "malformed_answer"


def test_a_large_event_is_taken_in_time_where_it_is_expected() -> None:
    event = b"data: " + b"x" * (16 << 20) + b"\n\n"
    buffer, started = EventBuffer(17 << 20), time.process_time()
    blocks = [buffer.feed(event[at : at + 16384]) for at in range(0, len(event), 16384)]
    assert time.process_time() - started < 2.0, "each byte must be looked at once"
    assert b"".join(blocks) == event


@pytest.mark.parametrize(
    ("raw", "data"),
    [
        (b"data: {}\n\n", b"{}"),
        (b"data:{}\n\n", b"{}"),
        (b"data:  {}\n\n", b" {}"),
        (b"data: a\ndata: b\n\n", b"a\nb"),
        (b"data: a\r\ndata: b\r\n\r\n", b"a\nb"),
        (b"event: delta\rdata: a\r\r", b"a"),
        (b": ping\n\n", b""),
        (b"event: ping\n\n", b""),
        (b"data: \n\n", b""),
    ],
)
def test_data_lines_are_joined_and_other_lines_left_out(raw: bytes, data: bytes) -> None:
    assert events(raw) == [(raw, data)]


def test_empty_lines_between_events_are_no_events() -> None:
    assert events(b"\n\ndata: a\n\n\n\ndata: b\n\n") == [
        (b"data: a\n\n", b"a"), (b"data: b\n\n", b"b"),
    ]  # fmt: skip


# --- the stream ---------------------------------------------------------------------------------


class Script:
    """A source that plays reads; an exception among them is raised."""

    def __init__(self, *reads: bytes | ProviderError | None) -> None:
        self.reads = list(reads)
        self.closed = 0
        self.longest_secs: list[float | None] = []

    def read(self, longest_secs: float | None = None) -> bytes:
        self.longest_secs.append(longest_secs)
        if not self.reads:
            return b""
        read = self.reads.pop(0)
        if isinstance(read, ProviderError):
            raise read
        return read or b""

    def wait(self, longest_secs: float) -> float:
        """A None among the reads is a second in which nothing comes."""
        if self.reads and self.reads[0] is None:
            self.reads.pop(0)
            return 0.0
        return longest_secs

    def close(self) -> None:
        self.closed += 1


def cut() -> ProviderError:
    return ProviderError("cut", error_class="stream_cut")


def begun(source: Script) -> Stream:
    meter = StreamMeter(split=events, hide_usage=False)
    stream = Stream(
        source, fault_of=CHAT.fault_of, opens=opens_stream, ends=ends_stream, meter=meter
    )
    stream.begin()
    return stream


def fails(action: Callable[[], object]) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        action()
    return caught.value


def test_a_stream_hands_on_every_byte_in_order() -> None:
    source = Script(CHUNK[:5], CHUNK[5:] + CHUNK, CHUNK, DONE)
    stream = begun(source)
    assert list(stream) == [CHUNK * 2, CHUNK, DONE]
    assert stream.is_done
    assert source.closed


def test_a_stream_that_ends_cleanly_without_the_end_mark_is_whole() -> None:
    stream = begun(Script(CHUNK))
    assert list(stream) == [CHUNK]
    assert stream.is_done


def test_comments_before_the_first_event_do_not_begin_the_stream() -> None:
    source = Script(b": wait\n\n", b": wait\n\n", ERROR)
    assert fails(lambda: begun(source)).error_class == "overloaded"
    assert source.closed


def test_comments_are_handed_on() -> None:
    assert list(begun(Script(b": wait\n\n", CHUNK))) == [b": wait\n\n" + CHUNK]


def test_a_read_of_empty_lines_is_no_block() -> None:
    assert list(begun(Script(CHUNK, b"\n\n", b"\r\n\r\n", CHUNK))) == [CHUNK, CHUNK]


@pytest.mark.parametrize("reads", [[], [b": ping\n\n"], [DONE], [b"data: nonsense\n\n"]])
def test_a_stream_without_a_sensible_first_event_never_begins(reads: list[bytes]) -> None:
    source = Script(*reads)
    assert fails(lambda: begun(source)).error_class == "malformed_answer"
    assert source.closed


def test_a_cut_before_the_first_event_can_still_fail_over() -> None:
    assert fails(lambda: begun(Script(CHUNK[:9], cut()))).error_class == "stream_cut"


def test_what_only_opens_a_stream_is_held_back_until_something_is_said() -> None:
    source = Script(ROLE, b": wait\n\n", ROLE, CHUNK, DONE)
    stream = begun(source)
    assert source.reads == [DONE]
    assert list(stream) == [ROLE + b": wait\n\n" + ROLE + CHUNK, DONE]


@pytest.mark.parametrize(
    ("reads", "error_class"),
    [
        ([ROLE, ERROR], "overloaded"),
        ([ROLE + ERROR], "overloaded"),
        ([ROLE, ROLE + ERROR + CHUNK], "overloaded"),
        ([ROLE, None, ERROR], None),
        ([ROLE, CHUNK + ERROR], None),
        ([ROLE, CHUNK[:9], cut()], "stream_cut"),
        ([ROLE], "stream_cut"),
    ],
)
def test_a_failure_before_anything_is_said_can_still_fail_over(
    reads: list[bytes | ProviderError | None], error_class: str | None
) -> None:
    source = Script(*reads)
    if error_class is None:  # it had its time, or has said something
        stream = begun(source)
        assert next(stream).startswith(ROLE)
        assert fails(lambda: next(stream)).error_class == "overloaded"
    else:
        assert fails(lambda: begun(source)).error_class == error_class


def test_a_stream_that_says_nothing_for_a_while_is_handed_on_as_far_as_it_is() -> None:
    source = Script(ROLE, None, CHUNK, DONE)
    assert list(begun(source)) == [ROLE, CHUNK, DONE]


def test_a_cut_comes_after_all_complete_events() -> None:
    stream = begun(Script(CHUNK, CHUNK + CHUNK[:9], cut()))
    assert [next(stream), next(stream)] == [CHUNK, CHUNK]
    assert fails(lambda: next(stream)).error_class == "stream_cut"
    assert not stream.is_done


def test_an_error_event_ends_the_stream_after_the_events_before_it() -> None:
    source = Script(CHUNK, CHUNK + ERROR + CHUNK)
    stream = begun(source)
    assert [next(stream), next(stream)] == [CHUNK, CHUNK]
    assert fails(lambda: next(stream)).error_class == "overloaded"
    assert source.closed


def test_an_error_event_without_its_blank_line_is_an_error_too() -> None:
    stream = begun(Script(CHUNK, ERROR.strip()))
    assert next(stream) == CHUNK
    assert fails(lambda: next(stream)).error_class == "overloaded"


def test_prose_about_errors_is_no_error() -> None:
    prose = b'data: {"choices":[{"delta":{"content":"say \\"error\\": [DONE]"}}]}\n\n'
    null = b'data: {"error":null,"choices":[]}\n\n'
    stream = begun(Script(prose, null))
    assert next(stream) == prose
    assert not stream.is_done
    assert list(stream) == [null]


@pytest.mark.parametrize("end", [DONE, b"data: [DONE]\r\n\r\n", b"data:[DONE]\n\n"])
def test_after_the_end_mark_nothing_is_missing(end: bytes) -> None:
    source = Script(CHUNK, CHUNK + end, cut())
    assert list(begun(source)) == [CHUNK, CHUNK + end]
    assert source.longest_secs[-1] == 1.0, "the provider may not hold the caller up"


def test_a_last_event_without_its_blank_line_is_completed() -> None:
    assert list(begun(Script(CHUNK, b"data: [DONE]"))) == [CHUNK, DONE]


def test_an_oversized_event_closes_the_source() -> None:
    source = Script(CHUNK, b"x" * (EVENT_BYTES_MAX + 1))
    stream = begun(source)
    assert next(stream) == CHUNK
    assert fails(lambda: next(stream)).error_class == "malformed_answer"
    assert source.closed

"""What the doctor makes of clocks and streams, without a gateway."""

from __future__ import annotations

import time
from contextlib import contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import cast

import pytest

from tokenhub.ctl import wires
from tokenhub.ctl.client import Client, Refused, Unanswered

CONNECTED = b"event: connected\ndata: {}\n\n"
CLOSED = b'event: closed\ndata: {"reason":"shutdown"}\n\n'


class Raw:
    """An answer in pieces that come at given seconds."""

    def __init__(self, pieces: list[tuple[float, bytes]], now: list[float]) -> None:
        self._pieces, self._now = pieces, now

    def read1(self, _amount: int, *, decode_content: bool) -> bytes:
        assert decode_content
        if not self._pieces:
            return b""
        self._now[0], data = self._pieces.pop(0)
        return data


def streaming(monkeypatch, *pieces: tuple[float, bytes], encoding: str = "") -> Client:
    """A gateway whose streams come so."""
    now = [0.0]
    monkeypatch.setattr("tokenhub.ctl.wires.time", SimpleNamespace(monotonic=lambda: now[0]))

    @contextmanager
    def answer(*_, **__):
        headers = {"Content-Encoding": encoding} if encoding else {}
        yield SimpleNamespace(raw=Raw([*pieces], now), headers=headers)

    config = SimpleNamespace(api_key="k")
    return cast(Client, SimpleNamespace(streaming=answer, check=lambda _: None, config=config))


@pytest.mark.parametrize(
    ("skew_secs", "verdict", "words"),
    [(0, "ok", "as ours"), (-10, "warn", "10 s behind"), (10, "warn", "10 s ahead"),
     (-120, "fail", "120 s behind")],
)  # fmt: skip
def test_the_gateways_own_clock_counts(skew_secs, verdict, words):
    theirs = datetime.fromtimestamp(time.time() + skew_secs, UTC).isoformat()
    asking = SimpleNamespace(get=lambda *_, **__: {"as_of": theirs})
    found = wires.clock(cast(Client, asking))
    assert found.verdict == verdict and words in found.text


@pytest.mark.parametrize(
    ("pieces", "verdict", "words"),
    [
        ([(0.01, CONNECTED), (2.0, CLOSED)], "ok", "as they are sent"),
        ([(1.1, CONNECTED), (2.0, CLOSED)], "ok", "as they are sent"),
        ([(1.8, CONNECTED), (2.8, CLOSED)], "ok", "as they are sent"),
        ([(2.0, CONNECTED), (2.001, CLOSED)], "fail", "held back"),
        ([(2.0, CONNECTED + CLOSED)], "fail", "held back"),
        ([(0.1, CONNECTED + CLOSED)], "warn", "not known"),
        ([], "warn", "not known"),
    ],
)
def test_the_feed_shows_whether_streams_are_held_back(monkeypatch, pieces, verdict, words):
    found = wires.buffering(streaming(monkeypatch, *pieces))
    assert (found.verdict, words in found.text) == (verdict, True), found
    assert bool(found.to_do) == (verdict != "ok")


def test_compression_alone_is_no_fault_and_held_back_it_is_named(monkeypatch):
    well = wires.buffering(streaming(monkeypatch, (0.1, CONNECTED), encoding="gzip"))
    assert well.verdict == "ok" and "(gzip)" in well.text
    held = wires.buffering(streaming(monkeypatch, (2.1, CONNECTED + CLOSED), encoding="gzip"))
    assert held.verdict == "fail" and "(gzip)" in held.text
    assert "compression" in held.to_do and "proxy_buffering off" in held.to_do


@pytest.mark.parametrize(
    ("pieces", "verdict", "words"),
    [
        ([(0.1, b"data: {}\n\n"), (0.2, b"data: [DONE]\n\n")], "ok", "2 pieces"),
        ([(0.1, b"data: {}\n\ndata: [DO"), (0.2, b"NE]\n\n")], "ok", "2 pieces"),
        ([(0.1, b"data: {}\n\n")], "fail", "before its end"),
        ([], "fail", "empty"),
    ],
)
def test_a_stream_without_its_end_has_failed(monkeypatch, pieces, verdict, words):
    found = wires.streams(streaming(monkeypatch, *pieces))
    assert (found.verdict, words in found.text) == (verdict, True), found


def test_a_request_that_the_gateway_refuses_says_nothing_of_streams():
    refused = Refused("HTTP 403: no\n  asked", status=403, code="x", body=None)
    for error, is_told in ((refused, False), (Unanswered("no answer\n  asked"), True)):

        def answer(*_, why=error, **__):
            raise why

        config = SimpleNamespace(api_key="k")
        asking = cast(Client, SimpleNamespace(streaming=answer, config=config))
        if is_told:
            assert wires.streams(asking).text == "a streamed request fails: no answer"
        else:
            with pytest.raises(Refused):
                wires.streams(asking)

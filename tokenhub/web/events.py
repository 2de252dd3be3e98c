"""The event feed as one client gets it: `text/event-stream`, until somebody has enough.

Says what the listener has for it, and besides: how many were lost, that something was passed over,
every 15 s that all is well, and why it ends. Knows no route.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tokenhub.board.board import unix_ms
from tokenhub.events import HEARTBEAT, Feed, Item, Listener, Wants, frame_of
from tokenhub.events.shapes import Event, moment
from tokenhub.services import Services

BEAT_SECS = 15.0
CHECK_SECS = 1.0
"""How often it is looked whether the client may still listen: sooner than anybody relies on."""

RETRY_MS = 2000
"""When a browser comes back after the stream has broken off."""

EVENTS_A_PIECE = 64

HEADERS = {
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # nginx would keep events until it has some kilobytes of them
}


@dataclass(frozen=True)
class Asked:
    """What a client asks for.

    Args:
        after: the id of the last event that it has had; "" = only what happens from now on.
        secs: how long it listens; None = as long as it likes.
    """

    wants: Wants
    after: str = ""
    secs: int | None = None


def stream(hub: Services, asked: Asked, is_welcome: Callable[[], bool]) -> Iterator[bytes]:
    """What one client is sent. It listens from when the first piece is asked for.

    Args:
        is_welcome: whether the client may still listen.
    """
    listener = hub.feed.join(asked.wants)
    try:
        yield from _Stream(hub, listener, asked, is_welcome).pieces()
    finally:
        hub.feed.leave(listener)


class _Stream:
    """One stream."""

    def __init__(
        self, hub: Services, listener: Listener, asked: Asked, is_welcome: Callable[[], bool]
    ) -> None:
        self._hub = hub
        self._feed: Feed = hub.feed
        self._listener = listener
        self._asked = asked
        self._is_welcome = is_welcome
        now = time.monotonic()
        self._ends_at = float("inf") if asked.secs is None else now + asked.secs
        self._checked_at, self._beat_at = now, now
        self._was_away = False
        self._looks = 0

    def pieces(self) -> Iterator[bytes]:
        """Everything, from `connected` to `closed`."""
        is_ready = self._feed.wait_ready(CHECK_SECS)
        place = self._feed.place if is_ready and not self._asked.after else ""
        yield f"retry: {RETRY_MS}\n".encode() + frame_of("connected", {"status": "ok"}, place)
        if self._asked.after:
            yield from self._replayed()
        self._looks = self._feed.looks
        while True:
            piece = self._news()
            if piece:
                yield piece
            reason = self._reason_to_end()
            if reason:
                yield frame_of("closed", {"reason": reason})
                return
            if not piece:
                self._listener.wait(self._patience())

    def _replayed(self) -> Iterator[bytes]:
        """What has happened since the client was here."""
        while not self._feed.wait_ready(CHECK_SECS):
            if self._reason_to_end():
                return
            yield self._beat_if_due()
        for items in self._feed.replay(self._listener, self._asked.after):
            if self._reason_to_end():
                return
            yield self._told() + b"".join(item.frame for item in items)
            if not items and self._feed.is_away:
                self._listener.wait(CHECK_SECS)
                yield self._beat_if_due()

    def _news(self) -> bytes:
        """What there is to say now; empty = nothing."""
        told = self._told()
        items: list[Item] = self._listener.take(EVENTS_A_PIECE)
        return told + b"".join(item.frame for item in items) + self._beat_if_due()

    def _told(self) -> bytes:
        """What happened to the stream itself."""
        said = b""
        if self._listener.take_reset():
            said += frame_of("reset", {"reason": "events were passed over: read everything anew"})
        lost = self._listener.take_lost()
        if lost:
            self._feed.note_dropped(lost)
            said += frame_of("dropped", {"count": lost})
        left_out = self._listener.take_left_out()
        if left_out:
            said += frame_of("sampled", {"left_out": left_out})
        return said

    def _beat_if_due(self) -> bytes:
        """A sign of life: at its time, and when the database goes or comes back."""
        now, is_away = time.monotonic(), self._feed.is_away
        if now - self._beat_at < BEAT_SECS and is_away == self._was_away:
            return b""
        self._beat_at, self._was_away = now, is_away
        # What was read and is not for this client need not be read again when it comes back.
        is_current = self._listener.is_idle and not is_away and self._feed.looks > self._looks + 1
        place = self._feed.place if is_current else ""
        types = self._asked.wants.types
        if types is None or HEARTBEAT in types:
            return frame_of(HEARTBEAT, self._state(), place)
        word = ": the database is away\n" if is_away else ": keep-alive\n"
        return (word + (f"id: {place}\n\n" if place else "\n")).encode()

    def _state(self) -> Event:
        hub = self._hub
        snapshot = hub.catalog.latest()
        enabled = sum(model.enabled for model in snapshot.models.values())
        return {
            "type": HEARTBEAT,
            "timestamp": moment(unix_ms()),
            "reason": f"{len(snapshot.providers)} providers, {enabled} enabled models",
            "version": snapshot.version,
            "lag_secs": round(hub.board.backlog.lag_secs, 3),
            "database": "away" if self._feed.is_away else "ok",
            "host_id": hub.host_id,
        }

    def _patience(self) -> float:
        now = time.monotonic()
        return max(0.0, min(CHECK_SECS, self._ends_at - now, self._beat_at + BEAT_SECS - now))

    def _reason_to_end(self) -> str:
        if self._listener.is_over:
            return "shutdown"
        now = time.monotonic()
        if now - self._checked_at >= CHECK_SECS:
            self._checked_at = now
            if not self._is_welcome():
                return "signed_out"
        return "time" if now >= self._ends_at else ""

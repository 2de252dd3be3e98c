"""Hands what happens to all who listen in this worker: one reader, a queue for each of them.

The reader looks four times a second, and only while there is somebody. A listener that is slow
loses the oldest of what waits for it, and is told how many; it never holds up the others. Knows
nothing of HTTP.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import gevent
from gevent.event import Event as Signal
from gevent.lock import BoundedSemaphore

from tokenhub.board import Board
from tokenhub.db import Database, DatabaseAway
from tokenhub.errors import RateLimited, Unavailable
from tokenhub.events.reading import Item, Reader
from tokenhub.events.shapes import NameOf
from tokenhub.events.words import ROUTE_SUCCESS
from tokenhub.store.cursors import Place

LOOK_SECS = 0.25
AWAY_SECS = 1.0
LIVE_ROWS, REPLAY_ROWS = 1000, 500
"""Rows of a table that are read at a time."""

QUEUE_MAX, PIECE = 256, 32
"""Events that wait for one listener, and how many come at once."""
PATIENCE_SECS = 0.25
"""How long, when many have come, all wait for who is behind."""

STREAMS_MAX = 128
"""Listeners of a host."""

BEHIND_MAX = 10_000
"""Rows of a table that are read again for who comes back."""

GRACE_SECS = 0.5
"""How long, at the end, a listener has that does not take what it is sent."""

log = logging.getLogger("tokenhub.events")


@dataclass(frozen=True)
class Wants:
    """What somebody listens to; None = whatever.

    Args:
        rate_max: of requests that were simply answered, so many in a second; 0 = all.
    """

    types: frozenset[str] | None = None
    api_key_id: str | None = None
    model_id: str | None = None
    provider_id: str | None = None
    outcome: str | None = None
    rate_max: int = 0

    def allows(self, item: Item) -> bool:
        """Whether an event is among it."""
        if self.types is not None and item.type not in self.types:
            return False
        asked = (
            ("api_key_id", self.api_key_id),
            ("model_id", self.model_id),
            ("provider_id", self.provider_id),
            ("outcome", self.outcome),
        )
        return all(wanted is None or item.event.get(name) == wanted for name, wanted in asked)


class Listener:
    """One who listens: what waits for it, and what it has lost.

    Attributes:
        is_over: the feed has ended.
    """

    def __init__(self, wants: Wants, now: Callable[[], float] = time.monotonic) -> None:
        self.wants = wants
        self.is_over = False
        self._now = now
        self._queue: deque[Item] = deque()
        self._lost = 0
        self._left_out = 0
        self._seen: dict[str, Place] = {}
        self._has_reset = False
        self._second, self._shown = 0, 0
        self._signal = Signal()
        self.greenlet = gevent.getcurrent()

    def offer(self, item: Item) -> None:
        """Something has happened."""
        seen = self._seen.get(item.source)
        if not self.wants.allows(item) or (seen and seen.has(item.number, item.tag)):
            return
        if self.wants.rate_max and not self._is_within_rate(item):
            self._left_out += 1
            return
        if len(self._queue) == QUEUE_MAX:
            self._queue.popleft()
            self._lost += 1
        self._queue.append(item)
        self._signal.set()

    def reset(self) -> None:
        """Something was passed over, nobody knows what."""
        self._has_reset = True
        self._signal.set()

    def wake(self) -> None:
        """There is something to say other than events."""
        self._signal.set()

    def take(self, items_max: int) -> list[Item]:
        """The oldest of what waits."""
        count = min(items_max, len(self._queue))
        return [self._queue.popleft() for _ in range(count)]

    def take_lost(self) -> int:
        """How many were lost since this was asked last; those that wait came after them."""
        lost, self._lost = self._lost, 0
        return lost

    def take_left_out(self) -> int:
        """How many were left out for their rate since this was asked last."""
        left_out, self._left_out = self._left_out, 0
        return left_out

    def take_reset(self) -> bool:
        """Whether something was passed over since this was asked last."""
        has_reset, self._has_reset = self._has_reset, False
        return has_reset

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits."""
        return not self._queue and not self._lost

    @property
    def is_pressed(self) -> bool:
        """Whether more waits than may come at once."""
        return len(self._queue) > QUEUE_MAX - PIECE

    def wait(self, secs: float) -> None:
        """Until there is something, at most so long."""
        if self.is_idle and not self.is_over:
            self._signal.wait(secs)
        self._signal.clear()

    def begin_anew(self) -> None:
        """Forget what waits: it is about to be read again."""
        self._queue.clear()
        self._lost = self._left_out = 0

    def skip(self, seen: dict[str, Place]) -> None:
        """What is known already is not wanted again."""
        self._seen = seen
        self._queue = deque(
            item for item in self._queue if not seen[item.source].has(item.number, item.tag)
        )

    def _is_within_rate(self, item: Item) -> bool:
        if item.type != ROUTE_SUCCESS or item.event["outcome"] != "answered":
            return True
        second = int(self._now())
        if second != self._second:
            self._second, self._shown = second, 0
        self._shown += 1
        return self._shown <= self.wants.rate_max


class Feed:
    """All who listen in this worker.

    Args:
        name_of: the name of an API key by its id.
    """

    def __init__(self, *, database: Database, board: Board, name_of: NameOf) -> None:
        self._database = database
        self._board = board
        self._name_of = name_of
        self._listeners: set[Listener] = set()
        self._reader: Reader | None = None
        self._poller: gevent.Greenlet[..., None] | None = None
        self._ready = Signal()
        self._stopping = Signal()
        self._replays = BoundedSemaphore(1)
        self.is_away = False
        self.looks = 0
        self.place = ""
        """How far this worker has read and told; "" while it is about to."""

    def check_room(self) -> None:
        """Whether another may listen.

        Raises:
            RateLimited: there are too many on this host.
            Unavailable: this worker ends.
        """
        if self._stopping.is_set():
            raise Unavailable("this worker is ending", headers={"Retry-After": "1"})
        if self._board.feeds.clients >= STREAMS_MAX:
            raise RateLimited(
                f"there are {STREAMS_MAX} streams of events already",
                code="too_many_streams",
                headers={"Retry-After": "5"},
            )

    def join(self, wants: Wants) -> Listener:
        """Begin to listen; pair with `leave`."""
        listener = Listener(wants)
        self._board.feeds.enter(self._board.slot)
        self._listeners.add(listener)
        listener.is_over = self._stopping.is_set()
        if self._poller is None and not listener.is_over:
            self._poller = gevent.spawn(self._follow)
        return listener

    def leave(self, listener: Listener) -> None:
        """It listens no more."""
        self._listeners.discard(listener)
        self._board.feeds.leave(self._board.slot)

    def note_dropped(self, events: int) -> None:
        """A listener was told that so many are missing."""
        self._board.feeds.note_dropped(self._board.slot, events)

    def wait_ready(self, secs: float) -> bool:
        """Whether events are being read, after so long at most."""
        return bool(self._ready.wait(secs))

    def replay(self, listener: Listener, after: str) -> Iterator[list[Item]]:
        """What has happened since a place, in pieces; after the last of them nothing is missing
        before what waits for the listener, and nothing there twice. An empty piece: the database is
        away, and it is worth waiting. Only while events are being read, see `wait_ready`.

        Args:
            after: as `Item.id`.

        Raises:
            ValueError: that is no place.
        """
        reader = Reader.resume(after, self._name_of)
        is_first = True
        while True:
            listener.begin_anew()  # all that comes from here on waits, while we read what came
            try:
                with self._replays:
                    batch = reader.read(
                        self._database, REPLAY_ROWS, behind_max=BEHIND_MAX if is_first else None
                    )
            except DatabaseAway:
                yield []
                continue
            is_first = False
            if batch.is_reset:
                listener.reset()
            yield [item for item in batch.items if listener.wants.allows(item)]
            if not batch.is_full and not listener.take_lost():
                break
        listener.skip(reader.places())

    def stop(self) -> None:
        """The worker ends: so does everybody's listening, within `GRACE_SECS`."""
        self._stopping.set()
        for listener in self._listeners:
            listener.is_over = True
            listener.wake()
        if self._listeners:
            gevent.spawn_later(GRACE_SECS, self._cut)

    def _cut(self) -> None:
        """End those who are stuck with a client that takes nothing."""
        for listener in list(self._listeners):
            if isinstance(listener.greenlet, gevent.Greenlet):
                listener.greenlet.kill(block=False)

    def _follow(self) -> None:
        while self._listeners and not self._stopping.is_set():
            try:
                pause = self._look()
            except Exception:  # a bug in one look must not end all streams
                log.exception("events cannot be read")
                pause = AWAY_SECS
            self._stopping.wait(pause)
        self._poller = self._reader = None
        self.place = ""
        self._ready.clear()

    def _look(self) -> float:
        """Read once; returns the seconds to wait before the next time."""
        try:
            if self._reader is None:
                self._reader = Reader.begin(self._database, self._name_of)
            batch = self._reader.read(self._database, LIVE_ROWS)
        except DatabaseAway:
            self._note_away(True)
            return AWAY_SECS
        self._note_away(False)
        self._ready.set()
        if batch.is_reset:
            for listener in self._listeners:
                listener.reset()
        self._hand_out(batch.items)
        self.place = self._reader.place
        self.looks += 1
        return 0.0 if batch.is_full else LOOK_SECS

    def _hand_out(self, items: list[Item]) -> None:
        """A few at a time: who keeps up with them must not lose any because many came at once."""
        self.place = ""
        patience_ends = time.monotonic() + PATIENCE_SECS
        for start in range(0, len(items), PIECE):
            for listener in self._listeners:
                for item in items[start : start + PIECE]:
                    listener.offer(item)
            gevent.sleep(0)
            while time.monotonic() < patience_ends and any(
                each.is_pressed for each in self._listeners
            ):
                gevent.sleep(0.005)

    def _note_away(self, is_away: bool) -> None:
        if is_away != self.is_away:
            self.is_away = is_away
            for listener in self._listeners:
                listener.wake()

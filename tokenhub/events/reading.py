"""Reads what is new from a place on, complete and in the order of each host.

A place in the feed is a place in each of the tables that it comes from. It is the same on every
worker of every host, which is why a stream can be resumed anywhere. Knows no stream.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple

import orjson

from tokenhub.db import Database
from tokenhub.events.shapes import Event, NameOf, event_of
from tokenhub.store import events as table
from tokenhub.store.cursors import Place, Tail, parse_place, tag_of

FORM = "1"
"""Of a place's text; another one is somebody else's."""

CHARS_MAX = 4096


class Item(NamedTuple):
    """One event of the feed.

    Args:
        id: the place after it.
        source, number, tag: where it was found, see `store.cursors`.
        frame: as a stream sends it.
    """

    id: str
    event: Event
    source: str
    number: int
    tag: str
    frame: bytes

    @property
    def type(self) -> str:
        found: str = self.event["type"]
        return found


class Batch(NamedTuple):
    """What a look has brought.

    Args:
        is_full: there may be more.
        is_reset: the tables are not those that were read before, or the reader was too far behind:
            something was passed over.
    """

    items: list[Item]
    is_full: bool = False
    is_reset: bool = False


class Reader:
    """Follows the feed from one place on.

    Args:
        name_of: the name of an API key by its id.
    """

    def __init__(self, tails: dict[str, Tail], name_of: NameOf) -> None:
        self._tails = tails
        self._name_of = name_of

    @classmethod
    def begin(cls, database: Database, name_of: NameOf) -> Reader:
        """From now on. What others have begun to write is waited for.

        Raises:
            DatabaseAway.
        """
        return cls.beginning_at(database.read(table.read_newest), name_of)

    @classmethod
    def beginning_at(
        cls, newest_of: Mapping[str, list[tuple[int, str]]], name_of: NameOf
    ) -> Reader:
        """From the moment on at which these rows were the newest, see `store.events.read_newest`:
        one that another view was read at as well."""
        now, tails = time.monotonic(), {}
        for name, newest in newest_of.items():
            tail = tails[name] = _tail(name, Place(newest[0][0] - 1 if newest else 0))
            for number, host_id in newest:
                tail.take(number, host_id, now)
        return cls(tails, name_of)

    @classmethod
    def resume(cls, text: str, name_of: NameOf) -> Reader:
        """From where `place` was.

        Raises:
            ValueError: that is no place.
        """
        form, *texts = text[:CHARS_MAX].split(".")
        if form != FORM or len(texts) != len(table.SOURCES):
            raise ValueError("not a place")
        now = time.monotonic()
        pairs = zip(table.SOURCES, texts, strict=True)
        return cls({name: _tail(name, parse_place(each), now) for name, each in pairs}, name_of)

    @property
    def place(self) -> str:
        """Where it has got to."""
        return ".".join([FORM, *(tail.place().text() for tail in self._tails.values())])

    def places(self) -> dict[str, Place]:
        """The same, to compare items with."""
        return {name: tail.place() for name, tail in self._tails.items()}

    def read(self, database: Database, rows_max: int, *, behind_max: int | None = None) -> Batch:
        """What is new, at most so many rows of each table.

        Args:
            behind_max: rows of a table; whoever is further behind goes on from its end.

        Raises:
            DatabaseAway: nothing was passed over.
        """
        now = time.monotonic()
        wanted = {name: tail.wanted(now) for name, tail in self._tails.items()}
        news = database.read(lambda connection: table.read_news(connection, wanted, rows_max))
        items: list[Item] = []
        is_reset = False
        for name, found in news.items():
            tail = self._tails[name]
            is_far = behind_max is not None and found.highest - tail.top > behind_max
            if is_far or found.highest < tail.top:
                is_reset = is_reset or found.highest > 0
                tail.set_back(found.highest)
                continue
            items += self._take(name, found, now)
        return Batch(items, any(found.is_full for found in news.values()), is_reset)

    def _take(self, name: str, found: table.Found, now: float) -> list[Item]:
        tail, items = self._tails[name], []
        for row in found.rows:
            if tail.take(row["id"], row["host_id"], now):
                event, place = event_of(name, row, self._name_of), self.place
                frame = frame_of(event["type"], event, place)
                tag = tag_of(row["host_id"])
                items.append(Item(place, event, name, row["id"], tag, frame))
        return items


def frame_of(type_: str, data: Event, id_: str = "") -> bytes:
    """One event as `text/event-stream` has it.

    https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
    """
    head = f"id: {id_}\n" if id_ else ""
    return f"{head}event: {type_}\ndata: ".encode() + orjson.dumps(data) + b"\n\n"


def _tail(name: str, place: Place, now: float = 0.0) -> Tail:
    is_plain = table.SOURCES[name].is_numbered_by_commit
    return Tail(place, now=now, is_numbered_by_commit=is_plain)

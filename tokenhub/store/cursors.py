"""How far a reader of tables that grow has got, where rows are numbered before they are committed.

On Postgres a row may become visible after others with higher numbers, of other hosts: who only
remembers the highest number would never see it. So a reader remembers the numbers that are missing
below it, until they come or cannot come any more, and how far it has read of each host: of one host
rows appear in their order, for its ingester commits one batch after the other. Pure.

As text, a place is `<number>` or, while numbers are missing below, `<lowest read>` and, for each
host that was read further, `~<host's tag><how much further>`; numbers in base 36.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

MISSING_SECS = 60.0
"""A number that has not come by then never will: the transaction that took it may last 30 s."""

GAPS_MAX = 8
"""Stretches of missing numbers that are told apart; each is asked for by itself. Of those that are
not, what was read already is left out by host."""

HOSTS_MAX = 32
"""Hosts in a place's text. Of others, rows may be read twice after a return, never not at all."""

TAG_CHARS = 12
NUMBER_MAX = 2**63 - 1

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_PLACE = re.compile(r"([0-9a-z]{1,13})((?:~[0-9a-f]{12}[0-9a-z]{1,13}){0,32})")
_MARK = re.compile(r"~([0-9a-f]{12})([0-9a-z]{1,13})")


class Gap(NamedTuple):
    """Numbers that are missing, both ends included, and since when (monotonic seconds)."""

    first: int
    last: int
    since: float


class Wanted(NamedTuple):
    """What to ask a table for.

    Args:
        ranges: of numbers, with both ends, in their order; the last one has no end.
        read: by host, up to where its rows were read: those need not be read again.
    """

    ranges: list[tuple[int, int]]
    read: dict[str, int]


class Place(NamedTuple):
    """How far a table was read: all up to `floor`, and of some hosts up to their mark.

    Args:
        marks: by the host's tag; only those beyond the floor.
    """

    floor: int = 0
    marks: Mapping[str, int] = {}

    def has(self, number: int, tag: str) -> bool:
        """Whether a row was read."""
        return number <= self.floor or number <= self.marks.get(tag, 0)

    def text(self) -> str:
        """For `parse_place`; safe in URLs."""
        newest = sorted(self.marks.items(), key=lambda each: -each[1])[:HOSTS_MAX]
        marks = "".join(f"~{tag}{_base36(at - self.floor)}" for tag, at in newest)
        return _base36(self.floor) + marks


class Tail:
    """Follows one table from a place on; `take` every row that is found, in their order.

    Args:
        is_numbered_by_commit: numbers become visible in their order, so that none is waited for.
        now: monotonic seconds.
    """

    def __init__(
        self, place: Place, *, now: float = 0.0, is_numbered_by_commit: bool = False
    ) -> None:
        self._marks = dict(place.marks)
        self._is_plain = is_numbered_by_commit
        self._gaps: list[Gap] = []
        self._hosts: dict[str, str] = {}  # by their tags, those that were met
        self.top = max([place.floor, *self._marks.values()])
        """The highest number that was read."""
        if self.top > place.floor:
            self._gaps.append(Gap(place.floor + 1, self.top, now))

    @property
    def floor(self) -> int:
        """Everything up to here was read, or will never come."""
        return self._gaps[0].first - 1 if self._gaps else self.top

    def place(self) -> Place:
        """Where it has got to."""
        if not self._gaps:
            return Place(self.top)
        floor = self.floor
        return Place(floor, {tag: at for tag, at in self._marks.items() if at > floor})

    def wanted(self, now: float) -> Wanted:
        """What to ask for now; what never comes is given up."""
        self._gaps = [each for each in self._gaps if now - each.since < MISSING_SECS]
        if not self._gaps:
            # Nothing is missing below: what was read of whom says no more than the top does.
            self._marks.clear()
            self._hosts.clear()
        gaps = [(each.first, each.last) for each in self._gaps]
        read = {host: self._marks[tag] for tag, host in self._hosts.items() if tag in self._marks}
        return Wanted([*gaps, (self.top + 1, NUMBER_MAX)], read)

    def take(self, number: int, host_id: str, now: float) -> bool:
        """Note a row; returns whether it is new."""
        tag = tag_of(host_id)
        self._hosts[tag] = host_id
        if number > self.top:
            if number > self.top + 1 and not self._is_plain:
                self._open(Gap(self.top + 1, number - 1, now))
            self.top = number
        else:
            if number <= self.floor or number <= self._marks.get(tag, 0):
                return False
            self._fill(number)
        self._marks[tag] = max(number, self._marks.get(tag, 0))
        return True

    def set_back(self, top: int) -> None:
        """The table has begun anew, or is that of another time: go on from here."""
        self.top = top
        self._gaps.clear()
        self._marks.clear()
        self._hosts.clear()

    def _open(self, gap: Gap) -> None:
        self._gaps.append(gap)
        if len(self._gaps) > GAPS_MAX:
            last, before = self._gaps.pop(), self._gaps.pop()
            self._gaps.append(Gap(before.first, last.last, last.since))

    def _fill(self, number: int) -> None:
        for at, gap in enumerate(self._gaps):
            if gap.first <= number <= gap.last:
                left = Gap(gap.first, number - 1, gap.since), Gap(number + 1, gap.last, gap.since)
                parts = [each for each in left if each.first <= each.last]
                if len(self._gaps) - 1 + len(parts) <= GAPS_MAX:
                    self._gaps[at : at + 1] = parts
                return


@lru_cache(maxsize=1024)
def tag_of(host_id: str) -> str:
    """What stands for a host in a place."""
    return blake2b(host_id.encode(), digest_size=TAG_CHARS // 2).hexdigest()


def parse_place(text: str) -> Place:
    """A place from its text.

    Raises:
        ValueError: it is none.
    """
    found = _PLACE.fullmatch(text)
    if found is None:
        raise ValueError("not a place")
    floor = int(found[1], 36)
    marks = {tag: floor + int(further, 36) for tag, further in _MARK.findall(found[2])}
    if max([floor, *marks.values()]) > NUMBER_MAX:
        raise ValueError("not a place")
    return Place(floor, marks)


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits or "0"

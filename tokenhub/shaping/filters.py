"""Texts in pieces: what every filter is, and the small ones. Wherever a text is cut, it comes to
the same; a whole one is one piece. Knows nothing of what the pieces say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

HELD_CHARS_MAX = 8 << 20
"""How much of a text is held back at most; a longer one passes as it is."""
PIECE_CHARS = 4096


class Filter(Protocol):
    """Changes a text that comes in pieces."""

    def feed(self, text: str) -> str:
        """Take a piece; returns what is certain of the result, perhaps ""."""

    def end(self) -> str:
        """The rest of the result: no more pieces come."""


class Filters:
    """Several filters, one after the other."""

    __slots__ = ("_filters",)

    def __init__(self, filters: Sequence[Filter]) -> None:
        self._filters = filters

    def feed(self, text: str) -> str:
        for each in self._filters:
            text = each.feed(text)
        return text

    def end(self) -> str:
        rest = ""
        for each in self._filters:
            rest = (each.feed(rest) if rest else "") + each.end()
        return rest


class Trimmed:
    """Takes the white space from both ends."""

    __slots__ = ("_blanks", "_has_begun")

    def __init__(self) -> None:
        self._has_begun = False
        self._blanks: list[str] = []

    def feed(self, text: str) -> str:
        if not self._has_begun:
            text = text.lstrip()
        body = text.rstrip()
        if not body:
            if self._has_begun:
                self._blanks.append(text)
            return ""
        said = "".join(self._blanks) + body
        self._has_begun = True
        self._blanks = [text[len(body) :]]
        return said

    def end(self) -> str:
        return ""


class Held:
    """Holds the text back to its end, and hands out what `change` makes of it."""

    __slots__ = ("_change", "_chars", "_is_too_long", "_pieces")

    def __init__(self, change: Callable[[str], str]) -> None:
        self._change = change
        self._pieces: list[str] = []
        self._chars = 0
        self._is_too_long = False

    def feed(self, text: str) -> str:
        if self._is_too_long:
            return text
        self._pieces.append(text)
        self._chars += len(text)
        if self._chars <= HELD_CHARS_MAX:
            return ""
        self._is_too_long = True
        held, self._pieces = "".join(self._pieces), []
        return held

    def end(self) -> str:
        return "" if self._is_too_long else self._change("".join(self._pieces))


def pieces(text: str) -> list[str]:
    """A whole text in pieces: what takes a piece may take time that grows faster than it does."""
    return [text[at : at + PIECE_CHARS] for at in range(0, len(text), PIECE_CHARS)]


def held_from(text: str, marks: Sequence[str]) -> int:
    """Where the end of a text begins that may be the beginning of a mark; its length if none may.

    Args:
        marks: in lower case, each beginning with `<`.
    """
    longest = max(map(len, marks))
    at = text.find("<", max(0, len(text) - longest + 1))
    while at >= 0:
        tail = text[at:].lower()
        if any(mark.startswith(tail) for mark in marks):
            return at
        at = text.find("<", at + 1)
    return len(text)

"""What models think aloud in their texts, taken out: `<think>` and `<thinking>`.

Knows nothing of thoughts in fields of their own.
"""

from __future__ import annotations

import re

from tokenhub.shaping.filters import held_from

_OPENINGS = ("<think>", "<thinking>")
_OPENING = re.compile(r"<(think(?:ing)?)>", re.IGNORECASE | re.ASCII)


class WithoutThoughts:
    """Leaves out what is between the tags, and the white space after it; what is never closed,
    to the end of the text."""

    __slots__ = ("_closing", "_follows", "_pending")

    def __init__(self) -> None:
        self._pending = ""
        self._closing: re.Pattern[str] | None = None
        self._follows = False  # nothing but white space has come after a thought

    def feed(self, text: str) -> str:
        self._pending += text
        said: list[str] = []
        while self._close() if self._closing else self._open(said):
            pass
        return "".join(said)

    def end(self) -> str:
        return "" if self._closing else self._pending

    def _open(self, said: list[str]) -> bool:
        """Hand out up to the next thought; returns whether one has begun."""
        text = self._pending.lstrip() if self._follows else self._pending
        self._follows = self._follows and not text
        found = _OPENING.search(text)
        cut = found.start() if found else held_from(text, _OPENINGS)
        said.append(text[:cut])
        if found is None:
            self._pending = text[cut:]
            return False
        self._pending = text[found.end() :]
        self._closing = re.compile(f"</{found[1]}>", re.IGNORECASE | re.ASCII)
        return True

    def _close(self) -> bool:
        """Drop up to the end of the thought; returns whether it has come."""
        assert self._closing is not None  # noqa: S101 - for the type checker
        found = self._closing.search(self._pending)
        if found is None:
            self._pending = self._pending[-len("</thinking>") :]
            return False
        self._pending = self._pending[found.end() :]
        self._closing, self._follows = None, True
        return True

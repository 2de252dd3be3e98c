"""A text of at most so many bytes, never cut within what is seen as one character.

What is seen as one: https://www.unicode.org/reports/tr29/, but for Hangul syllables in parts, CR
LF, and scripts whose letters only rules of their own join.
"""

from __future__ import annotations

from collections.abc import Iterator
from unicodedata import category

CLUSTER_CHARS_MAX = 32
"""The most that is taken for one; flags and families of emoji have a dozen."""

_JOINER = "\u200d"
_MARKS = frozenset({"Mn", "Me", "Mc"})


class Cut:
    """Ends a text that is longer than allowed with `mark` in place of the rest.

    Args:
        bytes_max: of the text in UTF-8, without the mark.
    """

    def __init__(self, bytes_max: int, mark: str) -> None:
        self._left = bytes_max
        self._mark = mark
        self._held = ""  # the last character: what comes next may belong to it
        self.is_cut = False

    def feed(self, text: str) -> str:
        if self.is_cut or not text:
            return ""
        text = self._held + text
        last = len(text) - 1 if text.isascii() else len(text) - len(list(_clusters(text))[-1])
        self._held = text[last:]
        return self._take(text[:last])

    def end(self) -> str:
        return "" if self.is_cut else self._take(self._held)

    def _take(self, text: str) -> str:
        size = _size(text)
        if size <= self._left:
            self._left -= size
            return text
        self.is_cut = True
        kept = []
        for cluster in _clusters(text):
            self._left -= _size(cluster)
            if self._left < 0:
                break
            kept.append(cluster)
        return "".join(kept) + self._mark


def _clusters(text: str) -> Iterator[str]:
    start = flags = 0
    for at in range(1, len(text)):
        before, char = text[at - 1], text[at]
        flags = flags + 1 if _is_flag_letter(before) else 0
        is_one = _joins(before, char) or (_is_flag_letter(char) and flags % 2 == 1)
        if not is_one or at - start >= CLUSTER_CHARS_MAX:
            yield text[start:at]
            start, flags = at, 0
    if text:
        yield text[start:]


def _joins(before: str, char: str) -> bool:
    if char < "\u0300":
        return False
    if _JOINER in (before, char) or category(char) in _MARKS:
        return True
    is_pair = "\ud800" <= before <= "\udbff" and "\udc00" <= char <= "\udfff"
    # Skin tones, and the tags that flags of regions are made of.
    return is_pair or "\U0001f3fb" <= char <= "\U0001f3ff" or "\U000e0020" <= char <= "\U000e007f"


def _is_flag_letter(char: str) -> bool:
    return "\U0001f1e6" <= char <= "\U0001f1ff"


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))

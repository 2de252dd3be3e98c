"""Markdown as plain text, line by line: the marks go, what they mark stays.

Code keeps its every character. What only looks like a mark (`2 * 3 * 4`, `a_b_c`) is none. Every
pattern takes time in proportion to the line, whatever a model writes.
"""

from __future__ import annotations

import re

_FENCE = re.compile(r"[ \t]*(?:(`{3,})[^`]*|(~{3,}).*)$")
_RULE = re.compile(r" {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$")
_QUOTE = re.compile(r"(?: {0,3}> ?)+")
_HEADING = re.compile(r" {0,3}#{1,6}(?:[ \t]+|$)")
_BULLET = re.compile(r"([ \t]*)[*+]([ \t]+)")
_MARKS = re.compile(r"[*_`~\[\\<]")

_CODE = re.compile(r"``([^`]+(?:`[^`]+)*)``|`([^`]+)`")
_ESCAPED = re.compile(r"\\([*_`#~])")
_KEPT = re.compile("\0([0-9]+)\0")
_IMAGE = re.compile(r'!\[([^\[\]]*)\]\([^()\s]*(?:[ \t]+"[^"]*")?\)')
_LINK = re.compile(r'\[([^\[\]]+)\]\(([^()\s]+)(?:[ \t]+"[^"]*")?\)')
_ADDRESS = re.compile(r"<((?:https?://|mailto:)[^<>\s]+)>")
_STRONG = re.compile(r"(?<![0-9A-Za-z])\*\*([^*\s](?:[^*]*[^*\s])?)\*\*")
_EMPHASIS = re.compile(r"(?<![0-9A-Za-z*])\*([^*\s](?:[^*]*[^*\s])?)\*(?![0-9A-Za-z*])")
_STRONG_UNDER = re.compile(r"(?<!\w)__([^_\s](?:[^_]*[^_\s])?)__(?!\w)")
_EMPHASIS_UNDER = re.compile(r"(?<!\w)_([^_\s](?:[^_]*[^_\s])?)_(?!\w)")
_STRUCK = re.compile(r"~~([^~\s](?:[^~]*[^~\s])?)~~")
_INLINE = (_STRONG, _EMPHASIS, _STRONG, _STRONG_UNDER, _EMPHASIS_UNDER, _STRUCK)


class Plain:
    """Hands out each line when it is whole."""

    __slots__ = ("_fence", "_line")

    def __init__(self) -> None:
        self._line: list[str] = []
        self._fence = ""  # what has opened the code that we are in

    def feed(self, text: str) -> str:
        *whole, rest = text.split("\n")
        said = []
        for line in whole:
            self._line.append(line)
            said.append(self._read("\n"))
        self._line.append(rest)
        return "".join(said)

    def end(self) -> str:
        return self._read("")

    def _read(self, ending: str) -> str:
        line, self._line = "".join(self._line), []
        fence = _FENCE.match(line)
        mark = (fence[1] or fence[2]) if fence else ""
        if self._fence:
            if mark.startswith(self._fence) and line.strip() == mark:
                self._fence = ""
                return ""
            return line + ending
        if mark:
            self._fence = mark
            return ""
        return _plain_line(line) + ending


def _plain_line(line: str) -> str:
    if _RULE.match(line):
        return ""
    line = _QUOTE.sub("", line, count=1) if _QUOTE.match(line) else line
    heading = _HEADING.match(line)
    if heading:
        line = line[heading.end() :]
    bullet = _BULLET.match(line)
    if bullet:
        return f"{bullet[1]}-{bullet[2]}{_plain_words(line[bullet.end() :])}"
    return _plain_words(line)


def _plain_words(line: str) -> str:
    if not _MARKS.search(line) or "\0" in line:
        return line
    kept: list[str] = []

    def keep(found: re.Match[str]) -> str:
        kept.append(next(filter(None, found.groups())))
        return f"\0{len(kept) - 1}\0"

    line = _ESCAPED.sub(keep, _CODE.sub(keep, line))
    line = _LINK.sub(_shown_link, _IMAGE.sub(r"\1", line))
    line = _ADDRESS.sub(keep, line)
    for mark in _INLINE:
        line = mark.sub(r"\1", line)
    return _KEPT.sub(lambda found: kept[int(found[1])], line)


def _shown_link(found: re.Match[str]) -> str:
    return found[1] if found[1] == found[2] else f"{found[1]} ({found[2]})"

"""Directives: what a user's own text says to us, behind `@@tokenhub`, and not to the model.

Two forms, taken out of the text wherever they stand, to the end of their line and no further:

    @@tokenhub mode=cheap budget=0.05

    @@tokenhub
    mode = cheap
    output_schema = {"type": "object"}
    @@end

Pure. Whether a caller may use them, and what their words may change, is decided elsewhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from tokenhub.domain import MODES, ChatRequest, Dialect, Mode
from tokenhub.pricing import nanos_from_usd

MARKER = "@@tokenhub"

BUDGET_USD_MAX = 100
LATENCY_MS_MAX = 300_000
WEIGHT_MAX = 10
WEIGHT_TAKEN_MAX = 1000
"""The original takes a weight up to here, though no model weighs more than WEIGHT_MAX."""

MODE_WORDS: Mapping[str, Mode] = {
    **{mode: mode for mode in MODES},
    # Plans are made by /v1/plan; to routing these are what they were to the original's.
    "vote": "normal",
    "refine": "normal",
}

_MARKER = re.compile(r"@@tokenhub(?![\w-])")
_END = re.compile(r"@@end(?![\w-])(?:[ \t]*\r?\n)?")
_PAIR = re.compile(r"(?<!\S)([a-z_]+)[ \t]*=[ \t]*")
_SPACE = re.compile(r"\s")
_BREAK = re.compile(r"[\r\n]")
_WORD = re.compile(r"\S")
_QUOTES = {quote: re.compile(f"[{quote}\r\n]") for quote in "'\""}
_DECIMAL = re.compile(r"\+?[0-9]{1,20}(\.[0-9]{0,20})?([eE][+-]?[0-9]{1,3})?")
_WHOLE = re.compile(r"\+?[0-9]{1,20}")

_TURNS: Mapping[Dialect, str] = {"chat": "messages", "messages": "messages", "responses": "input"}
_TEXTS = ("text", "input_text")
"""The kinds of parts that hold what a user wrote; what tools have found is none of them."""


class Directive(NamedTuple):
    """What a directive says; what it does not say is None, 0 or ""."""

    mode: Mode | None = None
    max_budget_nanousd: int = 0
    max_latency_ms: int = 0
    min_weight: int = 0
    output_schema: str = ""


NOTHING = Directive()


def take_directive(request: ChatRequest) -> Directive:
    """Take all directives out of a request's user turns, in place.

    The last that says something counts, and it alone: what was said at the beginning of a
    conversation can be changed later on (weak spot W15).
    """
    field = _TURNS.get(request.dialect)
    if field is None:
        return NOTHING
    found = NOTHING
    for holder, name in _user_texts(request.body, field):
        text = holder[name]
        if MARKER in text:
            holder[name], said = strip(text)
            found = found if said == NOTHING else said
    return found


def strip(text: str) -> tuple[str, Directive]:
    """A text without its directives, and what the last of them says that says something."""
    kept, at, found = [], 0, NOTHING
    lines = _Lines(text)
    for marker in _MARKER.finditer(text):
        if marker.start() < at:
            continue  # within the one before
        kept.append(text[at : marker.start()])
        at, words = _extent(text, marker.end(), lines)
        said = _read(words)
        found = found if said == NOTHING else said
    kept.append(text[at:])
    return "".join(kept), found


def number_of(text: str) -> float | None:
    """The number that a text is, in decimal digits; None = it is none."""
    return float(text) if _DECIMAL.fullmatch(text) else None


def _user_texts(body: dict[str, Any], field: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Where what users wrote stands: the object, and the name in it."""
    turns = body.get(field)
    if isinstance(turns, str):
        yield body, field
    for turn in turns if isinstance(turns, list) else ():
        if not isinstance(turn, dict) or turn.get("role") != "user":
            continue
        content = turn.get("content")
        if isinstance(content, str):
            yield turn, "content"
        for part in content if isinstance(content, list) else ():
            is_text = isinstance(part, dict) and part.get("type") in _TEXTS
            if is_text and isinstance(part.get("text"), str):
                yield part, "text"


class _Lines:
    """Where lines end, and the next `key=value` stands, looked for once for all markers before it:
    a text of nothing but markers must not be read through for each of them."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._end = -1
        self._pair = -1

    def end(self, at: int) -> int:
        """The end of the line that `at` is in."""
        if self._end < at:
            found = self._text.find("\n", at)
            self._end = len(self._text) if found < 0 else found
        return self._end

    def has_pair(self, at: int) -> bool:
        """Whether there is a pair in what is left of the line."""
        if self._pair < at:
            found = _PAIR.search(self._text, at)
            self._pair = len(self._text) if found is None else found.start()
        return self._pair < self.end(at)


def _extent(text: str, at: int, lines: _Lines) -> tuple[int, str]:
    """Where the directive ends whose marker ends at `at`, and its words.

    A marker with no `key=value` behind it goes alone, so that nobody's sentence is lost; a block
    that does not end before the next marker is none, and only its first line goes.
    """
    line_end = lines.end(at)
    if _WORD.search(text, at, line_end):
        if not lines.has_pair(at):
            return at, ""
        return min(line_end + 1, len(text)), text[at:line_end]
    following = _MARKER.search(text, line_end)
    end = _END.search(text, line_end, following.start() if following else len(text))
    if end is None:
        return min(line_end + 1, len(text)), ""
    return end.end(), text[line_end : end.start()]


def _read(words: str) -> Directive:
    """What the words say; what is unknown or wrong is passed over, as in the original."""
    said: dict[str, Any] = {}
    at = 0
    while pair := _PAIR.search(words, at):
        key = pair[1]
        value, at = _value(words, pair.end(), is_json=key == "output_schema")
        if key in _KEYS:
            name, read = _KEYS[key]
            found = read(value)
            if found is not None:
                said[name] = found
    return Directive(**said) if said else NOTHING


def _value(words: str, at: int, *, is_json: bool) -> tuple[str, int]:
    """The value that begins at `at`, and where it ends: JSON, quoted, or up to the next space."""
    quote = words[at : at + 1]
    if is_json and quote in ("{", "["):
        end = _end_of_json(words, at)
        return words[at:end], end
    if quote in ('"', "'"):
        return _quoted(words, at, quote)
    end = _next(_SPACE, words, at)
    return words[at:end], end


def _quoted(words: str, at: int, quote: str) -> tuple[str, int]:
    """What stands in quotes; in double ones as in JSON, where it can be read so."""
    if quote == '"':
        try:
            found, end = json.JSONDecoder().raw_decode(words, at)
        except ValueError:
            pass
        else:
            return str(found), end
    end = _next(_QUOTES[quote], words, at + 1)
    return words[at + 1 : end], end + words.startswith(quote, end)


def _end_of_json(words: str, at: int) -> int:
    """Where a JSON value ends; of what is none, its line, which whoever reads it will refuse."""
    try:
        return json.JSONDecoder().raw_decode(words, at)[1]
    except (ValueError, RecursionError):
        return _next(_BREAK, words, at)


def _next(what: re.Pattern[str], words: str, at: int) -> int:
    found = what.search(words, at)
    return found.start() if found else len(words)


def _budget(value: str) -> int | None:
    dollars = number_of(value)
    if dollars is None or not 0 < dollars <= BUDGET_USD_MAX:
        return None
    return max(1, nanos_from_usd(dollars))  # 0 would be no budget


def _latency(value: str) -> int | None:
    found = int(value) if _WHOLE.fullmatch(value) else 0
    return found if 0 < found <= LATENCY_MS_MAX else None


def _weight(value: str) -> int | None:
    found = int(value) if _WHOLE.fullmatch(value) else -1
    return min(found, WEIGHT_MAX) if 0 <= found <= WEIGHT_TAKEN_MAX else None


def _schema(value: str) -> str | None:
    return value or None


_KEYS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "mode": ("mode", MODE_WORDS.get),
    "budget": ("max_budget_nanousd", _budget),
    "latency": ("max_latency_ms", _latency),
    "min_weight": ("min_weight", _weight),
    "output_schema": ("output_schema", _schema),
}

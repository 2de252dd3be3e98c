"""The JSON in a text that may say more than that. Knows no schema."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

TRIES_MAX = 1000
READS_PER_CHAR = 8
"""How often each character is read at most, on the average, in looking for JSON in prose."""

_STARTS = re.compile(r"[{\[]")


def find_json(text: str) -> str | None:
    """The JSON of a text, as it is written there, or None.

    It is the whole text, or else what the first code fence holds that holds JSON, or else the first
    object or array within the prose.
    """
    whole = text.strip()
    if _reads(whole):
        return whole
    for inside in _fenced(whole):
        if _reads(inside):
            return inside
    return _in_prose(whole)


def _fenced(text: str) -> Iterator[str]:
    """What the code fences of a text hold."""
    held: list[str] | None = None
    for line in text.splitlines(keepends=True) if "```" in text else ():
        bare = line.strip()
        if held is None:
            held = [] if bare.startswith("```") and "`" not in bare.lstrip("`") else None
        elif bare.startswith("```") and not bare.strip("`"):
            yield "".join(held).strip()
            held = None
        else:
            held.append(line)


def _in_prose(text: str) -> str | None:
    left = READS_PER_CHAR * len(text) + TRIES_MAX
    for number, start in enumerate(_STARTS.finditer(text)):
        if number >= TRIES_MAX or left < 0:
            break
        try:
            _, end = _DECODER.raw_decode(text, start.start())
        except json.JSONDecodeError as error:
            left -= max(1, error.pos - start.start())
        except (ValueError, RecursionError):  # a number of too many digits, or too deep
            left -= len(text)
        else:
            return text[start.start() : end]
    return None


def _reads(text: str) -> bool:
    try:
        _DECODER.decode(text)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")


def _nothing(_: list[tuple[str, Any]]) -> None:
    """Objects are only looked at here, so none is built."""


_DECODER = json.JSONDecoder(parse_constant=_refuse, object_pairs_hook=_nothing)

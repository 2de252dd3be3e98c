"""The inside of a tool call as Gemma writes it: `call:NAME{key:value,…}`.

Strings stand between `<|"|>`, or are JSON's; objects and arrays nest; any other value is JSON if it
can be, or else the text as it is. Knows nothing of where calls are found.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

import orjson

QUOTE = '<|"|>'
DEPTH_MAX = 32

_HEAD = re.compile(r"\s*call:\s*([\w.-]+)\s*")
_BARE = re.compile(r"[^,{}\[\]]*")
_KEY = re.compile(r"\s*([^\s,:{}\[\]\"<][^,:{}\[\]\"<]*?)\s*:")
_SPACE = re.compile(r"\s*")


class Call(NamedTuple):
    """A call of a tool."""

    name: str
    arguments: dict[str, Any]


class _Unreadable(Exception):
    """It is not what it should be."""


def read_call(text: str) -> Call | None:
    """What is between the marks of a call; None if it cannot be read."""
    head = _HEAD.match(text)
    if head is None:
        return None
    try:
        arguments, end = _object(text, head.end(), 0)
    except _Unreadable:
        return None
    return None if text[end:].strip() else Call(head[1], arguments)


def _value(text: str, at: int, depth: int) -> tuple[Any, int]:
    at = _skip(text, at)
    if text.startswith("{", at):
        return _object(text, at, depth + 1)
    if text.startswith("[", at):
        return _array(text, at, depth + 1)
    if text.startswith((QUOTE, '"'), at):
        return _string(text, at)
    return _bare(text, at)


def _object(text: str, at: int, depth: int) -> tuple[dict[str, Any], int]:
    found: dict[str, Any] = {}
    at = _enter(text, at, "{", depth)
    while not text.startswith("}", at):
        key, at = _key(text, at)
        found[key], at = _value(text, at, depth)
        at = _next(text, at, "}")
    return found, at + 1


def _array(text: str, at: int, depth: int) -> tuple[list[Any], int]:
    found: list[Any] = []
    at = _enter(text, at, "[", depth)
    while not text.startswith("]", at):
        value, at = _value(text, at, depth)
        found.append(value)
        at = _next(text, at, "]")
    return found, at + 1


def _enter(text: str, at: int, opening: str, depth: int) -> int:
    if depth > DEPTH_MAX or not text.startswith(opening, at):
        raise _Unreadable
    return _skip(text, at + 1)


def _next(text: str, at: int, closing: str) -> int:
    """Past the comma after a value, or at what closes."""
    at = _skip(text, at)
    if text.startswith(",", at):
        return _skip(text, at + 1)
    if not text.startswith(closing, at):
        raise _Unreadable
    return at


def _key(text: str, at: int) -> tuple[str, int]:
    if text.startswith((QUOTE, '"'), at):
        key, at = _string(text, at)
        at = _skip(text, at)
        if not text.startswith(":", at):
            raise _Unreadable
        return key, at + 1
    found = _KEY.match(text, at)
    if found is None:
        raise _Unreadable
    return found[1], found.end()


def _string(text: str, at: int) -> tuple[str, int]:
    if text.startswith(QUOTE, at):
        start = at + len(QUOTE)
        end = text.find(QUOTE, start)
        if end < 0:
            raise _Unreadable
        return text[start:end], end + len(QUOTE)
    try:
        found, end = json.JSONDecoder().raw_decode(text, at)
    except ValueError:
        raise _Unreadable from None
    return _sayable(found), end


def _bare(text: str, at: int) -> tuple[Any, int]:
    match = _BARE.match(text, at)
    bare = match[0].strip() if match else ""
    if match is None or not bare or QUOTE in bare:
        raise _Unreadable
    try:
        found = orjson.loads(bare)
    except orjson.JSONDecodeError:
        return bare, match.end()
    if isinstance(found, float) and bare.lstrip("-").isdigit():
        return bare, match.end()  # more digits than a number holds
    return found, match.end()


def _sayable(text: str) -> str:
    """Half a pair of surrogates, as `\\ud83d` alone, can be said in no encoding."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at

"""How a request's JSON is read: each value has the type it must have, or is refused by its path.

Knows nothing of either dialect's fields.
"""

from __future__ import annotations

import re
from typing import Any

from tokenhub.errors import InvalidRequest

Block = dict[str, Any]

OTHER = "other"
NAMES_MAX = 32

_PLAIN = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_NOTHING: tuple[Any, ...] = (None, "", [], {})  # and False, which 0 equals


class Dropped:
    """What a translation leaves out, by name, once each and in order.

    Names may come from the caller and end in a header: whatever does not look like a field's name,
    and all beyond NAMES_MAX, is told as "other".
    """

    def __init__(self) -> None:
        self._names: dict[str, None] = {}

    def add(self, name: str) -> None:
        """Note that `name` is left out."""
        is_told = _PLAIN.fullmatch(name) and len(self._names) < NAMES_MAX
        self._names[name if is_told else OTHER] = None

    def add_unknown(self, fields: dict[str, Any], known: frozenset[str], prefix: str) -> None:
        """Note every field that is not in `known` and says something."""
        for name in fields:
            value = fields[name]
            if name not in known and value is not False and value not in _NOTHING:
                self.add(prefix + name)

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(self._names)


def text_at(value: Any, path: str) -> str:
    """A string; raises InvalidRequest naming `path`."""
    if isinstance(value, str):
        return value
    raise InvalidRequest(f"{path} must be a string", param=path)


def filled_text_at(value: Any, path: str) -> str:
    """A string that is not empty; raises InvalidRequest naming `path`."""
    if isinstance(value, str) and value:
        return value
    raise InvalidRequest(f"{path} must be a string and not empty", param=path)


def list_at(value: Any, path: str) -> list[Any]:
    """An array, null being an empty one; raises InvalidRequest naming `path`."""
    if value is None:
        return []
    if isinstance(value, list):
        return value
    raise InvalidRequest(f"{path} must be an array", param=path)


def object_at(value: Any, path: str) -> dict[str, Any]:
    """An object; raises InvalidRequest naming `path`."""
    if isinstance(value, dict):
        return value
    raise InvalidRequest(f"{path} must be an object", param=path)


def number_at(value: Any, path: str, low: float, high: float) -> float:
    """A number from `low` to `high`; raises InvalidRequest naming `path`."""
    if isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high:
        return value
    raise InvalidRequest(f"{path} must be a number from {low} to {high}", param=path)


def whole_at(value: Any, path: str, low: int) -> int:
    """A whole number from `low` on, of 32 bits; raises InvalidRequest naming `path`.

    JSON Schema takes 1.0 for one, and so do providers.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and low <= value < 2**31:
        return value
    raise InvalidRequest(f"{path} must be a whole number from {low}", param=path)


def flag_at(value: Any, path: str) -> bool | None:
    """A boolean or null; raises InvalidRequest naming `path`."""
    if value is None or isinstance(value, bool):
        return value
    raise InvalidRequest(f"{path} must be a boolean", param=path)


def word_at(value: Any, path: str, words: tuple[str, ...]) -> str:
    """One of `words`; raises InvalidRequest naming `path`."""
    if isinstance(value, str) and value in words:
        return value
    raise InvalidRequest(f"{path} must be one of {', '.join(words)}", param=path)

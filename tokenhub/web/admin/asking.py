"""What the long lists of the admin API can be asked for: filters, a place to go on from, a form.

Each is read from the query string by name and type. Nothing is passed over in silence: an unknown
name, or one that is given twice where one is meant, is refused with its name. Knows no entity.
"""

from __future__ import annotations

import re
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from typing import Any, Literal, cast

from flask import request

from tokenhub.errors import InvalidRequest
from tokenhub.keys import unix_ms_of
from tokenhub.store import Part, Place
from tokenhub.web import forms

ROWS_DEFAULT = 100
OFFSET_MAX = 100_000
"""Rows that an offset passes over have to be found all the same."""
WORDS_MAX = 50
"""Values of one filter."""

_CURSOR = struct.Struct(">QQ")
_STATUS = re.compile(r"[1-9]\d\d|[1-9]xx")
_DECIMAL = re.compile(r"\d{1,9}(\.\d{1,9})?")

Form = Literal["json", "csv", "jsonl"]
FORMS: tuple[Form, ...] = ("json", "csv", "jsonl")
CONTENT_TYPES: dict[Form, str] = {
    "json": "application/json",
    "csv": "text/csv",
    "jsonl": "application/x-ndjson",
}

Ask = Callable[[str, list[str]], Any]
"""Takes a parameter's name and all the values that are given for it."""


def read_query(asks: Mapping[str, Ask]) -> dict[str, Any]:
    """What the query string asks for.

    Args:
        asks: every parameter that may be there.

    Raises:
        InvalidRequest: naming the first that is unknown or wrong.
    """
    found = {}
    for name, values in request.args.lists():
        if name not in asks:
            shown = name[: forms.SHOWN_CHARS]
            known = ", ".join(asks)
            raise InvalidRequest(
                f"unknown query parameter {shown!r}; known are: {known}",
                code="unknown_field",
                param=shown,
            )
        found[name] = asks[name](name, values)
    return found


def one(read: forms.Reader) -> Ask:
    """A parameter that is given once."""

    def ask(name: str, values: list[str]) -> Any:
        if len(values) > 1:
            raise InvalidRequest(f"{name} may be given only once", param=name)
        return read(name, values[0])

    return ask


def words(name: str, values: list[str]) -> tuple[str, ...]:
    """Any of these; an empty one stands for those that have none."""
    return _some(name, [forms.text()(name, each) for each in values])


def words_of(*known: str) -> Ask:
    """Any of some words, each in a parameter of its own or separated by commas."""

    def ask(name: str, values: list[str]) -> tuple[str, ...]:
        given = [word.strip() for each in values for word in each.split(",")]
        return _some(name, [forms.one_of(*known)(name, word) for word in given])

    return ask


def statuses(name: str, values: list[str]) -> tuple[tuple[int, int], ...]:
    """HTTP statuses such as 429, or classes of them such as 5xx, as ranges."""
    given = [word.strip() for each in values for word in each.split(",")]
    for each in given:
        if not _STATUS.fullmatch(each):
            raise InvalidRequest(f"{name} must hold statuses such as 429 or 5xx", param=name)
    _some(name, given)
    return tuple((int(each.replace("x", "0")), int(each.replace("x", "9"))) for each in given)


def moment(name: str, value: str) -> int:
    """RFC 3339, or unix time in seconds or milliseconds, as unix ms."""
    is_number = value.isascii() and value.isdecimal() and len(value) <= forms.DIGITS_MAX + 4
    return unix_ms_of(int(value) if is_number else value, name)


def flag(name: str, value: str) -> bool:
    """`true` or `false`."""
    return bool(forms.one_of("true", "false")(name, value) == "true")


def integer(low: int, high: int) -> forms.Reader:
    """A whole number from `low` to `high`."""

    def read(name: str, value: str) -> int:
        is_number = value.isascii() and value.isdecimal() and len(value) <= forms.DIGITS_MAX
        if not is_number or not low <= int(value) <= high:
            raise InvalidRequest(f"{name} must be a whole number from {low} to {high}", param=name)
        return int(value)

    return read


def amount(name: str, value: str) -> str:
    """A number that is not negative, as it is written."""
    if not _DECIMAL.fullmatch(value):
        raise InvalidRequest(f"{name} must be a number such as 0.01", param=name)
    return value


def identifier(name: str, value: str) -> str:
    """An id, which is not empty."""
    found: str = forms.label(name, value)
    return found


def cursor(name: str, value: str) -> Place:
    """Where the page before has ended, as its `next_cursor` says."""
    try:
        raw = urlsafe_b64decode(value.encode("ascii") + b"==")
        place = Place(*_CURSOR.unpack(raw))
    except (ValueError, struct.error) as error:
        raise InvalidRequest(f"{name} must be the next_cursor of a page", param=name) from error
    if max(place) > 2**63 - 1 or written(place) != value:
        raise InvalidRequest(f"{name} must be the next_cursor of a page", param=name)
    return place


def written(place: Place | None) -> str | None:
    """The cursor for a place."""
    return None if place is None else urlsafe_b64encode(_CURSOR.pack(*place)).decode().rstrip("=")


PAGING: dict[str, Ask] = {
    "limit": one(integer(1, forms.LIST_LIMIT)),
    "offset": one(integer(0, OFFSET_MAX)),
    "cursor": one(cursor),
    "format": one(forms.one_of(*FORMS)),
}
"""What any of these lists can be asked for."""

TIMES: dict[str, Ask] = {"from": one(moment), "to": one(moment)}


def part_of(asked: Mapping[str, Any]) -> Part:
    """Which part of the list is asked for.

    Raises:
        InvalidRequest: both a cursor and an offset, or an end before the beginning.
    """
    if asked.get("cursor") is not None and asked.get("offset"):
        raise InvalidRequest("a cursor says where to begin: give no offset", param="offset")
    return Part(asked.get("limit", ROWS_DEFAULT), asked.get("offset", 0), asked.get("cursor"))


def times_of(asked: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """From when until when, unix ms, the end not included.

    Raises:
        InvalidRequest: it ends before it begins.
    """
    from_at, to_at = asked.get("from"), asked.get("to")
    if from_at is not None and to_at is not None and to_at < from_at:
        raise InvalidRequest("to must not be before from", param="to")
    return from_at, to_at


def form_of(asked: Mapping[str, Any]) -> Form:
    """How the answer is written: what `format` says, or else the `Accept` header."""
    if "format" in asked:
        return cast(Form, asked["format"])
    types = list(CONTENT_TYPES.values())
    best = request.accept_mimetypes.best_match(types, default=types[0])
    return FORMS[types.index(best)]


def _some(name: str, values: list[str]) -> tuple[str, ...]:
    if len(values) > WORDS_MAX:
        raise InvalidRequest(f"{name} may have at most {WORDS_MAX} values", param=name)
    return tuple(dict.fromkeys(values))

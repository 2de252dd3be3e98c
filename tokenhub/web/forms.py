"""What comes in through the admin API: JSON bodies, ids in paths, pages of lists.

Each field is read by name and type, and nothing is passed over in silence: an unknown field, a
wrong type or a value out of range is refused with the field's name. Knows no entity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from flask import request

from tokenhub import ids
from tokenhub.dialects import openai as dialect
from tokenhub.errors import InvalidRequest, NotFound
from tokenhub.pricing import per_mtok_from_usd_per_1k
from tokenhub.services import Services
from tokenhub.web import guards

LIST_LIMIT = 1000
"""Most rows of one answer, and how many a list has by default."""

USD_PER_1K_MAX = 1000
"""Dearest price we believe, in dollars per 1,000 tokens: sums of costs must fit 64 bits."""

SHOWN_CHARS = 100
"""How much of a caller's own text an error message repeats."""

DIGITS_MAX = 10
"""Digits of a number in a query string."""

Reader = Callable[[str, Any], Any]
"""Takes a field's name and its JSON value; returns it as we keep it, or raises InvalidRequest."""


class Page(NamedTuple):
    """Which part of a list."""

    limit: int
    offset: int


def read_fields(
    hub: Services,
    fields: Mapping[str, Reader],
    *,
    required: tuple[str, ...] = (),
    may_be_empty: bool = False,
) -> dict[str, Any]:
    """The fields that the body gives, each read by its reader.

    Args:
        fields: every field that may be there.
        required: those that must be, and not be empty.
        may_be_empty: no body at all is as good as no fields.

    Raises:
        InvalidRequest: not a JSON object, or naming the first field that is unknown, wrong or
            missing.
        BodyTooLarge, RequestTimeout: see `guards.read_body`.
    """
    raw = guards.read_body(hub)
    body = {} if may_be_empty and not raw else dialect.parse_object(raw)
    for name in body:
        if name not in fields:
            shown = name[:SHOWN_CHARS]
            known = ", ".join(fields)
            raise InvalidRequest(
                f"unknown field {shown!r}; known are: {known}", code="unknown_field", param=shown
            )
    values = {name: fields[name](name, value) for name, value in body.items()}
    for name in required:
        if values.get(name) in (None, ""):
            raise InvalidRequest(f"{name} is required", code="missing_field", param=name)
    return values


def read_page(*others: str, default: int = LIST_LIMIT) -> Page:
    """`limit` (1 to 1000) and `offset` of the query string.

    Args:
        others: what else may be asked for, by whoever reads it.

    Raises:
        InvalidRequest: not a whole number, or out of range; or something else is asked for.
    """
    check_query("limit", "offset", *others)
    return Page(
        _query_integer("limit", 1, LIST_LIMIT, default), _query_integer("offset", 0, 2**31, 0)
    )


def check_query(*known: str) -> None:
    """Make sure that the query string asks for nothing else, and for nothing twice.

    Raises:
        InvalidRequest: naming the first parameter that is unknown or repeated.
    """
    for name, values in request.args.lists():
        if name not in known:
            shown = name[:SHOWN_CHARS]
            there_are = "known are: " + ", ".join(known) if known else "there are none here"
            raise InvalidRequest(
                f"unknown query parameter {shown!r}; {there_are}", code="unknown_field", param=shown
            )
        if len(values) > 1:
            raise _wrong(name, "may be given only once")


def read_switch(name: str, *others: str) -> bool:
    """A `true` or `false` of the query string; false where it is not given.

    Args:
        others: see `read_page`.

    Raises:
        InvalidRequest: any other word, or something else is asked for.
    """
    check_query(name, *others)
    return bool(one_of("true", "false")(name, request.args.get(name, "false")) == "true")


def path_id(text: str) -> str:
    """An id from the path.

    Raises:
        NotFound: nothing can have such an id, so nobody need be asked (Postgres would refuse NUL).
    """
    if not text.isprintable():
        raise NotFound("there is no such id")
    return text


def flag(name: str, value: Any) -> bool:
    """true or false."""
    if value is not True and value is not False:
        raise _wrong(name, "must be true or false")
    return bool(value)


def text(chars_max: int = 200) -> Reader:
    """Text on one line, without control characters; may be empty."""

    def read(name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise _wrong(name, "must be a string")
        if len(value) > chars_max:
            raise _wrong(name, f"must have at most {chars_max} characters")
        if not value.isprintable():
            raise _wrong(name, "must not have control characters")
        return value

    return read


def label(name: str, value: Any) -> str:
    """What people call something: one line that is not blank."""
    found: str = text()(name, value)
    if not found.strip():
        raise _wrong(name, "must not be blank")
    return found


def identifier(bytes_max: int, *, with_slashes: bool) -> Reader:
    """An id: see `ids.find_fault`."""

    def read(name: str, value: Any) -> str:
        found: str = text(bytes_max)(name, value)
        fault = ids.find_fault(found, bytes_max, with_slashes=with_slashes)
        if fault is not None:
            raise _wrong(name, fault)
        return found

    return read


def integer(low: int, high: int) -> Reader:
    """A whole number from `low` to `high`."""

    def read(name: str, value: Any) -> int:
        found = number(low, high)(name, value)
        if found != int(found):
            raise _wrong(name, "must be a whole number")
        return int(found)

    return read


def number(low: float, high: float) -> Reader:
    """A number from `low` to `high`."""

    def read(name: str, value: Any) -> int | float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _wrong(name, "must be a number")
        if not math.isfinite(value) or not low <= value <= high:
            raise _wrong(name, f"must be from {low} to {high}")
        return value

    return read


def price(name: str, value: Any) -> int | None:
    """Dollars per 1,000 tokens as nano-dollars per million; null = unknown."""
    if value is None:
        return None
    return per_mtok_from_usd_per_1k(number(0, USD_PER_1K_MAX)(name, value))


def one_of(*words: str) -> Reader:
    """One of these words."""

    def read(name: str, value: Any) -> str:
        if not isinstance(value, str) or value not in words:
            raise _wrong(name, "must be one of: " + ", ".join(filter(None, words)))
        return value

    return read


def some_of(*words: str) -> Reader:
    """A list of some of these words, without repetitions."""

    def read(name: str, value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or any(each not in words for each in value):
            raise _wrong(name, "must be a list of some of: " + ", ".join(words))
        return tuple(dict.fromkeys(value))

    return read


def word_map(count_max: int) -> Reader:
    """An object that maps words to words; null = empty."""

    def read(name: str, value: Any) -> dict[str, str]:
        value = {} if value is None else value
        if not isinstance(value, dict) or len(value) > count_max:
            raise _wrong(name, f"must be an object of at most {count_max} strings")
        return {_word(name, key): _word(name, each) for key, each in value.items()}

    return read


def word_list(count_max: int) -> Reader:
    """A list of words, without repetitions; null = empty."""

    def read(name: str, value: Any) -> tuple[str, ...]:
        value = [] if value is None else value
        if not isinstance(value, list) or len(value) > count_max:
            raise _wrong(name, f"must be a list of at most {count_max} strings")
        return tuple(dict.fromkeys(_word(name, each) for each in value))

    return read


def anything(_: str, value: Any) -> Any:
    """For fields that somebody else checks."""
    return value


def _word(field: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise _wrong(field, "must hold strings that are not blank")
    if len(value) > 200:
        raise _wrong(field, "must hold strings of at most 200 characters")
    return value


def _query_integer(name: str, low: int, high: int, default: int) -> int:
    given = request.args.get(name)
    if given is None:
        return default
    is_number = given.isascii() and given.isdecimal() and len(given) <= DIGITS_MAX
    if not is_number or not low <= int(given) <= high:
        raise _wrong(name, f"must be a whole number from {low} to {high}")
    return int(given)


def _wrong(name: str, message: str) -> InvalidRequest:
    return InvalidRequest(f"{name} {message}", param=name)

"""What the endpoints without messages read: a text or several, or either in token ids.

Pure; knows neither what is asked of the texts nor how long a model takes them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tokenhub.errors import InvalidRequest
from tokenhub.pricing import BYTES_PER_TOKEN


class Texts(NamedTuple):
    """How many there are, and our estimate of their tokens together."""

    number: int
    tokens: int


def read_texts(value: Any, path: str) -> Texts:
    """Check what is to be read: a string, strings, token ids, or arrays of token ids. A string may
    be empty, and there may be any number: what a model takes is its provider's to say.

    Args:
        path: how the field is called.

    Raises:
        InvalidRequest: naming the field that is wrong.
    """
    if isinstance(value, str):
        return Texts(1, _tokens_of(len(value.encode())))
    if not isinstance(value, list):
        raise _no_texts(path)
    if not value:
        raise _empty(path)
    kinds = set(map(type, value))
    if kinds == {int}:
        return Texts(1, _ids_of(value, path))
    if kinds == {str}:
        return Texts(len(value), _tokens_of(sum(len(each.encode()) for each in value)))
    if kinds == {list}:
        return Texts(len(value), sum(_ids_of(ids, f"{path}[{n}]") for n, ids in enumerate(value)))
    raise _no_texts(path)


def _tokens_of(size: int) -> int:
    return max(1, size // BYTES_PER_TOKEN) if size else 0


def _ids_of(ids: list[Any], path: str) -> int:
    if not ids:
        raise _empty(path)
    if set(map(type, ids)) != {int} or min(ids) < 0:
        raise InvalidRequest(f"{path} must have token ids only: whole numbers from 0", param=path)
    return len(ids)


def _empty(path: str) -> InvalidRequest:
    return InvalidRequest(f"{path} must not be empty", param=path)


def _no_texts(path: str) -> InvalidRequest:
    return InvalidRequest(
        f"{path} must be a string, an array of strings, or either in token ids", param=path
    )

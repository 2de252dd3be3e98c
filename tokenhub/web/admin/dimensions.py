"""What statistics and time series are kept apart by, and how that is asked for and shown.

Knows what the words mean; reads no sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from sqlalchemy import Connection

from tokenhub import store
from tokenhub.db.sums_tables import Family
from tokenhub.domain import ENDINGS, MODES
from tokenhub.errors import InvalidRequest
from tokenhub.services import Services
from tokenhub.store.series import TooManyRows
from tokenhub.web import answers
from tokenhub.web.admin import asking

T = TypeVar("T")

DIMENSIONS = {
    "model": "model_id",
    "provider": "provider_id",
    "key": "api_key_id",
    "team": "team_id",
    "mode": "mode",
    "endpoint": "endpoint",
    "outcome": "ending",
    "error_class": "error_class",
    "alias": "alias_from",
}
"""Columns of the sums by what they are called in a query."""

_SHOWN = {"ending": "outcome", "alias_from": "alias"}

FILTERS: dict[str, asking.Ask] = {
    **dict.fromkeys(DIMENSIONS, asking.words),
    "outcome": asking.words_of(*ENDINGS),
    "mode": asking.words_of(*MODES),
}
"""What may be asked for alone."""


def group_by(name: str, values: list[str]) -> tuple[str, ...]:
    """Columns to keep apart, by their names separated by commas; nothing = none."""
    if values == [""]:
        return ()
    words: tuple[str, ...] = asking.words_of(*DIMENSIONS)(name, values)
    return tuple(DIMENSIONS[each] for each in words)


def conditions_of(asked: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The words that count, by column."""
    return {column: asked[name] for name, column in DIMENSIONS.items() if name in asked}


def check_known(family: Family, columns: Iterable[str], what: str) -> None:
    """Refuse what a family does not keep apart.

    Raises:
        InvalidRequest: naming it.
    """
    names = {column: name for name, column in DIMENSIONS.items()}
    for column in columns:
        if column not in family.key:
            known = ", ".join(names[each] for each in family.key)
            raise InvalidRequest(
                f"{what} are kept apart by {known} only, not by {names[column]}",
                param=names[column],
            )


def show(
    columns: Iterable[str], words: Iterable[str], key_names: Mapping[str, str]
) -> dict[str, str]:
    """A group by its names; a key also by its own, which is its id once it was deleted."""
    found = {_SHOWN.get(name, name): word for name, word in zip(columns, words, strict=True)}
    if "api_key_id" in found:
        id_ = found["api_key_id"]
        found["api_key_name"] = key_names.get(id_, id_)
    return found


def key_names_of(
    connection: Connection, columns: tuple[str, ...], groups: Iterable[tuple[str, ...]]
) -> dict[str, str]:
    """The names of the keys among groups, by id."""
    if "api_key_id" not in columns:
        return {}
    at = columns.index("api_key_id")
    return store.find_key_names(connection, {group[at] for group in groups})


def read(hub: Services, work: Callable[[Connection], T]) -> T:
    """Read sums.

    Raises:
        Unavailable: the database is away.
        InvalidRequest: there would be too many points.
    """
    try:
        return answers.read(hub, work)
    except TooManyRows as error:
        raise InvalidRequest(
            "too many points: ask for a shorter time, a longer step or fewer groups",
            code="too_many_points",
        ) from error

"""What the catalog has and what was last applied to it, as one look at the database finds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import orjson
from sqlalchemy import Connection

from tokenhub import store
from tokenhub.catalog import Change
from tokenhub.domain import Model, Price, Provider
from tokenhub.pricing import PRICE_NAMES, shown_prices
from tokenhub.store import FileEntry

ACTOR = "credentials-file"

_HIDDEN = ("revision", "created_at", "price")


@dataclass(frozen=True)
class State:
    """One look.

    Args:
        entries: by kind and id.
    """

    providers: dict[str, Provider]
    models: dict[str, Model]
    entries: dict[tuple[str, str], FileEntry]


def load(connection: Connection) -> State:
    """Look at the database."""
    return State(
        providers=store.load_providers(connection),
        models=store.load_models(connection),
        entries={(each.kind, each.id): each for each in store.list_file_entries(connection)},
    )


def with_values(model: Model, values: Mapping[str, Any]) -> Model:
    """A model with a file's values; a price among them is set by hand."""
    prices = {ours: values[theirs] for theirs, ours in PRICE_NAMES.items() if theirs in values}
    if prices:
        price: Price = replace(model.price, **prices)
        model = replace(model, price=price, pricing_source="manual", pricing_origin="")
    rest = {name: value for name, value in values.items() if name not in PRICE_NAMES}
    after = replace(model, **rest)
    return replace(after, upstream_model=after.upstream_model or after.id)


def change_of(before: Provider | Model | None, after: Provider | Model, action: str) -> Change:
    """The change as it is written down, with the fields that differ."""
    old, new = _shown(before), _shown(after)
    names = [name for name in new if before is None or old[name] != new[name]]
    detail = {
        "before": None if before is None else {name: old[name] for name in names},
        "after": {name: new[name] for name in names},
    }
    kind = "provider" if isinstance(after, Provider) else "model"
    text = orjson.dumps(detail).decode()
    return Change(kind, after.id, f"{kind}.{action}", actor=ACTOR, detail=text)


def _shown(thing: Provider | Model | None) -> dict[str, Any]:
    """By the admin API's names."""
    if thing is None:
        return {}
    found = {
        each.name: getattr(thing, each.name) for each in fields(thing) if each.name not in _HIDDEN
    }
    if isinstance(thing, Model):
        found |= shown_prices(thing.price)
    return found

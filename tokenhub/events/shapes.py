"""Events as JSON shows them: the original's fields (reference/operations.md §9) and some more.

What is None or "" is left out; zeros stay. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from tokenhub.domain import ApiKey
from tokenhub.events.words import CONFIG_CHANGE, ROUTE_ERROR, ROUTE_SUCCESS, SUCCESSES
from tokenhub.pricing import usd

Row = dict[str, Any]
Event = dict[str, Any]
NameOf = Callable[[str], str]
"""The name of an API key by its id, "" if there is none."""

_AS_THEY_ARE = (
    "request_id", "model_id", "provider_id", "requested_model", "alias_from", "latency_ms",
    "ttft_ms", "input_tokens", "output_tokens", "status_code", "error_class", "reason", "mode",
    "endpoint", "stream", "api_key_id", "team_id", "trace_id", "host_id",
)  # fmt: skip
_ENTITIES = {"model": "model_id", "provider": "provider_id", "key": "api_key_id"}


class KeyNames:
    """The names of API keys by their ids.

    Args:
        keys: those that there are now; another mapping when there are others.
    """

    def __init__(self, keys: Callable[[], Mapping[bytes, ApiKey]]) -> None:
        self._find_keys = keys
        self._keys: Mapping[bytes, ApiKey] = {}
        self._names: dict[str, str] = {}

    def __call__(self, key_id: str) -> str:
        """The name, "" if there is no such key."""
        keys = self._find_keys()
        if keys is not self._keys:
            self._keys = keys
            self._names = {key.id: key.name for key in keys.values()}
        return self._names.get(key_id, "")


def event_of(source: str, row: Row, name_of: NameOf) -> Event:
    """What a row of one of `store.events.SOURCES` tells."""
    return _SHAPES[source](row, name_of)


def moment(at: int) -> str:
    """Unix milliseconds as RFC 3339 in UTC."""
    text = datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def _route(row: Row, name_of: NameOf) -> Event:
    """A request that has ended."""
    is_good = row["ending"] in SUCCESSES
    return _without_nothing(
        {
            "type": ROUTE_SUCCESS if is_good else ROUTE_ERROR,
            "timestamp": moment(row["started_at"] + row["latency_ms"]),
            **{name: row[name] for name in _AS_THEY_ARE},
            "outcome": row["ending"],
            "attempts": row["attempt_count"],
            "cost_usd": usd(row["cost_nanousd"]),
            "total_tokens": row["input_tokens"] + row["output_tokens"],
            "api_key_name": name_of(row["api_key_id"]),
        }
    )


def _published(row: Row, name_of: NameOf) -> Event:
    fields = orjson.loads(row["fields"])
    return _without_nothing(
        {
            "type": row["type"],
            "timestamp": moment(row["at"]),
            **fields,
            "api_key_id": row["api_key_id"],
            "api_key_name": name_of(row["api_key_id"]),
            "host_id": row["host_id"],
        }
    )


def _change(row: Row, name_of: NameOf) -> Event:
    """A new version of the catalog, and what is otherwise in it."""
    kind, entity_id = row["kind"], row["entity_id"]
    event = {
        "type": CONFIG_CHANGE,
        "timestamp": moment(row["at"]),
        "version": row["id"],
        "kind": kind,
        "entity_id": entity_id,
        "action": row["action"],
        "actor": row["actor"],
        "request_id": row["request_id"],
    }
    if kind in _ENTITIES:
        event[_ENTITIES[kind]] = entity_id
    if kind == "key":
        event["api_key_name"] = name_of(entity_id)
    return _without_nothing(event)


def _without_nothing(event: Event) -> Event:
    return {name: each for name, each in event.items() if each is not None and each != ""}


_SHAPES: dict[str, Callable[[Row, NameOf], Event]] = {
    "logs": _route,
    "events": _published,
    "changes": _change,
}

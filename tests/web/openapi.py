"""The description of the API as its tests read it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker

Json = dict[str, Any]

FILE = Path(__file__).parents[2] / "docs" / "openapi.json"
METHODS = ("get", "put", "post", "patch", "delete")

formats = FormatChecker(formats=())


@formats.checks("date-time", raises=ValueError)  # type: ignore[untyped-decorator]
def is_time(value: object) -> bool:
    """RFC 3339 in UTC, as all our times are."""
    return not isinstance(value, str) or (
        value.endswith("Z") and datetime.fromisoformat(value) is not None
    )


class Description:
    """`docs/openapi.json`, with its references resolved where they are looked at."""

    def __init__(self) -> None:
        self.doc: Json = json.loads(FILE.read_text())
        self._closed = closed(self.doc["components"])

    @property
    def operations(self) -> dict[str, Json]:
        """By `METHOD /path`."""
        return {
            f"{method.upper()} {path}": operation
            for path, item in self.doc["paths"].items()
            for method, operation in item.items()
        }

    def follow(self, found: Json) -> Json:
        """What a reference refers to, or the thing itself."""
        if "$ref" not in found:
            return found
        target: Any = self.doc
        for step in found["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        resolved: Json = target
        return resolved

    def find_response(self, operation: str, status: int) -> Json | None:
        """What is declared of a status by its number or its class; None when nothing is."""
        declared = self.operations[operation]["responses"]
        found = declared.get(str(status)) or declared.get(f"{status // 100}XX")
        return None if found is None else self.follow(found)

    def body_schema(self, operation: str) -> Json | None:
        """The schema of the request's body, resolved; None when it takes none."""
        body = self.operations[operation].get("requestBody")
        return None if body is None else self.follow(body["content"]["application/json"]["schema"])

    def validator(self, schema: Json, *, strict: bool = False) -> Any:
        """Checks values against a schema of the document.

        Args:
            strict: fields that are not described are wrong, unless the schema allows for more.
        """
        components = self._closed if strict else self.doc["components"]
        schema = closed(schema) if strict else schema
        return Draft202012Validator({**schema, "components": components}, format_checker=formats)


def closed(value: Any) -> Any:
    """A copy in which objects that list their properties have no others."""
    if isinstance(value, list):
        return [closed(each) for each in value]
    if not isinstance(value, dict):
        return value
    found = {key: closed(each) for key, each in value.items()}
    if value.get("type") == "object" and "properties" in value:
        found.setdefault("additionalProperties", False)
    return found


def walk(value: Any) -> Iterator[Json]:
    """Every object inside, itself included."""
    if isinstance(value, dict):
        yield value
    for each in value.values() if isinstance(value, dict) else value:
        if isinstance(each, dict | list):
            yield from walk(each)

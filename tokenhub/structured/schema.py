"""JSON schemas as callers give them: read, bounded, and refused with the path of what is wrong.

Nothing is fetched: a schema refers to its own parts only. Knows no answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import orjson
from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from tokenhub.errors import InvalidRequest
from tokenhub.structured.patterns import compiled

SCHEMA_BYTES_MAX = 128 << 10
DEPTH_MAX = 64
NODES_MAX = 20_000
STRICT_DEPTH_MAX = 10
STRICT_PROPERTIES_MAX = 5000

_SINGLE = frozenset({
    "additionalProperties", "contains", "contentSchema", "else", "if", "items", "not",
    "propertyNames", "then", "unevaluatedItems", "unevaluatedProperties",
})  # fmt: skip
"""Keywords that hold a schema."""
_LISTED = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
"""Keywords that hold several."""
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
"""Keywords that hold schemas by names of the caller's."""
_REFERENCES = ("$ref", "$dynamicRef")
_QUANTIFIERS = re.compile(r"[*+?{]")
_STRICT_KEYWORDS = frozenset({
    "$defs", "$ref", "$schema", "additionalProperties", "anyOf", "const", "definitions",
    "description", "enum", "exclusiveMaximum", "exclusiveMinimum", "format", "items", "maxItems",
    "maximum", "minItems", "minimum", "multipleOf", "pattern", "properties", "required", "title",
    "type",
})  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Schema:
    """A schema that can be checked against.

    Args:
        value: as the caller gave it, and as it is sent.
        canonical: the same as bytes, for whoever keeps what is made of it.
        is_strict: whether OpenAI takes it as `strict`.
        name: what it is called where it needs a name.
    """

    value: dict[str, Any] | bool
    canonical: bytes = field(repr=False)
    is_strict: bool = False
    name: str = "answer"


def read_schema(value: Any, param: str, name: str = "answer") -> Schema:
    """Read a schema: an object, true or false, or a string that holds one as JSON.

    Raises:
        InvalidRequest: it is none, too large, or refers to what is not in it; `param` with the path
            of what is wrong.
    """
    if isinstance(value, str):
        value = _parse(value, param)
    if not isinstance(value, dict | bool):
        raise InvalidRequest(f"{param} must be a JSON schema: an object", param=param)
    _check_depth(value, param)
    canonical = orjson.dumps(value)
    if len(canonical) > SCHEMA_BYTES_MAX:
        raise InvalidRequest(f"{param} has more than {SCHEMA_BYTES_MAX} bytes", param=param)
    return _read(canonical, param, name)


@lru_cache(maxsize=64)
def _read(canonical: bytes, param: str, name: str) -> Schema:
    """The same schema comes with many requests, and to look at it takes milliseconds."""
    value = orjson.loads(canonical)
    error = next(Draft202012Validator(Draft202012Validator.META_SCHEMA).iter_errors(value), None)
    if error is not None:
        where = param + error.json_path.removeprefix("$")
        raise InvalidRequest(f"{where} is no JSON schema: {error.message[:300]}", param=where)
    if isinstance(value, dict):
        _check_parts(value, param)
    return Schema(value, canonical, _is_strict(value), name)


def parts_of(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """A schema and all schemas within it, with their paths. What stands behind other keywords has
    been checked by nobody, and is none."""
    if not isinstance(schema, dict):
        return
    yield path, schema
    for keyword, value in schema.items():
        below = f"{path}.{keyword}"
        if keyword in _NAMED and isinstance(value, dict):
            for name, each in value.items():
                yield from parts_of(each, f"{below}.{name}")
        elif keyword in _LISTED and isinstance(value, list):
            for number, each in enumerate(value):
                yield from parts_of(each, f"{below}[{number}]")
        elif keyword in _SINGLE:
            yield from parts_of(value, below)


def _parse(text: str, param: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        raise InvalidRequest(f"{param} is not valid JSON", param=param) from None


def _check_depth(value: Any, param: str) -> None:
    """Everything that is done with a schema goes as deep as it does."""
    level, nodes = [value], 0
    for _ in range(DEPTH_MAX):
        level = [
            each
            for holder in level
            if isinstance(holder, dict | list)
            for each in (holder.values() if isinstance(holder, dict) else holder)
        ]
        nodes += len(level)
        if nodes > NODES_MAX:
            raise InvalidRequest(f"{param} has more than {NODES_MAX} values", param=param)
        if not level:
            return
    raise InvalidRequest(f"{param} is nested more than {DEPTH_MAX} deep", param=param)


def _check_parts(schema: dict[str, Any], param: str) -> None:
    parts = list(parts_of(schema))
    resource = DRAFT202012.create_resource(schema)
    resolver = Registry().resolver_with_root(resource)
    known = {id(part) for _, part in parts}
    for path, part in parts:
        for keyword in ("$id", "$schema") if path else ():
            if keyword in part:
                raise _wrong(f"{param}{path}.{keyword}", "may stand at the top only")
        for keyword in _REFERENCES:
            if keyword in part:
                where = f"{param}{path}.{keyword}"
                found = _resolve(resolver, part[keyword], where)
                # Within `const` and the like is something that looks like a schema, unchecked.
                if not isinstance(found, bool) and id(found) not in known:
                    raise _wrong(where, "refers to what is no schema")
        _check_patterns(part, param + path)
    _check_property_patterns([part for _, part in parts], param)


def _resolve(resolver: Any, reference: str, where: str) -> Any:
    if not reference.startswith("#"):
        raise _wrong(where, "must begin with '#': nothing is fetched from elsewhere")
    try:
        return resolver.lookup(reference).contents
    except (Unresolvable, ValueError, TypeError):
        raise _wrong(where, "refers to what is not there") from None


def _check_patterns(part: dict[str, Any], path: str) -> None:
    patterns = [("pattern", part["pattern"])] if "pattern" in part else []
    patterns += [("patternProperties", each) for each in part.get("patternProperties", ())]
    for keyword, pattern in patterns:
        try:
            compiled(pattern)
        except ValueError as error:
            raise _wrong(f"{path}.{keyword}", f"{pattern[:100]!r} {error}") from None


def _check_property_patterns(parts: list[dict[str, Any]], param: str) -> None:
    """What `unevaluatedProperties` leaves over is told with Python's `re`, which must be quick."""
    if not any("unevaluatedProperties" in part for part in parts):
        return
    for part in parts:
        for pattern in part.get("patternProperties", ()):
            if len(_QUANTIFIERS.findall(pattern)) > 1 or not _is_python(pattern):
                raise _wrong(
                    f"{param}.patternProperties",
                    f"{pattern[:100]!r} is too complex to stand beside unevaluatedProperties",
                )


def _is_python(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True


def _wrong(where: str, what: str) -> InvalidRequest:
    return InvalidRequest(f"{where} {what}", param=where)


def _is_strict(schema: dict[str, Any] | bool) -> bool:
    """Whether a schema is within what OpenAI takes as strict:
    https://platform.openai.com/docs/guides/structured-outputs#supported-schemas."""
    if not isinstance(schema, dict) or schema.get("type") != "object" or "anyOf" in schema:
        return False
    parts = [each for _, each in parts_of(schema)]
    properties = sum(len(each.get("properties", ())) for each in parts)
    paths = [path.count(".properties.") + path.count(".items") for path, _ in parts_of(schema)]
    return (
        properties <= STRICT_PROPERTIES_MAX
        and max(paths) < STRICT_DEPTH_MAX
        and all(map(_is_strict_part, parts))
    )


def _is_strict_part(part: dict[str, Any]) -> bool:
    if not part.keys() <= _STRICT_KEYWORDS:
        return False
    kinds = part.get("type", "")
    if "object" not in ([kinds] if isinstance(kinds, str) else kinds):
        return "$ref" in part or "anyOf" in part or "type" in part or "enum" in part
    properties = part.get("properties", {})
    is_closed = part.get("additionalProperties") is False
    return is_closed and set(part.get("required", ())) == set(properties)

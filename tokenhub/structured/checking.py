"""Whether a text is JSON that keeps to a schema, and if not, why.

`jsonschema` checks. What could take it too long is done here in another way: patterns, and whether
values are unique; and it has so many steps and no more. Knows no requests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any

import orjson
from jsonschema import Draft202012Validator, FormatChecker, ValidationError, validators
from referencing.exceptions import Unresolvable

from tokenhub.structured.patterns import compiled
from tokenhub.structured.schema import Schema

TEXT_CHARS_MAX = 4 << 20
ERRORS_MAX = 20
ERROR_CHARS_MAX = 300
STEPS_MAX = 100_000
"""How many keywords are applied to values, at most, for one text."""
VALUES_PER_STEP = 20
"""How many values of an enumeration are compared in as long as a step takes."""
MATCH_CHARS_PER_STEP = 2
"""How much text is matched with the worst of patterns in as long as a step takes."""

Errors = Iterator[ValidationError]


class _OutOfSteps(Exception):
    """The check would take too long."""


class _Steps(FormatChecker):  # type: ignore[misc]  # it has no types
    """How much is left to do. It goes where the validator goes, which nothing else of ours does;
    formats are only notes in draft 2020-12."""

    def __init__(self) -> None:
        super().__init__(formats=())
        self.left = STEPS_MAX

    def take(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise _OutOfSteps


def check(text: str, schema: Schema) -> list[str]:
    """What is wrong with a text, each with the path of the value; [] = nothing is."""
    if len(text) > TEXT_CHARS_MAX:
        return ["$: the text is too long to be checked"]
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return [f"$: the text is not valid JSON: {error.msg}"]
    try:
        found = list(islice(_errors_of(value, schema), ERRORS_MAX))
    except Unresolvable:
        return ["$: the schema refers to what is not there"]
    except (_OutOfSteps, RecursionError):
        return ["$: the text takes too long to be checked"]
    return [f"{error.json_path}: {error.message}"[:ERROR_CHARS_MAX] for error in found]


def _errors_of(value: Any, schema: Schema) -> Errors:
    validator = _validator(schema.canonical)
    errors: Errors = validator.evolve(format_checker=_Steps()).iter_errors(value)
    return errors


@lru_cache(maxsize=64)
def _validator(canonical: bytes) -> Any:
    return _CHECKER(_as_2020(orjson.loads(canonical)))


def _as_2020(schema: Any) -> Any:
    """The schema without `$schema`: it would choose another checker than this one."""
    if isinstance(schema, list):
        return [_as_2020(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: value if name in ("const", "enum") else _as_2020(value)
        for name, value in schema.items()
        if name != "$schema" or not isinstance(value, str)
    }


def _is_in(validator: Any, pattern: str, text: str) -> bool:
    validator.format_checker.take(1 + len(text) // MATCH_CHARS_PER_STEP)
    return compiled(pattern).is_in(text)


def _pattern(validator: Any, pattern: str, value: Any, _: Any) -> Errors:
    if isinstance(value, str) and not _is_in(validator, pattern, value):
        yield ValidationError(f"{value!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: Any, value: Any, _: Any) -> Errors:
    if not isinstance(value, dict):
        return
    for pattern, schema in patterns.items():
        for name, each in value.items():
            if _is_in(validator, pattern, name):
                yield from validator.descend(each, schema, path=name, schema_path=pattern)


def _additional_properties(validator: Any, wanted: Any, value: Any, schema: Any) -> Errors:
    if not isinstance(value, dict):
        return
    known = schema.get("properties", {})
    patterns = schema.get("patternProperties", {})
    others = [
        name
        for name in value
        if name not in known and not any(_is_in(validator, each, name) for each in patterns)
    ]
    if wanted is False and others:
        shown = ", ".join(map(repr, others))
        yield ValidationError(f"additional properties are not allowed: {shown}")
    elif wanted is not False:
        for name in others:
            yield from validator.descend(value[name], wanted, path=name)


def _unique_items(_: Any, wanted: Any, value: Any, __: Any) -> Errors:
    if wanted and isinstance(value, list) and len(set(map(_sameness, value))) < len(value):
        yield ValidationError("the items are not all different")


def _sameness(value: Any) -> bytes:
    return orjson.dumps(_plain_numbers(value), option=orjson.OPT_SORT_KEYS)


def _plain_numbers(value: Any) -> Any:
    """Numbers that are equal, as 1 and 1.0, the same."""
    if isinstance(value, dict):
        return {name: _plain_numbers(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain_numbers(each) for each in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value) if float(value) == value else value
    return value


def _counted(keyword: Any) -> Any:
    """A keyword that applies schemas, each time one step."""

    def apply(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
        validator.format_checker.take(1)
        return keyword(validator, value, instance, schema)

    return apply


def _enum(validator: Any, values: Any, value: Any, schema: Any) -> Errors:
    validator.format_checker.take(len(values) // VALUES_PER_STEP)
    yield from USUAL["enum"](validator, values, value, schema)


USUAL: Mapping[str, Any] = Draft202012Validator.VALIDATORS
_OURS = {
    "enum": _enum,
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "uniqueItems": _unique_items,
}
_CHECKER = validators.extend(
    Draft202012Validator,
    {keyword: _counted(_OURS.get(keyword, usual)) for keyword, usual in USUAL.items()},
)

"""The fields of a Responses request beside its input: each has the type that it must have.

Knows nothing of what a provider makes of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tokenhub.dialects.anthropic.reading import (
    filled_text_at,
    flag_at,
    list_at,
    number_at,
    object_at,
    text_at,
    whole_at,
    word_at,
)
from tokenhub.errors import InvalidRequest

FORMATS = ("text", "json_object", "json_schema")
VERBOSITIES = ("low", "medium", "high")
CHOICES = ("auto", "none", "required")
LOGPROBS_MAX = 20


def check_fields(body: Mapping[str, Any]) -> None:
    """Check all that are there and not null.

    Raises:
        InvalidRequest: naming the field that is wrong.
    """
    for name, check in _CHECKS.items():
        value = body.get(name)
        if value is not None:
            check(value, name)


def _check_temperature(value: Any, path: str) -> None:
    number_at(value, path, 0, 2)


def _check_share(value: Any, path: str) -> None:
    number_at(value, path, 0, 1)


def _check_count(value: Any, path: str) -> None:
    whole_at(value, path, 1)


def _check_logprobs(value: Any, path: str) -> None:
    if whole_at(value, path, 0) > LOGPROBS_MAX:
        raise InvalidRequest(f"{path} must be {LOGPROBS_MAX} at most", param=path)


def _check_metadata(value: Any, path: str) -> None:
    for each in object_at(value, path).values():
        text_at(each, path)


def _check_include(value: Any, path: str) -> None:
    for number, each in enumerate(list_at(value, path)):
        text_at(each, f"{path}[{number}]")


def _check_truncation(value: Any, path: str) -> None:
    word_at(value, path, ("auto", "disabled"))


def _check_reasoning(value: Any, path: str) -> None:
    wish = object_at(value, path)
    for name in ("effort", "summary", "generate_summary"):
        if wish.get(name) is not None:
            text_at(wish[name], f"{path}.{name}")


def _check_text(value: Any, path: str) -> None:
    wish = object_at(value, path)
    if wish.get("verbosity") is not None:
        word_at(wish["verbosity"], f"{path}.verbosity", VERBOSITIES)
    if wish.get("format") is None:
        return
    at = f"{path}.format"
    wanted = object_at(wish["format"], at)
    if word_at(wanted.get("type"), f"{at}.type", FORMATS) != "json_schema":
        return
    filled_text_at(wanted.get("name"), f"{at}.name")
    object_at(wanted.get("schema"), f"{at}.schema")
    flag_at(wanted.get("strict"), f"{at}.strict")
    if wanted.get("description") is not None:
        text_at(wanted["description"], f"{at}.description")


def _check_tools(value: Any, path: str) -> None:
    for number, each in enumerate(list_at(value, path)):
        at = f"{path}[{number}]"
        tool = object_at(each, at)
        kind = filled_text_at(tool.get("type"), f"{at}.type")
        if kind == "function":
            _check_function(tool, at)
        elif kind == "custom":
            _check_custom(tool, at)


def _check_function(tool: Mapping[str, Any], path: str) -> None:
    filled_text_at(tool.get("name"), f"{path}.name")
    flag_at(tool.get("strict"), f"{path}.strict")
    if tool.get("description") is not None:
        text_at(tool["description"], f"{path}.description")
    if tool.get("parameters") is not None:
        object_at(tool["parameters"], f"{path}.parameters")


def _check_custom(tool: Mapping[str, Any], path: str) -> None:
    filled_text_at(tool.get("name"), f"{path}.name")
    if tool.get("description") is not None:
        text_at(tool["description"], f"{path}.description")
    if tool.get("format") is not None:
        object_at(tool["format"], f"{path}.format")


def _check_choice(value: Any, path: str) -> None:
    if isinstance(value, str):
        word_at(value, path, CHOICES)
        return
    choice = object_at(value, path)
    kind = filled_text_at(choice.get("type"), f"{path}.type")
    if kind == "function":
        filled_text_at(choice.get("name"), f"{path}.name")
    elif kind == "allowed_tools":
        word_at(choice.get("mode"), f"{path}.mode", ("auto", "required"))
        for number, each in enumerate(list_at(choice.get("tools"), f"{path}.tools")):
            at = f"{path}.tools[{number}]"
            filled_text_at(object_at(each, at).get("type"), f"{at}.type")


_CHECKS: Mapping[str, Callable[[Any, str], object]] = {
    "instructions": text_at,
    "stream": flag_at,
    "store": flag_at,
    "background": flag_at,
    "stream_options": object_at,
    "max_output_tokens": _check_count,
    "temperature": _check_temperature,
    "top_p": _check_share,
    "top_logprobs": _check_logprobs,
    "parallel_tool_calls": flag_at,
    "tools": _check_tools,
    "tool_choice": _check_choice,
    "text": _check_text,
    "reasoning": _check_reasoning,
    "metadata": _check_metadata,
    "include": _check_include,
    "truncation": _check_truncation,
    "prompt": object_at,
    "service_tier": text_at,
    "user": text_at,
    "safety_identifier": text_at,
    "prompt_cache_key": text_at,
}

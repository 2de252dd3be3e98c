"""What OpenAI refuses in a request for a response, in its own words.

https://platform.openai.com/docs/api-reference/responses/create. Fields are only looked at when they
are there; unknown ones pass, as vLLM takes many more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenhub.providers.simulator.errors import Refused
from tokenhub.providers.simulator.openai_checks import (
    EFFORTS,
    FIELDS,
    FORMATS,
    TOOL_NAME,
    Check,
    check_fields,
    check_image_url,
    check_model,
    check_tool,
    missing,
    ranged,
    wrong_type,
    wrong_value,
)

ROLES = ("assistant", "system", "developer", "user")
PARTS = ("input_text", "input_image", "input_file")
SAID = ("output_text", "refusal")
ITEMS = ("message", "function_call", "function_call_output", "reasoning", "item_reference")


def check(body: dict[str, Any]) -> None:
    """Check a request.

    Raises:
        Refused: OpenAI would not take it.
    """
    check_model(body)
    given = body.get("input")
    if given is None:
        raise missing("input")
    if not isinstance(given, str | list):
        raise wrong_type("input", "a string or an array of objects", given)
    if isinstance(given, list):
        _check_items(given)
    check_fields(body, RESPONSE_FIELDS)


def _check_items(items: list[Any]) -> None:
    open_calls: dict[str, None] = {}
    known_calls: set[str] = set()
    for number, item in enumerate(items):
        where = f"input[{number}]"
        if not isinstance(item, dict):
            raise wrong_type(where, "an object", item)
        kind = item.get("type", "message")
        _check_item(item, kind, where)
        if kind == "function_call":
            open_calls[item["call_id"]] = None
            known_calls.add(item["call_id"])
        elif kind == "function_call_output":
            if item["call_id"] not in known_calls:
                raise Refused("No tool call found for function call output with call_id "
                              f"{item['call_id']}.", param="input")  # fmt: skip
            open_calls.pop(item["call_id"], None)
    for call_id in open_calls:
        raise Refused(f"No tool output found for function call {call_id}.", param="input")


def _check_item(item: dict[str, Any], kind: str, where: str) -> None:
    match kind:
        case "message":
            _check_message(item, where)
        case "function_call":
            _check_strings(item, where, ("call_id", "name", "arguments"))
        case "function_call_output":
            _check_output(item, where)
        case "reasoning":
            _check_strings(item, where, ("id",))
            if not item.get("encrypted_content") and not item.get("content"):
                raise _not_stored(item)
        case "item_reference":
            raise _not_stored(item)
        case _:
            raise wrong_value(f"{where}.type", kind, ITEMS)


def _not_stored(item: dict[str, Any]) -> Refused:
    return Refused(f"Item with id '{item.get('id')}' not found. Items are not persisted when "
                   "`store` is set to false. Try again with `store` set to true, or remove this "
                   "item from your input.", status=404, param="input")  # fmt: skip


def _check_message(item: dict[str, Any], where: str) -> None:
    role, said = item.get("role"), item.get("content")
    if role not in ROLES:
        raise wrong_value(f"{where}.role" if role else where, role, ROLES)
    if said is None:
        raise missing(f"{where}.content")
    if not isinstance(said, str):
        _check_parts(said, f"{where}.content", SAID if role == "assistant" else PARTS)


def _check_parts(parts: Any, where: str, allowed: tuple[str, ...]) -> None:
    if not isinstance(parts, list):
        raise wrong_type(where, "a string or an array of objects", parts)
    for number, part in enumerate(parts):
        at = f"{where}[{number}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in allowed:
            raise wrong_value(f"{at}.type", kind, allowed)
        if kind in ("input_text", "output_text"):
            _check_strings(part, at, ("text",))
        if kind == "input_image" and "file_id" not in part:
            _check_strings(part, at, ("image_url",))
            check_image_url(part["image_url"], f"{at}.image_url")


def _check_output(item: dict[str, Any], where: str) -> None:
    _check_strings(item, where, ("call_id",))
    if not isinstance(item.get("output"), str):
        _check_parts(item.get("output"), f"{where}.output", PARTS)


def _check_strings(value: dict[str, Any], where: str, names: tuple[str, ...]) -> None:
    for name in names:
        if name not in value:
            raise missing(f"{where}.{name}")
        if not isinstance(value[name], str):
            raise wrong_type(f"{where}.{name}", "a string", value[name])


def _check_tools(body: dict[str, Any], name: str) -> None:
    if not isinstance(body[name], list):
        raise wrong_type(name, "an array of objects", body[name])
    for number, tool in enumerate(body[name]):
        kind = tool.get("type") if isinstance(tool, dict) else None
        if not isinstance(kind, str):
            raise missing(f"tools[{number}].type")
        if kind == "function":
            if "name" not in tool:
                raise missing(f"tools[{number}].name")
            check_tool(tool, f"tools[{number}]")


def _check_choice(body: dict[str, Any], name: str) -> None:
    choice = body[name]
    if isinstance(choice, dict):
        wanted = choice.get("name")
        offered = [tool.get("name") for tool in body.get("tools") or ()]
        if choice.get("type") == "function" and wanted not in offered:
            raise Refused(f"Tool choice '{wanted}' not found in 'tools' parameter.", param=name)
    elif choice not in ("none", "auto", "required", None):
        raise wrong_value(name, choice, ("none", "auto", "required"))


def _check_text(body: dict[str, Any], name: str) -> None:
    wanted = _object_in(body, name).get("format") or {"type": "text"}
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind not in FORMATS:
        raise wrong_value(f"{name}.format.type", kind, FORMATS)
    if kind != "json_schema":
        return
    title = wanted.get("name")
    if not isinstance(title, str) or not TOOL_NAME.fullmatch(title):
        raise missing(f"{name}.format.name")
    if not isinstance(wanted.get("schema"), dict):
        raise missing(f"{name}.format.schema")


def _check_reasoning(body: dict[str, Any], name: str) -> None:
    effort = _object_in(body, name).get("effort")
    if effort not in EFFORTS:
        raise wrong_value(f"{name}.effort", effort, EFFORTS[:-1])


def _object_in(body: dict[str, Any], name: str) -> dict[str, Any]:
    value = body[name]
    if value is not None and not isinstance(value, dict):
        raise wrong_type(name, "an object", value)
    return value or {}


def _check_previous(body: dict[str, Any], name: str) -> None:
    if body[name] is not None:
        raise Refused(f"Previous response with id '{body[name]}' not found.", param=name,
                      openai_code="previous_response_not_found")  # fmt: skip


def _check_messages(body: dict[str, Any], name: str) -> None:
    other = {"messages": "input", "max_tokens": "max_output_tokens"}.get(name, "text.format")
    raise Refused(f"Unsupported parameter: '{name}'. In the Responses API, this parameter has "
                  f"moved to '{other}'.", param=name,
                  openai_code="unsupported_parameter")  # fmt: skip


RESPONSE_FIELDS: Mapping[str, Check] = {
    **{name: FIELDS[name] for name in ("temperature", "top_p")},
    **dict.fromkeys(("messages", "max_tokens", "response_format"), _check_messages),
    "tools": _check_tools,
    "tool_choice": _check_choice,
    "text": _check_text,
    "reasoning": _check_reasoning,
    "max_output_tokens": ranged(16, None, is_whole=True),
    "previous_response_id": _check_previous,
}

"""What OpenAI refuses in a chat request, in its own words; cheap, as it runs under load.

Fields are only looked at when they are there. Unknown ones pass, as vLLM takes many more.
https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from typing import Any

from tokenhub.providers.simulator.errors import Refused

ROLES = ("system", "assistant", "user", "function", "tool", "developer")
PARTS = {
    "user": ("text", "image_url", "input_audio", "file"),
    "assistant": ("text", "refusal"),
}
IMAGE_TYPES = ("image/png", "image/jpeg", "image/gif", "image/webp")
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max", None)
FORMATS = ("text", "json_object", "json_schema")
REASONERS = re.compile(r"gpt-5|o\d")
"""How the names begin of the models that only know `max_completion_tokens`."""
STOPS_MAX = 4
TOOL_NAME = re.compile("[a-zA-Z0-9_-]{1,64}")


def check(body: dict[str, Any]) -> None:
    """Check a request.

    Raises:
        Refused: OpenAI would not take it.
    """
    check_model(body)
    _check_messages(body.get("messages"))
    check_fields(body, FIELDS)


def check_model(body: dict[str, Any]) -> None:
    """Raises Refused unless a model is named."""
    if not isinstance(body.get("model"), str):
        raise Refused("you must provide a model parameter")


def check_fields(body: dict[str, Any], fields: Mapping[str, Check]) -> None:
    """Check those fields that are there; raises Refused."""
    for name, found in fields.items():
        if name in body:
            found(body, name)


def missing(where: str) -> Refused:
    """What OpenAI says of a field that it cannot do without."""
    return Refused(f"Missing required parameter: '{where}'.", param=where,
                   openai_code="missing_required_parameter")  # fmt: skip


def _check_messages(messages: Any) -> None:
    if not isinstance(messages, list):
        raise missing("messages")
    open_calls: list[str] | None = None  # None: the turn is not about calls
    for number, message in enumerate(messages):
        open_calls = _check_message(message, f"messages[{number}]", open_calls)
    if open_calls:
        raise _unanswered(open_calls, "messages")


def _check_message(message: Any, where: str, open_calls: list[str] | None) -> list[str] | None:
    """Returns the calls still to be answered; None when none were made."""
    if not isinstance(message, dict):
        raise wrong_type(where, "an object", message)
    role = message.get("role")
    if role == "tool":
        return _check_result(message, where, open_calls)
    if open_calls:
        raise _unanswered(open_calls, where)
    if role == "assistant":
        return _check_assistant(message, where)
    if role not in ROLES:
        raise wrong_value(f"{where}.role", role, ROLES)
    _check_content(message, where, role)
    return None


def _check_result(message: dict[str, Any], where: str, open_calls: list[str] | None) -> list[str]:
    if open_calls is None:
        raise Refused(
            "Invalid parameter: messages with role 'tool' must be a response to a preceeding "
            "message with 'tool_calls'.", param=f"{where}.role",
        )  # fmt: skip
    call_id = message.get("tool_call_id")
    if call_id not in open_calls:
        raise Refused(
            f"Invalid parameter: 'tool_call_id' of '{call_id}' not found in 'tool_calls' of "
            "previous message.", param=f"{where}.tool_call_id",
        )  # fmt: skip
    _check_content(message, where, "tool")
    return [each for each in open_calls if each != call_id]


def _unanswered(open_calls: list[str], where: str) -> Refused:
    return Refused(
        "An assistant message with 'tool_calls' must be followed by tool messages responding to "
        "each 'tool_call_id'. The following tool_call_ids did not have response messages: "
        + ", ".join(open_calls),
        param=where,
    )


def _check_assistant(message: dict[str, Any], where: str) -> list[str] | None:
    """Returns the ids of its tool calls; None if it has none."""
    calls = message.get("tool_calls")
    if message.get("content") is not None:
        _check_content(message, where, "assistant")
    elif calls is None and not message.keys() & {"refusal", "function_call", "audio"}:
        raise wrong_type(f"{where}.content", "a string", None)
    if calls is None:
        return None
    if not isinstance(calls, list) or not calls:
        raise Refused(
            f"Invalid '{where}.tool_calls': empty array. Expected an array with minimum length 1, "
            "but got an empty array instead.", param=f"{where}.tool_calls",
            openai_code="empty_array",
        )  # fmt: skip
    for number, call in enumerate(calls):
        _check_call(call, f"{where}.tool_calls[{number}]")
    return [call["id"] for call in calls]


def _check_call(call: Any, where: str) -> None:
    if not isinstance(call, dict):
        raise wrong_type(where, "an object", call)
    if not isinstance(call.get("id"), str):
        raise wrong_type(f"{where}.id", "a string", call.get("id"))
    kind = call.get("type")
    if kind not in ("function", "custom"):
        raise wrong_value(f"{where}.type", kind, ("function", "custom"))
    function = call.get(kind)
    text = "arguments" if kind == "function" else "input"
    for name in ("name", text):
        value = function.get(name) if isinstance(function, dict) else None
        if not isinstance(value, str):
            raise wrong_type(f"{where}.{kind}.{name}", "a string", value)


def _check_content(message: dict[str, Any], where: str, role: str) -> None:
    content = message.get("content")
    if not isinstance(content, str):
        _check_parts(content, f"{where}.content", PARTS.get(role, ("text",)))


def _check_parts(content: Any, where: str, allowed: tuple[str, ...]) -> None:
    if not isinstance(content, list):
        raise wrong_type(where, "a string or an array of objects", content)
    if not content:
        raise Refused(
            f"Invalid '{where}': empty array. Expected an array with minimum length 1, but got an "
            "empty array instead.", param=where, openai_code="empty_array",
        )  # fmt: skip
    for number, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in allowed:
            raise wrong_value(f"{where}[{number}].type", kind, allowed)
        if kind == "text" and not isinstance(part.get("text"), str):
            raise wrong_type(f"{where}[{number}].text", "a string", part.get("text"))
        if kind == "image_url":
            _check_image(part.get("image_url"), f"{where}[{number}].image_url")


def _check_image(image: Any, where: str) -> None:
    url = image.get("url") if isinstance(image, dict) else None
    if not isinstance(url, str):
        raise wrong_type(where, "an object with the string 'url'", image)
    check_image_url(url, f"{where}.url")


def check_image_url(url: str, where: str) -> None:
    """Check where an image comes from.

    Raises:
        Refused: OpenAI would not take it.
    """
    if url.startswith(("https://", "http://")):
        return
    found = re.match(r"data:([^;,]*);base64,", url)
    if found is None:
        raise Refused(f"Invalid '{where}'. Expected a base64-encoded data URL with an image "
                      "MIME type or a URL.", param=where,
                      openai_code="invalid_value")  # fmt: skip
    if found[1] not in IMAGE_TYPES:
        raise Refused(
            "You uploaded an unsupported image. Please make sure your image has of one the "
            "following formats: ['png', 'jpeg', 'gif', 'webp'].",
            openai_code="invalid_image_format",
        )  # fmt: skip
    if not is_base64(url[found.end() :]):
        raise Refused("Invalid base64 image_url.", param=where, openai_code="invalid_base64")


def is_base64(text: Any) -> bool:
    try:
        return isinstance(text, str) and bool(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        return False


def _check_tools(body: dict[str, Any], name: str) -> None:
    tools = body[name]
    if not isinstance(tools, list):
        raise wrong_type(name, "an array of objects", tools)
    if not tools:
        raise Refused("[] is too short - 'tools'")
    for number, tool in enumerate(tools):
        kind = tool.get("type") if isinstance(tool, dict) else None
        if kind not in ("function", "custom"):
            raise wrong_value(f"tools[{number}].type", kind, ("function", "custom"))
        check_tool(tool.get(kind), f"tools[{number}].{kind}")


def check_tool(tool: Any, where: str) -> None:
    """Check the name and the schema of a tool; raises Refused."""
    if not isinstance(tool, dict):
        raise missing(where)
    name = tool.get("name")
    if not isinstance(name, str) or not TOOL_NAME.fullmatch(name):
        raise Refused(
            f"Invalid '{where}.name': string does not match pattern. Expected a string that "
            "matches the pattern '^[a-zA-Z0-9_-]+$'.", param=f"{where}.name",
            openai_code="invalid_value",
        )  # fmt: skip
    schema = tool.get("parameters", {"type": "object"})
    kind = schema.get("type") if isinstance(schema, dict) else None
    if kind != "object" and schema != {}:
        raise Refused(
            f"Invalid schema for function '{name}': schema must be a JSON Schema of 'type: "
            f"\"object\"', got 'type: \"{kind}\"'.", param=f"{where}.parameters",
            openai_code="invalid_function_parameters",
        )  # fmt: skip


def _check_tool_choice(body: dict[str, Any], name: str) -> None:
    _only_with(body, name, "tools")
    choice = body[name]
    if choice in ("none", "auto", "required", None):
        return
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind == "allowed_tools":
        return
    if kind not in ("function", "custom"):
        raise wrong_value(name, choice, ("none", "auto", "required"))
    wanted = choice.get(kind)
    wanted = wanted.get("name") if isinstance(wanted, dict) else None
    if not any(tool[tool["type"]]["name"] == wanted for tool in body["tools"]):
        raise Refused(f"Tool choice '{wanted}' not found in 'tools' parameter.", param=name)


def _check_parallel(body: dict[str, Any], name: str) -> None:
    _only_with(body, name, "tools")
    if not isinstance(body[name], bool):
        raise wrong_type(name, "a boolean", body[name])


def _only_with(body: dict[str, Any], name: str, other: str) -> None:
    if not body.get(other):
        raise Refused(f"Invalid value for '{name}': '{name}' is only allowed when '{other}' are "
                      "specified.", param=name)  # fmt: skip


def _check_stream_options(body: dict[str, Any], name: str) -> None:
    if body[name] is not None and body.get("stream") is not True:
        raise Refused("The 'stream_options' parameter is only allowed when 'stream' is enabled.",
                      param=name)  # fmt: skip


def _check_format(body: dict[str, Any], name: str) -> None:
    if body[name] is None:
        return
    kind = body[name].get("type") if isinstance(body[name], dict) else None
    if kind not in FORMATS:
        raise wrong_value(f"{name}.type", kind, FORMATS)
    if kind != "json_schema":
        return
    wanted = body[name].get("json_schema")
    title = wanted.get("name") if isinstance(wanted, dict) else None
    if not isinstance(title, str) or not TOOL_NAME.fullmatch(title):
        where = f"{name}.json_schema.name"
        raise missing(where)
    if not isinstance(wanted.get("schema", {}), dict):
        raise wrong_type(f"{name}.json_schema.schema", "an object", wanted["schema"])


def _check_limit(body: dict[str, Any], name: str) -> None:
    _check_range(body, name, 1, None, is_whole=True)
    if body[name] is not None and body.get("max_completion_tokens") and name == "max_tokens":
        raise Refused("Setting 'max_tokens' and 'max_completion_tokens' at the same time is not "
                      "supported.", openai_code="invalid_parameter_combination")  # fmt: skip
    if body[name] is not None and name == "max_tokens" and REASONERS.match(body["model"]):
        raise Refused("Unsupported parameter: 'max_tokens' is not supported with this model. Use "
                      "'max_completion_tokens' instead.", param=name,
                      openai_code="unsupported_parameter")  # fmt: skip


def _check_range(
    body: dict[str, Any], name: str, least: float, most: float | None, *, is_whole: bool
) -> None:
    value = body[name]
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int if is_whole else (int, float)):
        raise wrong_type(name, "an integer" if is_whole else "a decimal", value)
    if value < least or (most is not None and value > most):
        bound = f">= {least}" if value < least else f"<= {most}"
        raise Refused(f"Invalid '{name}': value out of range. Expected a value {bound}, but got "
                      f"{value} instead.", param=name, openai_code="invalid_value")  # fmt: skip


def ranged(least: float, most: float | None, *, is_whole: bool = False) -> Check:
    """A check that a field holds a number, null, or nothing."""
    return lambda body, name: _check_range(body, name, least, most, is_whole=is_whole)


def _check_stop(body: dict[str, Any], name: str) -> None:
    stop = body[name]
    if stop is None or isinstance(stop, str):
        return
    if not isinstance(stop, list) or not all(isinstance(each, str) for each in stop):
        raise wrong_type(name, "a string or an array of strings", stop)
    if len(stop) > STOPS_MAX:
        raise Refused(
            f"Invalid '{name}': array too long. Expected an array with maximum length {STOPS_MAX}, "
            f"but got an array with length {len(stop)} instead.", param=name,
            openai_code="array_above_max_length",
        )  # fmt: skip


def _check_effort(body: dict[str, Any], name: str) -> None:
    if body[name] not in EFFORTS:
        raise wrong_value(name, body[name], EFFORTS[:-1])


def wrong_type(where: str, expected: str, value: Any) -> Refused:
    """What OpenAI says of a value of the wrong type."""
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean",
             int: "an integer", float: "a decimal", type(None): "null"}  # fmt: skip
    got = names[type(value)]
    return Refused(f"Invalid type for '{where}': expected {expected}, but got {got} instead.",
                   param=where, openai_code="invalid_type")  # fmt: skip


def wrong_value(where: str, value: Any, allowed: tuple[str | None, ...]) -> Refused:
    """What OpenAI says of a word that it does not know."""
    named = [f"'{each}'" for each in allowed]
    listed = named[0] if len(named) == 1 else f"{', '.join(named[:-1])}, and {named[-1]}"
    return Refused(f"Invalid value: '{value}'. Supported values are: {listed}.", param=where,
                   openai_code="invalid_value")  # fmt: skip


Check = Callable[[dict[str, Any], str], None]
FIELDS: dict[str, Check] = {
    "tools": _check_tools,
    "tool_choice": _check_tool_choice,
    "parallel_tool_calls": _check_parallel,
    "stream_options": _check_stream_options,
    "response_format": _check_format,
    "max_tokens": _check_limit,
    "max_completion_tokens": _check_limit,
    "temperature": ranged(0, 2),
    "top_p": ranged(0, 1),
    "n": ranged(1, 128, is_whole=True),
    "stop": _check_stop,
    "reasoning_effort": _check_effort,
}

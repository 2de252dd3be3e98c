"""What Anthropic refuses in the messages of a request, in its own words.

Turns of one role that follow each other are joined by the API, but the results of tools must be
first in the message right after the calls. https://platform.claude.com/docs/en/api/messages/create
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from tokenhub.providers.simulator.errors import Refused
from tokenhub.providers.simulator.openai_checks import IMAGE_TYPES, is_base64
from tokenhub.providers.simulator.signature import sign

TOOL_ID = re.compile("[a-zA-Z0-9_-]+")
TOOL_NAME = re.compile("[a-zA-Z0-9_-]{1,200}")
KEYS = {
    "text": frozenset(("text", "citations")),
    "image": frozenset(("source", "transformations")),
    "document": frozenset(("source", "title", "context", "citations")),
    "search_result": frozenset(("source", "title", "content", "citations")),
    "thinking": frozenset(("thinking", "signature")),
    "redacted_thinking": frozenset(("data",)),
    "tool_use": frozenset(("id", "name", "input", "caller", "toolset_name")),
    "tool_result": frozenset(("tool_use_id", "content", "is_error", "toolset_name")),
}
MARK_KEYS = frozenset(("type", "ttl"))
ROLES_OF = {
    "user": frozenset(("text", "image", "document", "search_result", "tool_result")),
    "assistant": frozenset(("text", "thinking", "redacted_thinking", "tool_use")),
}
IN_RESULT = frozenset(("text", "image", "document", "search_result"))
DOCUMENT_TYPES = {"base64": "application/pdf", "text": "text/plain"}
NAMES = {int: "integer", float: "number", str: "string", bool: "boolean", list: "list",
         dict: "dictionary"}  # fmt: skip
EMPTY = "all messages must have non-empty content except for the optional final assistant message"


def invalid(where: str, why: str) -> Refused:
    return Refused(f"{where}: {why}")


def wrong_tag(where: str, kind: object, expected: Iterable[str]) -> Refused:
    listed = ", ".join(f"'{each}'" for each in expected)
    return invalid(
        where,
        f"Input tag '{kind}' found using 'type' does not match any of the expected tags: {listed}",
    )


def of_type(value: Any, kind: type, where: str) -> Any:
    """The value, which is of the type; raises Refused if not."""
    is_bool = isinstance(value, bool)
    if isinstance(value, (int, float) if kind is float else kind) and is_bool == (kind is bool):
        return value
    raise invalid(where, f"Input should be a valid {NAMES[kind]}")


def check_keys(value: dict[str, Any], allowed: frozenset[str], where: str) -> None:
    """Raises Refused for a field that the API does not know."""
    for name in value:
        if name not in allowed:
            raise invalid(f"{where}.{name}" if where else name, "Extra inputs are not permitted")


def check_present(value: dict[str, Any], names: Iterable[str], where: str) -> None:
    """Raises Refused for a field that the API cannot do without."""
    for name in names:
        if name not in value:
            raise invalid(f"{where}.{name}" if where else name, "Field required")


def check_pattern(value: Any, pattern: re.Pattern[str], where: str) -> None:
    """Raises Refused for anything but a string that matches."""
    if not pattern.fullmatch(of_type(value, str, where)):
        raise invalid(where, f"String should match pattern '^{pattern.pattern}$'")


def check_text(block: dict[str, Any], where: str, whole: str) -> None:
    """Check a text block; `whole` is how the API names the place of an empty one."""
    _check_block_keys(block, where, "text")
    text = of_type(block.get("text"), str, f"{where}.text")
    if not text:
        raise invalid(whole, "text content blocks must be non-empty")
    if not text.strip():
        raise invalid(whole, "text content blocks must contain non-whitespace text")


def check_messages(body: dict[str, Any]) -> None:
    """Check the messages of a request, whose other fields have been.

    Raises:
        Refused: the API would not take them.
    """
    messages = of_type(body["messages"], list, "messages")
    if not messages:
        raise invalid("messages", "at least one message is required")
    for number, message in enumerate(messages):
        _check_message(message, f"messages.{number}", is_last=number == len(messages) - 1)
    if messages[0]["role"] != "user":
        raise invalid("messages", 'first message must use the "user" role')
    _check_ending(messages[-1])
    _check_tool_turns(messages)
    if not body.get("tools") and any(_ids(message) for message in messages):
        raise Refused("Requests which include `tool_use` or `tool_result` blocks must define tools")
    if body.get("thinking", {}).get("type") == "enabled":
        _check_thinking_turn(messages)


def _check_message(message: Any, where: str, *, is_last: bool) -> None:
    check_keys(of_type(message, dict, where), frozenset(("role", "content")), where)
    role = message.get("role")
    _check_role(role, where)
    check_present(message, ("content",), where)
    said = message["content"]
    if not said and isinstance(said, str | list):
        if is_last and role == "assistant":
            return
        raise invalid(where, EMPTY)
    if isinstance(said, str):
        if not said.strip():
            raise invalid("messages", "text content blocks must contain non-whitespace text")
        return
    for number, block in enumerate(of_type(said, list, f"{where}.content")):
        _check_block(block, f"{where}.content.{number}", ROLES_OF[role], role)


def _check_role(role: Any, where: str) -> None:
    if role == "system":
        raise invalid(
            "messages",
            'Unexpected role "system". The Messages API accepts a top-level `system` parameter, '
            'not "system" as an input message role.',
        )
    if role not in ("user", "assistant"):
        raise invalid(f"{where}.role", "Input should be 'user' or 'assistant'")


def _check_block(block: Any, where: str, allowed: frozenset[str], role: str) -> None:
    kind = str(of_type(block, dict, where).get("type"))
    if kind not in KEYS:
        raise wrong_tag(where, kind, sorted(KEYS))
    if kind not in allowed:
        raise invalid(where, f"`{kind}` blocks are not allowed in `{role}` messages")
    if kind == "text":
        check_text(block, where, "messages")
        return
    _check_block_keys(block, where, kind)
    match kind:
        case "image" | "document":
            _check_source(block, f"{where}.{kind}.source", kind)
        case "tool_use":
            _check_call(block, f"{where}.tool_use")
        case "tool_result":
            _check_result(block, f"{where}.tool_result")
        case "thinking":
            _check_thinking(block, where)


def _check_block_keys(block: dict[str, Any], where: str, kind: str) -> None:
    is_thought = kind in ("thinking", "redacted_thinking")
    common = {"type"} if is_thought else {"type", "cache_control"}
    check_keys(block, KEYS[kind] | common, f"{where}.{kind}")
    mark = block.get("cache_control")
    if mark is not None:
        at = f"{where}.{kind}.cache_control"
        check_keys(of_type(mark, dict, at), MARK_KEYS, at)
        if mark.get("type") != "ephemeral":
            raise invalid(f"{at}.type", "Input should be 'ephemeral'")
        if mark.get("ttl", "5m") not in ("5m", "1h"):
            raise invalid(f"{at}.ttl", "Input should be '5m' or '1h'")


def _check_source(block: dict[str, Any], where: str, kind: str) -> None:
    source = of_type(block.get("source"), dict, where)
    match source.get("type"):
        case "url":
            check_keys(source, frozenset(("type", "url")), f"{where}.url")
            url = of_type(source.get("url"), str, f"{where}.url.url")
            if not url.startswith(("https://", "http://")):
                raise invalid(f"{where}.url.url", "Only HTTPS URLs are supported.")
        case "base64" | "text" as form if form == "base64" or kind == "document":
            _check_data(source, f"{where}.{form}", kind, form)
        case "file":
            check_keys(source, frozenset(("type", "file_id")), f"{where}.file")
            of_type(source.get("file_id"), str, f"{where}.file.file_id")
        case "content" if kind == "document":
            return
        case other:
            raise wrong_tag(where, other, ("base64", "file", "url"))


def _check_data(source: dict[str, Any], where: str, kind: str, form: str) -> None:
    check_keys(source, frozenset(("type", "media_type", "data")), where)
    media_type = source.get("media_type")
    if kind == "image":
        if media_type not in IMAGE_TYPES:
            raise invalid(f"{where}.media_type", "Input should be 'image/jpeg', 'image/png', "
                          "'image/gif' or 'image/webp'")  # fmt: skip
    elif media_type != DOCUMENT_TYPES[form]:
        raise invalid(f"{where}.media_type", f"Input should be '{DOCUMENT_TYPES[form]}'")
    data = of_type(source.get("data"), str, f"{where}.data")
    if form == "base64" and not is_base64(data):
        raise invalid(f"{where}.data", "Invalid base64 data")


def _check_call(block: dict[str, Any], where: str) -> None:
    for name, pattern in (("id", TOOL_ID), ("name", TOOL_NAME)):
        check_pattern(block.get(name), pattern, f"{where}.{name}")
    of_type(block.get("input"), dict, f"{where}.input")


def _check_result(block: dict[str, Any], where: str) -> None:
    check_pattern(block.get("tool_use_id"), TOOL_ID, f"{where}.tool_use_id")
    if "is_error" in block:
        of_type(block["is_error"], bool, f"{where}.is_error")
    said = block.get("content", "")
    if isinstance(said, str):
        return
    for number, part in enumerate(of_type(said, list, f"{where}.content")):
        _check_block(part, f"{where}.content.{number}", IN_RESULT, "tool_result")


def _check_thinking(block: dict[str, Any], where: str) -> None:
    thought = of_type(block.get("thinking"), str, f"{where}.thinking.thinking")
    check_present(block, ("signature",), f"{where}.thinking")
    if block["signature"] != sign(thought):
        raise invalid(where, "Invalid `signature` in `thinking` block")


def _check_ending(message: dict[str, Any]) -> None:
    said = message["content"]
    if isinstance(said, list):
        said = said[-1].get("text", "") if said else ""
    if message["role"] == "assistant" and said != said.rstrip():
        raise invalid("messages", "final assistant content cannot end with trailing whitespace")


def _check_tool_turns(messages: list[dict[str, Any]]) -> None:
    """Each call is answered, first thing in the next message, and nothing else is."""
    seen: set[str] = set()
    open_ids: list[str] = []
    for number, message in enumerate(messages):
        answered = _answered(message, number, open_ids)
        if missing := [each for each in open_ids if each not in answered]:
            raise _unanswered(number - 1, missing)
        open_ids = _ids(message) if message["role"] == "assistant" else []
        if len(set(open_ids)) < len(open_ids) or seen & set(open_ids):
            raise invalid("messages", "`tool_use` ids must be unique")
        seen |= set(open_ids)
    if open_ids:
        raise _unanswered(len(messages) - 1, open_ids)


def _answered(message: dict[str, Any], number: int, open_ids: list[str]) -> list[str]:
    """The calls that the results at the start of a message answer."""
    answered: list[str] = []
    is_start = True
    said = message["content"]
    for index, block in enumerate(said if isinstance(said, list) else []):
        if block["type"] != "tool_result":
            is_start = False
            continue
        call_id, where = block["tool_use_id"], f"messages.{number}.content.{index}"
        if call_id not in open_ids:
            raise invalid(
                where,
                f"unexpected `tool_use_id` found in `tool_result` blocks: {call_id}. Each "
                "`tool_result` block must have a corresponding `tool_use` block in the previous "
                "message.",
            )
        if call_id in answered:
            raise invalid(where, "each tool_use must have a single result. Found multiple "
                          f"`tool_result` blocks with id: {call_id}")  # fmt: skip
        if is_start:
            answered.append(call_id)
    return answered


def _unanswered(number: int, ids: list[str]) -> Refused:
    return invalid(
        f"messages.{number}",
        f"`tool_use` ids were found without `tool_result` blocks immediately after: "
        f"{', '.join(ids)}. Each `tool_use` block must have a corresponding `tool_result` block "
        "in the next message.",
    )


def _ids(message: dict[str, Any]) -> list[str]:
    """Of the tool calls in it, or of those that it answers."""
    said = message["content"]
    if isinstance(said, str):
        return []
    return [
        block.get("id") or block["tool_use_id"]
        for block in said
        if block["type"] in ("tool_use", "tool_result")
    ]


def _check_thinking_turn(messages: list[dict[str, Any]]) -> None:
    """While a tool is in use, the turn that called it must begin with its thinking."""
    if messages[-1]["role"] != "user" or not _ids(messages[-1]):
        return
    number = len(messages) - 2
    first = messages[number]["content"][0]["type"]
    if first not in ("thinking", "redacted_thinking"):
        raise invalid(
            f"messages.{number}.content.0.type",
            f"Expected `thinking` or `redacted_thinking`, but found `{first}`. When `thinking` is "
            "enabled, a final `assistant` message must start with a thinking block (preceeding "
            "the lastmost set of `tool_use` and `tool_result` blocks).",
        )

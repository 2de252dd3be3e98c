"""A conversation as Anthropic wants it: instructions apart, then turns that alternate.

Anthropic's rules, of which OpenAI knows none: the user begins; roles alternate; no turn is empty;
the results of tool calls come first in the turn right after the calls, all of them; ids of calls
are unique and plain. What can be put right without inventing anything is, the rest is refused.
https://docs.claude.com/en/api/messages,
https://platform.claude.com/docs/en/agents-and-tools/tool-use/handle-tool-calls.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from tokenhub.dialects.anthropic.content import (
    SAID,
    SHOWN,
    TEXT,
    add_cache_control,
    read_content,
)
from tokenhub.dialects.anthropic.reading import (
    Block,
    Dropped,
    filled_text_at,
    list_at,
    object_at,
    text_at,
)
from tokenhub.errors import InvalidRequest, Untranslatable

Turn = dict[str, Any]

TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
NESTING_MAX = 100
THINKING_TYPES = ("thinking", "redacted_thinking")

RAW = "_raw"
"""The only field of a tool's input whose arguments are no JSON object: it has their text."""

_NOT_IN_ID = re.compile(r"[^a-zA-Z0-9_-]")
_PLAIN_ID = re.compile(r"[a-zA-Z0-9_-]+")
_LONG_NUMBER = re.compile(r"\d{19}")
_COMMON_FIELDS = frozenset({"role", "content", "cache_control"})
_TOOL_FIELDS = _COMMON_FIELDS | {"tool_call_id"}
_CALL_FIELDS = frozenset({"id", "type", "function", "cache_control", "index"})
_FUNCTION_FIELDS = frozenset({"name", "arguments"})
_ASSISTANT_FIELDS = _COMMON_FIELDS | {
    "refusal", "tool_calls", "function_call", "audio", "thinking_blocks", "reasoning_content",
}  # fmt: skip


class UniqueIds:
    """Gives calls ids that Anthropic accepts: plain ones, each but once."""

    def __init__(self) -> None:
        self._given: dict[str, int] = {}  # and how often each was asked for

    def name(self, id: str) -> str:
        """The id of the next call: its own, if it can be."""
        plain = unique = plain_id(id) or "call"
        while unique in self._given:
            self._given[plain] += 1
            unique = f"{plain}-{self._given[plain]}"
        self._given[unique] = 1
        return unique


class Conversation:
    """Reads `messages` one after the other.

    After `read`, `system` holds the instructions, `turns` the rest, and `tool_names` the tools
    that were called.

    Args:
        dropped: takes the names of what is left out.
    """

    def __init__(self, dropped: Dropped) -> None:
        self.system: list[Block] = []
        self.turns: list[Turn] = []
        self.tool_names: dict[str, None] = {}
        self._dropped = dropped
        self._open: dict[str, tuple[str, str]] = {}  # calls without a result: their path, our id
        self._ids = UniqueIds()

    def read(self, messages: list[dict[str, Any]]) -> None:
        """Translate them all.

        Raises:
            InvalidRequest: a value has the wrong type.
            Untranslatable: Anthropic has nothing like it, or would refuse it as it is.
        """
        for number, message in enumerate(messages):
            _READERS[message["role"]](self, message, f"messages[{number}]")
        self._expect_results()
        if not self.turns:
            raise Untranslatable(
                "Anthropic needs a message of the user or the assistant that is not empty",
                param="messages",
            )
        if self.ends_with_assistant:
            self._tidy_prefill()

    @property
    def ends_with_assistant(self) -> bool:
        """Whether the answer is to continue the last message (a "prefill")."""
        return bool(self.turns[-1]["role"] == "assistant")

    @property
    def lacks_thinking(self) -> bool:
        """Whether tool results go back to a turn that did not begin with its thinking."""
        if self.turns[-1]["content"][0]["type"] != "tool_result":
            return False
        return self.turns[-2]["content"][0]["type"] not in THINKING_TYPES

    def _read_instructions(self, message: dict[str, Any], path: str) -> None:
        blocks = read_content(message.get("content"), f"{path}.content", TEXT, self._dropped)
        self._finish(blocks, message, path, _COMMON_FIELDS)
        self.system += blocks

    def _read_user(self, message: dict[str, Any], path: str) -> None:
        blocks = read_content(message.get("content"), f"{path}.content", SHOWN, self._dropped)
        self._finish(blocks, message, path, _COMMON_FIELDS)
        if blocks:
            self._expect_results()
            self._append("user", blocks)

    def _read_tool(self, message: dict[str, Any], path: str) -> None:
        at = f"{path}.tool_call_id"
        call = self._open.pop(_id_at(message.get("tool_call_id"), at), None)
        if call is None:
            raise Untranslatable(
                "the message answers no tool call of the assistant's message before it, "
                "or one that has its answer already",
                param=at,
            )
        block: Block = {"type": "tool_result", "tool_use_id": call[1]}
        content = read_content(message.get("content"), f"{path}.content", SHOWN, self._dropped)
        if content:
            block["content"] = content
        self._finish([block], message, path, _TOOL_FIELDS)
        self._append("user", [block])

    def _read_assistant(self, message: dict[str, Any], path: str) -> None:
        for name in ("function_call", "audio"):
            if message.get(name) is not None:
                raise Untranslatable(f"Anthropic has no {name}", param=f"{path}.{name}")
        blocks = read_content(message.get("content"), f"{path}.content", SAID, self._dropped)
        refusal = message.get("refusal")
        if refusal is not None and text_at(refusal, f"{path}.refusal").strip():
            blocks.append({"type": "text", "text": refusal})
        if self.turns and self.turns[-1]["role"] == "user":
            self._expect_results()
        for number, call in enumerate(list_at(message.get("tool_calls"), f"{path}.tool_calls")):
            blocks.append(self._read_call(call, f"{path}.tool_calls[{number}]"))
        self._finish(blocks, message, path, _ASSISTANT_FIELDS)
        thinking = self._read_thinking(message, path)
        if blocks:
            self._append("assistant", thinking + blocks)
        elif thinking:  # Anthropic refuses a turn of nothing but thoughts
            self._dropped.add("messages.thinking_blocks")

    def _refuse_function(self, _: dict[str, Any], path: str) -> None:
        raise Untranslatable("Anthropic has no role like function: use tool", param=f"{path}.role")

    def _read_call(self, raw: Any, path: str) -> Block:
        call = object_at(raw, path)
        if call.get("type") not in (None, "", "function"):
            raise Untranslatable("Anthropic has function calls only", param=f"{path}.type")
        id = _id_at(call.get("id"), f"{path}.id")
        if id in self._open:
            raise InvalidRequest(f"{path}.id: another call has this id", param=f"{path}.id")
        function = object_at(call.get("function"), f"{path}.function")
        name = tool_name(function.get("name"), f"{path}.function.name")
        arguments = _read_arguments(function.get("arguments"), f"{path}.function.arguments")
        self.tool_names[name] = None
        self._open[id] = (path, self._unique_id(id))
        block: Block = {
            "type": "tool_use", "id": self._open[id][1], "name": name, "input": arguments,
        }  # fmt: skip
        add_cache_control(block, call, path)
        self._dropped.add_unknown(call, _CALL_FIELDS, "messages.tool_calls.")
        self._dropped.add_unknown(function, _FUNCTION_FIELDS, "messages.tool_calls.function.")
        return block

    def _unique_id(self, id: str) -> str:
        """An id that Anthropic accepts; its own ones come back from our prefix unchanged."""
        return self._ids.name(id.removeprefix("call_") if id.startswith("call_toolu_") else id)

    def _read_thinking(self, message: dict[str, Any], path: str) -> list[Block]:
        """Earlier thoughts that carry Anthropic's signature; it believes no others."""
        kept: list[Block] = []
        at = f"{path}.thinking_blocks"
        for number, raw in enumerate(list_at(message.get("thinking_blocks"), at)):
            block = _signed(object_at(raw, f"{at}[{number}]"))
            if block is None:
                self._dropped.add("messages.thinking_blocks")
            else:
                kept.append(block)
        if not kept and message.get("reasoning_content"):
            self._dropped.add("messages.reasoning_content")
        return kept

    def _finish(
        self, blocks: list[Block], message: dict[str, Any], path: str, known: frozenset[str]
    ) -> None:
        if blocks:
            add_cache_control(blocks[-1], message, path)
        self._dropped.add_unknown(message, known, "messages.")

    def _append(self, role: str, blocks: list[Block]) -> None:
        if self.turns and self.turns[-1]["role"] == role:
            self.turns[-1]["content"] += blocks
        else:
            self.turns.append({"role": role, "content": blocks})

    def _expect_results(self) -> None:
        for path, _ in self._open.values():
            raise Untranslatable(
                "the tool call has no answer: a message of the role tool must follow", param=path
            )

    def _tidy_prefill(self) -> None:
        content = self.turns[-1]["content"]
        kept = [block for block in content if block["type"] not in THINKING_TYPES]
        if len(kept) < len(content):
            self._dropped.add("messages.thinking_blocks")
        kept[-1] = {**kept[-1], "text": kept[-1]["text"].rstrip()}
        self.turns[-1]["content"] = kept


def is_plain_id(id: str) -> bool:
    """Whether Anthropic takes it for the id of a call."""
    return _PLAIN_ID.fullmatch(id) is not None


def plain_id(id: str) -> str:
    """An id in the characters that Anthropic takes."""
    return _NOT_IN_ID.sub("_", id)


def tool_name(value: Any, path: str) -> str:
    """A tool's name, as both dialects write it.

    Raises:
        InvalidRequest: it is no string.
        Untranslatable: it has characters that Anthropic does not take.
    """
    name = filled_text_at(value, path)
    if TOOL_NAME.fullmatch(name):
        return name
    raise Untranslatable(
        "Anthropic's names of tools have up to 128 letters, digits, _ and -", param=path
    )


def _id_at(value: Any, path: str) -> str:
    """A call's id. Some servers give none, and one call at a time can do without."""
    return "" if value is None else text_at(value, path)


def find_arguments(text: str) -> dict[str, Any] | orjson.Fragment | None:
    """The JSON object that a call's arguments are the text of, exactly; None if it is none."""
    if text.strip() in ("", "null"):
        return {}
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(found, dict):
        return None
    # orjson makes floats of integers beyond 64 bits, and does not write what is nested too deeply.
    # Where either could be, the arguments are sent as they came.
    is_plain = text.count("{") + text.count("[") < NESTING_MAX and not _LONG_NUMBER.search(text)
    return found if is_plain else orjson.Fragment(text)


def _read_arguments(value: Any, path: str) -> dict[str, Any] | orjson.Fragment:
    """What a model has got wrong, it may see again: the conversation goes on."""
    text = "" if value is None else text_at(value, path)
    found = find_arguments(text)
    return {RAW: text} if found is None else found


def _signed(block: dict[str, Any]) -> Block | None:
    kind, text, mark = block.get("type"), block.get("thinking"), block.get("signature")
    if kind == "thinking" and isinstance(text, str) and isinstance(mark, str) and mark:
        return {"type": "thinking", "thinking": text, "signature": mark}
    data = block.get("data")
    if kind == "redacted_thinking" and isinstance(data, str) and data:
        return {"type": "redacted_thinking", "data": data}
    return None


_READERS: Mapping[str, Callable[[Conversation, dict[str, Any], str], None]] = {
    "system": Conversation._read_instructions,
    "developer": Conversation._read_instructions,
    "user": Conversation._read_user,
    "assistant": Conversation._read_assistant,
    "tool": Conversation._read_tool,
    "function": Conversation._refuse_function,
}

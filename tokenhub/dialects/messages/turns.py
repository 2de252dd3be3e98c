"""A conversation in Anthropic's words as the messages of a chat.

What Anthropic has in one turn is several messages there: the results of tools are each their own,
and come right after the calls. Turns of one role that follow each other are one, as they are at
Anthropic. https://docs.claude.com/en/api/messages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from tokenhub.dialects.anthropic.reading import Block, Dropped, filled_text_at, list_at
from tokenhub.dialects.anthropic.turns import THINKING_TYPES
from tokenhub.dialects.messages.content import (
    SHOWN,
    TEXT,
    Part,
    note_rest,
    plain,
    read_block,
    read_content,
    text_part,
)
from tokenhub.errors import InvalidRequest, Untranslatable

FAILED = "error"
"""What a failed tool said that said nothing: a chat cannot mark a result as failed."""
ATTACHED = "(attached to the next message)"
"""What a tool said that only showed something: a chat's results are text."""

_CALL_FIELDS = frozenset({"type", "id", "name", "input"})
_RESULT_FIELDS = frozenset({"type", "tool_use_id", "content"})


class Conversation:
    """Reads `messages` one after the other; after `read`, `said` holds those of the chat, and
    `called` the names of the tools that were called.

    Args:
        dropped: takes the names of what is left out.
    """

    def __init__(self, dropped: Dropped) -> None:
        self.said: list[dict[str, Any]] = []
        self.called: dict[str, None] = {}
        self._dropped = dropped
        self._shown: list[Part] = []  # of the user's turn, after the results in it
        self._open: dict[str, str] = {}  # calls without a result: their path by their id

    def read(self, messages: list[dict[str, Any]]) -> None:
        """Translate them all.

        Raises:
            InvalidRequest: a value has the wrong type.
            Untranslatable: a chat cannot say it.
        """
        for number, message in enumerate(messages):
            reader = _READERS.get(message["role"])
            if reader is None:
                raise Untranslatable("a chat has no such role", param=f"messages[{number}].role")
            reader(self, message["content"], f"messages[{number}].content")
        self._end_turn()
        if not self.said:
            raise InvalidRequest("the messages have no content", param="messages")
        last = self.said[-1]
        if last["role"] == "assistant":
            raise Untranslatable(
                "a chat does not continue a message of the assistant's: end with the user's",
                param=f"messages[{len(messages) - 1}]",
            )

    def _read_system(self, content: Any, path: str) -> None:
        self._end_turn()
        parts = read_content(content, path, self._dropped)
        if parts:
            self.said.append({"role": "system", "content": plain(parts)})

    def _read_user(self, content: Any, path: str) -> None:
        if isinstance(content, str):
            self._shown += read_content(content, path, self._dropped)
            return
        shown: list[Part] = []
        for number, block in enumerate(content):
            at = f"{path}[{number}]"
            if block["type"] == "tool_result":
                self._shown += self._read_result(block, at)
            else:
                shown += read_block(block, at, SHOWN, self._dropped)
        self._shown += shown

    def _read_result(self, block: Block, path: str) -> list[Part]:
        """Add the result's message; returns what of it only a user's message can show."""
        id = filled_text_at(block.get("tool_use_id"), f"{path}.tool_use_id")
        if self._open.pop(id, None) is None:
            raise Untranslatable(
                "the block answers no tool_use of the assistant's turn before it, "
                "or one that has its answer already",
                param=f"{path}.tool_use_id",
            )
        note_rest(block, _RESULT_FIELDS, self._dropped)
        content, at = block.get("content"), f"{path}.content"
        parts = [text_part(content)] if isinstance(content, str) else []
        if not isinstance(content, str):
            for number, each in enumerate(list_at(content, at)):
                parts += read_block(each, f"{at}[{number}]", SHOWN, self._dropped)
        texts = [part for part in parts if part["type"] == "text"]
        shown = [part for part in parts if part["type"] != "text"]
        if not texts and (shown or block.get("is_error")):
            texts = [text_part(ATTACHED if shown else FAILED)]
        self.said.append({"role": "tool", "tool_call_id": id, "content": plain(texts)})
        return shown

    def _read_assistant(self, content: Any, path: str) -> None:
        if not self._is_assistants():
            self._end_turn()
        parts: list[Part] = []
        calls = []
        if isinstance(content, str):
            parts = read_content(content, path, self._dropped)
            content = []
        for number, block in enumerate(content):
            at = f"{path}[{number}]"
            if block["type"] == "tool_use":
                calls.append(self._read_call(block, at))
            elif block["type"] in THINKING_TYPES:
                self._dropped.add(f"messages.content.{block['type']}")
            else:
                parts += read_block(block, at, TEXT, self._dropped)
        if parts or calls:
            self._say(parts, calls)

    def _read_call(self, block: Block, path: str) -> dict[str, Any]:
        id = filled_text_at(block.get("id"), f"{path}.id")
        if id in self._open:
            raise InvalidRequest(f"{path}.id: another call has this id", param=f"{path}.id")
        name = filled_text_at(block.get("name"), f"{path}.name")
        self._open[id] = path
        self.called[name] = None
        note_rest(block, _CALL_FIELDS, self._dropped)
        arguments = orjson.dumps(block["input"]).decode()
        return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}

    def _is_assistants(self) -> bool:
        """Whether the assistant has just spoken, so that it goes on."""
        return bool(self.said) and self.said[-1]["role"] == "assistant" and not self._shown

    def _say(self, parts: list[Part], calls: list[dict[str, Any]]) -> None:
        """Add the assistant's message, or what it has more to say to its last one."""
        if self._is_assistants():
            last = self.said.pop()
            said = last["content"]
            before = [text_part(said)] if isinstance(said, str) and said else said or []
            parts, calls = before + parts, last.get("tool_calls", []) + calls
        message: dict[str, Any] = {"role": "assistant", "content": plain(parts) or None}
        if calls:
            message["tool_calls"] = calls
        self.said.append(message)

    def _end_turn(self) -> None:
        """The user's turn is over: every call has its result."""
        for path in self._open.values():
            raise Untranslatable(
                "the tool_use has no tool_result in the user's turn after it", param=path
            )
        if self._shown:
            self.said.append({"role": "user", "content": plain(self._shown)})
            self._shown = []


_READERS: Mapping[str, Callable[[Conversation, Any, str], None]] = {
    "system": Conversation._read_system,
    "user": Conversation._read_user,
    "assistant": Conversation._read_assistant,
}

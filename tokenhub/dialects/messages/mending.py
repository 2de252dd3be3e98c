"""A conversation that another provider began, as Anthropic takes it.

What others have said goes into the history in Anthropic's words, and not always by its rules: ids
of calls have other characters or come again, a text may be blank, thoughts are not signed.
Anthropic refuses the whole request for any of it. Knows messages that `reading` has checked, and
leaves alone what Anthropic itself can have said. https://docs.claude.com/en/api/messages,
https://platform.claude.com/docs/en/build-with-claude/extended-thinking.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from tokenhub.dialects.anthropic.models import traits_of
from tokenhub.dialects.anthropic.reading import Block
from tokenhub.dialects.anthropic.turns import THINKING_TYPES, UniqueIds, is_plain_id

Message = dict[str, Any]

THOUGHTS = "messages.content.thinking"
EDITS = "context_management.edits"

_MAY_GO = ("text", "thinking")
_OF_THOUGHTS = "clear_thinking"
"""What the edits' types begin with that are refused where there is no thinking."""


def as_anthropic_takes(body: dict[str, Any], model: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The body as Anthropic takes it, the same one if nothing is wrong with it; what was left out.

    Args:
        model: the provider's name for it: only some want the thoughts before tool results.
    """
    mender = _Mender()
    messages = body["messages"]
    if _is_broken(messages):
        messages = mender.mend(messages)
        body = {**body, "messages": messages}
    dropped = (THOUGHTS,) if mender.has_unsigned else ()
    thinking = body.get("thinking")
    if not thinking or thinking.get("type") != "enabled":
        return body, dropped
    if not _lacks_thinking(messages, mender.thoughtless) or traits_of(model).thinking != "budget":
        return body, dropped
    body, has_edits = _without_edits({**body, "thinking": {"type": "disabled"}})
    return body, (*dropped, "thinking", *((EDITS,) if has_edits else ()))


class _Mender:
    """Mends messages one after the other.

    Attributes:
        has_unsigned: there were thoughts without a signature.
        thoughtless: the messages that had them.
    """

    def __init__(self) -> None:
        self.has_unsigned = False
        self.thoughtless: list[Message] = []
        self._ids = UniqueIds()
        self._open: dict[str, deque[str]] = {}  # what the latest calls are named now
        self._is_assistants = False

    def mend(self, messages: list[Message]) -> list[Message]:
        """All of them, but those in which nothing is left."""
        kept = []
        for number, message in enumerate(messages):
            is_last = number == len(messages) - 1
            found = self._mend(message)
            if found["content"] and not _says_nothing(found):
                kept.append(found)
            elif found is message and (is_last or message["role"] == "user"):
                kept.append(message)
            elif is_last and message["role"] == "user":
                kept.append(message)  # without it, the answer would continue the assistant's words
        return kept or messages

    def _mend(self, message: Message) -> Message:
        is_assistants = message["role"] == "assistant"
        if is_assistants and not self._is_assistants:
            self._open = {}  # results come right after their calls
        self._is_assistants = is_assistants
        content = message["content"]
        if not isinstance(content, list):
            return message
        blocks = [self._mend_block(block) for block in content if not _is_blank(block)]
        mended = {**message, "content": [block for block in blocks if block is not None]}
        if None in blocks:
            self.has_unsigned = True
            self.thoughtless.append(mended)
        return mended if mended["content"] != content else message

    def _mend_block(self, block: Block) -> Block | None:
        """None if nothing may stay of it."""
        kind = block["type"]
        if kind == "tool_use" and isinstance(block.get("id"), str):
            given = self._ids.name(block["id"])
            self._open.setdefault(block["id"], deque()).append(given)
            return block if given == block["id"] else {**block, "id": given}
        if kind == "tool_result" and isinstance(block.get("tool_use_id"), str):
            waiting = self._open.get(block["tool_use_id"])
            if waiting:
                given = waiting.popleft() if len(waiting) > 1 else waiting[0]
                return {**block, "tool_use_id": given}
        return None if _is_unsigned(block) else block


def _is_broken(messages: list[Message]) -> bool:
    """Whether there is anything to mend."""
    ids: set[str] = set()
    for number, message in enumerate(messages):
        content = message["content"]
        if _says_nothing(message) and number < len(messages) - 1:
            return True
        if not isinstance(content, list):
            continue
        for block in content:
            if block["type"] == "tool_use":
                if _needs_an_id(block.get("id"), ids):
                    return True
            elif block["type"] in _MAY_GO and (_is_blank(block) or _is_unsigned(block)):
                return True
    return False


def _needs_an_id(id: object, ids: set[str]) -> bool:
    """Whether a call needs another id than its own, which is one of `ids` from now on."""
    if not isinstance(id, str):
        return False  # Anthropic will say so
    if id in ids or not is_plain_id(id):
        return True
    ids.add(id)
    return False


def _says_nothing(message: Message) -> bool:
    """Whether it is an answer without anything in it."""
    content = message["content"]
    if message["role"] != "assistant":
        return False
    return not content or (isinstance(content, str) and content.isspace())


def _is_blank(block: Block) -> bool:
    if block["type"] != "text":
        return False
    text = block.get("text")
    return isinstance(text, str) and (not text or text.isspace())


def _is_unsigned(block: Mapping[str, Any]) -> bool:
    return block["type"] == "thinking" and not block.get("signature")


def _lacks_thinking(messages: list[Message], thoughtless: list[Message]) -> bool:
    """Whether tool results go back to a turn whose thoughts are not there: those of its last
    message were another model's, or none of its messages has any."""
    turn = list(_turn_of_calls(messages))
    if not turn or _begins_with_thinking(turn[0]):
        return False
    if any(message is turn[0] for message in thoughtless):
        return True
    return not any(map(_begins_with_thinking, turn))


def _turn_of_calls(messages: list[Message]) -> Iterator[Message]:
    """What the assistant has said since the user last said something, the last of it first; nothing
    unless it waits for results that are there."""
    for number, message in enumerate(reversed(messages)):
        if message["role"] == "assistant":
            if number == 0:
                return
            yield message
        elif not _has_results(message):
            return


def _has_results(message: Message) -> bool:
    content = message["content"]
    return isinstance(content, list) and any(block["type"] == "tool_result" for block in content)


def _begins_with_thinking(message: Message) -> bool:
    content = message["content"]
    return isinstance(content, list) and bool(content) and content[0]["type"] in THINKING_TYPES


def _without_edits(body: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """The body without what is to be done to thoughts, and whether there was such a thing."""
    management = body.get("context_management")
    if not isinstance(management, dict) or not isinstance(management.get("edits"), list):
        return body, False
    edits = management["edits"]
    kept = [edit for edit in edits if not _is_of_thoughts(edit)]
    if len(kept) == len(edits):
        return body, False
    return {**body, "context_management": {**management, "edits": kept}}, True


def _is_of_thoughts(edit: Any) -> bool:
    kind = edit.get("type") if isinstance(edit, dict) else None
    return isinstance(kind, str) and kind.startswith(_OF_THOUGHTS)

"""The items of a Responses request as a chat's messages.

A turn of the assistant's is several items there, its text and each of its calls, and one message
here, which the results of its calls must follow at once: what comes between waits until after
them. Thoughts stay behind: a chat has no place for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tokenhub.dialects.anthropic.reading import Dropped, filled_text_at
from tokenhub.dialects.messages.turns import ATTACHED
from tokenhub.dialects.responses.reading import kind_of
from tokenhub.dialects.responses.tools import said_arguments
from tokenhub.errors import Untranslatable

Content = str | list[dict[str, Any]]

DETAILS = ("auto", "low", "high")
"""What a chat knows of an image's detail."""

# What only labels an item or belongs to an earlier answer asks for nothing.
_LABELS = frozenset({"type", "id", "status"})
_MESSAGE_FIELDS = _LABELS | {"role", "content"}
_CALL_FIELDS = _LABELS | {"call_id", "name", "arguments"}
_CUSTOM_FIELDS = _LABELS | {"call_id", "name", "input"}
_OUTPUT_FIELDS = _LABELS | {"call_id", "output"}
_TEXT_FIELDS = frozenset({"type", "text", "logprobs", "prompt_cache_breakpoint"})
_IMAGE_FIELDS = frozenset({"type", "image_url", "detail", "prompt_cache_breakpoint"})
_FILE_FIELDS = frozenset({"type", "file_data", "file_id", "filename", "prompt_cache_breakpoint"})
_REFUSAL_FIELDS = frozenset({"type", "refusal"})


class Conversation:
    """Reads a checked input, its items one after the other, into `messages`.

    Args:
        instructions: what comes before the input; "" = nothing.
        dropped: takes the names of what is left out.
    """

    def __init__(self, instructions: str, dropped: Dropped) -> None:
        self.messages: list[dict[str, Any]] = []
        self._dropped = dropped
        self._instructions = _as_parts(instructions)  # those before anything else is said
        self._calling: dict[str, Any] = {}  # the message of the calls that wait for their results
        self._awaited: set[str] = set()  # their ids
        self._results: dict[str, int] = {}  # where the last result of each call stands
        self._waiting: list[dict[str, Any]] = []  # what comes after those results
        self._shown: list[dict[str, Any]] = []  # what they showed that is no text

    def read(self, given: str | list[dict[str, Any]]) -> None:
        """Translate all of it.

        Raises:
            Untranslatable: a chat has nothing like an item or a part.
        """
        items = [{"role": "user", "content": given}] if isinstance(given, str) else given
        for number, item in enumerate(items):
            if _ITEMS.get(kind_of(item)) is Conversation._read_output and item.get("call_id"):
                self._results[item["call_id"]] = number
        for number, item in enumerate(items):
            path, kind = f"input[{number}]", kind_of(item)
            reader = _ITEMS.get(kind)
            if reader is None:
                raise Untranslatable(f"a chat has no items of the type {kind[:64]}", param=path)
            reader(self, item, path)
            if kind in _CALLS and self._results.get(item["call_id"], -1) > number:
                self._awaited.add(item["call_id"])
        self._release()
        if self._instructions:
            content = _as_one(self._instructions)
            self.messages.insert(0, {"role": "system", "content": content})

    def _read_message(self, item: dict[str, Any], path: str) -> None:
        self._dropped.add_unknown(item, _MESSAGE_FIELDS, "input.")
        role = item["role"]
        content = self._content(item["content"], f"{path}.content", _PARTS_OF.get(role, _SHOWN))
        if role == "assistant":
            self._say(content)
        elif role == "user":
            self._add(role, content)
        elif self.messages:
            self._add("system", content)
        else:  # many servers take no second message of the kind
            self._instructions += _as_parts(content)

    def _read_call(self, item: dict[str, Any], path: str) -> None:
        self._dropped.add_unknown(item, _CALL_FIELDS, "input.")
        self._call(item, item["arguments"])

    def _read_custom_call(self, item: dict[str, Any], path: str) -> None:
        self._dropped.add_unknown(item, _CUSTOM_FIELDS, "input.")
        self._call(item, said_arguments(item["input"]))

    def _read_output(self, item: dict[str, Any], path: str) -> None:
        """A chat's results are text: what else there is, the next message of the user's shows."""
        self._dropped.add_unknown(item, _OUTPUT_FIELDS, "input.")
        call_id = filled_text_at(item.get("call_id"), f"{path}.call_id")
        content = self._content(item["output"], f"{path}.output", _SHOWN)
        if not isinstance(content, str):
            shown = [part for part in content if part["type"] != "text"]
            texts = [part for part in content if part["type"] == "text"]
            content = _plain(texts) if texts else ATTACHED
            self._shown += shown
        self.messages.append({"role": "tool", "tool_call_id": call_id, "content": content})
        self._awaited.discard(call_id)

    def _read_reasoning(self, item: dict[str, Any], path: str) -> None:
        self._dropped.add("input.reasoning")

    def _add(self, role: str, content: Content) -> None:
        self._waiting.append({"role": role, "content": content})
        if not self._awaited:
            self._release()

    def _say(self, content: Content) -> None:
        last = self._last_of_assistant()
        if last is None or "tool_calls" not in last:
            self.messages.append({"role": "assistant", "content": content})
            return
        # Its calls wait for their results, which must follow them: one message says it all.
        said = last["content"]
        last["content"] = content if said is None else _joined(said, content)

    def _call(self, item: dict[str, Any], arguments: str) -> None:
        last = self._last_of_assistant()
        if last is None:
            last = {"role": "assistant", "content": None}
            self.messages.append(last)
        function = {"name": item["name"], "arguments": arguments}
        call = {"id": item["call_id"], "type": "function", "function": function}
        last.setdefault("tool_calls", []).append(call)
        self._calling = last

    def _last_of_assistant(self) -> dict[str, Any] | None:
        """The message that the assistant goes on with, or None if it begins one."""
        if self._awaited:
            return self._calling
        self._release()
        last = self.messages[-1] if self.messages else None
        return last if last and last["role"] == "assistant" else None

    def _release(self) -> None:
        """All calls have their results: what waited for them follows."""
        if self._shown:
            if not self._waiting or self._waiting[0]["role"] != "user":
                self._waiting.insert(0, {"role": "user", "content": []})
            first = self._waiting[0]
            first["content"] = _joined(self._shown, first["content"])
        self.messages += self._waiting
        self._waiting, self._shown = [], []

    def _content(self, value: Any, path: str, kinds: frozenset[str]) -> Content:
        if isinstance(value, str):
            return value
        parts = []
        for number, part in enumerate(value):
            kind = part["type"]
            if kind not in kinds:
                raise Untranslatable(
                    f"a chat has no part of the type {kind[:64]} here", param=f"{path}[{number}]"
                )
            parts.append(_PARTS[kind](self, part, f"{path}[{number}]"))
        return _plain(parts)

    def _text(self, part: dict[str, Any], path: str) -> dict[str, Any]:
        self._dropped.add_unknown(part, _TEXT_FIELDS, "input.content.")
        return _marked({"type": "text", "text": part["text"]}, part)

    def _refusal(self, part: dict[str, Any], path: str) -> dict[str, Any]:
        self._dropped.add_unknown(part, _REFUSAL_FIELDS, "input.content.")
        return {"type": "refusal", "refusal": part["refusal"]}

    def _image(self, part: dict[str, Any], path: str) -> dict[str, Any]:
        if part.get("image_url") is None:
            raise Untranslatable("a chat has images by URL only", param=f"{path}.file_id")
        self._dropped.add_unknown(part, _IMAGE_FIELDS, "input.content.")
        image, detail = {"url": part["image_url"]}, part.get("detail")
        if detail in DETAILS:
            image["detail"] = detail
        elif detail is not None:
            self._dropped.add("input.content.detail")
        return _marked({"type": "image_url", "image_url": image}, part)

    def _file(self, part: dict[str, Any], path: str) -> dict[str, Any]:
        if part.get("file_url") is not None:
            raise Untranslatable("a chat has no files by URL", param=f"{path}.file_url")
        self._dropped.add_unknown(part, _FILE_FIELDS, "input.content.")
        names = ("file_data", "file_id", "filename")
        file = {name: part[name] for name in names if part.get(name) is not None}
        return _marked({"type": "file", "file": file}, part)


def _marked(said: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """With the mark that a cached prefix ends here, which a chat's parts have too."""
    mark = part.get("prompt_cache_breakpoint")
    return said if mark is None else {**said, "prompt_cache_breakpoint": mark}


def _plain(parts: list[dict[str, Any]]) -> Content:
    """A lone text needs no parts, which some servers do not read in every message."""
    if not parts:
        return ""
    return str(parts[0]["text"]) if len(parts) == 1 and _is_plain(parts[0]) else parts


def _as_one(parts: list[dict[str, Any]]) -> Content:
    """Instructions together: one text, unless there is more to a part."""
    if not all(map(_is_plain, parts)):
        return parts
    return "\n\n".join(part["text"] for part in parts)


def _is_plain(part: dict[str, Any]) -> bool:
    return part.keys() == {"type", "text"}


def _joined(first: Content, second: Content) -> Content:
    """Both; `first` is ours, and grows if it is an array."""
    parts = _as_parts(first)
    parts += _as_parts(second)
    return _plain(parts)


def _as_parts(content: Content) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return content


_TEXTS = frozenset({"input_text", "output_text"})
_SHOWN = _TEXTS | {"input_image", "input_file"}
_PARTS_OF = {"assistant": _TEXTS | {"refusal"}}
_PARTS: Mapping[str, Callable[[Conversation, dict[str, Any], str], dict[str, Any]]] = {
    "input_text": Conversation._text,
    "output_text": Conversation._text,
    "refusal": Conversation._refusal,
    "input_image": Conversation._image,
    "input_file": Conversation._file,
}
_CALLS = frozenset({"function_call", "custom_tool_call"})
_ITEMS: Mapping[str, Callable[[Conversation, dict[str, Any], str], None]] = {
    "message": Conversation._read_message,
    "function_call": Conversation._read_call,
    "function_call_output": Conversation._read_output,
    "custom_tool_call": Conversation._read_custom_call,
    "custom_tool_call_output": Conversation._read_output,
    "reasoning": Conversation._read_reasoning,
}

"""The output of a response while it is written: items, their parts, and what is told of them.

Knows neither chunks nor the response around the items. Whole answers and streams are written with
it alike, so that both come to the same. Format:
https://platform.openai.com/docs/api-reference/responses/object.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from tokenhub.dialects.responses.tools import heard_input

Item = dict[str, Any]
Tell = Callable[[str, dict[str, Any]], None]
"""Takes the type of an event, and its fields, which may change later."""

THOUGHT_PREFIX = "rs_th_"
"""How the ids of thoughts begin that we have put into an answer ourselves."""


@dataclass(slots=True)
class _Open:
    """An item that is being written.

    Args:
        at: its place in the output.
        part: the part of it that is being written, or None.
        pieces: the text of that part, or of the arguments, so far.
        given_id: what the model's server calls it.
    """

    item: Item
    at: int
    part: dict[str, Any] | None = None
    pieces: list[str] = field(default_factory=list)
    given_id: str = ""


@dataclass(slots=True)
class _Unnamed:
    """What has come of a call whose name has not: nobody can be told of it yet."""

    given_id: str = ""
    pieces: list[str] = field(default_factory=list)


class Draft:
    """Writes one item after the other, but for calls: those stay open beside whatever is said
    while they are written.

    Args:
        base: what the ids are made of.
        tell: what is told of each step.
        custom_names: the tools that take a text, and are called as functions.
    """

    def __init__(self, base: str, tell: Tell, custom_names: frozenset[str]) -> None:
        self._base = base
        self._tell = tell
        self._custom_names = custom_names
        self._output: list[Item] = []
        self._open: dict[int, _Open] = {}  # by their place
        self._text: _Open | None = None  # that of them which is no call
        self._calls: dict[int, _Open] = {}
        self._unnamed: dict[int, _Unnamed] = {}
        self._last: _Open | None = None  # the one that was written to last

    @property
    def output(self) -> list[Item]:
        """All items, with what has been written of them; those that are open are incomplete."""
        found = list(self._output)
        for each in self._open.values():
            found[each.at] = _finished(each, "incomplete")
        return found

    def think(self, text: str) -> None:
        """Add to the thoughts."""
        opened = self._part("reasoning", {"type": "reasoning_text", "text": ""})
        self._add(opened, "response.reasoning_text.delta", text, {})

    def say(self, text: str, logprobs: list[dict[str, Any]]) -> None:
        """Add to the text."""
        opened = self._part(
            "message", {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        )
        if opened.part is not None:
            opened.part["logprobs"] += logprobs
        self._add(opened, "response.output_text.delta", text, {"logprobs": logprobs})

    def refuse(self, text: str) -> None:
        """Add to the reason why the model does not answer."""
        opened = self._part("message", {"type": "refusal", "refusal": ""})
        self._add(opened, "response.refusal.delta", text, {})

    def call(self, position: int, given_id: str, name: str, arguments: str) -> None:
        """Add to a call.

        Args:
            position: the call's number among those of its turn.
            given_id, name: "" where they are said already, or not yet.
        """
        opened = self._calls.get(position)
        if opened is not None and name and _is_another(opened, given_id, name):
            opened = None
        if opened is None:
            self._open_call(position, given_id, name, arguments)
        elif arguments:
            self._argue(opened, arguments)

    def finish(self, *, is_complete: bool) -> list[Item]:
        """Close what is open, the last item as incomplete if the answer is; returns the output."""
        if not self._output:
            self.say("", [])  # an empty answer is a message, too
        for opened in list(self._open.values()):
            self._close(opened, is_complete=is_complete or opened is not self._last)
        return self._output

    def _part(self, kind: str, empty: dict[str, Any]) -> _Open:
        """The open item of a kind with an open part like `empty`; opened if it is not."""
        opened = self._text
        if opened is None or opened.item["type"] != kind:
            self._close_text()
            is_message = kind == "message"
            prefix = "msg_" if is_message else THOUGHT_PREFIX
            opened = self._begin({
                "id": f"{prefix}{self._base}_{len(self._output)}", "type": kind,
                "status": "in_progress", "content": [],
                **({"role": "assistant"} if is_message else {"summary": []}),
            })  # fmt: skip
            self._text = opened
        if opened.part is None or opened.part["type"] != empty["type"]:
            self._close_part(opened)
            opened.part = empty
            told = {**_place(opened), "content_index": len(opened.item["content"])}
            self._tell("response.content_part.added", {**told, "part": empty})
        self._last = opened
        return opened

    def _add(self, opened: _Open, kind: str, text: str, more: dict[str, Any]) -> None:
        if not text and not more.get("logprobs"):
            return
        opened.pieces.append(text)
        place = {**_place(opened), "content_index": len(opened.item["content"])}
        self._tell(kind, {**place, "delta": text, **more})

    def _open_call(self, position: int, given_id: str, name: str, arguments: str) -> None:
        """Open a call once its name is known, with what has come of it before."""
        known = self._unnamed.pop(position, None) or _Unnamed()
        known.given_id = known.given_id or given_id
        known.pieces += [arguments] if arguments else []
        if not name:
            self._unnamed[position] = known
            return
        self._close_text()
        at = len(self._output)
        is_custom = name in self._custom_names
        opened = self._begin({
            "id": f"{'ctc' if is_custom else 'fc'}_{self._base}_{at}",
            "type": "custom_tool_call" if is_custom else "function_call", "status": "in_progress",
            "call_id": known.given_id or f"call_{self._base}_{at}", "name": name,
            "input" if is_custom else "arguments": "",
        })  # fmt: skip
        opened.given_id = known.given_id
        self._calls[position] = self._last = opened
        for piece in known.pieces:
            self._argue(opened, piece)

    def _argue(self, opened: _Open, arguments: str) -> None:
        """Add to the arguments. What a custom tool takes is told once it can be read out of
        them."""
        self._last = opened
        opened.pieces.append(arguments)
        if opened.item["type"] == "function_call":
            told = {**_place(opened), "delta": arguments}
            self._tell("response.function_call_arguments.delta", told)

    def _begin(self, item: Item) -> _Open:
        opened = _Open(item, len(self._output))
        self._output.append(item)
        self._open[opened.at] = opened
        self._tell("response.output_item.added", {"output_index": opened.at, "item": item})
        return opened

    def _close_text(self) -> None:
        if self._text is not None:
            self._close(self._text, is_complete=True)
            self._text = None

    def _close(self, opened: _Open, *, is_complete: bool) -> None:
        del self._open[opened.at]
        self._close_part(opened)
        if opened.item["type"] == "function_call" and is_complete and not _written(opened).strip():
            self._argue(opened, "{}")  # SDKs parse what a call says
        item = _finished(opened, "completed" if is_complete else "incomplete")
        self._output[opened.at] = item
        if item["type"] == "function_call":
            told = {"name": item["name"], "arguments": item["arguments"]}
            self._tell("response.function_call_arguments.done", {**_place(opened), **told})
        elif item["type"] == "custom_tool_call":
            place, text = _place(opened), item["input"]
            self._tell("response.custom_tool_call_input.delta", {**place, "delta": text})
            self._tell("response.custom_tool_call_input.done", {**place, "input": text})
        self._tell("response.output_item.done", {"output_index": opened.at, "item": item})

    def _close_part(self, opened: _Open) -> None:
        part = opened.part
        if part is None:
            return
        place = {**_place(opened), "content_index": len(opened.item["content"])}
        kind, name = _DONE[part["type"]]
        part[name] = _written(opened)
        told = {name: part[name]}
        if "logprobs" in part:
            told["logprobs"] = part["logprobs"]
        self._tell(kind, {**place, **told})
        self._tell("response.content_part.done", {**place, "part": part})
        opened.item["content"].append(part)
        opened.part, opened.pieces = None, []


def _place(opened: _Open) -> dict[str, Any]:
    return {"item_id": opened.item["id"], "output_index": opened.at}


def _written(opened: _Open) -> str:
    return "".join(opened.pieces)


def _is_another(opened: _Open, given_id: str, name: str) -> bool:
    """Whether a name at the place of a call begins another one: some servers give every call the
    same number, and some say the name with every piece. The ids tell them apart; where there is
    none, another name does, or that the arguments are whole."""
    if given_id:
        return given_id != opened.given_id
    return name != opened.item["name"] or _is_whole(opened)


def _is_whole(call: _Open) -> bool:
    if not call.pieces or not call.pieces[-1].rstrip().endswith("}"):
        return False  # most pieces: all of them need not be read again for each
    try:
        orjson.loads(_written(call))
    except orjson.JSONDecodeError:
        return False
    return True


def _finished(opened: _Open, status: str) -> Item:
    """The item with all that has been written of it, open parts included."""
    item, text = opened.item, _written(opened)
    if item["type"] == "function_call":
        return {**item, "status": status, "arguments": text}
    if item["type"] == "custom_tool_call":
        return {**item, "status": status, "input": heard_input(text)}
    content = list(item["content"])
    if opened.part is not None:
        name = _DONE[opened.part["type"]][1]
        content.append({**opened.part, name: text})
    return {**item, "status": status, "content": content}


_DONE = {
    "output_text": ("response.output_text.done", "text"),
    "refusal": ("response.refusal.done", "refusal"),
    "reasoning_text": ("response.reasoning_text.done", "text"),
}
"""By the type of a part: what says that it is done, and where its text stands."""

"""A streamed answer that shall keep to a JSON schema: checked at its end, as it passes.

What begins like JSON passes as it comes. What begins otherwise, as with a code fence, is of no use
to whoever reads JSON, so it is held back, and the JSON in it handed out if it keeps to the schema.
"""

from __future__ import annotations

from tokenhub.dialects.openai import error_body
from tokenhub.dialects.stage import Chunk, TextStage, with_text
from tokenhub.structured import Schema, unmet
from tokenhub.structured.asking import cut_off, mend

_STARTS = frozenset('{["-0123456789')
"""Words, as `true`, are not among them: prose begins with their letters too."""


class SchemaCheck(TextStage):
    """The stage that ends a stream with an error event, before `[DONE]`, if a choice is none that
    keeps to the schema.

    Attributes:
        errors: what is wrong with the answer; empty while nothing is.
    """

    def __init__(self, schema: Schema) -> None:
        super().__init__()
        self._schema = schema
        self._texts: dict[int, _Text] = {}
        self._has_choice = False
        self.errors: list[str] = []

    def say(self, number: int, delta: Chunk) -> Chunk:
        text = self._texts.setdefault(number, _Text())
        self._has_choice = True
        text.is_exempt = text.is_exempt or _is_exempt(delta)
        content = delta.get("content")
        if not isinstance(content, str) or not content:
            return delta
        return with_text(delta, "content", text.feed(content))

    def finish(self, number: int, delta: Chunk, reason: str | None) -> tuple[Chunk, str | None]:
        delta = self.say(number, delta)
        text = self._texts.pop(number)
        whole = "".join(text.pieces)
        if text.is_exempt:
            return _with_more(delta, whole if text.is_held else ""), reason
        found, errors = mend(whole, self._schema)
        if not errors and found != whole and not text.is_held:
            # It began like JSON and went on like something else: that has been handed out.
            errors = ["$: there is more than the JSON value"]
        if errors:
            ended = cut_off(reason)
            self.errors = self.errors or ([ended] if ended else errors)
        return _with_more(delta, found if text.is_held else ""), reason

    def end(self) -> list[Chunk]:
        chunks = super().end()
        if not self._has_choice:
            self.errors = self.errors or ["$: there is no answer"]
        return [*chunks, error_body(unmet(self.errors))] if self.errors else chunks


class _Text:
    """The text of one choice so far."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.is_exempt = False
        self.is_held: bool | None = None  # None = only white space has come

    def feed(self, text: str) -> str:
        self.pieces.append(text)
        if self.is_held is None:
            begun = "".join(self.pieces).lstrip()
            if not begun:
                return ""
            self.is_held = begun[0] not in _STARTS
            text = begun
        return "" if self.is_held else text


def _is_exempt(delta: Chunk) -> bool:
    return bool(delta.get("tool_calls") or delta.get("function_call") or delta.get("refusal"))


def _with_more(delta: Chunk, text: str) -> Chunk:
    return with_text(delta, "content", (delta.get("content") or "") + text) if text else delta

"""A streamed answer in the shape that was asked for, as it passes.

Text comes line by line and Markdown as it is written; JSON can be told from prose only at the end,
so it is held back until then. Whole answers: `shaping.shape`.
"""

from __future__ import annotations

from tokenhub.dialects.stage import Chunk, TextStage, with_text
from tokenhub.shaping import THOUGHTS, WHOLE, OutputFormat, filters_of


class Shaper(TextStage):
    """The stage that puts the texts of all choices in shape."""

    def __init__(self, wanted: OutputFormat) -> None:
        super().__init__()
        self._wanted = wanted
        self._texts: dict[int, _Text] = {}

    def say(self, number: int, delta: Chunk) -> Chunk:
        return self._shape(number, delta)

    def finish(self, number: int, delta: Chunk, reason: str | None) -> tuple[Chunk, str | None]:
        delta = self._shape(number, delta)
        text = self._texts.pop(number, None)
        if text is None:
            return delta, reason
        delta = with_text(delta, "content", (delta.get("content") or "") + text.filters.end())
        if text.is_cut and reason in WHOLE:
            reason = "length"
        return delta, reason

    def _shape(self, number: int, delta: Chunk) -> Chunk:
        if self._wanted.strip_think and any(name in delta for name in THOUGHTS):
            delta = {name: value for name, value in delta.items() if name not in THOUGHTS}
        content = delta.get("content")
        if not isinstance(content, str) or not content:
            return delta
        text = self._texts.get(number)
        if text is None:
            text = self._texts[number] = _Text(self._wanted)
        return with_text(delta, "content", text.filters.feed(content))


class _Text:
    """The text of one choice on its way."""

    def __init__(self, wanted: OutputFormat) -> None:
        self.filters, self._cut = filters_of(wanted)

    @property
    def is_cut(self) -> bool:
        return self._cut is not None and self._cut.is_cut

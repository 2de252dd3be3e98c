"""What shape an answer shall have, as callers say it in `output_format`, and whole answers in it.

Knows nothing of streams; they go through the same filters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tokenhub.errors import InvalidRequest
from tokenhub.shaping.cutting import Cut
from tokenhub.shaping.filters import Filter, Filters, Held, Trimmed, pieces
from tokenhub.shaping.json_text import find_json
from tokenhub.shaping.plain import Plain
from tokenhub.shaping.thoughts import WithoutThoughts

Type = Literal["", "json", "markdown", "text"]
TYPES: tuple[Type, ...] = ("", "json", "markdown", "text")
FIELDS = ("type", "schema", "max_tokens", "strip_think")
TOKENS_MAX = 2**31 - 1
BYTES_PER_TOKEN = 4
"""How long a token is taken to be where a text is cut, as in the original."""
CUT_MARK = "..."
WHOLE = ("stop", None)
"""The finish reasons of an answer that is all there: what we find in it may change them."""
THOUGHTS = ("reasoning_content", "reasoning", "thinking_blocks")
"""The fields of a message, or of a delta, that hold what the model thought."""


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """The shape of an answer.

    Args:
        type: json = the JSON in it alone; markdown = without white space around it; text = without
            Markdown's marks; "" = as it is.
        strip_think: without what the model thought.
        max_tokens: how long, at BYTES_PER_TOKEN; 0 = as long as it is.
        schema: a JSON schema, as the caller gave it, or None; read by `structured.read_schema`.
    """

    type: Type = ""
    strip_think: bool = False
    max_tokens: int = 0
    schema: Any = None

    @property
    def changes_nothing(self) -> bool:
        return not (self.type or self.strip_think or self.max_tokens)


def read_format(value: Any, param: str = "output_format") -> OutputFormat:
    """Read an `output_format` object; null is one that changes nothing.

    Raises:
        InvalidRequest: naming the field that is unknown or wrong.
    """
    if value is None:
        return OutputFormat()
    if not isinstance(value, dict):
        raise InvalidRequest(f"{param} must be an object", param=param)
    for name in value:
        if name not in FIELDS:
            shown = f"{param}.{name[:100]}"
            known = ", ".join(FIELDS)
            raise InvalidRequest(f"unknown field {shown!r}; known are: {known}", param=shown)
    return OutputFormat(
        type=_read_type(value.get("type"), f"{param}.type"),
        strip_think=_read_flag(value.get("strip_think"), f"{param}.strip_think"),
        max_tokens=_read_tokens(value.get("max_tokens"), f"{param}.max_tokens"),
        schema=value.get("schema") or None,
    )


def filters_of(wanted: OutputFormat) -> tuple[Filters, Cut | None]:
    """What a text goes through, and of that what cuts it: it knows whether it has."""
    filters: list[Filter] = []
    if wanted.strip_think:
        filters.append(WithoutThoughts())
    if wanted.type == "text":
        filters.append(Plain())
    if wanted.strip_think or wanted.type in ("markdown", "text"):
        filters.append(Trimmed())
    if wanted.type == "json":
        filters.append(Held(lambda text: find_json(text) or text))
    cut = None
    if wanted.max_tokens:
        mark = "" if wanted.type == "json" else CUT_MARK
        cut = Cut(wanted.max_tokens * BYTES_PER_TOKEN, mark)
        filters.append(cut)
    return Filters(filters), cut


def shape(completion: dict[str, Any], wanted: OutputFormat) -> dict[str, Any]:
    """A whole chat completion with its texts in shape; all else stays."""
    choices = completion.get("choices")
    if wanted.changes_nothing or not isinstance(choices, list):
        return completion
    return {**completion, "choices": [_shape_choice(choice, wanted) for choice in choices]}


def _shape_choice(choice: Any, wanted: OutputFormat) -> Any:
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        return choice
    if wanted.strip_think:
        message = {name: value for name, value in message.items() if name not in THOUGHTS}
    shaped = {**choice, "message": message}
    if isinstance(message.get("content"), str):
        filters, cut = filters_of(wanted)
        content = "".join(map(filters.feed, pieces(message["content"]))) + filters.end()
        shaped["message"] = {**message, "content": content}
        if cut is not None and cut.is_cut and choice.get("finish_reason") in WHOLE:
            shaped["finish_reason"] = "length"
    return shaped


def _read_type(value: Any, param: str) -> Type:
    if value is None:
        return ""
    for known in TYPES:
        if value == known:
            return known
    raise InvalidRequest(f"{param} must be one of: json, markdown, text", param=param)


def _read_flag(value: Any, param: str) -> bool:
    if value is None or isinstance(value, bool):
        return bool(value)
    raise InvalidRequest(f"{param} must be true or false", param=param)


def _read_tokens(value: Any, param: str) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= TOKENS_MAX:
        raise InvalidRequest(f"{param} must be a whole number from 0 to {TOKENS_MAX}", param=param)
    return value

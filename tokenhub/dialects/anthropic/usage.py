"""What was used, from Anthropic's words to the normal form and on to OpenAI's.

Anthropic's `input_tokens` leave out what was read from and written to the cache; the normal form
and OpenAI's `prompt_tokens` hold them: https://docs.claude.com/en/api/messages#response-usage.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from tokenhub.dialects.openai import count_of
from tokenhub.domain import Usage

COMPACTION = "compaction"
"""The type of the iterations whose tokens are told nowhere else."""
INPUT_COUNTS = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")


class StreamUsage:
    """What a stream says bit by bit: at its beginning what was read, at its end what was written.

    Attributes:
        is_output_told: the end of the message has said what was written.
    """

    def __init__(self) -> None:
        self._told: dict[str, Any] = {}
        self.is_output_told = False

    def note(self, usage: object, *, is_last: bool) -> None:
        """Take a `usage` object: the counts are cumulative, and what is not told again stands.

        Args:
            is_last: it comes with the end of the message.
        """
        if not isinstance(usage, dict):
            return
        told = {name: value for name, value in usage.items() if value is not None}
        if not any(told.get(name) for name in INPUT_COUNTS):
            told.pop("input_tokens", None)  # nobody reads nothing: some say 0 at the end
        self._told |= told
        self.is_output_told |= is_last and "output_tokens" in told

    def so_far(self, written_tokens: int, *, has_ended: bool) -> Usage | None:
        """What was used, or None when nothing was told.

        Args:
            written_tokens: our estimate, which stands until the provider has told its count.
            has_ended: the model gave its reason to stop.
        """
        usage = usage_of(self._told)
        if usage is None or (self.is_output_told and has_ended):
            return usage
        written = max(usage.output_tokens, written_tokens)
        return replace(usage, output_tokens=written, is_estimate=True)


def usage_of(usage: object) -> Usage | None:
    """Anthropic's `usage` object in normal form, or None when there is none worth having.

    Tolerates floats, nulls and missing fields; a number of tokens that cannot be counts as none.
    What it took to compact the conversation is not in its own counts, and is added:
    https://platform.claude.com/docs/en/build-with-claude/compaction.
    """
    if not isinstance(usage, dict):
        return None
    counted = _Counts(0, 0, 0, 0)
    for each in (usage, *_compactions(usage)):
        counted = counted.plus(each)
    if not counted.input and not counted.output:
        return None
    thinking = count_of(usage.get("output_tokens_details"), "thinking_tokens")
    return Usage(
        input_tokens=counted.input,
        output_tokens=counted.output,
        cache_read_tokens=counted.read,
        cache_write_tokens=counted.written,
        reasoning_tokens=min(thinking, counted.output),
    )


def to_openai_usage(usage: Usage) -> dict[str, Any]:
    """OpenAI's `usage` object; the detail that is zero is told as such, save for reasoning, which
    Anthropic does not always count.
    """
    told: dict[str, Any] = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
    }
    if usage.reasoning_tokens:
        told["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return told


class _Counts(NamedTuple):
    """Tokens; `input` has those of the cache in it."""

    input: int
    output: int
    read: int
    written: int

    def plus(self, usage: dict[str, Any]) -> _Counts:
        """With what another object tells."""
        read = count_of(usage, "cache_read_input_tokens")
        written = count_of(usage, "cache_creation_input_tokens") or _written(usage)
        return _Counts(
            self.input + count_of(usage, "input_tokens") + read + written,
            self.output + count_of(usage, "output_tokens"),
            self.read + read,
            self.written + written,
        )


def _compactions(usage: dict[str, Any]) -> list[dict[str, Any]]:
    found = usage.get("iterations")
    if not isinstance(found, list):
        return []
    return [each for each in found if isinstance(each, dict) and each.get("type") == COMPACTION]


def _written(usage: dict[str, Any]) -> int:
    """The sum of the detail by time to live, for servers that send only that."""
    detail = usage.get("cache_creation")
    names = ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")
    return sum(count_of(detail, name) for name in names)

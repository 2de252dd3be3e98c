"""What was used, from Anthropic's words to the normal form and on to OpenAI's.

Anthropic's `input_tokens` leave out what was read from and written to the cache; the normal form
and OpenAI's `prompt_tokens` hold them: https://docs.claude.com/en/api/messages#response-usage.
"""

from __future__ import annotations

from typing import Any

from tokenhub.dialects.openai import count_of
from tokenhub.domain import Usage


def usage_of(usage: object) -> Usage | None:
    """Anthropic's `usage` object in normal form, or None when there is none worth having.

    Tolerates floats, nulls and missing fields; a number of tokens that cannot be counts as none.
    """
    if not isinstance(usage, dict):
        return None
    read = count_of(usage, "cache_read_input_tokens")
    written = count_of(usage, "cache_creation_input_tokens") or _written(usage)
    total, output = (
        count_of(usage, "input_tokens") + read + written,
        count_of(usage, "output_tokens"),
    )
    if not total and not output:
        return None
    thinking = count_of(usage.get("output_tokens_details"), "thinking_tokens")
    return Usage(
        input_tokens=total,
        output_tokens=output,
        cache_read_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=min(thinking, output),
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


def _written(usage: dict[str, Any]) -> int:
    """The sum of the detail by time to live, for servers that send only that."""
    detail = usage.get("cache_creation")
    names = ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")
    return sum(count_of(detail, name) for name in names)

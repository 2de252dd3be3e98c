"""What a provider says about a request that does not fit: how much its model takes and gives.

Pure: a message in, numbers out. Each pattern is a real wording; the tests say whose and where
it was seen.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MESSAGE_CHARS_MAX = 4096
TOKENS_DIGITS_MAX = 9
"""No window has more; what claims to is nonsense."""


class Overflow(NamedTuple):
    """What the message tells.

    Args:
        context_tokens: the model's window, for input and output together; None = not told.
        input_tokens: the exact size of the prompt; None = not told, or only its least size.
        output_tokens_max: the longest answer, where that is what was exceeded.
    """

    context_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens_max: int | None = None


_NUMBER = rf"(\d{{1,{TOKENS_DIGITS_MAX}}})(?!\d)"


def _patterns(*texts: str) -> list[re.Pattern[str]]:
    """`#` stands for the number that is wanted."""
    return [re.compile(text.replace("#", _NUMBER), re.IGNORECASE) for text in texts]


_CONTEXT = _patterns(
    # OpenAI, DeepSeek, vLLM: "This model's maximum context length is 8192 tokens."
    # vLLM: "However, the model's context length is only 131072 tokens"
    r"context length is (?:only )?#",
    # Anthropic: "exceed context limit: 188059 + 20000 > 200000"
    r"context limit: \d+ \+ \d+ > #",
    # Anthropic: "prompt is too long: 208656 tokens > 200000 maximum"
    r"too long: \d+ tokens > # maximum",
    # vLLM: "is longer than the maximum model length of 8192"
    r"maximum model length of #",
    # vLLM: "cannot be greater than max_model_len=max_total_tokens=3072"
    r"max_model_len=(?:max_total_tokens=)?#",
    # llama.cpp: "exceeds the available context size (4096 tokens)"
    r"available context size \(# tokens",
)
_INPUT = _patterns(
    # OpenAI: "However, your messages resulted in 8227 tokens"
    r"messages resulted in # tokens",
    # OpenAI: "(1360 in your prompt; 4000 for the completion)"
    r"\(# in your prompt",
    # vLLM: "you requested 2049 tokens in the messages,"
    r"requested # tokens in the messages",
    # vLLM: "and your request has 22 input tokens"
    r"request has # input tokens",
    r"context limit: # \+ \d+ >",
    r"too long: # tokens >",
    # vLLM: "The decoder prompt (length 12324)"
    r"prompt \(length #\)",
    # llama.cpp: "request (5000 tokens) exceeds the available context size"
    r"request \(# tokens\) exceeds",
)
_OUTPUT = _patterns(
    # Anthropic: "max_tokens: 8000 > 4096, which is the maximum allowed number of output tokens"
    r"max_tokens: \d+ > #, which is the maximum allowed",
    # OpenAI: "This model supports at most 16384 completion tokens"
    r"supports at most # completion tokens",
)
# "you requested 4927 tokens (3927 in the messages, 1000 in the completion)": what was asked for is
# known only together with its output. It is exact, and names the input apart; with functions
# ("4143 in the messages, 95 in the functions") the input is all that comes before the completion.
_SHARES = re.compile(r"\((\d{1,9}) in the messages((?:, \d{1,9} in the \w+)*)\)", re.IGNORECASE)
_SHARE = re.compile(r", (\d{1,9}) in the (\w+)")


def read_overflow(message: str) -> Overflow:
    """Read the numbers out of an error message.

    A least size ("your prompt contains at least 28673 input tokens": vLLM stops counting where the
    window ends) is no size and left out.

    Args:
        message: the provider's text; only its beginning is looked at.
    """
    text = message[:MESSAGE_CHARS_MAX]
    return Overflow(
        _first(_CONTEXT, text), _shares(text) or _first(_INPUT, text), _first(_OUTPUT, text)
    )


def _first(patterns: list[re.Pattern[str]], text: str) -> int | None:
    for pattern in patterns:
        found = pattern.search(text)
        if found:
            return int(found[1]) or None
    return None


def _shares(text: str) -> int | None:
    found = _SHARES.search(text)
    if found is None:
        return None
    others = sum(int(n) for n, what in _SHARE.findall(found[2]) if what != "completion")
    return int(found[1]) + others or None

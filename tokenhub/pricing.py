"""Tokens and money: estimates before a request, the cost after it, and the units at the edges.

Pure arithmetic in integers; dollars as floats exist only where a person or a wire format needs
them. Knows nothing of budgets: who may spend how much is decided elsewhere.
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal, DecimalException
from typing import Any

import orjson

from tokenhub.domain import NANOS_PER_USD, ChatRequest, Price, Usage
from tokenhub.errors import InvalidRequest

BYTES_PER_TOKEN = 4
BYTES_PER_TOKEN_MIN = 3
"""What the upper bound assumes; dense text and code need fewer bytes for a token."""
ATTACHMENT_TOKENS = 1000
"""Flat estimate for an image or any other part of a message that is not text."""
OUTPUT_TOKENS_DEFAULT = 512
"""Expected output when the caller set no limit (reference §6)."""
OUTPUT_TOKENS_UNLIMITED = 4096
"""Reserved for output when the caller set no limit. Only a bound if the provider is told so."""

PRICE_NAMES = {
    "input_per_1k": "input_per_mtok",
    "output_per_1k": "output_per_mtok",
    "cache_read_per_1k": "cache_read_per_mtok",
    "cache_write_per_1k": "cache_write_per_mtok",
}
"""The names of the prices outside, in dollars per 1,000 tokens (the admin API, the credentials
file, the audit), and the fields of a Price."""

_MTOK = 10**6
_HALF_MTOK = _MTOK // 2
_NANOS_PER_MTOK_FROM_USD_PER_1K = NANOS_PER_USD * (_MTOK // 1000)
_INTEGER_MAX = 2**63 - 1  # what a database column holds


def estimate_input_tokens(body: dict[str, Any]) -> int:
    """Guess the input tokens of a chat body: bytes / 4 of everything that is text in it.

    Counted are the messages' text, the arguments of their tool calls, and the JSON of the tool
    definitions; an image or other attachment is `ATTACHMENT_TOKENS`. The original rounds down for
    each message and so loses short ones (reference §6, weak spot W31); here the total is rounded.

    Raises:
        InvalidRequest: the tools cannot be written as JSON again (nested too deeply).
    """
    total = 0
    for message in body.get("messages") or ():
        if not isinstance(message, dict):
            continue
        content = message.get("content")
        if isinstance(content, str):
            total += _size(content)
        elif isinstance(content, list):
            total += sum(map(_part_size, content))
        if message.get("tool_calls"):
            total += _tool_calls_size(message["tool_calls"])
    for name in ("tools", "functions"):
        if body.get(name):
            total += _json_size(body[name], name)
    return max(1, total // BYTES_PER_TOKEN) if total else 0


def estimate_cost(price: Price, input_tokens: int, output_tokens: int) -> int | None:
    """What so many tokens cost, in nano-dollars, rounded half up; None = a price is unknown.

    `tokens / 1e6 x price` for each side (reference §6). A side without tokens needs no price.
    """
    input_price, output_price = price.input_per_mtok, price.output_per_mtok
    if input_price is None:
        if input_tokens:
            return None
        input_price = 0
    if output_price is None:
        if output_tokens:
            return None
        output_price = 0
    return (input_tokens * input_price + output_tokens * output_price + _HALF_MTOK) // _MTOK


def cost_of(price: Price, usage: Usage) -> int | None:
    """What was used costs, in nano-dollars, rounded half up once; None = a price is unknown.

    Tokens read from or written to the provider's cache cost the input price when theirs is
    unknown: never less than what may be on the bill.
    """
    read, written = usage.cache_read_tokens, usage.cache_write_tokens
    if not read and not written:
        return estimate_cost(price, usage.input_tokens, usage.output_tokens)
    lines = (
        (max(0, usage.input_tokens - read - written), price.input_per_mtok),
        (read, _first_known(price.cache_read_per_mtok, price.input_per_mtok)),
        (written, _first_known(price.cache_write_per_mtok, price.input_per_mtok)),
        (usage.output_tokens, price.output_per_mtok),
    )
    total = 0
    for tokens, per_mtok in lines:
        if not tokens:
            continue
        if per_mtok is None:
            return None
        total += tokens * per_mtok
    return (total + _HALF_MTOK) // _MTOK


def upper_bound_cost(price: Price, request: ChatRequest) -> int | None:
    """The most that one attempt should cost, in nano-dollars; None = a price is unknown.

    Input by bytes / 3 at the dearest input price (a cache write may cost more than plain input),
    output by choices x limit (design §7.2).
    """
    # The estimate was rounded down: up to three more bytes were counted.
    bytes_max = request.input_tokens * BYTES_PER_TOKEN + BYTES_PER_TOKEN - 1
    input_tokens = -(-bytes_max // BYTES_PER_TOKEN_MIN)
    longest = request.output_tokens_max
    output_tokens = (OUTPUT_TOKENS_UNLIMITED if longest is None else longest) * request.choices
    output_price = price.output_per_mtok if output_tokens else 0  # embeddings have none
    if price.input_per_mtok is None or output_price is None:
        return None
    dearest = max(
        price.input_per_mtok, price.cache_read_per_mtok or 0, price.cache_write_per_mtok or 0
    )
    return -(-(input_tokens * dearest + output_tokens * output_price) // _MTOK)


def usd(nanos: int | None) -> float | None:
    """Nano-dollars as dollars; unknown stays unknown."""
    return None if nanos is None else nanos / NANOS_PER_USD


def nanos_from_usd(value: float | int | str | Decimal) -> int:
    """Dollars as nano-dollars, rounded half up.

    Raises:
        ValueError: not a number, not finite, negative, or too large to store.
    """
    return _scaled(value, NANOS_PER_USD)


def per_mtok_from_usd_per_1k(value: float | int | str | Decimal) -> int:
    """A price in dollars per thousand tokens as nano-dollars per million, rounded half up.

    Raises:
        ValueError: not a number, not finite, negative, or too large to store.
    """
    return _scaled(value, _NANOS_PER_MTOK_FROM_USD_PER_1K)


def usd_per_1k(per_mtok: int | None) -> float | None:
    """A price in dollars per thousand tokens; unknown stays unknown."""
    return None if per_mtok is None else per_mtok / _NANOS_PER_MTOK_FROM_USD_PER_1K


def shown_prices(price: Price) -> dict[str, float | None]:
    """All prices by their names outside; unknown stays unknown."""
    return {shown: usd_per_1k(getattr(price, name)) for shown, name in PRICE_NAMES.items()}


def _scaled(value: float | int | str | Decimal, factor: int) -> int:
    try:
        # Through its text: 0.0005 means what was written, not the nearest binary fraction.
        number = Decimal(str(value))
        if not number.is_finite() or number < 0:
            raise ValueError("must be a finite number, not negative")
        scaled = int((number * factor).to_integral_value(ROUND_HALF_UP))
    except DecimalException as error:
        raise ValueError("must be a number") from error
    if scaled > _INTEGER_MAX:
        raise ValueError("is too large")
    return scaled


def _first_known(price: int | None, otherwise: int | None) -> int | None:
    return otherwise if price is None else price


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _part_size(part: Any) -> int:
    text = part.get("text") if isinstance(part, dict) else part
    return _size(text) if isinstance(text, str) else ATTACHMENT_TOKENS * BYTES_PER_TOKEN


def _tool_calls_size(calls: Any) -> int:
    total = 0
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        arguments = function.get("arguments") if isinstance(function, dict) else None
        total += _size(arguments) if isinstance(arguments, str) else 0
    return total


def _json_size(value: Any, name: str) -> int:
    try:
        return len(orjson.dumps(value))
    except orjson.JSONEncodeError as error:
        raise InvalidRequest(f"{name} cannot be written as JSON", param=name) from error

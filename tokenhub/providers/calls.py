"""How adapters call their provider: addresses, header lines, refusals, and small GETs.

Knows HTTP and no dialect: what is sent and what an answer means is the adapters' business.
"""

from __future__ import annotations

import time
from typing import Any

import orjson

from tokenhub.errors import ProviderError
from tokenhub.providers.base import ModelListing, Timeouts
from tokenhub.providers.errors import (
    AUTH,
    MALFORMED,
    REDIRECT,
    TOO_LARGE,
    UNREACHABLE,
    classify,
    failed,
    parse_retry_after,
)
from tokenhub.providers.upstream import Endpoint, Exchange, Upstream, endpoint_of, header_line

ENDPOINTS_MAX = 1024
ERROR_BODY_SECS = 5.0
"""How long an error's body may take: the status is known, its text is only a help."""
SMALL_BODY_BYTES_MAX = 1 << 20
TOKENS_MAX = 2**31

CONTEXT_FIELDS = (
    "max_model_len",  # vLLM
    "context_length",  # OpenRouter, Together
    "context_window",  # Groq
    "max_context_length",  # Mistral, LM Studio
    "max_input_tokens",  # Anthropic
)
OUTPUT_FIELDS = (
    "max_output_tokens",
    "max_completion_tokens",  # Groq
    "max_tokens",  # Anthropic
)


class Calls:
    """Calls to the providers of one adapter."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._endpoints: dict[tuple[str, str], Endpoint] = {}

    def post(
        self, where: tuple[str, str], fields: bytes, body: dict[str, Any], timeouts: Timeouts
    ) -> Exchange:
        """Post JSON; returns an exchange whose status is 200 and whose body is still to be read.

        Args:
            where: the base URL, and the path behind it.
            fields: header lines, as `header_line` makes them.

        Raises:
            ProviderError: no answer, or any other status.
        """
        endpoint = self._endpoints.get(where)
        if endpoint is None:
            base_url, path = where
            endpoint = _endpoint("POST", normalise_base_url(base_url) + path)
            if len(self._endpoints) >= ENDPOINTS_MAX:
                self._endpoints.clear()
            self._endpoints[where] = endpoint
        exchange = self._upstream.exchange(endpoint, fields, orjson.dumps(body), timeouts)
        if exchange.status != 200:
            raise _refusal(exchange)
        return exchange

    def check(self, url: str, fields: bytes, timeouts: Timeouts) -> int:
        """GET; returns the status, whatever it is.

        Raises:
            ProviderError: no answer.
        """
        exchange = self._upstream.exchange(_endpoint("GET", url), fields, b"", timeouts)
        try:
            _read_small(exchange)
        except ProviderError:
            exchange.close()  # it has answered: that its body is too much does not matter
        return exchange.status

    def get(self, url: str, fields: bytes, timeouts: Timeouts, *, query: str = "") -> object:
        """GET a JSON document of at most SMALL_BODY_BYTES_MAX.

        Raises:
            ProviderError: no answer, any other status than 200 (it has it), or no such document.
        """
        endpoint = _endpoint("GET", url, query=query)
        exchange = self._upstream.exchange(endpoint, fields, b"", timeouts)
        if exchange.status != 200:
            raise _refusal(exchange)
        return parse(_read_small(exchange))


def normalise_base_url(base_url: str) -> str:
    """Whatever people paste: without the trailing slash and the version, which we add ourselves."""
    return base_url.strip().rstrip("/").removesuffix("/v1").removesuffix("/v2").rstrip("/")


def key_line(name: bytes, value: str) -> bytes:
    """The header line that carries the provider's key.

    Raises:
        ProviderError: the key cannot be put into a line.
    """
    try:
        return header_line(name, value)
    except ValueError:
        raise failed(AUTH, "the provider key is not one line of ASCII") from None


def read_object(exchange: Exchange) -> tuple[bytes, dict[str, Any]]:
    """The whole answer, and what it is parsed.

    Raises:
        ProviderError: it breaks off, or is no JSON object.
    """
    try:
        answer = exchange.read_all()
        parsed = parse(answer)
        if not isinstance(parsed, dict):
            raise failed(MALFORMED, "the answer is not a JSON object")
    except ProviderError as error:
        error.response_bytes = exchange.response_bytes
        raise
    return answer, parsed


def expect_events(exchange: Exchange) -> None:
    """Raise a ProviderError unless the answer is an event stream."""
    if not exchange.header(b"content-type").lower().startswith("text/event-stream"):
        exchange.close()
        raise failed(MALFORMED, "the answer is not an event stream")


def parse(body: bytes) -> object:
    """Parsed JSON, None when it is none."""
    try:
        parsed: object = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return parsed


def read_listings(payload: object) -> list[ModelListing]:
    """The models of a list, bare or as `data` of an object; entries without an id are left out.

    Raises:
        ProviderError: there is no list.
    """
    rows = payload.get("data") if isinstance(payload, dict) else payload
    if not isinstance(rows, list):
        raise failed(MALFORMED, "the answer lists no models", status=200)
    found = []
    for row in rows:
        if isinstance(row, dict) and isinstance(row.get("id"), str) and row["id"]:
            owner = row.get("owned_by")
            found.append(
                ModelListing(
                    row["id"],
                    owner if isinstance(owner, str) else "",
                    _tokens(row, CONTEXT_FIELDS),
                    _tokens(row, OUTPUT_FIELDS),
                )
            )
    return found


def ms_since(started: float) -> int:
    """Milliseconds since a monotonic time."""
    return int((time.monotonic() - started) * 1000)


def _endpoint(method: str, url: str, *, query: str = "") -> Endpoint:
    try:
        return endpoint_of(method, url, query=query)
    except ValueError:
        raise failed(UNREACHABLE, "the base URL is not one") from None


def _refusal(exchange: Exchange) -> ProviderError:
    """The error of an answer whose status is not 200."""
    status = exchange.status
    if status < 400:
        exchange.close()
        kind = REDIRECT if status >= 300 else MALFORMED
        return failed(kind, f"the provider answered {status}", status=status)
    milliseconds, value = exchange.header(b"retry-after-ms"), exchange.header(b"retry-after")
    try:
        body = exchange.read_all(ERROR_BODY_SECS)
    except ProviderError:
        body = b""  # the status says enough
    wait_secs = parse_retry_after(milliseconds, value, time.time())
    error = classify(status, parse(body), body, wait_secs)
    error.response_bytes, error.said = len(body), body
    return error


def _read_small(exchange: Exchange) -> bytes:
    pieces, size = [], 0
    while piece := exchange.read():
        pieces.append(piece)
        size += len(piece)
        if size > SMALL_BODY_BYTES_MAX:
            exchange.close()
            raise failed(TOO_LARGE, "the answer is too large", status=exchange.status)
    return b"".join(pieces)


def _tokens(row: dict[str, Any], names: tuple[str, ...]) -> int:
    for name in names:
        value = row.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and value >= 1:
            return int(value) if value <= TOKENS_MAX else 0
    return 0

"""How a dialect is spoken to a provider, and heard: a wire for each path of its API.

A wire is facts and pure functions; who calls, and with what key, is the adapter's business.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from tokenhub.dialects.sse import EVENT_BYTES_MAX
from tokenhub.domain import ChatRequest, Dialect, Usage
from tokenhub.errors import ProviderError
from tokenhub.providers.base import Meter
from tokenhub.providers.calls import parse
from tokenhub.providers.errors import MALFORMED, classify, failed

Payload = dict[str, Any]


class Said(NamedTuple):
    """A body as it is sent, and which of the caller's fields are not in it."""

    body: Payload
    dropped: tuple[str, ...] = ()


class Heard(NamedTuple):
    """An answer as it is handed on, and what it is parsed."""

    body: bytes
    parsed: Payload


def as_it_came(request: ChatRequest, model: str, stream: bool) -> Said:
    """The caller's own words, with the provider's name for the model."""
    body = {**request.body, "model": model}
    if stream:
        body["stream"] = True
    else:
        body.pop("stream", None)
    return Said(body)


def as_heard(raw: bytes, parsed: Payload) -> Heard:
    """The provider's own words."""
    return Heard(raw, parsed)


def as_judged(error: ProviderError) -> ProviderError:
    """The error, with the provider's own words as its body."""
    return error


def _always(_: Payload) -> bool:
    return True


def _never(_: Payload) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Wire:
    """One path of a provider's API.

    Args:
        dialect: what its answers are in once they are heard.
        path: what is posted to, behind the base URL.
        is_answer: whether a parsed body is an answer at all.
        reports_error: whether a parsed body, or an event of a stream, is the report of an error.
        has_answer: whether a parsed body is one although it reports an error beside it.
        is_event: whether a parsed event of a stream may be one.
        mark: what ends a stream and is no JSON; b"" = there is no such thing.
        usage_of: what a parsed answer says that it used.
        opens, ends: see base.Stream.
        meter: follows the stream of the answer to a request.
        say: the body for a request, the provider's name of the model, and whether to stream.
        hear: the answer in the words of `dialect`; raises ProviderError.
        word: an error with its body in the words of `dialect`.
        event_bytes_max: how large an event of a stream may be.
        handed_on: matches a line of an answer's head that the caller gets too, as its name and
            its value; None = there are none.
    """

    dialect: Dialect
    path: str
    is_answer: Callable[[Payload], bool]
    reports_error: Callable[[Payload], bool]
    usage_of: Callable[[Mapping[str, Any]], Usage | None]
    opens: Callable[[bytes], bool]
    ends: Callable[[bytes], bool]
    meter: Callable[[ChatRequest], Meter]
    has_answer: Callable[[Payload], bool] = _never
    is_event: Callable[[Payload], bool] = _always
    mark: bytes = b""
    say: Callable[[ChatRequest, str, bool], Said] = as_it_came
    hear: Callable[[bytes, Payload], Heard] = as_heard
    word: Callable[[ProviderError], ProviderError] = as_judged
    event_bytes_max: int = EVENT_BYTES_MAX
    handed_on: re.Pattern[bytes] | None = None

    def judge(self, raw: bytes, parsed: Payload) -> None:
        """Raise a ProviderError unless a body is an answer."""
        if self.reports_error(parsed) and not self.has_answer(parsed):
            raise self.word(classify(None, parsed, raw))
        if not self.is_answer(parsed):
            raise failed(MALFORMED, "the answer is not what was asked for")

    def fault_of(self, data: bytes) -> ProviderError | None:
        """The error that an event of a stream reports, if it does; data that is no event is one."""
        if self.mark and data.endswith(self.mark):
            return None
        payload = parse(data)
        if not isinstance(payload, dict):
            return failed(MALFORMED, "an event of the stream is not a JSON object")
        if self.reports_error(payload):
            return self.word(classify(None, payload, data))
        if not self.is_event(payload):
            return failed(MALFORMED, "an event of the stream is not one of its dialect")
        return None

"""Requests with an idempotency key: served once, and answered as often as they are sent.

It comes after the key was let in, and before money and limits: an answer that is there already
takes nothing of either. A replay has no log row; the request that it repeats has.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import partial
from operator import length_hint
from typing import Any, Self

from flask import Response, current_app, request

from tokenhub.domain import Caller, Outcome
from tokenhub.errors import InvalidRequest, TokenHubError
from tokenhub.idempotency import (
    ANSWER_BYTES_MAX,
    WAIT_SECS,
    Asked,
    Idempotency,
    Kept,
    Sending,
)
from tokenhub.services import Services
from tokenhub.web import guards
from tokenhub.web.answers import Ready
from tokenhub.web.policy import VARIABLES as POLICY_VARIABLES

VARIABLES = ("HTTP_IDEMPOTENCY_KEY", "HTTP_X_IDEMPOTENCY_KEY")

SAYING = (
    *POLICY_VARIABLES,
    "HTTP_ANTHROPIC_VERSION",
    "HTTP_ANTHROPIC_BETA",
    "HTTP_ANTHROPIC_USER_PROFILE_ID",
)
"""Headers that ask for something: with others it is another request."""

FINAL = frozenset({400, 413, 422})
"""Refusals that the same request would meet again. Others may be served a moment later."""

SERVED = frozenset({"answered", "rescued"})
"""How a stream ends that is whole."""

_SENT_AGAIN = frozenset(
    {"content-type", "cache-control", "x-accel-buffering", "x-negotiated-model", "x-alias-from"}
)
_OF_THE_FIRST = frozenset({"x-tokenhub-overhead-ms", "x-tokenhub-cost-usd"})

_KEY = re.compile(r"[^\x00-\x1f\x7f]{1,255}")

Body = Callable[[], bytes]
"""Reads the request's body, or raises what is wrong with it."""


def is_asked(environ: dict[str, Any]) -> bool:
    """Whether the request at hand has an idempotency key."""
    return "HTTP_IDEMPOTENCY_KEY" in environ or "HTTP_X_IDEMPOTENCY_KEY" in environ


def once(
    hub: Services, caller: Caller, endpoint: str, serve: Callable[[Body], Response]
) -> Response:
    """Have the request at hand served, unless it was before; then answer as it was.

    Args:
        serve: takes the limits, and sees to the record; until then it is ours to abandon.
    """
    began = time.monotonic()
    try:
        given = _key_of(request.environ)
        read = _read(hub)
        if not isinstance(read, bytes):
            sending, kept = None, None
        else:
            environ = request.environ
            token = guards.token_of(environ)
            words = tuple(repr(environ.get(name)) for name in SAYING)
            asked = Asked(caller.key.id, token, endpoint, given, read, words)
            sending = hub.idempotency.sending_of(asked, caller.request_id)
            kept = hub.idempotency.begin(sending, _patience_secs(request.environ))
    except BaseException:
        hub.recorder.abandon()
        raise
    if kept is not None:
        hub.recorder.abandon()
        return _replay(kept, (time.monotonic() - began) * 1000)
    if sending is None:  # refused as ever, with its row
        return serve(partial(_give, read))
    return _serve(hub.idempotency, sending, partial(serve, partial(_give, read)))


def _patience_secs(environ: dict[str, Any]) -> float:
    """How long the caller would wait for a duplicate, by its header; what it has wrong is told by
    whoever reads the policy."""
    given: str = environ.get("HTTP_X_TOKENHUB_MAX_LATENCY_MS", "")
    return int(given) / 1000 if re.fullmatch("[1-9][0-9]{0,5}", given) else WAIT_SECS


def _serve(found: Idempotency, sending: Sending, serve: Callable[[], Response]) -> Response:
    """Serve it, and keep the answer if it is final."""
    try:
        response = serve()
        if isinstance(response, Ready) and response.outcome is not None:
            response.response = _Keeping(response, response.outcome, found, sending)
            return response
    except TokenHubError as error:
        if error.status not in FINAL:
            found.release(sending)
            raise
        response = _shown(found, sending, error)
    except BaseException:
        found.release(sending)
        raise
    found.keep(sending, _kept(response, response.get_data(), sending))
    return response


def _shown(found: Idempotency, sending: Sending, error: TokenHubError) -> Response:
    """A refusal as its caller gets it."""
    try:
        return current_app.make_response(current_app.handle_user_exception(error))
    except BaseException:
        found.release(sending)
        raise


class _Keeping:
    """A stream that is kept while it is sent.

    Its last block is handed out when the stream is kept: whoever has seen the end of an answer and
    asks again gets the same.
    """

    def __init__(
        self, response: Ready, outcome: Outcome, found: Idempotency, sending: Sending
    ) -> None:
        self._response = response
        self._stream: Any = response.response
        self._outcome = outcome
        self._found = found
        self._sending = sending
        self._blocks: list[bytes] = []
        self._size = 0
        self._is_over = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        try:
            block: bytes = next(self._stream)
        except BaseException:
            self._end()
            raise
        self._size += len(block)
        if self._size <= ANSWER_BYTES_MAX:
            self._blocks.append(block)
        else:
            self._blocks.clear()
        if not length_hint(self._stream, 1):
            self._end()
        return block

    def __length_hint__(self) -> int:
        """As the stream's: 0 once the last block was handed out."""
        return length_hint(self._stream, 1)

    def close(self) -> None:
        """The caller has gone, or the answer was sent whole."""
        try:
            self._stream.close()
        finally:
            self._end()

    def _end(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        if self._outcome.ending not in SERVED:
            self._found.release(self._sending)
            return
        is_short = self._size <= ANSWER_BYTES_MAX
        body = b"".join(self._blocks)
        kept = _kept(self._response, body, self._sending) if is_short else None
        self._found.keep(self._sending, kept)


def _key_of(environ: dict[str, Any]) -> str:
    """The idempotency key.

    Raises:
        InvalidRequest: it is none that we take, or there are two.
    """
    given = {environ[name] for name in VARIABLES if name in environ}
    key = str(given.pop())
    if given:
        raise InvalidRequest(
            "Idempotency-Key and X-Idempotency-Key differ: send one", param="Idempotency-Key"
        )
    if not _KEY.fullmatch(key):
        raise InvalidRequest(
            "an idempotency key has 1 to 255 characters, and no control characters",
            param="Idempotency-Key",
        )
    return key


def _read(hub: Services) -> bytes | BaseException:
    """The body, or what is wrong with it: for whoever records the request."""
    try:
        return guards.read_body(hub)
    except BaseException as error:  # noqa: BLE001  # raised again once there is an exchange
        return error


def _give(read: bytes | BaseException) -> bytes:
    if isinstance(read, bytes):
        return read
    raise read


def _kept(response: Response, body: bytes, sending: Sending) -> Kept:
    headers = [(name, value) for name, value in response.headers if _is_sent_again(name.lower())]
    return Kept(response.status_code, headers, body, sending.turn.request_id)


def _is_sent_again(name: str) -> bool:
    return name in _SENT_AGAIN or (name.startswith("x-tokenhub-") and name not in _OF_THE_FIRST)


def _replay(kept: Kept, took_ms: float) -> Response:
    headers = [
        *kept.headers,
        ("Idempotency-Replay", "true"),
        ("X-TokenHub-Original-Request-Id", kept.request_id),
        ("X-TokenHub-Cost-USD", "0.000000000"),
        ("X-TokenHub-Overhead-Ms", f"{took_ms:.1f}"),
    ]
    return Ready(kept.body, kept.status, headers)

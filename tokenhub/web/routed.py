"""The one way of a request to a model, whatever dialect it comes in.

Guards, limits, one exchange, and the answer in the words that it was asked in.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol
from urllib.parse import quote

import orjson
from flask import Response, request

from tokenhub.catalog import Snapshot
from tokenhub.dialects.dialect import Dialect
from tokenhub.directives import take_directive
from tokenhub.domain import ApiKey, Caller, ChatRequest, Policy
from tokenhub.errors import InvalidRequest
from tokenhub.gateway import Exchange, Relay, Told, begin
from tokenhub.limiter import Form, Ticket
from tokenhub.pricing import usd
from tokenhub.services import Services
from tokenhub.web import guards, idempotent
from tokenhub.web.answers import Ready
from tokenhub.web.errors import MESSAGES_PATH
from tokenhub.web.policy import FIELD, Given, request_policy

Headers = list[tuple[str, str]]

PROVIDERS_LIMITS = "anthropic-ratelimit-"
"""How the headers begin in which a provider says what it lets us ask."""


class Way(Protocol):
    """How an endpoint reads its requests and has them answered; made for one request.

    Attributes:
        policy_field: the name of the policy object in its bodies.
    """

    @property
    def policy_field(self) -> str: ...

    def read(self, raw: bytes) -> ChatRequest:
        """The request that a body holds; raises InvalidRequest."""

    def take_policy(self, asked: ChatRequest) -> Any:
        """The policy object, which no provider may see; None = there is none."""

    def keep_to(self, schema: str) -> None:
        """Have the answer keep to a JSON schema that the prompt asks for."""

    def stream(self, exchange: Exchange, asked: ChatRequest, policy: Policy) -> Relay | Told:
        """Open the answer, which comes in pieces."""

    def serve(self, exchange: Exchange, asked: ChatRequest, policy: Policy) -> bytes:
        """The body of the whole answer."""


class Plain:
    """The body is a request in a dialect, and the answer is in the same.

    Args:
        read: how the body is read, where it is not as the dialect does.
    """

    policy_field = FIELD

    def __init__(
        self, dialect: Dialect, read: Callable[[bytes], ChatRequest] | None = None
    ) -> None:
        self._dialect = dialect
        self.read = read or dialect.read

    def take_policy(self, asked: ChatRequest) -> Any:
        """The `tokenhub` object."""
        return asked.body.pop(FIELD, None)

    def keep_to(self, schema: str) -> None:
        """Refused: these dialects have fields of their own for schemas, or none."""
        raise InvalidRequest(
            "output_schema in a directive is for /v1/chat only",
            code="unsupported_parameter",
            param="output_schema",
        )

    def stream(self, exchange: Exchange, asked: ChatRequest, policy: Policy) -> Relay:
        """Events of the dialect."""
        return exchange.stream(asked, policy)

    def serve(self, exchange: Exchange, asked: ChatRequest, policy: Policy) -> bytes:
        """What the provider said where it speaks the dialect, and else the same in its words."""
        answer = exchange.serve(asked, policy)
        if answer.dialect == asked.dialect:
            return answer.body
        return orjson.dumps(self._dialect.answer(answer.parsed, asked))


def respond(
    endpoint: str,
    scope: str,
    dialect: Dialect,
    *,
    read: Callable[[bytes], ChatRequest] | None = None,
) -> Response:
    """Serve the request at hand in one of the dialects; see `respond_by` and `Plain`."""
    return respond_by(endpoint, scope, Plain(dialect, read))


def respond_by(endpoint: str, scope: str, way: Way) -> Response:
    """Serve the request at hand, whole or streamed.

    Args:
        endpoint: its path, as it is logged.
        scope: what its key must allow.
    """
    hub = guards.services()
    hub.recorder.admit()
    try:
        snapshot = hub.catalog.current()
        caller = guards.admit(hub, snapshot, scope)
        snapshot = snapshot.seen_by(caller.key)
    except BaseException:
        hub.recorder.abandon()
        raise

    def serve(read_body: Callable[[], bytes]) -> Response:
        return _serve(hub, caller, snapshot, endpoint, way=way, read_body=read_body)

    if idempotent.is_asked(request.environ):
        return idempotent.once(hub, caller, endpoint, serve)
    return serve(partial(guards.read_body, hub))


def _serve(
    hub: Services,
    caller: Caller,
    snapshot: Snapshot,
    endpoint: str,
    *,
    way: Way,
    read_body: Callable[[], bytes],
) -> Response:
    """Take the limits and the answer; from here on the request has its record."""
    try:
        form: Form = "anthropic" if endpoint.startswith(MESSAGES_PATH) else "openai"
        ticket = hub.limiter.admit(caller.key, caller.team, form)
    except BaseException:
        hub.recorder.abandon()
        raise
    with begin(hub.gateway, caller, snapshot, endpoint, ticket=ticket) as exchange:
        request.environ[guards.OUTCOME] = exchange.outcome
        asked = way.read(read_body())
        policy, exchange.outcome.policy_from = request_policy(
            snapshot, caller.key, request.environ, _given(hub, caller.key, way, asked)
        )
        if asked.stream:
            relay = way.stream(exchange, asked, policy)
            headers = [*stream_headers(exchange), *limit_headers(ticket, exchange)]
            # The worker iterates over the relay itself, and closes it.
            response = Ready(relay, 200, headers)
            response.outcome = exchange.outcome
            return response
        body = way.serve(exchange, asked, policy)
    return Ready(body, 200, [*whole_headers(exchange), *limit_headers(ticket, exchange)])


def whole_headers(exchange: Exchange) -> Headers:
    """The headers of a whole answer: who gave it, why, at what cost."""
    outcome = exchange.outcome
    headers = [("Content-Type", "application/json"), *_routing_headers(exchange)]
    cost = usd(outcome.cost_nanousd)
    if cost is not None:
        headers.append(("X-TokenHub-Cost-USD", f"{cost:.9f}"))
    headers.append(("X-TokenHub-Overhead-Ms", f"{outcome.overhead_us / 1000:.1f}"))
    return headers


def stream_headers(exchange: Exchange) -> Headers:
    """The headers of a stream. Its cost is known only at its end."""
    return [
        ("Content-Type", "text/event-stream; charset=utf-8"),
        ("Cache-Control", "no-cache"),
        ("X-Accel-Buffering", "no"),
        *_routing_headers(exchange),
        ("X-TokenHub-Overhead-Ms", f"{exchange.overhead_ms:.1f}"),
    ]


def limit_headers(ticket: Ticket | None, exchange: Exchange) -> Headers:
    """What is left of the limits of the key and its team, and what the provider says itself: of
    its limits only where the caller has none of ours."""
    ours = [] if ticket is None else ticket.headers()
    theirs = exchange.headers
    if not ours or not theirs:
        return [*ours, *theirs]
    return [*ours, *(each for each in theirs if not each[0].startswith(PROVIDERS_LIMITS))]


def _given(hub: Services, key: ApiKey, way: Way, asked: ChatRequest) -> Given:
    """What the request says of its own policy, taken out of it."""
    value = way.take_policy(asked)
    directive = take_directive(asked)  # by whomever: none is for the model
    who = hub.settings.directives
    if who == "off" or (who == "key" and not key.directives):
        return Given(value, way.policy_field)
    if directive.output_schema:
        way.keep_to(directive.output_schema)
    return Given(value, way.policy_field, directive)


def _routing_headers(exchange: Exchange) -> Headers:
    outcome = exchange.outcome
    headers = [
        ("X-Request-Id", outcome.request_id),
        ("X-TokenHub-Attempts", str(exchange.attempt_count)),
        *_changes(exchange),
    ]
    if outcome.model_id:  # else nobody has answered yet, and more than one may
        headers += [
            ("X-Negotiated-Model", _header_text(outcome.model_id)),
            ("X-TokenHub-Provider", _header_text(outcome.provider_id)),
            ("X-TokenHub-Reason", outcome.reason),
        ]
    if outcome.alias_from:
        headers.append(("X-Alias-From", _header_text(outcome.alias_from)))
    return headers


def _changes(exchange: Exchange) -> Headers:
    """How what the provider was asked differs from what the caller asked."""
    changes = []
    if exchange.output_tokens_max is not None:
        changes.append(("X-TokenHub-Max-Tokens", str(exchange.output_tokens_max)))
    if exchange.dropped:
        changes.append(("X-TokenHub-Dropped", _header_text(",".join(exchange.dropped))))
    return changes


def _header_text(text: str) -> str:
    """An id as a header can carry it: percent-encoded beyond ASCII."""
    return text if text.isascii() else quote(text, safe="/:@ ")

"""Who may come in: what is checked before a request means anything.

In this order: room in the journal, size, address and its rate, key, team, where it may be used
from, scope. A request refused here gets no log row. Keys are found by the hash of the whole token,
and looked at before bcrypt is, so a key that is wrong, or may not, costs one hash and no bcrypt.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import re
from functools import cache, lru_cache
from typing import Any

from flask import current_app, request

from tokenhub.board.board import unix_ms
from tokenhub.catalog import Snapshot
from tokenhub.config import Network
from tokenhub.domain import ApiKey, Caller, Team, Trace
from tokenhub.errors import BodyTooLarge, PermissionDenied, Unauthenticated
from tokenhub.keys import digest_of
from tokenhub.limiter import Surface
from tokenhub.services import Services
from tokenhub.tracing import Tracer

log = logging.getLogger("tokenhub.web")

REQUEST_ID = "tokenhub.request_id"
CALLER, OUTCOME, CODE = "tokenhub.caller", "tokenhub.outcome", "tokenhub.code"
"""Where an environ has who asked, what it came to and why it was refused, for the access log."""

RANDOM_BYTES = 10


class _Random:
    """The kernel's random bytes, fetched many at a time: a system call for each id is dear."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def take(self) -> bytes:
        if not self._pieces:
            block = os.urandom(RANDOM_BYTES * 100)
            self._pieces = [
                block[at : at + RANDOM_BYTES] for at in range(0, len(block), RANDOM_BYTES)
            ]
        return self._pieces.pop()


_RANDOM = _Random()
_CLIENT_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,200}")

Environ = dict[str, Any]


def services() -> Services:
    """What this app was built with."""
    found: Services = current_app.extensions["tokenhub"]
    return found


def request_id(environ: Environ) -> str:
    """Our id of the request at hand: sortable by time, unguessable, never the client's."""
    found: str | None = environ.get(REQUEST_ID)
    if found is None:
        found = environ[REQUEST_ID] = f"req_{unix_ms():012x}{_RANDOM.take().hex()}"
    return found


def client_request_id(environ: Environ) -> str:
    """The id that the client gave, when it is short and printable; else ""."""
    given: str = environ.get("HTTP_X_REQUEST_ID", "")
    return given if given and _CLIENT_REQUEST_ID.fullmatch(given) else ""


def admit(hub: Services, snapshot: Snapshot, scope: str | None) -> Caller:
    """Let a caller in, or say why not. Journal room must have been set aside.

    Args:
        scope: what the key must allow; None = any valid key.

    Raises:
        BodyTooLarge, RateLimited, Unauthenticated, PermissionDenied.
    """
    environ = request.environ
    check_length(hub, environ)
    address = check_address(hub, environ)
    token = token_of(environ)
    if not token:
        raise Unauthenticated("no API key was given", code="missing_api_key")
    key = _find_key(snapshot, token)
    team = _find_team(snapshot, key) if key.team_id else None
    if key.networks and not is_within(address, _parsed(key.networks)):
        raise PermissionDenied(
            "the API key may not be used from this address", code="ip_not_allowed"
        )
    if scope is not None and scope not in key.scopes:
        raise PermissionDenied(f"the API key lacks the scope {scope!r}")
    if not hub.keys.verify(token, key):
        raise Unauthenticated("the API key is not valid")
    caller = environ[CALLER] = Caller(
        key=key,
        client_ip=address,
        request_id=request_id(environ),
        client_request_id=client_request_id(environ),
        team=team,
        trace=None if hub.tracer is None else _trace(hub.tracer, environ),
    )
    return caller


def token_of(environ: Environ) -> str:
    """The API key as it was given, or ""."""
    return bearer_token(environ) or environ.get("HTTP_X_API_KEY", "")


def bearer_token(environ: Environ) -> str:
    """The token of `Authorization: Bearer …`, or ""; the scheme's case does not matter."""
    header: str = environ.get("HTTP_AUTHORIZATION", "")
    return header[7:].strip() if header[:7].lower() == "bearer " else ""


def check_length(hub: Services, environ: Environ) -> None:
    """Refuse a body that says it is too long, before reading any of it."""
    length = environ.get("CONTENT_LENGTH")
    if length and int(length) > hub.settings.max_body_mb << 20:
        raise _too_large(hub)


def check_address(hub: Services, environ: Environ, surface: Surface = "address") -> str:
    """Count the request of its client's address; returns the address.

    Raises:
        RateLimited: of this address, or its /64, there were too many.
    """
    address = client_ip(environ, hub.settings.trusted_proxies)
    hub.limiter.check_address(address, surface)
    return address


def read_body(hub: Services) -> bytes:
    """The whole body, never more than allowed.

    Raises:
        BodyTooLarge: also when a chunked body turns out too long.
        RequestTimeout: it came too slowly.
    """
    limit = hub.settings.max_body_mb << 20
    body: bytes = request.environ["wsgi.input"].read(limit + 1)
    if len(body) > limit:
        raise _too_large(hub)
    return body


def client_ip(environ: Environ, trusted: tuple[Network, ...]) -> str:
    """The client's address: the peer's, or what proxies of ours say, read from the right."""
    address: str = environ.get("REMOTE_ADDR", "")
    if not trusted or not is_within(address, trusted):
        if "HTTP_X_FORWARDED_FOR" in environ:
            _warn_of_untrusted_proxy()
        return address
    for hop in reversed(environ.get("HTTP_X_FORWARDED_FOR", "").split(",")):
        hop = hop.strip()
        if not hop:
            break
        try:
            ipaddress.ip_address(hop)
        except ValueError:
            break
        address = hop
        if not is_within(hop, trusted):
            break
    return address


@cache
def _warn_of_untrusted_proxy() -> None:
    """Once for each worker: either somebody lies, or the setting is missing."""
    log.warning("X-Forwarded-For ignored: not from TOKENHUB_TRUSTED_PROXIES")


def is_within(address: str, networks: tuple[Network, ...]) -> bool:
    """Whether an address is in one of these networks; one that is none is in no network."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    # As a socket for both kinds tells an IPv4 address.
    mapped = parsed.ipv4_mapped if parsed.version == 6 else None
    return any((mapped or parsed) in network for network in networks)


def _trace(tracer: Tracer, environ: Environ) -> Trace:
    return tracer.begin(environ.get("HTTP_TRACEPARENT", ""), environ.get("HTTP_TRACESTATE", ""))


def _find_key(snapshot: Snapshot, token: str) -> ApiKey:
    """The key that a token belongs to, if it opens anything now.

    Raises:
        Unauthenticated: there is none, or it is disabled, or its time is over.
    """
    digest = digest_of(token)
    key = snapshot.keys.get(digest) if digest else None
    if key is None or not key.enabled:
        raise Unauthenticated("the API key is not valid")
    if key.expires_at is not None and key.expires_at <= unix_ms():
        if key.expires_at == key.rotation_due_at:
            raise Unauthenticated(
                "the API key should have been rotated and is closed until it is",
                code="rotation_overdue",
            )
        raise Unauthenticated("the API key has expired", code="expired_api_key")
    if digest != key.sha256 and (key.previous_until or 0) <= unix_ms():
        raise Unauthenticated(
            "the API key was rotated and this secret of it has expired", code="expired_api_key"
        )
    return key


def _find_team(snapshot: Snapshot, key: ApiKey) -> Team:
    """The team of a key.

    Raises:
        PermissionDenied: it is disabled.
    """
    team = snapshot.teams.get(key.team_id)
    if team is None or not team.enabled:
        raise PermissionDenied("the API key's team is disabled", code="team_disabled")
    return team


@lru_cache(maxsize=1000)
def _parsed(networks: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(each) for each in networks)


def _too_large(hub: Services) -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than {hub.settings.max_body_mb} MiB")

"""Who may come in: what is checked before a request means anything.

In this order: room in the journal, size, address, key, scope. A request refused here gets no log
row. Keys are found by the hash of the whole token, so a wrong key costs one hash and no bcrypt.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import os
import re
from functools import cache
from typing import Any

from flask import current_app, request

from tokenhub.board.board import unix_ms
from tokenhub.catalog import Snapshot
from tokenhub.config import Network
from tokenhub.domain import Caller
from tokenhub.errors import BodyTooLarge, PermissionDenied, Unauthenticated
from tokenhub.keys import digest_of
from tokenhub.services import Services

log = logging.getLogger("tokenhub.web")

REQUEST_ID = "tokenhub.request_id"

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
        BodyTooLarge, Unauthenticated, PermissionDenied.
    """
    environ = request.environ
    check_length(hub, environ)
    token = bearer_token(environ) or environ.get("HTTP_X_API_KEY", "")
    if not token:
        raise Unauthenticated("no API key was given", code="missing_api_key")
    digest = digest_of(token)
    key = snapshot.keys.get(digest) if digest else None
    if key is None or not key.enabled or not hub.keys.verify(token, key):
        raise Unauthenticated("the API key is not valid")
    if key.expires_at is not None and key.expires_at <= unix_ms():
        raise Unauthenticated("the API key has expired", code="expired_api_key")
    if scope is not None and scope not in key.scopes:
        raise PermissionDenied(f"the API key lacks the scope {scope!r}")
    return Caller(
        key=key,
        client_ip=client_ip(environ, hub.settings.trusted_proxies),
        request_id=request_id(environ),
        client_request_id=client_request_id(environ),
    )


def require_admin(hub: Services) -> None:
    """Let only the admin token pass.

    Raises:
        Unauthenticated: no token, or another one.
    """
    environ = request.environ
    check_length(hub, environ)
    token = bearer_token(environ)
    if not token:
        raise Unauthenticated("the admin token is required", code="missing_admin_token")
    if not hmac.compare_digest(token.encode(), hub.admin_token.encode()):
        raise Unauthenticated("the admin token is not valid", code="invalid_admin_token")


def bearer_token(environ: Environ) -> str:
    """The token of `Authorization: Bearer …`, or ""; the scheme's case does not matter."""
    header: str = environ.get("HTTP_AUTHORIZATION", "")
    return header[7:].strip() if header[:7].lower() == "bearer " else ""


def check_length(hub: Services, environ: Environ) -> None:
    """Refuse a body that says it is too long, before reading any of it."""
    length = environ.get("CONTENT_LENGTH")
    if length and int(length) > hub.settings.max_body_mb << 20:
        raise _too_large(hub)


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
    if not trusted or not _is_trusted(address, trusted):
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
        if not _is_trusted(hop, trusted):
            break
    return address


@cache
def _warn_of_untrusted_proxy() -> None:
    """Once for each worker: either somebody lies, or the setting is missing."""
    log.warning("X-Forwarded-For ignored: not from TOKENHUB_TRUSTED_PROXIES")


def _is_trusted(address: str, trusted: tuple[Network, ...]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in trusted)


def _too_large(hub: Services) -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than {hub.settings.max_body_mb} MiB")

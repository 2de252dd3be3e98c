"""Who may administer: what is checked before an admin call means anything.

A call brings a token, or the cookie of a session and then also the proof that a page of ours made
it. Both are looked up in the Snapshot, so what is revoked on one worker is worth nothing on all,
and nobody needs the database to come in. Whoever guesses tokens has to wait.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar
from urllib.parse import urlsplit

import orjson
from flask import current_app, g, request

from tokenhub import store
from tokenhub.access import (
    SAFE_METHODS,
    Admin,
    AdminToken,
    Role,
    csrf_token_of,
    digest_of,
    is_allowed,
    is_random,
    role_for,
)
from tokenhub.board.board import unix_ms
from tokenhub.db import DatabaseAway
from tokenhub.errors import PermissionDenied, RateLimited, Unauthenticated
from tokenhub.limits import network_of
from tokenhub.services import Services
from tokenhub.web import guards
from tokenhub.web.guards import Environ

log = logging.getLogger("tokenhub.web.access")

COOKIE = "tokenhub_session"

REFUSALS_NOTED = 5
REFUSALS_NOTED_IN_ALL = 60
"""Wrong credentials that are logged and audited in a minute: of one address, and of all."""

NOTE_SECS = 0.5
"""How long a note may keep a call waiting that does not depend on it."""

T = TypeVar("T")


def require_admin(hub: Services, least: Role = "viewer") -> None:
    """Let administrators pass whose role allows for the route.

    Args:
        least: what all routes of this kind ask for at least.

    Raises:
        Unauthenticated: no credential, or one that is not valid.
        PermissionDenied: the role does not allow it, or the call may come from another's page.
        RateLimited: there were too many calls, or too many wrong credentials, from this address.
        Unavailable: a credential may have been revoked, and the database cannot be asked.
    """
    guards.check_length(hub, request.environ)
    guards.check_address(hub, request.environ, "admin")
    view = current_app.view_functions[request.endpoint or ""]
    needed = role_for(view, request.method, least)
    if needed is None:
        return
    admin = _identify(hub)
    if not is_allowed(admin.token.role, needed):
        raise PermissionDenied(
            f"this asks for the role {needed!r}; yours is {admin.token.role!r}",
            code="insufficient_role",
        )
    welcome(hub, admin)


def welcome(hub: Services, admin: Admin) -> None:
    """From here on the call is theirs: `current_admin` says so, and they are seen to be about."""
    g.admin = admin
    used = admin.token.id if admin.session is None else admin.session.id
    if not hub.board.admin_throttle.may_note(f"used {used}", 1):
        return
    now, session_id = unix_ms(), "" if admin.session is None else admin.session.id
    with suppress(DatabaseAway):
        hub.database.write(
            lambda connection: store.note_admin_use(connection, admin.token.id, session_id, now),
            timeout_secs=NOTE_SECS,
        )


def current_admin() -> Admin:
    """Whose call this is; `require_admin` has let them in."""
    found: Admin = g.admin
    return found


def check_token(hub: Services, token: bytes) -> Admin:
    """Whose token it is.

    Raises:
        Unauthenticated: nobody's.
        RateLimited, Unavailable: see `require_admin`.
    """
    found = guess(hub, token, lambda given: find_admin(hub, given))
    if found is None:
        raise Unauthenticated("the admin token is not valid", code="invalid_admin_token")
    if found.role == "owner":  # others would gain guesses at what is more than theirs
        hub.board.admin_throttle.clear(_guesser(hub))
    return Admin(found)


def find_admin(hub: Services, token: bytes) -> AdminToken | None:
    """The admin token that this is, if it is one that is in force.

    Raises:
        Unavailable: see `require_admin`.
    """
    admins = hub.catalog.current().admins
    return admins.find_token(digest_of(token), hub.root, unix_ms())


def guess(hub: Services, token: bytes, find: Callable[[bytes], T | None]) -> T | None:
    """What a token stands for, or None; whoever is wrong too often has to wait.

    Who waits is not answered, right or wrong, or they would go on guessing. But a token of 256
    random bits cannot be guessed: its owner is let in also from an address (a proxy's, an office's)
    that somebody else guesses from.

    Args:
        find: looks the token up.

    Raises:
        RateLimited: it is too early for another guess.
    """
    throttle, who = hub.board.admin_throttle, _guesser(hub)
    wait_secs = throttle.wait_secs(who)
    found = None if wait_secs and not is_random(token) else find(token)
    if found is not None:
        return found
    if wait_secs:
        raise RateLimited(
            "too many wrong credentials from this address",
            code="too_many_attempts",
            headers={"Retry-After": str(wait_secs)},
        )
    _note_refusal(hub, who, throttle.fail(who))
    return None


def check_origin(environ: Environ, *, is_needed: bool) -> None:
    """Refuse what a page of another origin makes a browser send.

    Args:
        is_needed: whether it must be said at all; programs say nothing.

    Raises:
        PermissionDenied.
    """
    site, origin = environ.get("HTTP_SEC_FETCH_SITE"), environ.get("HTTP_ORIGIN")
    if site is not None:
        is_ours = site == "same-origin"
    elif origin is not None:
        is_ours = _is_our_origin(origin, environ.get("HTTP_HOST", ""))
    else:
        is_ours = not is_needed
    if not is_ours:
        raise PermissionDenied("the call comes from another origin", code="csrf_failed")


def is_tls(hub: Services, environ: Environ) -> bool:
    """Whether the client speaks TLS: to us, or to a proxy of ours that says so."""
    if environ["wsgi.url_scheme"] == "https":
        return True
    word: str = environ.get("HTTP_X_FORWARDED_PROTO", "").rpartition(",")[2]
    peer: str = environ.get("REMOTE_ADDR", "")
    return word.strip() == "https" and guards.is_within(peer, hub.settings.trusted_proxies)


def _identify(hub: Services) -> Admin:
    environ = request.environ
    token = guards.bearer_token(environ)
    if token:
        return check_token(hub, token.encode("latin-1", "replace"))
    secret = request.cookies.get(COOKIE, "")
    if not secret:
        raise Unauthenticated("the admin token is required", code="missing_admin_token")
    admin = hub.catalog.current().admins.find_session(secret, hub.root, unix_ms())
    if admin is None:
        raise Unauthenticated("the session is over: sign in again", code="invalid_session")
    if request.method not in SAFE_METHODS:
        check_origin(environ, is_needed=True)
        given: str = environ.get("HTTP_X_CSRF_TOKEN", "")
        if not hmac.compare_digest(given.encode(), csrf_token_of(secret).encode()):
            raise PermissionDenied("X-CSRF-Token is missing or wrong", code="csrf_failed")
    return admin


def _guesser(hub: Services) -> str:
    return network_of(guards.client_ip(request.environ, hub.settings.trusted_proxies))


def _is_our_origin(origin: str, host: str) -> bool:
    try:
        found = urlsplit(origin)
    except ValueError:
        return False
    port = {"https": ":443", "http": ":80"}.get(found.scheme, "")
    place = found.netloc.lower().removesuffix(port)
    return bool(place) and place == host.lower().removesuffix(port)


def _note_refusal(hub: Services, who: str, failures: int) -> None:
    """Log and audit a wrong credential, unless there were many."""
    throttle = hub.board.admin_throttle
    if not throttle.may_note(who, REFUSALS_NOTED):
        return
    if not throttle.may_note(None, REFUSALS_NOTED_IN_ALL):
        return
    environ, now, resource = request.environ, unix_ms(), str(request.url_rule)
    client_ip = guards.client_ip(environ, hub.settings.trusted_proxies)
    request_id = guards.request_id(environ)
    facts = {"client_ip": client_ip, "failures": failures, "request_id": request_id}
    log.warning("admin credential refused", extra=facts)
    with suppress(DatabaseAway):
        hub.database.write(
            lambda connection: store.insert_audit(
                connection,
                at=now,
                actor="",
                client_ip=client_ip,
                action="admin.refused",
                resource=resource,
                detail=orjson.dumps({"failures": failures}).decode(),
                request_id=request_id,
            ),
            timeout_secs=NOTE_SECS,
        )

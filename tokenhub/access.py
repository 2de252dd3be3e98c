"""Who may do what in the admin API: roles, what each may call, and whose a credential is.

A role may do what those below it may: a viewer reads, an operator changes what is routed and by
whom, an owner decides about secrets, money and other administrators. What a route asks for is said
at the route; a route that says nothing asks for little to read and for an operator to change.

Tokens and sessions are known by the SHA-256 of their secrets, which are 256 random bits; a session
is bound to the token it was made from, and worth nothing without it. Knows no HTTP and no clock.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Literal, NamedTuple, TypeVar

Role = Literal["viewer", "operator", "owner"]
ROLES: tuple[Role, ...] = ("viewer", "operator", "owner")

ROOT_ID = "root"
ROOT_NAME = "admin"
"""The admin token of the settings or the data directory, or what it was rotated to."""

TOKEN_PREFIX = "tokenhub_admin_"  # noqa: S105 - what every token begins with, not a token
PREFIX_CHARS = len(TOKEN_PREFIX) + 8

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

FREE_FAILURES = 9
FIRST_REST_SECS = 5
REST_SECS_MAX = 900

_RANDOM = re.compile(rb"(tokenhub_admin_)?[0-9a-f]{64}")
_NEEDED = "tokenhub_needed_role"

View = TypeVar("View", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class AdminToken:
    """A credential of an administrator.

    Args:
        prefix: its first characters, for people to tell tokens apart; "" = somebody chose it.
        created_by: the actor who made it; "" for the root token.
    """

    id: str
    name: str
    role: Role
    sha256: bytes = field(repr=False)
    prefix: str = ""
    created_at: int = 0
    expires_at: int | None = None
    created_by: str = ""
    last_used_at: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class AdminSession:
    """A browser that has shown a token.

    Args:
        binding: see `binding_of`.
        user_agent: what the browser said it was, for people to tell sessions apart.
    """

    id: str
    token_id: str
    sha256: bytes = field(repr=False)
    binding: bytes = field(repr=False)
    created_at: int
    expires_at: int
    client_ip: str = ""
    user_agent: str = ""
    last_used_at: int | None = field(default=None, compare=False)


class Admin(NamedTuple):
    """Whoever makes an admin call.

    Args:
        session: None when the call brought the token itself.
    """

    token: AdminToken
    session: AdminSession | None = None

    @property
    def actor(self) -> str:
        """As the audit names them."""
        return self.token.name if self.session is None else f"session:{self.token.name}"


@dataclass(frozen=True)
class Admins:
    """All administrators, as the Snapshot knows them: by the SHA-256 of their secrets."""

    tokens: Mapping[bytes, AdminToken] = field(default_factory=dict)
    sessions: Mapping[bytes, AdminSession] = field(default_factory=dict)

    def root(self, configured: AdminToken) -> AdminToken:
        """The root token in force: once it has been rotated, the configured one is nothing."""
        return self._by_id(ROOT_ID) or configured

    def find_by_id(self, token_id: str, configured: AdminToken) -> AdminToken | None:
        """The token that has this id; it may have expired."""
        return self.root(configured) if token_id == ROOT_ID else self._by_id(token_id)

    def find_token(self, digest: bytes, configured: AdminToken, now_ms: int) -> AdminToken | None:
        """The token that has this digest, unless it has expired.

        Args:
            configured: the root token of the settings or the data directory.
        """
        root = self.root(configured)
        if hmac.compare_digest(digest, root.sha256):
            return root
        found = self.tokens.get(digest)
        return None if found is None or is_over(found.expires_at, now_ms) else found

    def find_session(self, secret: str, configured: AdminToken, now_ms: int) -> Admin | None:
        """Whose session it is, unless it or the token it was made from is no more."""
        session = self.sessions.get(digest_of(secret))
        if session is None or is_over(session.expires_at, now_ms):
            return None
        token = self.find_by_id(session.token_id, configured)
        if token is None or is_over(token.expires_at, now_ms):
            return None
        is_bound = hmac.compare_digest(session.binding, binding_of(secret, token.sha256))
        return Admin(token, session) if is_bound else None

    def _by_id(self, token_id: str) -> AdminToken | None:
        return next((each for each in self.tokens.values() if each.id == token_id), None)


def needs(role: Role | None) -> Callable[[View], View]:
    """Say at a route whom it asks for, where its method does not say it: see `role_for`.

    Args:
        role: None = the route looks at credentials itself.
    """

    def mark(view: View) -> View:
        setattr(view, _NEEDED, role)
        return view

    return mark


def role_for(view: Callable[..., Any], method: str, least: Role) -> Role | None:
    """The lowest role that may call a route; None = it looks at credentials itself.

    Args:
        least: what all routes of its kind ask for, whatever they say.
    """
    default: Role = "viewer" if method in SAFE_METHODS else "operator"
    said: Role | None = getattr(view, _NEEDED, default)
    return None if said is None else max(said, least, key=ROLES.index)


def is_allowed(role: Role, needed: Role) -> bool:
    """Whether a role may do what asks for `needed`."""
    return ROLES.index(role) >= ROLES.index(needed)


def is_over(expires_at: int | None, now_ms: int) -> bool:
    """Whether something has expired; None = never."""
    return expires_at is not None and expires_at <= now_ms


def digest_of(secret: str | bytes) -> bytes:
    """What a token or a session is stored as and found by."""
    return sha256(secret.encode() if isinstance(secret, str) else secret).digest()


def prefix_of(token: str) -> str:
    """What may be shown of a token; nothing of one that somebody chose."""
    return token[:PREFIX_CHARS] if token.startswith(TOKEN_PREFIX) else ""


def binding_of(secret: str, token_digest: bytes) -> bytes:
    """What ties a session to its token.

    Keyed with the session's secret, so that whoever reads the database cannot try tokens on it:
    the root token may be one that somebody thought up.
    """
    return hmac.digest(secret.encode(), b"token:" + token_digest, "sha256")


def csrf_token_of(secret: str) -> str:
    """What a page shows to prove that it is ours: another origin cannot read it."""
    return hmac.digest(secret.encode(), b"csrf", "sha256").hex()


def is_random(token: bytes) -> bool:
    """Whether a token looks like 256 random bits of ours, which nobody finds by trying."""
    return _RANDOM.fullmatch(token) is not None


def rest_secs(failures: int) -> int:
    """How long an address must wait after so many wrong credentials: 5 s after the tenth, twice as
    long after each further one, at most a quarter of an hour."""
    if failures <= FREE_FAILURES:
        return 0
    doublings = min(failures - FREE_FAILURES - 1, 10)
    return min(FIRST_REST_SECS << doublings, REST_SECS_MAX)

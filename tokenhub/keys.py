"""Issue API keys, and check that a token belongs to the key it was looked up as.

A token is `tokenhub_` and 64 lower-case hex digits: 256 random bits. It is stored as its SHA-256,
by which the Snapshot finds the key, and as bcrypt over the hex of that SHA-256, as in the original.
bcrypt runs once per key and host; afterwards the host remembers a fingerprint.

Knows neither the database nor the Snapshot: whether a key exists, is enabled, has not expired and
may do this is for the caller to ask.
"""

from __future__ import annotations

import logging
import math
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import blake2b, sha256
from hmac import compare_digest
from typing import Protocol, TypeVar

import bcrypt
import orjson
from gevent.event import AsyncResult

from tokenhub.domain import SCOPES, ApiKey
from tokenhub.errors import InvalidRequest

log = logging.getLogger("tokenhub.keys")

GRACE_MS_MAX = 30 * 86_400_000
"""Longest time that two secrets of a key open at once."""

TOKEN_PREFIX = "tokenhub_"  # noqa: S105 - what every token begins with, not a token
_TOKEN = re.compile(TOKEN_PREFIX + "[0-9a-f]{64}")
_PREFIX_CHARS = 17
_BCRYPT_ROUNDS = 10

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST_AT = 253_402_300_799_999  # the last millisecond of the year 9999
# As seconds this is the year 5138, as milliseconds 1973: no expiry can mean both.
_MILLISECONDS_FROM = 100_000_000_000
_RFC3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)
_DURATION_PART = re.compile(r"(\d{1,12}(?:\.\d{0,9})?|\.\d{1,9})(ns|us|µs|μs|ms|s|m|h|d)", re.ASCII)
_DURATION_CHARS_MAX = 64
_UNIT_MS = {
    "ns": Decimal("1e-6"),
    "us": Decimal("1e-3"),
    "µs": Decimal("1e-3"),  # U+00B5 and U+03BC, as in Go
    "μs": Decimal("1e-3"),
    "ms": Decimal(1),
    "s": Decimal(1000),
    "m": Decimal(60_000),
    "h": Decimal(3_600_000),
    "d": Decimal(86_400_000),  # not in Go
}

T = TypeVar("T")


class RunBlocking(Protocol):
    """Runs work off the hub and returns what it returned: a gevent ThreadPool's `apply`."""

    def __call__(self, work: Callable[[], T], /) -> T: ...


class SeenKeys(Protocol):
    """The fingerprints this host has verified; it may forget, and then bcrypt runs again."""

    def contains(self, fingerprint: int) -> bool: ...

    def add(self, fingerprint: int) -> None: ...


@dataclass(frozen=True)
class IssuedKey:
    """A new key, with the token that is shown once.

    Args:
        id: random, and not taken from the token as in the original: ids are in every log.
        prefix: the first 17 characters of the token, for people to tell keys apart.
        sha256: digest of the whole token.
        bcrypt_hash: over the lower-case hex of `sha256`.
    """

    id: str
    token: str = field(repr=False)
    prefix: str
    sha256: bytes = field(repr=False)
    bcrypt_hash: str = field(repr=False)


def issue(run_blocking: RunBlocking) -> IssuedKey:
    """Make a key; nothing is stored. Takes one bcrypt (about 60 ms)."""
    token = TOKEN_PREFIX + secrets.token_hex(32)
    digest = sha256(token.encode()).digest()

    def hash_digest() -> bytes:
        return bcrypt.hashpw(digest.hex().encode(), bcrypt.gensalt(_BCRYPT_ROUNDS))

    return IssuedKey(
        id=f"key_{secrets.token_hex(8)}",
        token=token,
        prefix=token[:_PREFIX_CHARS],
        sha256=digest,
        bcrypt_hash=run_blocking(hash_digest).decode(),
    )


def digest_of(token: str) -> bytes | None:
    """SHA-256 of a token, for looking it up; None if it cannot be one of ours."""
    if _TOKEN.fullmatch(token) is None:
        return None
    return sha256(token.encode()).digest()


class KeyVerifier:
    """Check tokens against the bcrypt hash of their key, once per key and host.

    A wrong token never costs a bcrypt: its digest is in no Snapshot, so there is no key to call
    `verify` with, and if it is called with another key's it answers from the digest alone.

    Args:
        seen: shared by the workers of the host.
        run_blocking: runs bcrypt; its pool (of two) bounds how much of the processor that takes.
    """

    def __init__(self, *, seen: SeenKeys, run_blocking: RunBlocking) -> None:
        self._seen = seen
        self._run_blocking = run_blocking
        self._flights: dict[int, AsyncResult[bool | None]] = {}

    def verify(self, token: str, key: ApiKey) -> bool:
        """Whether `token` is the secret of `key`, or the one before, which may be over. Does not
        look at expiry, `enabled` or scopes.

        A collision of fingerprints would only spare a bcrypt to a token whose SHA-256 is right.
        """
        digest = sha256(token.encode("utf-8", "surrogatepass")).digest()
        if compare_digest(digest, key.sha256):
            bcrypt_hash = key.bcrypt_hash
        elif compare_digest(digest, key.previous_sha256):
            bcrypt_hash = key.previous_bcrypt_hash
        else:
            return False
        fingerprint = fingerprint_of(digest, bcrypt_hash)
        if self._seen.contains(fingerprint):
            return True
        return self._check_once(fingerprint, lambda: _matches(digest, bcrypt_hash, key.id))

    def _check_once(self, fingerprint: int, check: Callable[[], bool]) -> bool:
        """One bcrypt for all who ask at the same time.

        Nobody waits longer than for those that are in the pool's queue.
        """
        while (flight := self._flights.get(fingerprint)) is not None:
            shared: bool | None = flight.get()
            if shared is not None:
                return shared
            # Its client left before bcrypt was done: the first of those who waited takes over.
            if self._seen.contains(fingerprint):
                return True
        flight = self._flights[fingerprint] = AsyncResult()
        answer: bool | None = None
        try:
            answer = self._run_blocking(check)
            if answer:
                self._seen.add(fingerprint)
        finally:
            del self._flights[fingerprint]
            flight.set(answer)
        return answer


def fingerprint_of(digest: bytes, bcrypt_hash: str) -> int:
    """63 bits, never 0, for `SeenKeys`; another hash of the same token has another one."""
    hashed = blake2b(digest + bcrypt_hash.encode(), digest_size=8, person=b"tokenhub-key")
    return int.from_bytes(hashed.digest(), "big") >> 1 or 1


def parse_scopes(value: object) -> tuple[str, ...]:
    """Scopes as the original takes them, a string holding a JSON array, or as a real array.

    Empty means none; in the original it meant all. Repetitions are dropped.

    Raises: InvalidRequest: anything else, or a word that is no scope.
    """
    if isinstance(value, str):
        try:
            value = orjson.loads(value) if value.strip() else []
        except orjson.JSONDecodeError:
            value = None
    if not isinstance(value, list) or not all(
        isinstance(word, str) and word in SCOPES for word in value
    ):
        words = ", ".join(sorted(SCOPES))
        raise InvalidRequest(f"scopes must be a JSON array of: {words}", param="scopes")
    return tuple(dict.fromkeys(value))


def parse_expiry(expires_in: object, expires_at: object, now_ms: int) -> int | None:
    """When a key expires, in unix milliseconds; None (neither is given) for never.

    Args:
        expires_in: a Go duration such as "720h" or "1h30m", or days: "30d".
        expires_at: RFC 3339 ("2030-01-31T00:00:00Z"), or unix time in seconds or milliseconds.

    Raises: InvalidRequest: both given, not one of these, or not in the future.
    """
    has_duration, has_time = expires_in not in (None, ""), expires_at not in (None, "")
    if has_duration and has_time:
        raise InvalidRequest("give expires_in or expires_at, not both", param="expires_at")
    if has_duration:
        return _checked("expires_in", now_ms + _duration_ms("expires_in", expires_in), now_ms)
    if has_time:
        return _checked("expires_at", unix_ms_of(expires_at, "expires_at"), now_ms)
    return None


def parse_grace(value: object) -> int:
    """How long the secret before still opens after a rotation, in milliseconds.

    Args:
        value: as `expires_in`; None and "" = not at all.

    Raises: InvalidRequest: no duration, or more than 30 days.
    """
    grace_ms = 0 if value in (None, "") else _duration_ms("grace", value)
    if grace_ms > GRACE_MS_MAX:
        raise InvalidRequest("grace must be at most 30 days", param="grace")
    return grace_ms


def _matches(digest: bytes, bcrypt_hash: str, key_id: str) -> bool:
    try:
        return bcrypt.checkpw(digest.hex().encode(), bcrypt_hash.encode())
    except ValueError:
        log.error("stored key hash is not bcrypt", extra={"key_id": key_id})
        return False


def _checked(param: str, at_ms: int, now_ms: int) -> int:
    if not now_ms < at_ms <= _LATEST_AT:
        raise InvalidRequest(f"{param} must be in the future, before the year 10000", param=param)
    return at_ms


def _duration_ms(param: str, value: object) -> int:
    """A Go duration (time.ParseDuration) that is not negative, or with days; in milliseconds."""
    text = value if isinstance(value, str) and len(value) <= _DURATION_CHARS_MAX else ""
    unsigned = text.removeprefix("+")
    parts = list(_DURATION_PART.finditer(unsigned))
    if not parts or "".join(part[0] for part in parts) != unsigned:
        raise InvalidRequest(f'{param} must be like "720h", "90m" or "30d"', param=param)
    return int(sum(Decimal(part[1]) * _UNIT_MS[part[2]] for part in parts))


def unix_ms_of(value: object, name: str) -> int:
    """A moment as unix milliseconds.

    Args:
        value: RFC 3339, or unix time in seconds or milliseconds.
        name: the field's.

    Raises: InvalidRequest: neither.
    """
    if isinstance(value, str) and _RFC3339.fullmatch(value):
        try:
            moment = datetime.fromisoformat(value.upper())
            return (moment - _EPOCH) // timedelta(milliseconds=1)
        except (ValueError, OverflowError):  # the 30th of February
            pass
    elif isinstance(value, int | float) and math.isfinite(value):
        return int(value if abs(value) >= _MILLISECONDS_FROM else value * 1000)
    raise InvalidRequest(f"{name} must be RFC 3339 or unix time", param=name)

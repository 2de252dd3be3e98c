"""A connection made step by step, so that an operator learns which step fails and why.

Knows sockets and TLS, and no HTTP: nothing is sent. Each step has its own time.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Literal, NamedTuple

import gevent
import gevent.socket
from gevent.ssl import SSLContext

from tokenhub import outbound
from tokenhub.providers.connection import Origin, tls_context
from tokenhub.providers.names import Names, Target

DNS_SECS = 3.0
CONNECT_SECS = 5.0
TLS_SECS = 5.0

StepName = Literal["dns", "connect", "tls"]


class Step(NamedTuple):
    """One step that was taken.

    Args:
        message: what is wrong, in our words or OpenSSL's; "" = nothing is.
        facts: what is worth telling of it.
    """

    name: StepName
    took_ms: int
    message: str = ""
    facts: dict[str, Any] | None = None

    @property
    def is_ok(self) -> bool:
        return not self.message


class _Late(Exception):
    """Our own clock, told apart from any other timeout by its class."""


def reach(origin: Origin, *, allow_private: bool, tls: SSLContext | None = None) -> list[Step]:
    """Look a host up, connect to it and agree on TLS; the last step is the one that fails, if any.

    Args:
        allow_private: see `outbound`.
        tls: whom to trust; the system's authorities if not given.
    """
    step, targets = _look_up(origin, allow_private)
    steps = [step]
    if not targets:
        return steps
    step, sock = _connect(targets)
    steps.append(step)
    if sock is None:
        return steps
    try:
        if origin.is_tls:
            step, sock = _shake_hands(sock, origin.host, tls or tls_context())
            steps.append(step)
    finally:
        with suppress(OSError):
            sock.close()
    return steps


def _look_up(origin: Origin, allow_private: bool) -> tuple[Step, list[Target]]:
    began = monotonic()
    found: list[Target] = []
    message = ""
    try:
        with gevent.Timeout(DNS_SECS, _Late):
            found = Names().find(origin.host, origin.port)
    except _Late:
        message = "nobody says what the name means"
    except (OSError, UnicodeError):
        message = "there is no such name"
    allowed = [
        target
        for target in found
        if outbound.is_allowed(str(target[1][0]), allow_private=allow_private)
    ]
    if found and not allowed:
        message = "the name leads only to addresses that are not called"
    facts = {"addresses": list(dict.fromkeys(str(target[1][0]) for target in allowed))}
    return Step("dns", _since(began), message, facts), allowed


def _connect(targets: list[Target]) -> tuple[Step, Any]:
    began = monotonic()
    message = ""
    try:
        with gevent.Timeout(CONNECT_SECS, _Late):
            for family, sockaddr in targets:
                sock = gevent.socket.socket(family, gevent.socket.SOCK_STREAM)
                try:
                    sock.connect(sockaddr)  # numeric: nothing is looked up again
                except OSError as error:
                    sock.close()
                    message = _words_of(error)
                    continue
                except BaseException:
                    sock.close()
                    raise
                return Step("connect", _since(began), facts={"address": str(sockaddr[0])}), sock
    except _Late:
        message = "no connection in time"
    return Step("connect", _since(began), message), None


def _shake_hands(sock: Any, host: str, tls: SSLContext) -> tuple[Step, Any]:
    began = monotonic()
    message, facts = "", None
    try:
        with gevent.Timeout(TLS_SECS, _Late):
            sock = tls.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
            sock.do_handshake()
        facts = {"version": sock.version(), "expires_at": _expiry_of(sock.getpeercert())}
    except _Late:
        message = "TLS was not agreed on in time"
    except ssl.SSLCertVerificationError as error:
        message = f"the certificate is not trusted: {error.verify_message}"
    except ssl.SSLError as error:
        message = f"TLS failed: {error.reason or 'no reason was given'}"
    except OSError as error:
        message = _words_of(error)
    return Step("tls", _since(began), message, facts), sock


def _expiry_of(certificate: dict[str, Any] | None) -> int | None:
    """When a certificate ends, unix ms."""
    ends = (certificate or {}).get("notAfter")
    if not ends:
        return None
    return int(datetime.fromtimestamp(ssl.cert_time_to_seconds(ends), UTC).timestamp() * 1000)


def _words_of(error: OSError) -> str:
    return (error.strerror or "the connection failed").lower()


def _since(began: float) -> int:
    return round((monotonic() - began) * 1000)

"""How one setting's text becomes its value; a text that is none raises ValueError.

Knows no setting.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Address(NamedTuple):
    """Where to listen; an empty host means every interface."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def any_text(text: str) -> str:
    return text


def path(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # there is no such user
        raise ValueError(str(error)) from error


def boolean(text: str) -> bool:
    match text.lower():
        case "true" | "1" | "yes" | "on":
            return True
        case "false" | "0" | "no" | "off":
            return False
    raise ValueError("must be true or false")


def integer(low: int, high: int = 2**31) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = int(text)
        if not low <= number <= high:
            raise ValueError(f"must be between {low} and {high}")
        return number

    return parse


def decimal(low: float, high: float = 1e9) -> Callable[[str], float]:
    def parse(text: str) -> float:
        number = float(text)
        if not low <= number <= high:  # also refuses NaN
            raise ValueError(f"must be between {low:g} and {high:g}")
        return number

    return parse


def one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return text

    return parse


def words(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (part.strip() for part in text.split(","))))


def address(text: str) -> Address:
    host, found, port = text.rpartition(":")
    if not found or not port.isascii() or not port.isdigit() or len(port) > 5 or int(port) > 65535:
        raise ValueError("must be host:port, or :port for every interface")
    return Address(host.strip("[]"), int(port))


def networks(text: str) -> tuple[Network, ...]:
    return tuple(network(part.strip(), strict=False) for part in text.split(","))


def network(text: str, *, strict: bool = True) -> Network:
    """A network; one of IPv4 addresses within IPv6 (::ffff:192.0.2.7) as the IPv4 one it is.

    Args:
        strict: whether bits that are set beyond its length are a mistake.

    Raises: ValueError: it is none.
    """
    found = ipaddress.ip_network(text, strict=strict)
    length = found.prefixlen - 96
    if found.version == 4 or length < 0 or found.network_address.ipv4_mapped is None:
        return found
    return ipaddress.IPv4Network((found.network_address.ipv4_mapped, length))


def dsn(text: str) -> str:
    """Accept an SQLAlchemy URL, `postgres://`, and the original's `file:…` or plain path."""
    if text.startswith("sqlite:///"):
        return f"sqlite:///{_database_file(text.removeprefix('sqlite:///'))}"
    scheme, found, rest = text.partition("://")
    if found:
        if scheme.partition("+")[0] not in ("postgresql", "postgres"):
            raise ValueError("must be a file path, sqlite:///path or postgresql://…")
        return f"postgresql+psycopg://{rest}"
    return f"sqlite:///{path(_database_file(text.removeprefix('file:').partition('?')[0]))}"


def _database_file(path: str) -> str:
    if path.partition("?")[0] in ("", ":memory:"):
        raise ValueError("an in-memory database cannot be shared between workers")
    return path

"""Where the gateway listens, and how this machine reaches it."""

from __future__ import annotations

import socket

from tokenhub.config import Address
from tokenhub.errors import ConfigError


def check_address(address: Address) -> None:
    """Find out now that we cannot listen, rather than after gunicorn has tried for a while.

    Raises:
        ConfigError: we cannot.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {address}: {error.strerror}; set TOKENHUB_LISTEN_ADDR"
            ) from error


def reachable(address: Address) -> str:
    """The host by which this machine reaches an address that may be "every interface"."""
    return {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)  # noqa: S104


def url_of(address: Address) -> str:
    """The URL by which this machine reaches a gateway that listens there."""
    host = reachable(address)
    return f"http://[{host}]:{address.port}" if ":" in host else f"http://{host}:{address.port}"

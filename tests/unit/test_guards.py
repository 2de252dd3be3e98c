"""Whose word counts about where a request comes from."""

from __future__ import annotations

import ipaddress

import pytest

from tokenhub.web.guards import client_ip

OURS = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1/128"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "trusted", "expected"),
    [
        ("1.2.3.4", "9.9.9.9", (), "1.2.3.4"),
        ("1.2.3.4", "9.9.9.9", OURS, "1.2.3.4"),
        ("10.0.0.1", "9.9.9.9", OURS, "9.9.9.9"),
        ("10.0.0.1", "6.6.6.6, 9.9.9.9, 10.0.0.7", OURS, "9.9.9.9"),
        ("10.0.0.1", "not an address", OURS, "10.0.0.1"),
        ("10.0.0.1", "", OURS, "10.0.0.1"),
        ("::1", "2001:db8::7", OURS, "2001:db8::7"),
    ],
)
def test_a_forwarded_address_counts_only_from_a_trusted_proxy(peer, forwarded, trusted, expected):
    environ = {"REMOTE_ADDR": peer, "HTTP_X_FORWARDED_FOR": forwarded}
    assert client_ip(environ, trusted) == expected


def test_a_forwarded_address_from_a_stranger_is_warned_of_once(caplog):
    from tokenhub.web import guards

    guards._warn_of_untrusted_proxy.cache_clear()
    with caplog.at_level("WARNING", logger="tokenhub.web"):
        for _ in range(3):
            client_ip({"REMOTE_ADDR": "1.2.3.4", "HTTP_X_FORWARDED_FOR": "9.9.9.9"}, ())
    assert len(caplog.records) == 1

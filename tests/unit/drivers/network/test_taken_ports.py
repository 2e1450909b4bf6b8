"""Who has a port that dnsmasq was to serve."""

from __future__ import annotations

import os
import socket

import pytest

from hostel.cause.holder import describe
from hostel.drivers.network import server
from hostel.drivers.network.server import _taken


def test_who_serves_names_or_addresses_already_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as names:
        names.bind(("127.0.0.1", 0))
        port = names.getsockname()[1]
        monkeypatch.setattr(server, "_DNS_PORT", port)
        monkeypatch.setattr(server, "_DHCP_PORT", port)
        who = f"; port {port} is in use by {describe(os.getpid())}"
        said = "dnsmasq: failed to create listening socket for 10.0.0.1: Address already in use"
        assert _taken(said) == f"{who}; <dns enable='no'/> leaves out the name server"
        assert _taken("dnsmasq: failed to bind DHCP server socket: Address already in use") == who
    assert _taken("dnsmasq: unknown interface br0") == ""

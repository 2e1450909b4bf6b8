"""What passt is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostel.drivers.qemu.helper.passt import arguments, helpers
from hostel.errors import VirtError
from hostel.model.domain.devices.interface import Interface
from hostel.model.domain.domain import Domain


def told(body: str) -> list[str]:
    """All that follows what is always said."""
    interface = Interface.parse(f"<interface type='user'><backend type='passt'/>{body}</interface>")
    found = list(arguments(interface, Path("/s"), as_root=False))
    as_root = list(arguments(interface, Path("/s"), as_root=True))
    assert as_root == [*found[:4], "--runas", "0", *found[4:]]
    assert found[:4] == ["--foreground", "--one-off", "--socket", "/s"]
    return found[4:]


def test_addresses_and_the_way_out_are_told() -> None:
    found = told(
        "<source dev='eth0'/><ip address='192.0.2.5' prefix='24'/><ip address='2001:db8::5'/><mtu size='1400'/>"
    )
    assert found == [
        "--mtu", "1400", "--interface", "eth0", "--stderr", "--address", "192.0.2.5", "--netmask", "24",
        "--address", "2001:db8::5",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("forward", "words"),
    [("<portForward proto='tcp'/>", ["--tcp-ports", "all"]),
     ("<portForward proto='udp' address='192.0.2.1' dev='eth0'><range start='53'/></portForward>",
      ["--udp-ports", "192.0.2.1%eth0/53"]),
     ("<portForward proto='tcp'><range start='2022' to='22'/><range start='80' end='90' to='8080'/>"
      "<range start='85' exclude='yes'/></portForward>", ["--tcp-ports", "2022:22,80-90:8080-8090,~85"])],
)  # fmt: skip
def test_ports_lead_into_the_guest(forward: str, words: list[str]) -> None:
    assert told(forward) == ["--stderr", *words]


def test_ports_lead_nowhere_without_passt() -> None:
    interface = "<interface type='user'><portForward proto='tcp'/></interface>"
    domain = Domain.parse(
        f"<domain type='qemu'><name>d</name><os><type>hvm</type></os><devices>{interface}</devices></domain>"
    )
    with pytest.raises(VirtError, match="write <backend type='passt'/>"):
        helpers(domain, Path("/run"))

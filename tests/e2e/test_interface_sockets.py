"""Cards whose other end is a socket: of another QEMU, of a group of them, of a switch outside."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from hostel.block import graph
from hostel.drivers.base.domain import Affect
from hostel.errors import VirtError
from hostel.objects import Connection
from support import vhost
from support.session import domain_xml, session
from support.web import free_port

pytestmark = pytest.mark.qemu
MAC = "52:54:00:00:00:01"


def card(kind: str, source: str, mac: str = MAC) -> str:
    return f"<interface type='{kind}'><mac address='{mac}'/><source {source}/><model type='virtio'/></interface>"


def network_of(connection: Connection, name: str) -> str:
    """What QEMU says of the machine's cards."""
    hypervisor: Any = connection.hypervisor
    ref = hypervisor.domain_lookup_by_name(name)
    return str(hypervisor.domain_qemu_monitor_command(ref, "info network", human=True))


def test_two_guests_are_joined_by_a_connection(tmp_path: Path) -> None:
    where = f"address='127.0.0.1' port='{free_port()}'"
    with session(tmp_path) as connection:
        connection.create_domain(domain_xml(tmp_path, card("server", where), name="one"), paused=True)
        connection.create_domain(domain_xml(tmp_path, name="other"), paused=True)
        hypervisor: Any = connection.hypervisor
        other = hypervisor.domain_lookup_by_name("other")
        with pytest.raises(VirtError, match="hotplug of interface type of client is not implemented yet"):
            hypervisor.domain_attach_device_flags(other, card("client", where), Affect.LIVE)
        hypervisor.domain_destroy(other)
        connection.create_domain(domain_xml(tmp_path, card("client", where), name="other"), paused=True)
        assert "socket: connection from 127.0.0.1" in network_of(connection, "one")
        assert "socket: connect to 127.0.0.1" in network_of(connection, "other")


@pytest.mark.parametrize(
    ("kind", "source", "said"),
    [
        ("mcast", "address='230.0.0.1' port='5558'", "mcast=230.0.0.1:5558"),
        ("udp", "address='127.0.0.1' port='{}'><local address='127.0.0.1' port='{}'/></source", "udp=127.0.0.1:"),
    ],
)
def test_guests_in_a_group_or_on_datagrams_start(tmp_path: Path, kind: str, source: str, said: str) -> None:
    given = card(kind, source.format(free_port(), free_port())).replace("</source/>", "</source>")
    with session(tmp_path) as connection:
        connection.create_domain(domain_xml(tmp_path, given), paused=True)
        assert said in network_of(connection, "guest")


@pytest.mark.usefixtures("deaf_guest")
def test_a_card_of_a_switch_outside_comes_and_goes_with_its_connection(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(512))
    shared = "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>"
    # Any back end will do for this: what the queues carry is not looked at.
    with (
        graph.open(str(tmp_path / "disk"), "raw", read_only=False) as node,
        vhost.serving(tmp_path, node) as served,
        session(tmp_path) as connection,
    ):
        reconnects = "<reconnect enabled='yes' timeout='10'/></source>"
        given = card("vhostuser", f"type='unix' path='{served.path}' mode='client'").replace(
            "/><model", f">{reconnects}<model"
        )
        connection.create_domain(domain_xml(tmp_path).replace("<os>", f"{shared}<os>"), paused=True)
        hypervisor: Any = connection.hypervisor
        ref = hypervisor.domain_lookup_by_name("guest")
        before = hypervisor.domain_qemu_monitor_command(ref, "info chardev", human=True)
        hypervisor.domain_attach_device_flags(ref, given, Affect.LIVE)
        assert "type=vhost-user" in network_of(connection, "guest")
        hypervisor.domain_detach_device_flags(ref, given, Affect.LIVE)
        hypervisor.domain_reset(ref)  # nobody is in the guest to let go of it
        deadline = time.monotonic() + 60
        while hypervisor.domain_qemu_monitor_command(ref, "info chardev", human=True) != before:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert network_of(connection, "guest") == ""

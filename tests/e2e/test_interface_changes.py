"""Interfaces that are changed while their machine runs: what is at the host's end follows, and what cannot is said."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hostel
from hostel.drivers.base.domain import Affect
from hostel.drivers.store import Directories
from hostel.errors import VirtError
from hostel.objects import Connection, Domain
from support import netns
from support.session import domain_xml

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.slow,
    pytest.mark.requires_tool("ip"),
    pytest.mark.requires_tool("nft"),
    pytest.mark.skipif(os.geteuid() != 0, reason="a bridge is made by root"),
]
MAC = "52:54:00:00:00:0a"
SLOW = "<bandwidth><inbound average='100'/></bandwidth>"
GROUP = f"<portgroup name='slow'>{SLOW}</portgroup>"
DRIVER = "<driver name='qemu' txmode='iothread' ioeventfd='on' event_idx='off' rx_queue_size='512'>"
OFFLOADS = "<host csum='off' gso='off' tso4='off'/><guest csum='off' tso4='off'/></driver>"
REST = f"{DRIVER}{OFFLOADS}<tune><sndbuf>1600</sndbuf></tune><coalesce><rx><frames max='7'/></rx></coalesce>"


def interface(source: str, more: str = "", rest: str = REST) -> str:
    kind = source.partition("=")[0]
    card = f"{more}<model type='virtio'/>{rest}"
    return f"<interface type='{kind}'><mac address='{MAC}'/><source {source}/>{card}</interface>"


@pytest.fixture(scope="module")
def system() -> Iterator[Connection]:
    with (
        tempfile.TemporaryDirectory(prefix="hostel-if-") as path, netns.alone(),
        hostel.open("qemu:///system", Directories.under(Path(path))) as connection,
    ):  # fmt: skip
        for name in ("one", "two"):
            subprocess.run(["ip", "link", "add", f"br{name}", "type", "bridge"], check=True)
            xml = f"<network><name>{name}</name><forward mode='bridge'/><bridge name='br{name}'/>{GROUP}</network>"
            connection.create_network(xml)
        try:
            yield connection
        finally:
            for domain in connection.domains(active=True):
                domain.destroy()


@pytest.fixture(scope="module")
def domain(system: Connection, tmp_path_factory: pytest.TempPathFactory) -> Domain:
    return system.create_domain(domain_xml(tmp_path_factory.mktemp("home"), interface("network='one'")))


def update(system: Connection, xml: str) -> None:
    hypervisor: Any = system.hypervisor
    hypervisor.domain_update_device_flags(hypervisor.domain_lookup_by_name("guest"), xml, Affect.LIVE)


def told(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_an_interface_changes_network_rates_and_whom_it_reaches(system: Connection, domain: Domain) -> None:
    shown = domain.xml()
    assert "<interface type='bridge'>" in shown
    assert "<source network='one' portid=" in shown
    update(system, interface("network='two' portgroup='slow'", "<port isolated='yes'/>"))
    place = told("bridge", "-d", "link", "show", "dev", "vnet0")
    assert "master brtwo" in place
    assert "isolated on" in place
    assert "rate 800Kbit" in told("tc", "class", "show", "dev", "vnet0")
    for name, count in (("one", ""), ("two", " connections='1'")):
        assert f"<network{count}>" in system.find_network(name).xml()
    shown = domain.xml()
    assert "<source network='two' portgroup='slow' portid=" in shown
    assert "<inbound average='100'/>" in shown
    update(system, interface("bridge='brone'"))
    assert "master brone" in told("bridge", "-d", "link", "show", "dev", "vnet0")
    assert "rate" not in told("tc", "class", "show", "dev", "vnet0")
    assert "portid" not in domain.xml()
    assert "connections" not in system.find_network("two").xml()
    update(system, interface("network='one'", "<link state='down'/>"))
    assert "<link state='down'/>" in domain.xml()


@pytest.mark.parametrize(
    ("xml", "words"),
    [(interface("network='two'").replace("model type='virtio'", "model type='e1000'"),
      "cannot modify network device model from virtio to e1000"),
     (interface("network='two'", "<mtu size='1400'/>"), "cannot modify MTU"),
     (interface("network='two'", "<target dev='other'/>"), "cannot modify network device tap name"),
     (interface("network='two'", "<script path='/s'/>"), "cannot modify network device script attribute"),
     (interface("network='two'", rest="<driver name='vhost'/>"), "cannot modify virtio network device driver attr"),
     (interface("network='two'", rest=REST.replace("1600", "1601")), "unable to change config on 'network' network"),
     (interface("dev='brtwo'").replace("type='dev'", "type='direct'"), "unable to change config on 'direct' network"),
     (interface("bridge='brtwo'", "<vlan><tag id='5'/></vlan>"), "vlan tag not supported for this connection type"),
     (interface("bridge='nowhere'"), "bridge nowhere doesn't exist"),
     (interface("network='nowhere'"), "no network with matching name 'nowhere'"),
     (interface("network='two'", SLOW.replace("0'", "0' floor='9'")), "'floor' is only supported for")],
)  # fmt: skip
def test_what_cannot_change_is_said_and_all_stays(system: Connection, domain: Domain, xml: str, words: str) -> None:
    update(system, interface("network='one'"))
    before = domain.xml()
    with pytest.raises(VirtError) as caught:
        update(system, xml)
    assert words in str(caught.value)
    assert domain.xml() == before
    assert "master brone" in told("bridge", "-d", "link", "show", "dev", "vnet0")
    assert "<network connections='1'>" in system.find_network("one").xml()


def test_frames_are_coalesced_as_they_are_asked_to_be(system: Connection, domain: Domain) -> None:
    from hostel.drivers.link import device

    update(system, interface("network='one'", rest=REST.replace("'7'", "'9'")))
    assert "<frames max='9'/>" in domain.xml()
    assert device.coalescing("vnet0") == 9

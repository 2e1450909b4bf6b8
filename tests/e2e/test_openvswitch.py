"""Guests on bridges of a real Open vSwitch: their ports come, are changed and go with them, and carry their packets."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hostel
from hostel.block import graph
from hostel.drivers.base import DomainState
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.migration import MigrateFlag
from hostel.drivers.migrating import migrate
from hostel.drivers.store import Directories
from hostel.errors import VirtError
from hostel.objects import Connection
from support import netns, openvswitch, vhost
from support.kill_step import killed_at
from support.linux import Linux
from support.moving import two
from support.netns import Party
from support.openvswitch import column, vsctl
from support.session import domain_xml, log_of

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.slow,
    pytest.mark.requires_tool("ovs-vswitchd"),
    pytest.mark.requires_tool("ovsdb-server"),
    pytest.mark.requires_tool("ip"),
    pytest.mark.skipif(os.geteuid() != 0, reason="a bridge is made by root"),
]
MAC, IFACE = "52:54:00:00:00:0a", "7fb1b3c8-0dd5-4d36-8e6c-9f9b3d2a4b11"
PORT = f"<virtualport type='openvswitch'><parameters interfaceid='{IFACE}' profileid='web'/></virtualport>"
VLAN = "<vlan><tag id='5'/></vlan>"
RATES = "<bandwidth><inbound average='1000' peak='2000' burst='64'/><outbound average='500'/></bandwidth>"
NETWORK = """<network><name>lan</name><forward mode='bridge'/><bridge name='ovs'/><virtualport type='openvswitch'/>
<portgroup name='blue'><vlan trunk='yes'><tag id='5' nativeMode='untagged'/><tag id='6'/></vlan></portgroup>
</network>"""
SCRIPT = """
ip link set eth0 up
ip address add 192.168.77.10/24 dev eth0
until ping -c 1 -W 1 192.168.77.9 >/dev/null; do :; done
echo ready
while [ -d /sys/class/net/eth0 ]; do sleep 0.2; done
echo unplugged
while :; do sleep 1; done
"""


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hostel-ovs-") as path:
        yield Path(path)


@pytest.fixture
def switch() -> Iterator[subprocess.Popen[bytes]]:
    with netns.alone(), openvswitch.running() as found:
        openvswitch.add_bridge("ovs")
        yield found


@pytest.fixture
def system(home: Path, switch: object) -> Iterator[Connection]:
    with hostel.open("qemu:///system", Directories.under(home)) as connection:
        try:
            yield connection
        finally:
            for domain in connection.domains(active=True):
                domain.destroy()


def interface(more: str = PORT, source: str = "bridge='ovs'") -> str:
    kind = source.partition("=")[0]
    return f"<interface type='{kind}'><mac address='{MAC}'/><source {source}/>{more}<model type='virtio'/></interface>"


def ports() -> set[str]:
    return set(vsctl("list-ports", "ovs").split())


def left() -> tuple[set[str], str, str]:
    """What the switch knows of guests."""
    return ports(), vsctl("--columns=_uuid", "list", "QoS"), vsctl("--columns=_uuid", "list", "Queue")


NOTHING: tuple[set[str], str, str] = (set(), "", "")


def test_a_guest_reaches_those_of_its_vlan_until_it_is_unplugged(
    system: Connection, home: Path, tmp_path: Path
) -> None:
    linux = Linux(tmp_path)
    (tmp_path / "initrd").write_bytes(linux.initramfs(SCRIPT, {}, ("virtio_net", "af_packet")))
    party = Party("cable")
    vsctl("add-port", "ovs", "cable", "tag=5")
    party.run("ip address add 192.168.77.9/24 dev eth0")
    kernel = f"<kernel>{linux.kernel.image}</kernel><initrd>{tmp_path / 'initrd'}</initrd>"
    xml = domain_xml(home, interface(VLAN + PORT), system=f"{kernel}<cmdline>console=ttyS0 quiet panic=-1</cmdline>")
    domain = system.create_domain(xml.replace("'MiB'>32<", "'MiB'>192<"))
    try:
        party.run(f"until grep -q ready {log_of(home)}; do sleep 0.1; done", timeout=90)
        hypervisor: Any = system.hypervisor
        ref = hypervisor.domain_lookup_by_name("guest")
        hypervisor.domain_update_device_flags(ref, interface("<vlan><tag id='6'/></vlan>" + PORT), Affect.LIVE)
        assert column("Port", "vnet0", "tag") == "6"
        assert not party.reaches("192.168.77.10")
        hypervisor.domain_update_device_flags(ref, interface(VLAN + PORT), Affect.LIVE)
        assert party.reaches("192.168.77.10")
        hypervisor.domain_detach_device_flags(ref, interface(), Affect.LIVE)
        party.run(f"until grep -q unplugged {log_of(home)}; do sleep 0.1; done")
        assert ports() == {"cable"}
    finally:
        domain.destroy()
        party.close()


def test_a_switch_is_told_who_is_plugged_in_and_how_fast_they_are(system: Connection, home: Path) -> None:
    domain = system.create_domain(domain_xml(home, interface(VLAN + PORT + RATES)))
    assert column("Interface", "vnet0", "external_ids") == (
        f'{{attached-mac="{MAC}", iface-id="{IFACE}", iface-status=active, ifname=vnet0, port-profile=web, '
        f'vm-id="{domain.uuid}"}}'
    )
    qos = column("Port", "vnet0", "qos")
    assert column("QoS", qos, "other_config") == '{burst="524288", max-rate="16000000", min-rate="8000000"}'
    assert column("Interface", "vnet0", "ingress_policing_rate") == "4000"
    assert "qdisc htb" in subprocess.run(["tc", "qdisc", "show", "dev", "vnet0"], capture_output=True, text=True).stdout
    hypervisor: Any = system.hypervisor
    ref = hypervisor.domain_lookup_by_name("guest")
    limits = {"inbound.average": 300, "outbound.average": 0}
    hypervisor.domain_set_interface_parameters(ref, "vnet0", limits, Affect.LIVE)
    qos = column("Port", "vnet0", "qos")
    assert column("QoS", qos, "other_config") == '{min-rate="2400000"}'
    assert column("Interface", "vnet0", "ingress_policing_rate") == "0"
    hypervisor.domain_update_device_flags(ref, interface(), Affect.LIVE)
    assert "<bandwidth>" not in domain.xml()
    assert (column("Port", "vnet0", "tag"), left()) == ("[]", ({"vnet0"}, "", ""))
    with pytest.raises(VirtError, match="unable to change config on 'bridge' network type"):
        hypervisor.domain_update_device_flags(ref, interface(PORT.replace("web", "other")), Affect.LIVE)
    domain.destroy()
    assert left() == NOTHING


def test_a_port_that_the_switch_serves_itself_is_found_and_counted(system: Connection, home: Path) -> None:
    (home / "disk").write_bytes(bytes(512))
    vsctl("add-port", "ovs", "vhost.sock", "--", "set", "Interface", "vhost.sock", "type=internal")
    source = "<source type='unix' path='PATH' mode='client'/><model type='virtio'/>"
    # Any back end will do: what is shown is what the switch says of the name.
    with graph.open(str(home / "disk"), "raw", read_only=False) as node, vhost.serving(home, node) as served:
        card = f"<interface type='vhostuser'>{source}</interface>".replace("PATH", str(served.path))
        shared = "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>"
        xml = domain_xml(home, card).replace("<os>", f"{shared}<os>")
        domain = system.create_domain(xml)
        assert "<target dev='vhost.sock'/>" in domain.xml()
        hypervisor: Any = system.hypervisor
        ref = hypervisor.domain_lookup_by_name("guest")
        deadline = time.monotonic() + 60
        while column("Interface", "vhost.sock", "statistics") == "{}":
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert hypervisor.domain_interface_stats(ref, "vhost.sock").rx_drop >= 0
        ((_, told),) = hypervisor.connect_get_all_domain_stats([ref])
        assert told["net.0.name"] == "vhost.sock"
        assert told["net.0.tx.bytes"] >= 0
        domain.destroy()


def test_a_port_of_a_network_goes_also_where_qemu_is_killed(system: Connection, home: Path) -> None:
    system.create_network(NETWORK)
    plugged = interface(RATES, "network='lan' portgroup='blue'")
    domain = system.create_domain(domain_xml(home, plugged))
    shown = domain.xml()
    assert "<interface type='bridge'>" in shown
    assert "portgroup='blue' portid=" in shown
    assert "<tag id='5' nativeMode='untagged'/>" in shown
    assert "<virtualport type='openvswitch'>\n        <parameters interfaceid=" in shown
    shape = [column("Port", "vnet0", name) for name in ("vlan_mode", "tag", "trunks")]
    assert shape == ["native-untagged", "5", "[5, 6]"]
    hypervisor: Any = system.hypervisor
    hypervisor.domain_update_device_flags(hypervisor.domain_lookup_by_name("guest"), plugged, Affect.LIVE)
    assert ports() == {"vnet0"}
    os.kill(int(next((home / "run/qemu/run").glob("*/pid")).read_text()), signal.SIGKILL)
    domain.wait(DomainState.SHUTOFF, 10)
    assert left() == NOTHING


def test_what_a_controller_wrote_on_a_port_goes_along_to_another_host(switch: object, home: Path) -> None:
    with two(home) as both:
        ref = both.one.domain_create_xml(domain_xml(home, interface(PORT + RATES)))
        vsctl("set", "Interface", "vnet0", 'external_ids:PortData="a \\"b\\", c"')
        there = migrate(both.one, both.other, ref, {}, MigrateFlag.LIVE)
        assert "<target dev='vnet1'/>" in both.other.domain_get_xml_desc(there)
        assert (ports(), column("Interface", "vnet1", "external_ids:PortData")) == ({"vnet1"}, '"a \\"b\\", c"')
        assert column("Port", "vnet1", "qos") != "[]"
    assert left() == NOTHING


def test_a_kill_at_any_step_of_a_start_leaves_no_port(system: Connection, home: Path) -> None:
    from hostel.drivers.link import openvswitch as link
    from hostel.drivers.qemu import wiring

    system.create_network(NETWORK)
    second = interface(RATES, "network='lan' portgroup='blue'").replace(MAC, "52:54:00:00:00:0b")
    domain = system.define_domain(domain_xml(home, interface(PORT + RATES), second))
    files = tuple(Path(str(module.__file__)) for module in (wiring, link))
    step = 40
    while killed_at(step, files, domain.start):
        if domain.is_active:
            domain.destroy()
        assert left() == NOTHING, step
        step += 23
    assert step > 150
    domain.destroy()
    assert left() == NOTHING


@pytest.mark.parametrize(
    ("device", "words"),
    [(interface(source="bridge='nowhere'"), "Unable to add bridge nowhere port vnet0: No such device"),
     (interface(source="bridge='own'"), "Unable to add port vnet0 to OVS bridge own: no bridge named own"),
     (interface(VLAN), f"interface {MAC} - vlan tag not supported for this connection type"),
     (interface(PORT + "<port isolated='yes'/>"), "not supported for network interfaces with virtualport type='openvs"),
     (interface("<virtualport type='802.1Qbh'/>"), "missing profileid in <virtualport type='802.1Qbh'>")],
)  # fmt: skip
def test_what_cannot_be_is_said_and_nothing_is_left(system: Connection, home: Path, device: str, words: str) -> None:
    subprocess.run(["ip", "link", "add", "own", "type", "bridge"], check=True)
    with pytest.raises(VirtError) as caught:
        system.create_domain(domain_xml(home, device))
    assert words in str(caught.value)
    assert (system.domains(), left()) == ([], NOTHING)


def test_a_switch_that_does_not_answer_is_said(
    system: Connection, home: Path, switch: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    from hostel.drivers.link import openvswitch as link

    monkeypatch.setattr(link, "_SECONDS", 1)
    switch.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(VirtError, match="the switch has not answered within 1 seconds; is ovs-vswitchd running"):
            system.create_domain(domain_xml(home, interface()))
    finally:
        switch.send_signal(signal.SIGCONT)
    assert left() == NOTHING

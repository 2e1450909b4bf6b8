"""Guests in networks that are made for real: a Linux gets its address, reaches others and the world outside."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hostel
from hostel.drivers.base import DomainState
from hostel.drivers.base.address import AddressSource, GuestAddress
from hostel.drivers.base.agent import HostnameSource
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.network import AddressType
from hostel.drivers.store import Directories
from hostel.errors import VirtError
from hostel.objects import Connection, Domain
from support import netns
from support.kill_step import killed_at
from support.linux import Linux
from support.netns import Party
from support.process import programs_of
from support.session import domain_xml, log_of

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.slow,
    pytest.mark.requires_tool("nft"),
    pytest.mark.requires_tool("dnsmasq"),
    pytest.mark.requires_tool("ip"),
    pytest.mark.requires_tool("busybox"),
    pytest.mark.requires_tool("dpkg-deb"),
    pytest.mark.requires_tool("passt"),
    pytest.mark.skipif(os.geteuid() != 0, reason="a bridge is made by root"),
]
NETWORK = """<network><name>lan</name><forward mode='nat'/><bridge name='hbr0' stp='off'/>
<ip address='192.168.77.1' prefix='24'><dhcp><range start='192.168.77.20' end='192.168.77.40'/>
<host mac='52:54:00:00:00:0a' ip='192.168.77.10' name='a'/><host mac='52:54:00:00:00:0b' ip='192.168.77.11' name='b'/>
</dhcp></ip></network>"""
TAKE = """
ip link set lo up
ip link set eth0 up
cat > /take <<'END'
#!/bin/sh
[ "$1" = bound ] || exit 0
ip address add $ip/$mask dev $interface
ip route add default via $router
echo "address $ip"
END
chmod 755 /take
udhcpc -i eth0 -n -q -f -t 30 -T 1 -s /take -x hostname:$(cat /sys/class/net/eth0/address | tr -d :)
"""
# Speaks to the one outside, and answers who comes.
PASST = f"""{TAKE}
until echo hello | nc -w 2 198.51.100.2 7; do :; done
(while :; do echo welcome | nc -l -p 22; done) &
echo ready
while :; do sleep 1; done
"""
# Gets an address, waits until the other answers, and reaches the one outside.
SCRIPT = f"""{TAKE}
for other in 192.168.77.10 192.168.77.11; do
    until ping -c 1 -W 1 $other >/dev/null; do :; done
    echo "reached $other"
done
until ping -c 1 -W 1 198.51.100.2 >/dev/null; do :; done
echo "reached outside"
echo ready
while [ -d /sys/class/net/eth0 ]; do sleep 0.2; done
echo unplugged
while :; do sleep 1; done
"""


@pytest.fixture(scope="module")
def linux(tmp_path_factory: pytest.TempPathFactory) -> Linux:
    found = Linux(tmp_path_factory.mktemp("linux"))
    for name, script in (("initrd", SCRIPT), ("passt", PASST)):
        (found.work / name).write_bytes(found.initramfs(script, {}, ("virtio_net", "af_packet")))
    return found


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hostel-net-") as path:  # where dnsmasq may look
        Path(path).chmod(0o755)
        yield Path(path)


@pytest.fixture
def system(home: Path) -> Iterator[Connection]:
    with netns.alone(), hostel.open("qemu:///system", Directories.under(home)) as connection:
        try:
            yield connection
        finally:
            for domain in connection.domains(active=True):
                domain.destroy()
            for network in connection.networks():
                if network.is_active:
                    network.destroy()


@pytest.fixture
def outside(system: Connection) -> Iterator[Party]:
    party = Party("uplink")
    subprocess.run(["ip", "address", "add", "198.51.100.1/24", "dev", "uplink"], check=True)
    party.run("ip address add 198.51.100.2/24 dev eth0")
    yield party
    party.close()


def interface(mac: str, more: str = "") -> str:
    return (
        f"<interface type='network'><mac address='52:54:00:00:00:{mac}'/><source network='lan'/>"
        f"<model type='virtio'/>{more}</interface>"
    )


def boot(system: Connection, linux: Linux, home: Path, name: str, *devices: str, initrd: str = "initrd") -> Domain:
    """Start a Linux that runs the script."""
    append = "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check tsc=reliable"
    kernel = f"<kernel>{linux.kernel.image}</kernel><initrd>{linux.work / initrd}</initrd><cmdline>{append}</cmdline>"
    xml = domain_xml(home, *devices, name=name, system=kernel).replace("'MiB'>32<", "'MiB'>192<")
    domain = system.define_domain(xml)
    domain.start()
    return domain


def wait_for(home: Path, name: str, words: str, *, timeout: float = 90) -> str:
    """Wait until a guest has said something."""
    deadline = time.monotonic() + timeout
    while words not in (said := log_of(home, name).read_text(errors="replace")):
        assert time.monotonic() < deadline, said
        time.sleep(0.1)
    return said


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def links() -> set[str]:
    return {link["ifname"] for link in json.loads(output("ip", "-json", "link"))}


def ports(home: Path) -> int:
    return len(list((home / "run/network/ports").rglob("*.xml")))


def test_guests_get_addresses_and_reach_each_other_and_the_world(
    system: Connection, linux: Linux, home: Path, outside: Party
) -> None:
    system.define_network(NETWORK).start()
    one = boot(system, linux, home, "one", interface("0a"))
    two = boot(system, linux, home, "two", interface("0b", "<mtu size='1400'/>"))
    for name, address in (("one", "192.168.77.10"), ("two", "192.168.77.11")):
        said = wait_for(home, name, "ready")
        assert f"address {address}" in said
        assert "reached outside" in said
    assert {"vnet0", "vnet1"} <= links()
    assert "<network connections='2'>" in system.find_network("lan").xml()
    hypervisor: Any = system.hypervisor
    for source, prefix in ((AddressSource.LEASE, 24), (AddressSource.ARP, 0)):
        (found,) = hypervisor.domain_interface_addresses(hypervisor.domain_lookup_by_name("two"), source)
        assert found.name == "vnet1"
        assert found.addresses == [GuestAddress(AddressType.IPV4, "192.168.77.11", prefix)]
    ref = hypervisor.domain_lookup_by_name("two")
    assert hypervisor.domain_get_hostname(ref, HostnameSource.LEASE) == "b"
    stats = hypervisor.domain_interface_stats(hypervisor.domain_lookup_by_name("two"), "vnet1")
    assert stats.rx_packets > 3
    assert stats.tx_packets > 3
    limits = {"inbound.average": 300, "inbound.peak": 400, "outbound.average": 200}
    hypervisor.domain_set_interface_parameters(hypervisor.domain_lookup_by_name("two"), "vnet1", limits, Affect.LIVE)
    assert "rate 2400Kbit ceil 3200Kbit" in output("tc", "class", "show", "dev", "vnet1")
    assert "limit rate over 200 kbytes/second" in output("nft", "list", "table", "netdev", "hostel_vnet1")
    assert "<inbound average='300' peak='400'/>" in two.xml()
    hypervisor.domain_detach_device_flags(hypervisor.domain_lookup_by_name("one"), interface("0a"), Affect.LIVE)
    wait_for(home, "one", "unplugged")
    assert "vnet0" not in links()
    assert ports(home) == 1
    one.destroy()
    pid = int(next((home / "run/qemu/run").glob("*/pid")).read_text())
    os.kill(pid, signal.SIGKILL)
    two.wait(DomainState.SHUTOFF, 10)
    assert links() == {"lo", "uplink", "hbr0"}
    assert "netdev" not in output("nft", "list", "tables")
    assert ports(home) == 0


def test_ports_of_the_host_lead_through_passt_into_the_guest(
    system: Connection, linux: Linux, home: Path, outside: Party
) -> None:
    subprocess.run(["ip", "route", "add", "default", "via", "198.51.100.254"], check=True)
    heard = subprocess.Popen(outside.command("exec busybox nc -l -p 7"), stdout=subprocess.PIPE)
    passt = (
        "<interface type='user'><backend type='passt'/><ip address='198.51.100.77' prefix='24'/><model type='virtio'/>"
        "<portForward proto='tcp' address='127.0.0.1'><range start='2022' to='22'/></portForward></interface>"
    )
    guest = boot(system, linux, home, "guest", passt, initrd="passt")
    assert "address 198.51.100.77" in wait_for(home, "guest", "ready")
    assert heard.communicate(timeout=30)[0] == b"hello\n"
    deadline, said = time.monotonic() + 30, b""
    while said != b"welcome\n":  # passt takes a connection also while the guest does not listen
        assert time.monotonic() < deadline
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", 2022), timeout=5) as stream:
            stream.sendall(b"hello\n")  # passt tells the guest of a connection for good with what is said first
            said = stream.recv(100)
    guest.destroy()
    deadline = time.monotonic() + 30
    while left := programs_of(home):  # whoever supervised it ends a moment after it
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def test_macvtaps_come_and_go_with_the_guest(system: Connection, home: Path, outside: Party) -> None:
    direct = "<interface type='direct'><source dev='uplink' mode='{}'/><model type='virtio'/></interface>"
    for mode in ("vepa", "bridge", "private", "passthrough"):
        domain = system.create_domain(domain_xml(home, direct.format(mode)))
        assert "macvtap0" in links()
        shown = output("ip", "-d", "link", "show", "macvtap0")
        assert f"mode {'passthru' if mode == 'passthrough' else mode}" in shown
        domain.destroy()
        assert links() == {"lo", "uplink"}


def test_networks_give_what_they_have_of_the_hosts(system: Connection, home: Path, outside: Party) -> None:
    subprocess.run(["ip", "link", "add", "own", "type", "bridge"], check=True)
    before = links()
    system.create_network(
        "<network><name>lan</name><forward mode='bridge'/><bridge name='own'/><port isolated='yes'/>"
        "<portgroup name='slow'><bandwidth><inbound average='100'/></bandwidth></portgroup></network>"
    )
    plain = interface("0a").replace("network='lan'", "network='lan' portgroup='slow'")
    domain = system.create_domain(domain_xml(home, plain))
    assert "rate 800Kbit" in output("tc", "class", "show", "dev", "vnet0")
    shown = output("bridge", "-d", "link", "show", "dev", "vnet0")
    assert "master own" in shown
    assert "isolated on" in shown
    domain.destroy()
    system.find_network("lan").destroy()
    pool = "<forward mode='passthrough'><interface dev='uplink'/></forward>"
    system.create_network(f"<network><name>lan</name>{pool}</network>")
    domain = system.create_domain(domain_xml(home, interface("0a")))
    assert "macvtap0" in links()
    with pytest.raises(VirtError, match="requires exclusive access to interfaces, but none are available"):
        system.create_domain(domain_xml(home, interface("0b"), name="second"))
    domain.destroy()
    assert links() == before


def test_a_kill_at_any_step_of_a_start_leaves_nothing(system: Connection, home: Path) -> None:
    from hostel.drivers.link import tap
    from hostel.drivers.qemu import launch, wiring

    system.define_network(NETWORK).start()
    subprocess.run(["ip", "link", "add", "uplink", "type", "veth", "peer", "name", "far"], check=True)
    direct = "<interface type='direct'><source dev='uplink' mode='bridge'/><model type='virtio'/></interface>"
    domain = system.define_domain(domain_xml(home, interface("0a"), direct))
    before = links()
    files = tuple(Path(str(module.__file__)) for module in (wiring, tap, launch))
    step = 30
    while killed_at(step, files, domain.start):
        if domain.is_active:
            domain.destroy()
        assert links() == before, step
        assert ports(home) == 0, step
        step += 17
    assert step > 100
    domain.destroy()
    assert links() == before


def test_a_kill_while_an_interface_is_plugged_in_leaves_it_whole_or_nothing(system: Connection, home: Path) -> None:
    from hostel.drivers.link import tap
    from hostel.drivers.qemu import wiring
    from hostel.drivers.qemu.plug import inward

    system.define_network(NETWORK).start()
    domain = system.create_domain(domain_xml(home, machine="pc"))
    hypervisor: Any = system.hypervisor
    ref = hypervisor.domain_lookup_by_name(domain.name)
    files = tuple(Path(str(module.__file__)) for module in (wiring, tap, inward))

    def attach() -> None:
        hypervisor.domain_attach_device_flags(ref, interface("0a"), Affect.LIVE)

    step, outcomes = 10, set()
    while killed_at(step, files, attach):
        hypervisor.domain_get_state(ref)  # whoever comes next puts it right
        is_in = "<interface" in domain.xml()
        outcomes.add(is_in)
        assert ("vnet0" in links()) is is_in, step
        assert ports(home) == is_in, step
        if is_in:  # the guest does not listen, so that it cannot be taken out again
            domain.destroy()
            assert links() == {"lo", "hbr0"}
            domain = system.create_domain(domain_xml(home, machine="pc"))
            ref = hypervisor.domain_lookup_by_name(domain.name)
        step += 13
    assert outcomes == {False, True}


def test_the_first_guest_starts_the_network_that_is_there_from_the_beginning(system: Connection, home: Path) -> None:
    default = system.find_network("default")
    active = [default.is_active]
    guest = domain_xml(home, "<interface type='network'><source network='default'/></interface>")
    system.create_domain(guest).destroy()
    active.append(default.is_active)
    assert active == [False, True]
    default.destroy()  # and who has stopped it wants it to be stopped
    with pytest.raises(VirtError, match="network 'default' is not active; start it with net-start"):
        system.create_domain(guest)
    assert "virbr0" not in links()


@pytest.mark.parametrize(
    ("device", "words"),
    [("<interface type='network'><source network='lan'/></interface>", "network 'lan' is not active"),
     ("<interface type='bridge'><source bridge='nowhere'/></interface>", "Unable to add bridge nowhere"),
     ("<interface type='bridge'><source bridge='lo'/><backend tap='/dev/no-tun'/></interface>",
      "Unable to create tap device vnet%d: .*No such file or directory"),
     ("<interface type='direct'><source dev='nowhere'/></interface>", "Unable to get index for interface nowhere")],
)  # fmt: skip
def test_what_is_not_there_is_said_and_nothing_is_left(system: Connection, home: Path, device: str, words: str) -> None:
    system.define_network(NETWORK)
    before = links()
    with pytest.raises(VirtError, match=words):
        system.create_domain(domain_xml(home, device))
    assert links() == before
    assert system.domains() == []

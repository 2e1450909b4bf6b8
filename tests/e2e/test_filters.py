"""Filters of guests' interfaces: in force while the guest has the interface, and not a rule longer."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import hostel
from hostel.drivers import tool
from hostel.drivers.base import DomainState
from hostel.drivers.base.device import DeviceDriver
from hostel.drivers.base.domain import Affect
from hostel.drivers.store import Directories
from hostel.errors import VirtError
from hostel.objects import Connection
from support import netns
from support.kill_step import killed_at
from support.linux import Linux
from support.session import domain_xml, log_of, session

pytestmark = [
    pytest.mark.qemu,
    *(pytest.mark.requires_tool(name) for name in ("ip", "ebtables", "iptables")),
    pytest.mark.skipif(os.geteuid() != 0, reason="rules are set by root"),
]
NETWORK = """<network><name>lan</name><bridge name='hbr0' stp='off'/>
<ip address='192.168.77.1' prefix='24'><dhcp><range start='192.168.77.20' end='192.168.77.40'/>
<host mac='52:54:00:00:00:0a' ip='192.168.77.10'/></dhcp></ip></network>"""
# Gets an address, and sends from it and from another one.
SCRIPT = """
ip link set lo up
ip link set eth0 up
cat > /take <<'END'
#!/bin/sh
[ "$1" = bound ] || exit 0
ip address add $ip/$mask dev $interface
END
chmod 755 /take
udhcpc -i eth0 -n -q -f -t 30 -T 1 -s /take
until ping -c 1 -W 1 192.168.77.1 >/dev/null; do :; done
echo "its own passes"
ip address add 192.168.77.99/24 dev eth0
ping -c 3 -W 1 -I 192.168.77.99 192.168.77.1 >/dev/null || echo "another's is kept"
echo "the end"
while :; do sleep 1; done
"""
IP = "<parameter name='IP' value='10.0.0.2'/>"


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hostel-filter-") as path:
        yield Path(path)


@pytest.fixture
def system(home: Path) -> Iterator[Connection]:
    with netns.alone():
        subprocess.run(["ip", "link", "add", "br7", "type", "bridge"], check=True)
        with hostel.open("qemu:///system", Directories.under(home)) as connection:
            try:
                yield connection
            finally:
                for domain in connection.domains(active=True):
                    domain.destroy()
                for network in connection.networks(active=True):
                    network.destroy()


def interface(mac: str, parameters: str = IP, filter: str = "clean-traffic") -> str:
    return (
        f"<interface type='bridge'><mac address='52:54:00:00:00:{mac}'/><source bridge='br7'/><model type='virtio'/>"
        f"<filterref filter='{filter}'>{parameters}</filterref></interface>"
    )


def rules() -> str:
    return subprocess.run(["ebtables", "-t", "nat", "-L"], capture_output=True, text=True, check=True).stdout


def bindings(home: Path) -> list[str]:
    return sorted(path.stem for path in (home / "run/nwfilter").glob("*.xml"))


def test_a_filter_is_in_force_while_the_guest_has_the_interface(system: Connection, home: Path) -> None:
    before = rules()
    domain = system.create_domain(domain_xml(home, interface("0a")))
    assert "--arp-ip-src 10.0.0.2" in rules()
    assert bindings(home) == ["vnet0"]
    hypervisor = system.hypervisor
    assert isinstance(hypervisor, DeviceDriver)
    ref = hypervisor.domain_lookup_by_name("guest")
    hypervisor.domain_attach_device_flags(ref, interface("0b", IP.replace("0.2", "0.3")), Affect.LIVE)
    assert "--arp-ip-src 10.0.0.3" in rules()
    assert bindings(home) == ["vnet0", "vnet1"]
    with pytest.raises(VirtError, match="referenced filter 'nothing' is missing"):
        hypervisor.domain_attach_device_flags(ref, interface("0c", filter="nothing"), Affect.LIVE)
    assert bindings(home) == ["vnet0", "vnet1"]
    domain.destroy()
    assert rules() == before
    assert bindings(home) == []


def test_a_filter_is_changed_while_the_guest_runs(system: Connection, home: Path) -> None:
    before = rules()
    domain = system.create_domain(domain_xml(home, interface("0a")))
    hypervisor = system.hypervisor
    assert isinstance(hypervisor, DeviceDriver)
    ref = hypervisor.domain_lookup_by_name("guest")

    def change(xml: str) -> None:
        hypervisor.domain_update_device_flags(ref, xml, Affect.LIVE)

    change(interface("0a", IP.replace("0.2", "0.7")))
    changed = rules()
    assert "--arp-ip-src 10.0.0.7" in changed
    assert "10.0.0.2" not in changed
    with pytest.raises(VirtError, match="referenced filter 'nothing' is missing"):
        change(interface("0a", filter="nothing"))
    assert rules() == changed
    assert "value='10.0.0.7'" in hypervisor.domain_get_xml_desc(ref)
    change(interface("0a").replace(f"<filterref filter='clean-traffic'>{IP}</filterref>", ""))
    assert rules() == before
    assert "filterref" not in hypervisor.domain_get_xml_desc(ref)
    change(interface("0a", ""))
    assert "-p ARP -j ACCEPT" in rules()  # its address is being learned
    domain.destroy()
    assert rules() == before


def test_rules_that_cannot_be_listed_are_not_taken_for_none(
    system: Connection, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, counted = rules(), home / "calls"
    program = home / "bin/ebtables"
    program.parent.mkdir()
    real = tool.find("ebtables")
    count = f"echo >> {counted}; [ $(wc -l < {counted}) != $FAILS ] || {{ echo busy >&2; exit 255; }}"
    program.write_text(f'#!/bin/sh\ncase "$*" in *-L*) {count};; esac\nexec {real} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    domain = system.define_domain(domain_xml(home, interface("0a")))
    for number in range(1, 20):
        counted.write_text("")
        monkeypatch.setenv("FAILS", str(number))
        try:
            domain.start()
        except VirtError as error:
            assert "busy" in error.message
        is_over = len(counted.read_text()) < number
        monkeypatch.setenv("FAILS", "0")
        if is_over:
            break
        if domain.is_active:
            assert "libvirt-I-vnet" in rules(), number
            domain.destroy()
        else:
            domain.start()  # with what the one before has left
            domain.destroy()
        assert rules() == before, number
    assert number > 3
    assert "libvirt-I-vnet" in rules()


def test_an_emulator_that_is_killed_leaves_no_rules(system: Connection, home: Path) -> None:
    before = rules()
    domain = system.define_domain(domain_xml(home, interface("0a", "")))
    domain.start()
    assert "-p ARP -j ACCEPT" in rules()  # its address is being learned
    os.kill(int(next((home / "run/qemu/run").glob("*/pid")).read_text()), signal.SIGKILL)
    domain.wait(DomainState.SHUTOFF, 10)
    assert rules() == before
    assert bindings(home) == []


def test_a_kill_at_any_step_of_a_start_leaves_no_rules(system: Connection, home: Path) -> None:
    from hostel.drivers.nwfilter import firewall
    from hostel.drivers.nwfilter import system as filters
    from hostel.drivers.qemu import wiring

    domain = system.define_domain(domain_xml(home, interface("0a", filter="no-mac-spoofing")))
    before = rules()
    files = tuple(Path(str(module.__file__)) for module in (filters, firewall, wiring))
    step = 40
    while killed_at(step, files, domain.start):
        if domain.is_active:
            domain.destroy()
        assert rules() == before, step
        assert bindings(home) == [], step
        step += 97
    assert step > 200
    assert "52:54:00:00:00:0a" in rules()


@pytest.mark.slow
@pytest.mark.requires_tool("dnsmasq")
@pytest.mark.requires_tool("nft")
@pytest.mark.requires_tool("busybox")
@pytest.mark.requires_tool("dpkg-deb")
def test_a_linux_is_held_to_the_address_that_dhcp_gives_it(system: Connection, home: Path) -> None:
    home.chmod(0o755)  # where dnsmasq may look
    system.define_network(NETWORK).start()
    linux = Linux(home)
    (home / "initrd").write_bytes(linux.initramfs(SCRIPT, {}, ("virtio_net", "af_packet")))
    append = "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check tsc=reliable"
    kernel = f"<kernel>{linux.kernel.image}</kernel><initrd>{home / 'initrd'}</initrd><cmdline>{append}</cmdline>"
    learning = "<parameter name='CTRL_IP_LEARNING' value='dhcp'/>"
    device = interface("0a", learning).replace("'bridge'", "'network'").replace("bridge='br7'", "network='lan'")
    domain = system.create_domain(domain_xml(home, device, system=kernel).replace("'MiB'>32<", "'MiB'>192<"))
    log, deadline = log_of(home), time.monotonic() + 90
    while "the end" not in (said := log.read_text(errors="replace")):
        assert time.monotonic() < deadline, said
        time.sleep(0.1)
    assert "its own passes" in said
    assert "another's is kept" in said
    assert "--arp-ip-src 192.168.77.10" in rules()
    domain.destroy()
    assert "192.168.77" not in rules()


@pytest.mark.parametrize(
    ("device", "words"),
    [(interface("0a", filter="nothing"), "referenced filter 'nothing' is missing"),
     (interface("0a", "<parameter name='CTRL_IP_LEARNING' value='none'/>"), "unresolvable variables.*IP"),
     ("<interface type='user'><filterref filter='clean-traffic'/></interface>", "not supported for .* of type user")],
)  # fmt: skip
def test_a_guest_does_not_start_without_its_filter(system: Connection, home: Path, device: str, words: str) -> None:
    before = rules()
    with pytest.raises(VirtError, match=words):
        system.create_domain(domain_xml(home, device))
    assert rules() == before
    assert bindings(home) == []
    assert system.domains() == []


def test_a_session_refuses_what_it_cannot_enforce(home: Path) -> None:
    with session(home) as connection, pytest.raises(VirtError, match="run the machine on qemu:///system"):
        connection.create_domain(domain_xml(home, interface("0a")))

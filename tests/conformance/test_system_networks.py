"""Networks that are made for real: a bridge, dnsmasq and nftables, in a network namespace of the test's own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hostel import libvirt
from hostel.drivers import tool
from hostel.drivers.base import NetworkRef
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.network import NetworkPortRef
from hostel.drivers.network import functions, host, server, system
from hostel.drivers.network.system import SystemNetworkDriver
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, VirtError
from hostel.model.network_update import Command, Section
from support import netns
from support.kill_step import killed_at
from support.netns import Party

pytestmark = [
    pytest.mark.requires_tool("nft"),
    pytest.mark.requires_tool("dnsmasq"),
    pytest.mark.requires_tool("ip"),
    pytest.mark.requires_tool("busybox"),
    pytest.mark.skipif(os.geteuid() != 0, reason="a bridge is made by root"),
]
GUEST = "52:54:00:00:00:0a"
PORT = """<networkport><uuid>00000000-0000-4000-8000-000000000001</uuid><owner><name>g</name>
<uuid>00000000-0000-4000-8000-000000000009</uuid></owner><mac address='52:54:00:00:00:01'/></networkport>"""
NAT = """<network xmlns:dnsmasq='http://libvirt.org/schemas/network/dnsmasq/1.0'><name>lan</name>
<forward mode='nat'><nat><port start='40000' end='40009'/></nat></forward>
<bridge name='hbr0' stp='off'/><domain name='lan.test' localOnly='yes'/>
<dns><txt name='note' value='a text'/><srv service='s' protocol='tcp' domain='lan.test' target='one' port='5'/>
<host ip='192.168.77.9'><hostname>printer</hostname></host></dns>
<ip address='192.168.77.1' prefix='24'><dhcp><range start='192.168.77.20' end='192.168.77.40'/></dhcp></ip>
<dnsmasq:options><dnsmasq:option value='no-ping'/></dnsmasq:options></network>"""


# Says when it listens, and then who came.
LISTEN = """exec python3 -c '
import socket
with socket.create_server(("198.51.100.2", 7)) as server:
    print(flush=True)
    print(*server.accept()[1])
'"""


@pytest.fixture
def namespace() -> Iterator[None]:
    with netns.alone():
        yield


@pytest.fixture
def home() -> Iterator[Path]:
    # pytest's own folders are closed, and dnsmasq is not root.
    with tempfile.TemporaryDirectory(prefix="hostel-net-") as path:
        Path(path).chmod(0o755)
        yield Path(path)


@pytest.fixture
def driver(namespace: None, home: Path) -> Iterator[SystemNetworkDriver]:
    found = SystemNetworkDriver(Directories.under(home))
    yield found
    for network in found.connect_list_all_networks():
        if found.network_is_active(network):
            found.network_destroy(network)


@pytest.fixture
def outside(namespace: None) -> Iterator[Party]:
    party = Party("uplink")
    subprocess.run(["ip", "address", "add", "198.51.100.1/24", "dev", "uplink"], check=True)
    party.run("ip address add 198.51.100.2/24 dev eth0")
    yield party
    party.close()


@pytest.fixture
def parties() -> Iterator[list[Party]]:
    found: list[Party] = []
    yield found
    for party in found:
        party.close()


def links() -> list[str]:
    return [link["ifname"] for link in json.loads(output("ip", "-json", "link"))]


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def servers(home: Path) -> list[int]:
    """The processes of dnsmasq that run with files of ours."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"dnsmasq" in (command := path.read_bytes()) and os.fsencode(home) in command:
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def left(home: Path) -> dict[str, Any]:
    """What of networks is on the host."""
    files = sorted(
        path.name for path in (home / "run/network").rglob("*") if path.suffix in (".xml", ".changing", ".conf", ".pid")
    )
    return {"links": links(), "rules": output("nft", "list", "ruleset"), "servers": servers(home), "files": files}


NOTHING = {"links": ["lo"], "rules": "", "servers": [], "files": []}


def test_guests_of_a_network_get_addresses_names_and_the_world(
    driver: SystemNetworkDriver, outside: Party, home: Path, parties: list[Party]
) -> None:
    network = driver.network_create_xml(NAT)
    parties.append(one := Party("cable1", mac=GUEST, bridge="hbr0"))
    parties.append(two := Party("cable2", bridge="hbr0"))
    address, router, names = one.lease(home, name="one")
    assert (router, names) == ("192.168.77.1", "192.168.77.1")
    two.lease(home, name="two")
    assert one.reaches("198.51.100.2")
    assert two.reaches(address)
    assert not outside.reaches(address)  # nobody routes there
    outside.run("ip route add 192.168.77.0/24 via 198.51.100.1")
    assert not outside.reaches(address)  # and nobody would be let in
    listening = subprocess.Popen(outside.command(LISTEN), stdout=subprocess.PIPE, text=True)
    assert listening.stdout is not None
    listening.stdout.readline()
    one.run("busybox nc -w 2 198.51.100.2 7 < /dev/null")
    seen, port = listening.communicate(timeout=60)[0].split()
    assert seen == "198.51.100.1"
    assert 40000 <= int(port) <= 40009
    lease = {found.mac: found for found in driver.network_get_dhcp_leases(network)}[GUEST]
    assert (lease.address, lease.prefix, lease.hostname, lease.interface) == (address, 24, "one", "hbr0")
    assert time.time() < lease.expiry < time.time() + 7200
    assert driver.network_get_dhcp_leases(network, GUEST.upper()) == [lease]
    assert address in one.run("busybox nslookup two.lan.test 192.168.77.1; busybox nslookup one.lan.test 192.168.77.1")
    assert "192.168.77.9" in one.run("busybox nslookup printer.lan.test 192.168.77.1")


@pytest.mark.requires_tool("iptables")
@pytest.mark.parametrize("chain", ["DOCKER-USER", "FORWARD"])
def test_guests_reach_the_world_beside_a_policy_that_drops(
    driver: SystemNetworkDriver, outside: Party, home: Path, parties: list[Party], chain: str
) -> None:
    network = driver.network_create_xml(NAT)
    subprocess.run(["iptables", "-P", "FORWARD", "DROP"], check=True)
    if chain != "FORWARD":  # as Docker does, which may come later
        subprocess.run(["iptables", "-N", chain], check=True)
        subprocess.run(["iptables", "-A", "FORWARD", "-j", chain], check=True)
    before = output("iptables", "-S")
    parties.append(one := Party("cable1", mac=GUEST, bridge="hbr0"))
    address, _, _ = one.lease(home, name="one")
    assert not one.reaches("198.51.100.2")
    for _ in range(2):  # as the first guest of the network does, and the next
        port = driver.network_port_create_xml(network, PORT)
        driver.network_port_delete(port)
        assert one.reaches("198.51.100.2")
    outside.run("ip route add 192.168.77.0/24 via 198.51.100.1")
    assert not outside.reaches(address)
    assert output("iptables", "-S", chain).count("hbr0") == 2
    driver.network_destroy(network)
    assert output("iptables", "-S") == before
    network = driver.network_create_xml(NAT)
    assert output("iptables", "-S", chain).count("hbr0") == 2


def test_a_stop_leaves_nothing_of_ours_and_all_of_others(driver: SystemNetworkDriver, home: Path) -> None:
    foreign = (
        "table inet foreign {\n\tchain c {\n\t\ttype filter hook forward priority filter; policy accept;\n\t}\n}\n"
    )
    subprocess.run(["nft", "-f", "-"], input=foreign, text=True, check=True)
    first = driver.network_create_xml(NAT)
    second = driver.network_create_xml("<network><name>other</name><ip address='10.9.0.1' prefix='24'/></network>")
    assert output("nft", "list", "table", "inet", "foreign") == foreign
    both = output("nft", "list", "table", "ip", "hostel")
    subprocess.run(["nft", "flush", "table", "inet", "foreign"], check=True)
    assert output("nft", "list", "table", "ip", "hostel") == both
    driver.network_destroy(first)
    rules = output("nft", "list", "table", "ip", "hostel")
    assert "hbr0" not in rules
    assert "virbr1" in rules
    driver.network_destroy(second)
    assert left(home) == {**NOTHING, "rules": foreign}
    with pytest.raises(VirtError) as caught:
        driver.network_is_active(first)
    assert caught.value.code == ErrorCode.NO_NETWORK


def test_a_change_takes_effect_in_the_dnsmasq_that_runs(
    driver: SystemNetworkDriver, home: Path, parties: list[Party]
) -> None:
    network = driver.network_create_xml(NAT)
    (pid,) = servers(home)
    parties.append(one := Party("cable1", mac=GUEST, bridge="hbr0"))

    def update(section: Section, xml: str, command: Command = Command.ADD_LAST) -> None:
        driver.network_update(network, command.value, section.value, -1, xml, Affect.LIVE)

    update(Section.IP_DHCP_HOST, f"<host mac='{GUEST}' ip='192.168.77.99' name='fixed'/>")
    update(Section.DNS_HOST, "<host ip='192.168.77.8'><hostname>late</hostname></host>")
    assert servers(home) == [pid]
    time.sleep(0.2)
    assert one.lease(home)[0] == "192.168.77.99"
    assert "192.168.77.8" in one.run("busybox nslookup late.lan.test 192.168.77.1")
    update(Section.DNS_TXT, "<txt name='more' value='words'/>")
    assert servers(home) not in ([], [pid])  # its configuration is read only once
    assert "192.168.77.8" in one.run("busybox nslookup late.lan.test 192.168.77.1")


def test_an_isolated_network_stays_so_and_a_routed_one_is_reached(
    driver: SystemNetworkDriver, outside: Party, home: Path, parties: list[Party]
) -> None:
    driver.network_create_xml(
        "<network><name>a</name><bridge name='abr' stp='off'/><ip address='10.9.0.1' prefix='24'/></network>"
    )
    driver.network_create_xml(
        "<network><name>r</name><forward mode='route'/><bridge name='rbr' stp='off'/>"
        "<ip address='10.9.1.1' prefix='24'/>"
        "<route address='10.9.2.0' prefix='24' gateway='10.9.1.5' metric='7'/></network>"
    )
    parties.append(inside := Party("cable1", bridge="abr"))
    parties.append(routed := Party("cable2", bridge="rbr"))
    inside.run("ip address add 10.9.0.2/24 dev eth0; ip route add default via 10.9.0.1")
    routed.run("ip address add 10.9.1.2/24 dev eth0; ip route add default via 10.9.1.1")
    outside.run("ip route add 10.9.0.0/16 via 198.51.100.1")
    assert inside.reaches("10.9.0.1")
    assert not inside.reaches("198.51.100.2")
    assert not inside.reaches("10.9.1.2")
    assert routed.reaches("198.51.100.2")
    assert outside.reaches("10.9.1.2")
    assert not outside.reaches("10.9.0.2")
    assert "10.9.2.0/24 via 10.9.1.5 dev rbr proto static metric 7" in output("ip", "route")


def test_ipv6_is_served_and_translated(driver: SystemNetworkDriver, outside: Party, parties: list[Party]) -> None:
    subprocess.run(["ip", "address", "add", "2001:db8::1/64", "dev", "uplink", "nodad"], check=True)
    outside.run("ip address add 2001:db8::2/64 dev eth0 nodad")
    driver.network_create_xml(
        "<network><name>six</name><forward mode='nat'><nat ipv6='yes'/></forward><bridge name='sbr' stp='off'/>"
        "<ip family='ipv6' address='fd00:77::1' prefix='64'/></network>"
    )
    parties.append(one := Party("cable1", bridge="sbr"))
    deadline = time.monotonic() + 60
    while "fd00:77::" not in one.run("ip -6 address show dev eth0; ip -6 route"):  # by a router's advertisement
        assert time.monotonic() < deadline
        time.sleep(0.1)
    while not one.reaches("2001:db8::2"):
        assert time.monotonic() < deadline


def test_a_bridge_is_as_the_document_says(driver: SystemNetworkDriver) -> None:
    driver.network_create_xml(
        "<network><name>b</name><bridge name='bbr' stp='off' delay='3'/><mtu size='1400'/>"
        "<mac address='52:54:00:11:22:33'/><ip address='10.9.0.1' prefix='24'/><ip address='10.9.1.1' prefix='24'/>"
        "<bandwidth><inbound average='1000' peak='2000' burst='64'/><outbound average='500'/></bandwidth></network>"
    )
    (found,) = json.loads(output("ip", "-json", "-details", "address", "show", "dev", "bbr"))
    assert (found["mtu"], found["address"]) == (1400, "52:54:00:11:22:33")
    data = found["linkinfo"]["info_data"]
    assert (data["stp_state"], data["forward_delay"]) == (0, 300)
    assert [item["local"] for item in found["addr_info"]] == ["10.9.0.1", "10.9.1.1"]
    assert Path("/proc/sys/net/ipv6/conf/bbr/disable_ipv6").read_text() == "1\n"
    classes = output("tc", "class", "show", "dev", "bbr")
    assert "rate 8Mbit ceil 16Mbit" in classes
    assert "limit rate over 500 kbytes/second" in output("nft", "list", "table", "netdev", "hostel_bbr")


def test_a_guest_has_the_rate_that_it_is_promised(driver: SystemNetworkDriver, parties: list[Party]) -> None:
    network = driver.network_create_xml(
        "<network><name>b</name><bridge name='bbr' stp='off'/><ip address='10.9.0.1' prefix='24'/>"
        "<bandwidth><inbound average='1000' peak='2000'/></bandwidth></network>"
    )
    uuid = "d6fc0c9f-8a0c-4b0f-8b57-0c5f3ffe3d1{}"
    ports = [
        driver.network_port_create_xml(
            network,
            f"<networkport><uuid>{uuid.format(number)}</uuid><owner><name>g</name><uuid>{uuid.format(9)}</uuid></owner>"
            f"<mac address='52:54:00:00:00:0{number}'/><bandwidth><inbound average='500' floor='{floor}'/></bandwidth>"
            "</networkport>",
        )
        for number, floor in ((1, 600), (2, 800))
    ]

    def rates() -> dict[str, str]:
        lines = (line.split() for line in output("tc", "class", "show", "dev", "bbr").splitlines())
        return {line[2]: line[line.index("rate") + 1] for line in lines}

    assert rates() == {"1:1": "8Mbit", "1:2": "4800Kbit", "1:3": "4800Kbit", "1:4": "6400Kbit"}
    parties.append(one := Party("cable1", mac="52:54:00:00:00:01", bridge="bbr"))
    one.run("ip address add 10.9.0.2/24 dev eth0")
    assert one.reaches("10.9.0.1")
    sent = re.findall(r"class htb (\S+) .*\n Sent (\d+) bytes", output("tc", "-s", "class", "show", "dev", "bbr"))
    assert int(dict(sent)["1:3"]) > 0  # by the hardware address that a packet is for
    assert int(dict(sent)["1:4"]) == 0
    driver.network_port_set_parameters(ports[0], {"inbound.average": 500, "inbound.floor": 100})
    assert rates() == {"1:1": "8Mbit", "1:2": "8800Kbit", "1:3": "800Kbit", "1:4": "6400Kbit"}
    with pytest.raises(VirtError, match="would overcommit peak=2000"):
        driver.network_port_set_parameters(ports[0], {"inbound.average": 500, "inbound.floor": 1300})
    for port in ports:
        driver.network_port_delete(port)
    assert rates() == {"1:1": "8Mbit", "1:2": "16Mbit"}
    assert "match" not in output("tc", "filter", "show", "dev", "bbr")


@pytest.mark.parametrize(
    ("document", "words"),
    [("<bridge name='taken'/><ip address='10.9.0.1' prefix='24'/>", "the host has an interface of this name"),
     ("<bridge name='b*'/><ip address='10.9.0.1' prefix='24'/>", "cannot be written into rules"),
     ("<ip address='198.51.100.9' prefix='24'/>", "Network is already in use by interface uplink"),
     ("<ip address='10.9.0.1' prefix='24'/><route address='198.51.100.0' prefix='24' gateway='10.9.0.2'/>",
      "Route address '198.51.100.0' conflicts with IP address for 'uplink'")],
)  # fmt: skip
def test_what_the_host_has_is_not_taken(
    driver: SystemNetworkDriver, outside: Party, home: Path, document: str, words: str
) -> None:
    subprocess.run(["ip", "link", "add", "taken", "type", "bridge"], check=True)
    before = left(home)
    with pytest.raises(VirtError) as caught:
        driver.network_create_xml(f"<network><name>n</name>{document}</network>")
    assert words in str(caught.value)
    assert left(home) == before


def test_what_dnsmasq_does_not_take_is_said_in_its_words(driver: SystemNetworkDriver, home: Path) -> None:
    with pytest.raises(VirtError) as caught:
        driver.network_create_xml(
            "<network xmlns:dnsmasq='http://libvirt.org/schemas/network/dnsmasq/1.0'><name>n</name>"
            "<ip address='10.9.0.1' prefix='24'/>"
            "<dnsmasq:options><dnsmasq:option value='nonsense'/></dnsmasq:options></network>"
        )
    assert "bad option at line" in str(caught.value)
    assert left(home) == NOTHING


@pytest.mark.parametrize("name", ["nft", "dnsmasq"])
def test_what_is_not_installed_is_named_by_its_package(
    driver: SystemNetworkDriver, home: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    network = driver.network_create_xml(NAT)
    before = left(home)
    find = tool.find
    monkeypatch.setattr(tool, "find", lambda wanted: None if wanted == name else find(wanted))
    package = {"nft": "nftables", "dnsmasq": "dnsmasq-base"}[name]
    with pytest.raises(VirtError, match=f"install the package {package}"):
        driver.network_create_xml("<network><name>other</name><ip address='10.9.0.1' prefix='24'/></network>")
    if name == "dnsmasq":
        # The one that runs goes on with what it has.
        with pytest.raises(VirtError, match=f"install the package {package}"):
            driver.network_update(
                network, Command.ADD_LAST.value, Section.DNS_TXT.value, -1, "<txt name='a' value='b'/>", Affect.LIVE
            )
        assert "name='a'" not in driver.network_get_xml_desc(network)
    assert left(home) == before
    monkeypatch.undo()


def test_a_guest_that_is_plugged_in_finds_what_it_relies_on(driver: SystemNetworkDriver, home: Path) -> None:
    network = driver.network_create_xml(NAT)
    (pid,) = servers(home)
    os.kill(pid, signal.SIGKILL)
    while Path(f"/proc/{pid}").exists():  # it has its sockets as long
        time.sleep(0.01)
    uuid = "d6fc0c9f-8a0c-4b0f-8b57-0c5f3ffe3d11"
    owner = f"<owner><name>g</name><uuid>{uuid}</uuid></owner><mac address='{GUEST}'/>"
    driver.network_port_create_xml(network, f"<networkport><uuid>{uuid}</uuid>{owner}</networkport>")
    assert servers(home)


def test_a_guest_gets_a_card_that_no_other_has(
    driver: SystemNetworkDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(functions, "_PCI", tmp_path)
    for number in (0, 2):
        (tmp_path / f"0000:03:10.{number}/physfn").mkdir(parents=True)
    places = "".join(f"<address type='pci' domain='0' bus='3' slot='0x10' function='{number}'/>" for number in (0, 2))
    pool = f"<network><name>p</name><forward mode='hostdev' managed='yes'>{places}</forward><vlan><tag id='7'/></vlan>"
    network = driver.network_create_xml(f"{pool}</network>")
    uuid = "d6fc0c9f-8a0c-4b0f-8b57-0c5f3ffe3d1{}"

    def plug(number: int, more: str = "") -> NetworkPortRef:
        owner = f"<owner><name>g</name><uuid>{uuid.format(9)}</uuid></owner><mac address='{GUEST}'/>{more}"
        return driver.network_port_create_xml(
            network, f"<networkport><uuid>{uuid.format(number)}</uuid>{owner}</networkport>"
        )

    first, second = plug(1), plug(2)
    for port, function in ((first, 0), (second, 2)):
        document = driver.network_port_get_xml_desc(port)
        assert "<plug type='hostdev-pci' managed='yes'>" in document and "<tag id='7'/>" in document
        assert f"<address domain='0x0000' bus='0x03' slot='0x10' function='0x{function}'/>" in document
    with pytest.raises(VirtError, match="network 'p' requires exclusive access to interfaces, but none are available"):
        plug(3)
    driver.network_port_delete(first)
    why = "<virtualport type='openvswitch'> not supported for network 'p' which uses an SR-IOV Virtual Function"
    with pytest.raises(VirtError, match=why):
        plug(3, "<virtualport type='openvswitch'/>")
    assert "function='0x0'" in driver.network_port_get_xml_desc(plug(3))
    pool = "<forward mode='hostdev' managed='yes'><pf dev='none'/></forward>"
    with pytest.raises(VirtError, match="No usable Vf's present on SRIOV PF none"):
        driver.network_create_xml(f"<network><name>q</name>{pool}</network>")


def test_libvirts_module_knows_ports_and_leases(
    driver: SystemNetworkDriver, home: Path, parties: list[Party], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSTEL_HOME", str(home))
    connection: Any = libvirt.open("qemu:///system")
    network = connection.networkCreateXML(NAT)
    parties.append(one := Party("cable1", mac=GUEST, bridge="hbr0"))
    address = one.lease(home, name="one")[0]
    (lease,) = network.DHCPLeases()
    assert (lease["ipaddr"], lease["mac"], lease["hostname"], lease["type"]) == (address, GUEST, "one", 0)
    uuid = "d6fc0c9f-8a0c-4b0f-8b57-0c5f3ffe3d11"
    owner = f"<owner><name>g</name><uuid>{uuid}</uuid></owner><mac address='{GUEST}'/>"
    port = network.portCreateXML(f"<networkport><uuid>{uuid}</uuid>{owner}</networkport>", 0)
    assert [each.UUIDString() for each in network.listAllPorts()] == [uuid]
    port.setParameters({"inbound.average": 5})
    assert port.parameters()["inbound.average"] == 5
    assert "bridge='hbr0'" in network.portLookupByUUIDString(uuid).XMLDesc()
    port.delete()
    assert network.listAllPorts() == []


def test_default_is_there_and_waits_to_be_started(driver: SystemNetworkDriver) -> None:
    (network,) = driver.connect_list_all_networks()
    assert network.name == "default"
    assert driver.connect_autostart() == []
    driver.network_create(network)
    assert "192.168.122.1/24" in output("ip", "address", "show", "dev", "virbr0")
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == "1\n"


def test_who_comes_next_looks_after_what_is_up(driver: SystemNetworkDriver, home: Path) -> None:
    network = driver.network_create_xml(NAT)
    rules = output("nft", "list", "ruleset")
    (pid,) = servers(home)
    os.kill(pid, signal.SIGKILL)
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    while Path(f"/proc/{pid}").exists():
        time.sleep(0.01)
    again = SystemNetworkDriver(Directories.under(home))
    assert again.network_is_active(network)
    assert servers(home) not in ([], [pid])
    assert output("nft", "list", "ruleset") == rules
    subprocess.run(["ip", "link", "delete", "hbr0"], check=True)
    again = SystemNetworkDriver(Directories.under(home))
    assert again.connect_list_all_networks() == [NetworkRef("default", again.network_lookup_by_name("default").uuid)]
    assert left(home) == NOTHING


def test_another_bridge_of_the_same_name_is_left_alone(driver: SystemNetworkDriver, home: Path) -> None:
    network = driver.network_define_xml(NAT)
    driver.network_create(network)
    subprocess.run(["ip", "link", "delete", "hbr0"], check=True)
    subprocess.run(["ip", "link", "add", "hbr0", "type", "bridge"], check=True)
    again = SystemNetworkDriver(Directories.under(home))
    assert not again.network_is_active(network)
    assert left(home) == {**NOTHING, "links": ["lo", "hbr0"]}


@pytest.mark.parametrize("stops", [False, True], ids=["start", "stop"])
def test_a_kill_at_any_step_leaves_all_or_nothing(namespace: None, home: Path, stops: bool) -> None:
    files = tuple(Path(str(module.__file__)) for module in (system, server, host))
    directories = Directories.under(home)
    network = SystemNetworkDriver(directories).network_define_xml(NAT)

    def action() -> None:
        driver = SystemNetworkDriver(directories)
        (driver.network_destroy if stops else driver.network_create)(network)

    step = 8
    while True:
        driver = SystemNetworkDriver(directories)
        if stops and not driver.network_is_active(network):
            driver.network_create(network)
        if not killed_at(step, files, action):
            break
        driver = SystemNetworkDriver(directories)
        if driver.network_is_active(network):
            assert len(servers(home)) == 1
            assert "forward_hbr0" in output("nft", "list", "ruleset")
            driver.network_destroy(network)
        assert left(home) == NOTHING, step
        step += 17
    assert step > 50
    driver = SystemNetworkDriver(directories)
    if driver.network_is_active(network):
        driver.network_destroy(network)

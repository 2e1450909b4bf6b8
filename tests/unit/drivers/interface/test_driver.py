"""Interfaces of the host, from files of our own making."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostel.drivers.base.interface import InterfaceRef
from hostel.drivers.interface.driver import SysfsInterfaceDriver
from hostel.drivers.readonly import read_only
from hostel.errors import ErrorCode, VirtError
from hostel.model.interface import read_interface
from support.sysfs import Host

BOND = {
    "bonding__mode": "active-backup 1",
    "bonding__miimon": "100",
    "bonding__downdelay": "200",
    "bonding__updelay": "0",
    "bonding__use_carrier": "1",
    "bonding__arp_interval": "0",
    "bonding__arp_validate": "none 0",
}


def add(host: Host, name: str, kind: str = "", /, *, number: int, state: str = "up", **attributes: str) -> str:
    uevent = f"INTERFACE={name}\nIFINDEX={number}" + (f"\nDEVTYPE={kind}" if kind else "")
    return host.device(
        f"virtual/net/{name}",
        "class/net",
        uevent=uevent,
        address=f"52:54:00:00:00:{number:02x}",
        operstate=state,
        mtu="1500",
        **attributes,
    )


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host(tmp_path)
    add(host, "eth0", speed="1000", number=1)
    add(host, "eth1", state="down", speed="-1", number=2)
    bridge = add(host, "br0", "bridge", number=3, bridge__forward_delay="0", bridge__stp_state="1")
    add(host, "eth2", number=4, brport__state="3", speed="100")
    add(host, "vnet0", number=5, brport__state="3", tun_flags="0x1002")
    for member in ("eth2", "vnet0"):
        host.file(f"sys/devices/{bridge}/brif/{member}", b"")
    bond = add(host, "bond0", "bond", number=6, **BOND)
    add(host, "eth3", number=7, speed="10000")
    host.file(f"sys/devices/{bond}/slave_eth3", b"")
    add(host, "eth0.42", "vlan", number=8)
    host.file("proc/net/vlan/eth0.42", b"eth0.42  VID: 42\t REORDER_HDR: 1\nDevice: eth0\nINGRESS priority\n")
    add(host, "tap9", number=9, tun_flags="0x1002")
    host.file("sys/class/net/bonding_masters", b"bond0\n")
    return host


@pytest.fixture
def driver(host: Host) -> SysfsInterfaceDriver:
    return SysfsInterfaceDriver(host.root)


def document(driver: SysfsInterfaceDriver, name: str) -> str:
    return driver.interface_get_xml_desc(driver.interface_lookup_by_name(name))


def test_members_of_bridges_and_interfaces_of_machines_are_not_listed(driver: SysfsInterfaceDriver) -> None:
    assert [ref.name for ref in driver.connect_list_all_interfaces()] == [
        "bond0", "br0", "eth0", "eth0.42", "eth1", "eth3",
    ]  # fmt: skip


def test_only_a_link_that_is_up_is_active(driver: SysfsInterfaceDriver) -> None:
    active = {ref.name: driver.interface_is_active(ref) for ref in driver.connect_list_all_interfaces()}
    assert active.pop("eth1") is False
    assert all(active.values())


def test_an_ethernet_tells_its_link_and_its_address(driver: SysfsInterfaceDriver) -> None:
    assert document(driver, "eth0") == (
        "<interface type='ethernet' name='eth0'>\n"
        "  <mtu size='1500'/>\n"
        "  <link speed='1000' state='up'/>\n"
        "  <mac address='52:54:00:00:00:01'/>\n"
        "</interface>\n"
    )
    assert "<link state='down'/>" in document(driver, "eth1")


def test_a_bridge_tells_of_the_hosts_members_and_not_of_machines(driver: SysfsInterfaceDriver) -> None:
    assert document(driver, "br0") == (
        "<interface type='bridge' name='br0'>\n"
        "  <mtu size='1500'/>\n"
        "  <bridge stp='on' delay='0'>\n"
        "    <interface type='ethernet' name='eth2'>\n"
        "      <link speed='100' state='up'/>\n"
        "      <mac address='52:54:00:00:00:04'/>\n"
        "    </interface>\n"
        "  </bridge>\n"
        "</interface>\n"
    )


def test_a_bond_tells_how_it_watches_its_links(driver: SysfsInterfaceDriver) -> None:
    text = document(driver, "bond0")
    assert "<bond mode='active-backup'>\n    <miimon freq='100' downdelay='200' carrier='netif'/>" in text
    assert "<interface type='ethernet' name='eth3'>" in text


def test_a_bond_may_ask_for_an_address(tmp_path: Path) -> None:
    host = Host(tmp_path)
    asking = {"bonding__arp_interval": "50", "bonding__arp_validate": "all 3", "bonding__arp_ip_target": "192.0.2.1"}
    add(host, "bond1", "bond", number=1, state="up", **{**BOND, **asking})
    text = document(SysfsInterfaceDriver(tmp_path), "bond1")
    assert "<arpmon interval='50' target='192.0.2.1' validate='all'/>" in text


def test_a_vlan_tells_its_tag_and_what_it_is_on(driver: SysfsInterfaceDriver) -> None:
    text = document(driver, "eth0.42")
    assert "<vlan tag='42'>\n    <interface name='eth0'/>\n  </vlan>" in text


def test_every_document_is_read_again_as_it_is(driver: SysfsInterfaceDriver) -> None:
    for ref in driver.connect_list_all_interfaces():
        text = driver.interface_get_xml_desc(ref)
        assert read_interface(text).format() == text


def test_addresses_find_one_interface(host: Host, driver: SysfsInterfaceDriver) -> None:
    assert driver.interface_lookup_by_mac_string("52:54:00:00:00:01").name == "eth0"
    add(host, "eth9", number=1)
    with pytest.raises(VirtError, match="multiple matching interfaces found") as caught:
        driver.interface_lookup_by_mac_string("52:54:00:00:00:01")
    assert caught.value.code is ErrorCode.MULTIPLE_INTERFACES
    with pytest.raises(VirtError, match="couldn't find interface with MAC address"):
        driver.interface_lookup_by_mac_string("02:00:00:00:00:00")


@pytest.mark.parametrize("name", ["nothing", "..", "../../../etc", "bonding_masters", ""])
def test_what_is_no_interface_is_not_found(driver: SysfsInterfaceDriver, name: str) -> None:
    with pytest.raises(VirtError, match="Interface not found: couldn't find interface named") as caught:
        driver.interface_lookup_by_name(name)
    assert caught.value.code is ErrorCode.NO_INTERFACE


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("eth0.42", "nothing", "failed to find the VID"),
        ("br0", "", "Could not retrieve 'bridge/stp_state' for 'br0'"),
        ("bond0", "soon", "Could not parse 'bonding/miimon' 'soon' for 'bond0'"),
    ],
)
def test_what_the_kernel_does_not_say_is_an_error(
    host: Host, driver: SysfsInterfaceDriver, name: str, content: str, said: str
) -> None:
    place = {
        "eth0.42": "proc/net/vlan/eth0.42",
        "br0": "sys/devices/virtual/net/br0/bridge/stp_state",
        "bond0": "sys/devices/virtual/net/bond0/bonding/miimon",
    }[name]
    host.file(place, content.encode())
    with pytest.raises(VirtError, match=said):
        document(driver, name)


def test_nothing_is_changed(driver: SysfsInterfaceDriver) -> None:
    eth0 = InterfaceRef("eth0", "52:54:00:00:00:01")
    for change in (
        lambda: driver.interface_destroy(eth0),
        lambda: driver.interface_create(eth0),
        lambda: driver.interface_undefine(eth0),
        lambda: driver.interface_define_xml("<interface/>"),
        driver.interface_change_begin,
        driver.interface_change_commit,
        driver.interface_change_rollback,
    ):
        with pytest.raises(VirtError) as caught:
            change()
        assert caught.value.code is ErrorCode.NO_SUPPORT
    assert read_only(driver).interface_lookup_by_name("eth0") == eth0
    with pytest.raises(VirtError) as caught:
        read_only(driver).interface_destroy(eth0)
    assert caught.value.code is ErrorCode.OPERATION_DENIED

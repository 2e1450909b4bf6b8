"""Ports of networks: what guests are plugged into."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostel.drivers.base import NetworkRef
from hostel.drivers.base.network import PortCreateFlag
from hostel.drivers.network.driver import SessionNetworkDriver
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, VirtError
from hostel.model.network_port import NetworkPort

UUID = "d6fc0c9f-8a0c-4b0f-8b57-0c5f3ffe3d1{}"
PORT = """<networkport><uuid>{uuid}</uuid>
<owner><name>web</name><uuid>7fb1b3c8-0dd5-4d36-8e6c-9f9b3d2a4b11</uuid></owner>
<mac address='52:54:00:00:00:0{number}'/>{body}</networkport>"""


def port(number: int = 1, body: str = "") -> str:
    return PORT.format(uuid=UUID.format(number), number=number, body=body)


@pytest.fixture
def driver(tmp_path: Path) -> SessionNetworkDriver:
    interfaces = tmp_path / "interfaces"
    (interfaces / "br0").mkdir(parents=True)
    return SessionNetworkDriver(Directories.under(tmp_path), interfaces=interfaces)


def network(driver: SessionNetworkDriver, body: str) -> NetworkRef:
    return driver.network_create_xml(f"<network><name>lan</name>{body}</network>")


BRIDGED = "<forward mode='bridge'/><bridge name='br0'/>"
ISOLATED = "<bridge name='br0'/>"


def made(driver: SessionNetworkDriver, net: NetworkRef, xml: str) -> NetworkPort:
    return NetworkPort.parse(driver.network_port_get_xml_desc(driver.network_port_create_xml(net, xml)))


def test_a_port_says_what_a_guest_is_plugged_into(driver: SessionNetworkDriver) -> None:
    found = made(driver, network(driver, BRIDGED), port())
    assert found.plug is not None
    assert (found.plug.type, found.plug.bridge) == ("bridge", "br0")


def test_a_group_and_the_network_say_what_a_port_does_not(driver: SessionNetworkDriver) -> None:
    groups = (
        "<port isolated='yes'/>"
        "<portgroup name='a' default='yes'><bandwidth><inbound average='5'/></bandwidth></portgroup>"
        "<portgroup name='b'><bandwidth><inbound average='7'/></bandwidth></portgroup>"
    )
    net = network(driver, ISOLATED + groups)
    rates = []
    for number, body in enumerate(("", "<group>b</group>", "<bandwidth><inbound average='9'/></bandwidth>"), 1):
        found = made(driver, net, port(number, body))
        assert found.isolation is not None
        assert found.isolation.isolated
        assert found.bandwidth is not None
        assert found.bandwidth.inbound is not None
        rates.append(found.bandwidth.inbound.average)
    assert rates == [5, 7, 9]


def test_ports_are_counted_listed_and_removed(driver: SessionNetworkDriver) -> None:
    net = network(driver, ISOLATED)
    first, second = (driver.network_port_create_xml(net, port(number)) for number in (1, 2))
    assert "<network connections='2'>" in driver.network_get_xml_desc(net)
    driver.network_port_delete(first)
    assert driver.network_list_all_ports(net) == [second]
    assert driver.network_port_lookup_by_uuid(net, second.uuid) == second
    with pytest.raises(VirtError) as caught:
        driver.network_port_delete(first)
    assert caught.value.code == ErrorCode.NO_NETWORK_PORT


def test_ports_go_with_the_network(driver: SessionNetworkDriver) -> None:
    net = network(driver, ISOLATED)
    driver.network_port_create_xml(net, port())
    driver.network_destroy(net)
    with pytest.raises(VirtError):
        driver.network_list_all_ports(net)
    assert driver.network_list_all_ports(network(driver, ISOLATED)) == []


def test_rates_are_told_and_changed(driver: SessionNetworkDriver) -> None:
    made_port = driver.network_port_create_xml(network(driver, ISOLATED), port())
    assert driver.network_port_get_parameters(made_port) == {}
    driver.network_port_set_parameters(made_port, {"inbound.average": 5, "inbound.peak": 6, "outbound.average": 7})
    assert driver.network_port_get_parameters(made_port) == {
        "inbound.average": 5, "inbound.peak": 6, "inbound.floor": 0, "inbound.burst": 0,
        "outbound.average": 7, "outbound.peak": 0, "outbound.burst": 0,
    }  # fmt: skip


SWITCHED = f"{BRIDGED}<virtualport type='openvswitch'><parameters profileid='web'/></virtualport>"
KNOWN = f"<virtualport><parameters interfaceid='{UUID.format(9)}'/></virtualport>"
OTHER = "<virtualport type='openvswitch'><parameters profileid='other'/></virtualport>"


def test_a_virtual_port_is_what_interface_network_and_group_say_together(driver: SessionNetworkDriver) -> None:
    net = network(driver, SWITCHED + "<portgroup name='g'><vlan><tag id='5'/></vlan></portgroup>")
    found = made(driver, net, port(1, KNOWN + "<group>g</group>"))
    assert found.virtualport is not None
    assert found.virtualport.parameters is not None
    assert found.virtualport.type == "openvswitch"
    assert (found.virtualport.parameters.interfaceid, found.virtualport.parameters.profileid) == (UUID.format(9), "web")
    assert found.vlan is not None
    assert [tag.id for tag in found.vlan.tags] == [5]
    invented = made(driver, net, port(2)).virtualport
    assert invented is not None
    assert invented.parameters is not None
    assert invented.parameters.interfaceid not in (None, UUID.format(9))


FLOOR = "<bandwidth><inbound average='10' floor='{}'/></bandwidth>"


@pytest.mark.parametrize(
    ("body", "xml", "flags", "code", "words"),
    [(ISOLATED, port(body="<plug type='network' bridge='br0'/>"), 0, ErrorCode.INVALID_ARG, "not requested but plug"),
     (ISOLATED, port(), PortCreateFlag.RECLAIM, ErrorCode.INVALID_ARG, "requested but plug type is none"),
     (ISOLATED, port(body=FLOOR.format(5)), 0, ErrorCode.OPERATION_UNSUPPORTED, "has no inbound QoS set"),
     (BRIDGED, port(body=FLOOR.format(5)), 0, ErrorCode.OPERATION_UNSUPPORTED, "'floor' is only supported for"),
     (ISOLATED + "<bandwidth><inbound average='10'/></bandwidth>", port(body=FLOOR.format(11)), 0,
      ErrorCode.OPERATION_INVALID, "new combined inbound floor=11 would overcommit average=10"),
     (ISOLATED, port(body="<virtualport type='openvswitch'/>"), 0, ErrorCode.CONFIG_UNSUPPORTED,
      "<virtualport type='openvswitch'> not supported for network 'lan' which uses IP forwarding"),
     (BRIDGED, port(body="<virtualport type='802.1Qbh'/>"), 0, ErrorCode.CONFIG_UNSUPPORTED, "which uses a bridge dev"),
     (BRIDGED, port(body="<virtualport><parameters typeid='1'/></virtualport>"), 0, ErrorCode.CONFIG_UNSUPPORTED,
      "<virtualport type='none'> not supported for network 'lan' which uses a bridge device"),
     (SWITCHED, port(body=OTHER), 0, ErrorCode.XML_ERROR,
      "attempt to merge virtualports with mismatched profileids ('other' and 'web')"),
     (SWITCHED, port(body="<virtualport type='802.1Qbh'/>"), 0, ErrorCode.XML_ERROR,
      "attempt to merge virtualports with mismatched types (802.1Qbh and openvswitch)"),
     (ISOLATED, "<networkport/>", 0, ErrorCode.INTERNAL_ERROR, "network port has no uuid")],
)  # fmt: skip
def test_what_no_port_can_be_is_refused(
    driver: SessionNetworkDriver, body: str, xml: str, flags: int, code: ErrorCode, words: str
) -> None:
    net = network(driver, body)
    with pytest.raises(VirtError) as caught:
        driver.network_port_create_xml(net, xml, PortCreateFlag(flags))
    assert (caught.value.code, words in str(caught.value)) == (code, True), caught.value
    assert driver.network_list_all_ports(net) == []

"""Devices of the host, from files of our own making."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.drivers import tool
from hostel.drivers.base.nodedev import ACTIVE, CAPABILITIES, INACTIVE, NodeDeviceRef
from hostel.drivers.events import EventBus
from hostel.drivers.nodedev.driver import SysfsNodeDeviceDriver
from hostel.drivers.nodedev.names import PciNames
from hostel.drivers.nodedev.sysfs import Sysfs
from hostel.drivers.nodedev.watch import Seen, differences
from hostel.drivers.readonly import read_only
from hostel.drivers.test.nodedev import TestNodeDeviceDriver, default_devices
from hostel.errors import ErrorCode, VirtError
from hostel.model.node_device import NodeDevice
from support.sysfs import Host, furnish

CARD = NodeDeviceRef("pci_0000_01_00_0")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return furnish(tmp_path)


@pytest.fixture
def driver(host: Host) -> SysfsNodeDeviceDriver:
    return SysfsNodeDeviceDriver(host.root, privileged=True)


def document(driver: SysfsNodeDeviceDriver, name: str) -> str:
    return driver.node_device_get_xml_desc(driver.node_device_lookup_by_name(name))


def test_every_device_is_listed_once_by_libvirts_name(driver: SysfsNodeDeviceDriver) -> None:
    assert [ref.name for ref in driver.connect_list_all_node_devices()] == [
        "block_sda_Disk_9_1",
        "block_sr0",
        "block_sr1",
        "computer",
        "drm_card0",
        "drm_renderD128",
        "mdev_c60cc60c_c60c_c60c_c60c_c60cc60cc60c_0000_01_00_0",
        "net_eth7_00_11_22_33_44_55",
        "pci_0000_00_01_0",
        "pci_0000_01_00_0",
        "pci_0000_01_10_0",
        "scsi_4_0_0_0",
        "scsi_generic_sg0",
        "scsi_host4",
        "scsi_target4_0_0",
        "usb_1_1",
        "usb_1_1_1_0",
        "vdpa_vdpa0",
    ]


def test_every_document_is_read_again_as_it_was_written(driver: SysfsNodeDeviceDriver) -> None:
    for ref in driver.connect_list_all_node_devices():
        xml = driver.node_device_get_xml_desc(ref)
        assert NodeDevice.parse(xml, "node_device_definition").format() == xml


def test_parents_are_the_nearest_devices_above(driver: SysfsNodeDeviceDriver) -> None:
    parents = {ref.name: driver.node_device_get_parent(ref) for ref in driver.connect_list_all_node_devices()}
    assert parents["computer"] is None
    assert parents["block_sda_Disk_9_1"] == "scsi_4_0_0_0"
    assert parents["scsi_4_0_0_0"] == "scsi_target4_0_0"
    assert parents["scsi_target4_0_0"] == "scsi_host4"
    assert parents["scsi_host4"] == parents["block_sr0"] == "computer"
    assert parents["net_eth7_00_11_22_33_44_55"] == "pci_0000_01_00_0"
    assert parents["pci_0000_01_00_0"] == "pci_0000_00_01_0"


def test_capabilities_have_libvirts_names(driver: SysfsNodeDeviceDriver) -> None:
    found = {ref.name: driver.node_device_list_caps(ref) for ref in driver.connect_list_all_node_devices()}
    assert found["scsi_host4"] == ["scsi_host", "fc_host", "vports"]
    assert found[CARD.name] == ["pci", "mdev_types"]
    assert {name for each in found.values() for name in each} == {
        "drm", "fc_host", "mdev", "mdev_types", "net", "pci", "scsi", "scsi_generic", "scsi_host", "scsi_target",
        "storage", "system", "usb", "usb_device", "vdpa", "vports",
    }  # fmt: skip


def test_what_only_root_can_read_is_left_out_for_others(host: Host, driver: SysfsNodeDeviceDriver) -> None:
    told = ("<capability type='pci-bridge'/>", "speed='16' width='16'", "<link validity='sta' speed='8' width='4'/>")
    unprivileged = SysfsNodeDeviceDriver(host.root, privileged=False)
    for text in told:
        assert text in document(driver, "pci_0000_00_01_0")
        assert text not in document(unprivileged, "pci_0000_00_01_0")


def test_names_come_from_the_hosts_list(driver: SysfsNodeDeviceDriver) -> None:
    assert "<product id='0x10fb'>82599ES</product>" in document(driver, CARD.name)
    assert "<product id='0x10ed'/>" in document(driver, "pci_0000_01_10_0")
    assert "<vendor id='0x0781'>SanDisk Corp.</vendor>" in document(driver, "usb_1_1")


def test_names_are_read_once_for_each_vendor(tmp_path: Path) -> None:
    place = tmp_path / "usr/share/misc/pci.ids"
    place.parent.mkdir(parents=True)
    place.write_text("1af4  Red Hat\n\t1000  network device\n8086  Intel\n\t10fb  82599ES\n")
    names = PciNames(tmp_path)
    names.load([(0x1AF4, 0x1000), (0x8086, 0x10FB)])
    place.write_text("10de  NVIDIA\n\t0001  card\n")
    names.load([(0x8086, 0x10FB)])
    names.load([(0x10DE, 1), (0x1AF4, 0x1000)])
    assert [names.vendor(number) for number in (0x1AF4, 0x8086, 0x10DE)] == ["Red Hat", "Intel", "NVIDIA"]
    assert names.product(0x8086, 0x10FB) == "82599ES"
    assert names.product(0x10DE, 1) == "card"


def test_a_medium_is_told_when_it_is_there(driver: SysfsNodeDeviceDriver) -> None:
    assert "<media_available>1</media_available>\n      <media_size>409600</media_size>" in document(
        driver, "block_sr0"
    )
    assert "<media_available>0</media_available>" in document(driver, "block_sr1")


def test_a_list_is_never_old(host: Host, driver: SysfsNodeDeviceDriver) -> None:
    name = "usb_1_2"
    assert NodeDeviceRef(name) not in driver.connect_list_all_node_devices()
    with pytest.raises(VirtError) as error:
        driver.node_device_lookup_by_name(name)
    assert error.value.code is ErrorCode.NO_NODE_DEVICE
    host.device(
        "pci0000:00/0000:00:14.0/usb1/1-2", "bus/usb/devices", uevent="DEVTYPE=usb_device", busnum="1", devnum="3",
        idVendor="1", idProduct="2",
    )  # fmt: skip
    assert driver.node_device_lookup_by_name(name).name == name


def test_devices_with_attributes_that_make_no_sense_are_left_out(host: Host, driver: SysfsNodeDeviceDriver) -> None:
    before = driver.connect_list_all_node_devices()
    for path, listed in (
        ("bad/0000:zz:00.0", "bus/pci/devices"),
        ("bad/0000:05:00.0", "bus/pci/devices"),
        ("bad/hostx", "bus/scsi/devices"),
        ("bad/1:2:3", "bus/scsi/devices"),
        ("bad/9-9", "bus/usb/devices"),
        ("bad/vda", "class/block"),
        ("bad/card9", "class/drm"),
    ):
        kind = {"hostx": "scsi_host", "1:2:3": "scsi_device", "9-9": "usb_device", "vda": "disk", "card9": "drm_minor"}
        event = f"DEVTYPE={kind.get(Path(path).name, '')}\nDEVNAME={Path(path).name}"
        host.device(path, listed, uevent=event, vendor="nonsense", busnum="\0", size="-")
    assert driver.connect_list_all_node_devices() == before


def test_a_configuration_that_leads_in_circles_is_no_link(host: Host, driver: SysfsNodeDeviceDriver) -> None:
    data = bytearray(256)
    data[0x06], data[0x34] = 0x10, 0x40
    data[0x40:0x42] = bytes((0x05, 0x44))
    data[0x44:0x46] = bytes((0x05, 0x40))
    host.file("sys/devices/pci0000:00/0000:00:01.0/config", bytes(data))
    assert "pci-express" not in document(driver, "pci_0000_00_01_0")


def test_a_function_goes_to_vfio_and_back(host: Host, driver: SysfsNodeDeviceDriver) -> None:
    place = host.root / "sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0"
    with pytest.raises(VirtError, match=r"Failed to load PCI stub module vfio-pci: .* modprobe vfio-pci"):
        driver.node_device_detach_flags(CARD)
    host.file("sys/bus/pci/drivers/vfio-pci/unbind", b"")
    host.file("sys/bus/pci/drivers/ixgbe/unbind", b"")
    host.link("pci0000:00/0000:00:01.0/0000:01:00.0", "driver", "bus/pci/drivers/ixgbe")
    with pytest.raises(VirtError, match="vfio-pci did not take it"):  # there is no kernel below this tree
        driver.node_device_detach_flags(CARD, "vfio")
    assert (place / "driver_override").read_text() == "vfio-pci"
    assert (place / "driver" / "unbind").read_text() == "0000:01:00.0"
    assert (host.root / "sys/bus/pci/drivers_probe").read_text() == "0000:01:00.0"
    driver.node_device_reset(CARD)
    assert (place / "reset").read_text() == "1"
    (place / "driver").unlink()
    host.link("pci0000:00/0000:00:01.0/0000:01:00.0", "driver", "bus/pci/drivers/vfio-pci")
    driver.node_device_detach_flags(CARD)  # it is
    driver.node_device_re_attach(CARD)
    assert (place / "driver_override").read_text() == "\n"
    assert (place / "driver" / "unbind").read_text() == "0000:01:00.0"


@pytest.mark.parametrize(
    ("name", "driver_name", "code"),
    [
        (CARD.name, "kvm", ErrorCode.ARGUMENT_UNSUPPORTED),
        (CARD.name, "xen", ErrorCode.INVALID_ARG),
        ("usb_1_1", None, ErrorCode.INVALID_ARG),
        ("nothing", None, ErrorCode.NO_NODE_DEVICE),
    ],
)
def test_what_cannot_be_given_to_a_guest_is_refused(
    driver: SysfsNodeDeviceDriver, name: str, driver_name: str | None, code: ErrorCode
) -> None:
    with pytest.raises(VirtError) as error:
        driver.node_device_detach_flags(NodeDeviceRef(name), driver_name)
    assert error.value.code is code


def test_what_a_machine_has_stays_as_it_is(host: Host) -> None:
    driver = SysfsNodeDeviceDriver(host.root, user_of={"0000:01:00.0": "web"}.get)
    why = "PCI device 0000:01:00.0 is in use by driver QEMU, domain web"
    for call in (driver.node_device_detach_flags, driver.node_device_re_attach):
        with pytest.raises(VirtError, match=why) as error:
            call(CARD)
        assert error.value.code is ErrorCode.OPERATION_INVALID
    with pytest.raises(VirtError, match=r"Not resetting active device 0000:01:00\.0") as error:
        driver.node_device_reset(CARD)
    assert error.value.code is ErrorCode.INTERNAL_ERROR


def test_who_may_only_look_changes_nothing(driver: SysfsNodeDeviceDriver) -> None:
    looking = read_only(driver)
    assert looking.connect_list_all_node_devices() == driver.connect_list_all_node_devices()
    assert looking.node_device_list_caps(CARD) == ["pci", "mdev_types"]
    for call in (looking.node_device_detach_flags, looking.node_device_re_attach, looking.node_device_reset):
        with pytest.raises(VirtError, match="read only"):
            call(CARD)


def test_the_real_host_is_told_without_a_mistake() -> None:
    driver = SysfsNodeDeviceDriver()
    for ref in driver.connect_list_all_node_devices():
        assert re.match("<device>\n  <name>", driver.node_device_get_xml_desc(ref))


def test_a_host_without_sysfs_is_a_machine(tmp_path: Path) -> None:
    assert list(Sysfs(tmp_path).devices()) == []
    assert [ref.name for ref in SysfsNodeDeviceDriver(tmp_path).connect_list_all_node_devices()] == ["computer"]


def port(parent: str = "<parent>scsi_host4</parent>", names: str = "") -> str:
    """The document of a virtual adapter of Fibre Channel."""
    inner = f"<capability type='fc_host'>{names}</capability>"
    return f"<device>{parent}<capability type='scsi_host'>{inner}</capability></device>"


NAMES = "<wwnn>5001a4aaaaaaaaaa</wwnn><wwpn>5001a4abbbbbbbbb</wwpn>"
ADAPTER = "sys/devices/pci0000:00/0000:00:1f.2/host4"


@contextlib.contextmanager
def kernel(host: Host) -> Iterator[list[str]]:
    """What makes and takes away virtual adapters as it is told; the orders that it was given."""
    orders: list[str] = []
    stop = threading.Event()
    folder = host.root / ADAPTER / "fc_host/host4"
    files = [folder / "vport_create", folder / "vport_delete"]
    for kind in ("fc_host", "scsi_host"):
        listed = host.root / "sys/class" / kind
        listed.mkdir(parents=True, exist_ok=True)
        (listed / "host4").symlink_to(host.root / ADAPTER / kind / "host4")
    for file in files:
        file.write_text("")

    def serve() -> None:
        while not stop.wait(0.01):
            for file in files:
                text = file.read_text().strip()
                if not text:
                    continue
                file.write_text("")
                orders.append(f"{file.name} {text}")
                made = "pci0000:00/0000:00:1f.2/host4/vport-4:0-0/host5"
                if file.name == "vport_create":
                    wwpn, wwnn = text.split(":")
                    host.device(
                        made, "bus/scsi/devices", uevent="DEVTYPE=scsi_host", scsi_host__host5__unique_id="6",
                        fc_host__host5__node_name=f"0x{wwnn}", fc_host__host5__port_name=f"0x{wwpn}",
                    )  # fmt: skip
                else:
                    (host.root / "sys/bus/scsi/devices/host5").unlink()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield orders
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize(
    "parent",
    [
        "<parent>scsi_host4</parent>",
        "<parent wwnn='2001001b32a9da4e' wwpn='2101001b32a9da4e'/>",
        "<parent fabric_wwn='2001000dec9877c1'/>",
        "",
    ],
)
def test_a_virtual_adapter_is_made_on_its_parent(host: Host, driver: SysfsNodeDeviceDriver, parent: str) -> None:
    with kernel(host) as orders:
        made = driver.node_device_create_xml(port(parent, NAMES))
        assert made.name == "scsi_host5"
        assert driver.node_device_get_parent(made) == "scsi_host4"
        assert driver.node_device_lookup_scsi_host_by_wwn("0x5001a4aaaaaaaaaa", "5001A4ABBBBBBBBB") == made
        driver.node_device_destroy(made)
        assert made not in driver.connect_list_all_node_devices()
    assert orders == [
        "vport_create 5001a4abbbbbbbbb:5001a4aaaaaaaaaa",
        "vport_delete 5001a4abbbbbbbbb:5001a4aaaaaaaaaa",
    ]


def test_names_that_are_not_said_are_made(host: Host, driver: SysfsNodeDeviceDriver) -> None:
    with kernel(host) as orders:
        made = driver.node_device_create_xml(port())
    (order,) = orders
    assert re.fullmatch("vport_create 5001a4a[0-9a-f]{9}:5001a4a[0-9a-f]{9}", order)
    assert order[13:29] in driver.node_device_get_xml_desc(made)


@pytest.mark.parametrize(
    ("xml", "code", "reason"),
    [
        (port("<parent>scsi_host9</parent>"), ErrorCode.INTERNAL_ERROR, "Could not find parent device for"),
        (port("<parent>usb_1_1</parent>"), ErrorCode.INTERNAL_ERROR, "usb_1_1 is not capable of vport operations"),
        (port("<parent wwnn='1' wwpn='2'/>"), ErrorCode.INTERNAL_ERROR, "Could not find parent device for"),
        (port(names="<wwnn>1</wwnn>"), ErrorCode.INTERNAL_ERROR, "Malformed wwn: 1"),
        (port(names=NAMES), ErrorCode.OPERATION_INVALID, "vport operation 'vport_create' is not supported for host4"),
        (
            "<device><capability type='scsi_host'/></device>",
            ErrorCode.INTERNAL_ERROR,
            "Device is not a fibre channel HBA",
        ),
        (
            "<device><capability type='drm'><type>render</type></capability></device>",
            ErrorCode.CONFIG_UNSUPPORTED,
            "Unsupported device type",
        ),
        (
            "<device><capability type='mdev'><type id='a'/></capability></device>",
            ErrorCode.CONFIG_UNSUPPORTED,
            "missing parent device",
        ),
        (
            "<device><parent>no</parent><capability type='mdev'><type id='a'/></capability></device>",
            ErrorCode.CONFIG_UNSUPPORTED,
            "invalid parent device 'no'",
        ),
        (
            "<device><parent>usb_1_1</parent><capability type='mdev'><type id='a'/></capability></device>",
            ErrorCode.PARSE_FAILED,
            "Unable to find address for parent device 'usb_1_1'",
        ),
    ],
)
def test_what_cannot_be_made_is_refused_with_the_reason(
    driver: SysfsNodeDeviceDriver, xml: str, code: ErrorCode, reason: str
) -> None:
    with pytest.raises(VirtError, match=re.escape(reason)) as error:
        driver.node_device_create_xml(xml)
    assert error.value.code is code


def test_devices_that_were_not_made_are_not_taken_away(driver: SysfsNodeDeviceDriver) -> None:
    for call in (driver.node_device_destroy, driver.node_device_undefine, driver.node_device_create):
        with pytest.raises(VirtError) as error:
            call(CARD)
        assert error.value.code in (ErrorCode.CONFIG_UNSUPPORTED, ErrorCode.OPERATION_INVALID)
    with pytest.raises(VirtError, match="Unsupported device type"):
        driver.node_device_set_autostart(CARD, True)


def test_without_mdevctl_its_package_is_named(
    host: Host, driver: SysfsNodeDeviceDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool, "find", lambda name: None)
    xml = f"<device><parent>{CARD.name}</parent><capability type='mdev'><type id='i915-V5'/></capability></device>"
    for call in (driver.node_device_create_xml, driver.node_device_define_xml):
        with pytest.raises(VirtError, match="install the package mdevctl"):
            call(xml)


def test_a_device_that_a_guest_has_stays(host: Host, driver: SysfsNodeDeviceDriver, tmp_path: Path) -> None:
    busy = SysfsNodeDeviceDriver(host.root)
    ref = NodeDeviceRef("mdev_c60cc60c_c60c_c60c_c60c_c60cc60cc60c_0000_01_00_0")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", lambda *arguments: (_ for _ in ()).throw(OSError(errno.EBUSY, "busy")))
        with pytest.raises(VirtError, match="device in use"):
            busy.node_device_destroy(ref)


def test_the_invented_host_has_fibre_channel() -> None:
    bus = EventBus(None)
    driver = TestNodeDeviceDriver(default_devices(), threading.RLock(), bus)
    names = ["computer", "scsi_host1", "scsi_host2", "scsi_host11"]
    assert [ref.name for ref in driver.connect_list_all_node_devices()] == names
    assert driver.node_device_get_parent(NodeDeviceRef("scsi_host11")) == "scsi_host1"
    with pytest.raises(VirtError):
        driver.node_device_reset(CARD)
    with bus.listen() as listener:
        made = driver.node_device_create_xml(port("<parent>scsi_host1</parent>", NAMES))
        driver.node_device_destroy(made)
        told = [listener.get(5), listener.get(5)]
    assert [(event.name, event.detail["event"]) for event in told if event] == [(made.name, 0), (made.name, 1)]


def test_differences_of_two_looks_are_events() -> None:
    gone, kept, new = Seen(True, False, "a"), Seen(True, True, "b"), Seen(True, False, "c")
    before = {"gone": gone, "kept": kept, "stopped": kept, "changed": new}
    after = {"kept": kept, "stopped": kept._replace(is_active=False), "changed": new._replace(document="d"), "new": new}
    assert [(event.name, event.kind, event.detail.get("event")) for event in differences(before, after)] == [
        ("changed", "update", None),
        ("gone", "lifecycle", 1),
        ("new", "lifecycle", 0),
        ("stopped", "lifecycle", 1),
    ]
    assert [event.detail["event"] for event in differences({}, {"defined": kept})] == [2, 0]
    assert [event.detail["event"] for event in differences({"defined": kept}, {})] == [1, 3]


def test_lists_are_by_what_a_device_is_and_whether_it_is_there(driver: SysfsNodeDeviceDriver) -> None:
    assert driver.connect_list_all_node_devices(INACTIVE) == []
    assert driver.connect_list_all_node_devices(ACTIVE) == driver.connect_list_all_node_devices()
    assert driver.connect_list_all_node_devices(ACTIVE | INACTIVE) == driver.connect_list_all_node_devices()
    drives = 1 << CAPABILITIES.index("storage") | 1 << CAPABILITIES.index("vdpa")
    found = driver.connect_list_all_node_devices(drives | ACTIVE)
    assert [ref.name for ref in found] == ["block_sda_Disk_9_1", "block_sr0", "block_sr1", "vdpa_vdpa0"]

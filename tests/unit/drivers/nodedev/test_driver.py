"""Devices of the host, from files of our own making."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hostel.drivers.base.nodedev import NodeDeviceRef
from hostel.drivers.nodedev.driver import SysfsNodeDeviceDriver
from hostel.drivers.nodedev.sysfs import Sysfs
from hostel.drivers.readonly import read_only
from hostel.drivers.test.nodedev import TestNodeDeviceDriver
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
    with pytest.raises(VirtError, match="modprobe vfio-pci"):
        driver.node_device_detach_flags(CARD)
    host.file("sys/bus/pci/drivers/vfio-pci/bind", b"")
    host.file("sys/bus/pci/drivers/ixgbe/unbind", b"")
    host.link("pci0000:00/0000:00:01.0/0000:01:00.0", "driver", "bus/pci/drivers/ixgbe")
    driver.node_device_detach_flags(CARD, "vfio")
    assert (place / "driver_override").read_text() == "vfio-pci"
    assert (place / "driver" / "unbind").read_text() == "0000:01:00.0"
    assert (host.root / "sys/bus/pci/drivers_probe").read_text() == "0000:01:00.0"
    driver.node_device_re_attach(CARD)
    assert (place / "driver_override").read_text() == "\n"
    driver.node_device_reset(CARD)
    assert (place / "reset").read_text() == "1"


@pytest.mark.parametrize(
    ("name", "driver_name", "code"),
    [
        (CARD.name, "kvm", ErrorCode.CONFIG_UNSUPPORTED),
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


def test_the_invented_host_has_fibre_channel() -> None:
    driver = TestNodeDeviceDriver()
    assert [ref.name for ref in driver.connect_list_all_node_devices()] == [
        "computer",
        "scsi_host1",
        "scsi_host2",
        "scsi_host11",
    ]
    assert driver.node_device_get_parent(NodeDeviceRef("scsi_host11")) == "scsi_host1"
    with pytest.raises(VirtError):
        driver.node_device_reset(CARD)

"""Devices of the host: found, free and ours to give, or refused with what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostel.drivers.qemu import document, hostdevs
from hostel.errors import ErrorCode, VirtError
from hostel.model.domain.devices.hostdev import UsbHostdev
from hostel.model.domain.domain import Domain
from support.domain import QEMU

UUID = "53764d0e-85a0-42b4-af5c-2046b460b1dc"
NAMED = "<vendor id='0x046d'/><product id='0xc077'/>"


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A host with a mouse, a PCI device that its kernel drives, and one in an IOMMU group that VFIO has."""
    files = {
        "sys/bus/usb/devices/1-2/idVendor": "046d", "sys/bus/usb/devices/1-2/idProduct": "c077",
        "sys/bus/usb/devices/1-2/busnum": "1", "sys/bus/usb/devices/1-2/devnum": "5", "dev/bus/usb/001/005": "",
        "sys/bus/pci/devices/0000:00:1f.2/vendor": "", "sys/bus/pci/devices/0000:01:00.0/iommu_group": "",
        "sys/bus/pci/devices/0000:02:00.0/iommu_group": "", "sys/drivers/vfio-pci/bind": "",
        "sys/drivers/e1000e/bind": "",
    }  # fmt: skip
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    for place, driver in (("01", "vfio-pci"), ("02", "e1000e")):
        (tmp_path / f"sys/bus/pci/devices/0000:{place}:00.0/driver").symlink_to(tmp_path / "sys/drivers" / driver)
    return tmp_path


def usb(source: str, policy: str = "") -> str:
    kind = policy and f" startupPolicy='{policy}'"
    return f"<hostdev mode='subsystem' type='usb'><source{kind}>{source}</source></hostdev>"


def pci(address: str, managed: str = "no") -> str:
    return f"<hostdev mode='subsystem' type='pci' managed='{managed}'><source><address {address}/></source></hostdev>"


def machine(device: str) -> Domain:
    head = "<domain type='qemu'><name>g</name><memory>1</memory><os><type>hvm</type></os>"
    return document.parse(f"{head}<devices>{device}</devices></domain>", QEMU)


def check(device: str, host: Path, others: dict[str, Domain] | None = None) -> tuple[Domain, list[str]]:
    live = machine(device)
    return live, hostdevs.check(live, others or {}, host / "sys", host / "dev")


@pytest.mark.parametrize("source", [NAMED, "<address bus='1' device='5'/>"])
def test_a_usb_device_is_found_by_its_maker_or_its_place(host: Path, source: str) -> None:
    live, notes = check(usb(source), host)
    (device,) = live.devices.hostdevs
    assert isinstance(device, UsbHostdev) and device.source.address is not None
    assert (device.source.address.bus, device.source.address.device, notes) == (1, 5, [])


def test_a_usb_device_that_is_optional_is_left_out(host: Path) -> None:
    live, notes = check(usb("<vendor id='0x1'/><product id='0x2'/>", "optional"), host)
    (device,) = live.devices.hostdevs
    assert isinstance(device, UsbHostdev) and device.source.missing
    assert notes == [
        "left out: unsupported configuration: Did not find USB device 0001:0002; plug it in, or write its "
        "<address bus=… device=…> (startupPolicy='optional')"
    ]


@pytest.mark.parametrize(
    ("device", "message"),
    [
        (usb("<vendor id='0x1'/><product id='0x2'/>", "requisite"), "Did not find USB device 0001:0002"),
        (usb("<address bus='9' device='9'/>"), "Did not find USB device bus:9 device:9"),
        (pci("domain='0' bus='9' slot='0' function='0'"), "Device 0000:09:00.0 not found"),
        (pci("domain='0' bus='0' slot='0x1f' function='2'"), "in no IOMMU group; boot with intel_iommu=on"),
        (pci("domain='0' bus='2' slot='0' function='0'"), "manually detached .* nodedev-detach pci_0000_02_00_0"),
        (pci("domain='0' bus='2' slot='0' function='0'", "yes"), "not taken from the host by itself"),
        (f"<hostdev mode='subsystem' type='mdev' model='vfio-pci'><source><address uuid='{UUID}'/></source></hostdev>",
         f"mediated device '{UUID}' not found"),
        ("<hostdev mode='subsystem' type='scsi'><source><adapter name='scsi_host0'/>"
         "<address bus='0' target='0' unit='0'/></source></hostdev>", "there is no SCSI device 0:0:0:0 on this host"),
    ],
)  # fmt: skip
def test_what_cannot_be_given_is_refused_with_what_to_do(host: Path, device: str, message: str) -> None:
    with pytest.raises(VirtError, match=message) as caught:
        check(device, host)
    assert caught.value.code is ErrorCode.CONFIG_UNSUPPORTED


def test_a_device_that_another_machine_has_is_refused(host: Path) -> None:
    for device, name in (
        (usb(NAMED), "USB device 001:005"),
        (pci("domain='0' bus='1' slot='0' function='0'"), "PCI device"),
    ):
        other, _ = check(device, host)
        with pytest.raises(VirtError, match=f"{name}.* is in use by driver QEMU, domain other") as caught:
            check(device, host, {"other": other})
        assert caught.value.code is ErrorCode.OPERATION_INVALID

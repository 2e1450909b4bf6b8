"""Devices of the host: found, free and ours to give, or refused with what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostel.drivers.qemu import document, hostdevs, locking
from hostel.errors import ErrorCode, VirtError
from hostel.model.domain.devices.device import Device
from hostel.model.domain.devices.hostdev import PciHostdev, UsbHostdev
from hostel.model.domain.domain import Domain
from support.domain import QEMU

UUID = "53764d0e-85a0-42b4-af5c-2046b460b1dc"
NONE = UUID.replace("5", "6")
NAMED = "<vendor id='0x046d'/><product id='0xc077'/>"
GONE = "<vendor id='0x1'/><product id='0x2'/>"
TWICE = "<vendor id='0x46f4'/><product id='0x1'/>"
MDEV = f"<hostdev mode='subsystem' type='mdev' model='{{}}'><source><address uuid='{UUID}'/></source></hostdev>"


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A host with USB devices, PCI devices of which its kernel drives some, a SCSI disk and a mediated device."""
    files = {
        "dev/bus/usb/001/005": "", "dev/bus/usb/001/006": "", "dev/bus/usb/001/007": "", "dev/sg0": "",
        "sys/bus/pci/devices/0000:00:1f.2/vendor": "", "sys/bus/scsi/devices/0:0:0:1/scsi_generic/sg0/x": "",
        "sys/drivers/vfio-pci/bind": "", "sys/drivers/e1000e/bind": "", "dev/vfio/vfio": "",
        f"sys/bus/mdev/devices/{UUID}/mdev_type/device_api": "vfio-ap\n",
    }  # fmt: skip
    for number, (vendor, product) in enumerate([("046d", "c077"), ("46f4", "0001"), ("46f4", "0001")], 5):
        words = {"idVendor": vendor, "idProduct": product, "busnum": "1", "devnum": str(number)}
        files |= {f"sys/bus/usb/devices/1-{number}/{name}": word for name, word in words.items()}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    functions = (
        ("01", 0, "vfio-pci", "1"),
        ("02", 0, "e1000e", "2"),
        ("02", 1, "vfio-pci", "2"),
        ("03", 0, "e1000e", "3"),
    )
    for bus, function, driver, group in functions:
        folder = tmp_path / f"sys/bus/pci/devices/0000:{bus}:00.{function}"
        members = tmp_path / f"sys/kernel/iommu_groups/{group}/devices"
        folder.mkdir(parents=True)
        (members / folder.name).mkdir(parents=True)
        (folder / "driver").symlink_to(tmp_path / "sys/drivers" / driver)
        (folder / "iommu_group").symlink_to(members.parent)
    (tmp_path / "sys/bus/pci/devices/0000:03:00.0/config").write_bytes(bytes(14) + b"\x81")
    return tmp_path


def usb(source: str, policy: str = "") -> str:
    kind = policy and f" startupPolicy='{policy}'"
    return f"<hostdev mode='subsystem' type='usb'><source{kind}>{source}</source></hostdev>"


def pci(bus: int, managed: str = "no", *, slot: int = 0, function: int = 0, more: str = "") -> str:
    source = f"<source><address domain='0' bus='{bus}' slot='{slot}' function='{function}'/></source>"
    return f"<hostdev mode='subsystem' type='pci' managed='{managed}'>{source}{more}</hostdev>"


def scsi(unit: int, more: str = "") -> str:
    source = f"<adapter name='scsi_host0'/><address bus='0' target='0' unit='{unit}'/>"
    return f"<hostdev mode='subsystem' type='scsi'><source>{source}</source>{more}</hostdev>"


def nvme(bus: int, namespace: int = 1, managed: str = "yes") -> str:
    place = f"<address domain='0' bus='{bus}' slot='0' function='0'/>"
    source = f"<source type='pci' managed='{managed}' namespace='{namespace}'>{place}</source>"
    return f"<disk type='nvme'><driver type='raw'/>{source}<target dev='vda' bus='virtio'/></disk>"


def machine(device: str, more: str = "") -> Domain:
    head = "<domain type='qemu'><name>g</name><memory unit='GiB'>2</memory><os><type>hvm</type></os>"
    return document.parse(f"{head}<devices>{device}{more}</devices></domain>", QEMU)


def check(
    device: str, host: Path, held: dict[str, list[Device]] | None = None, *, is_cold: bool = True
) -> tuple[Domain, list[str]]:
    live = machine(device)
    return live, hostdevs.check("g", hostdevs.of_host(live), held or {}, host, is_cold=is_cold)


@pytest.mark.parametrize("source", [NAMED, "<address bus='1' device='5'/>", f"{NAMED}<address bus='1' device='5'/>"])
def test_a_usb_device_is_found_by_its_maker_or_its_place(host: Path, source: str) -> None:
    live, notes = check(usb(source), host)
    (device,) = live.devices.hostdevs
    assert isinstance(device, UsbHostdev) and device.source.address is not None
    assert (device.source.address.bus, device.source.address.device, notes) == (1, 5, [])


def test_a_place_that_was_found_is_looked_for_again(host: Path) -> None:
    live = machine(usb(NAMED))
    hostdevs.check("g", live.devices.hostdevs, {}, host)
    (device,) = live.devices.hostdevs
    (host / "sys/bus/usb/devices/1-5/devnum").write_text("9")
    (host / "dev/bus/usb/001/009").write_text("")
    hostdevs.check("g", [device], {}, host)
    assert isinstance(device, UsbHostdev) and device.source.address is not None and device.source.address.device == 9
    again = document.parse(live.format(), QEMU).devices.hostdevs[0]
    assert isinstance(again, UsbHostdev) and again.source.address is None, "a definition does not keep it"


@pytest.mark.parametrize(("policy", "is_cold"), [("optional", True), ("optional", False), ("requisite", False)])
def test_a_usb_device_that_need_not_be_there_is_left_out(host: Path, policy: str, is_cold: bool) -> None:
    live, notes = check(usb(GONE, policy), host, is_cold=is_cold)
    (device,) = live.devices.hostdevs
    assert isinstance(device, UsbHostdev) and device.source.missing
    assert notes == [
        "left out: internal error: Did not find USB device 0001:0002; plug it in, or write its "
        f"<address bus=… device=…> (startupPolicy='{policy}')"
    ]


@pytest.mark.parametrize(
    ("device", "message", "code"),
    [
        (usb(GONE, "requisite"), "Did not find USB device 0001:0002", ErrorCode.INTERNAL_ERROR),
        (usb(GONE, "mandatory"), "Did not find USB device 0001:0002", ErrorCode.INTERNAL_ERROR),
        (usb("<address bus='9' device='9'/>"), "Did not find USB device bus:9 device:9", ErrorCode.INTERNAL_ERROR),
        (usb(f"{NAMED}<address bus='1' device='6'/>"), "USB device 046d:c077 bus:1 device:6", ErrorCode.INTERNAL_ERROR),
        (usb(TWICE, "optional"), "Multiple USB devices for 46f4:1, use <address> to specify one of .*'6'.*device='7'",
         ErrorCode.OPERATION_FAILED),
        (pci(9), "Device 0000:09:00.0 not found", ErrorCode.CONFIG_UNSUPPORTED),
        (pci(0, slot=31, function=2), "host doesn't support passthrough of host PCI devices: .* in no IOMMU group",
         ErrorCode.CONFIG_UNSUPPORTED),
        (pci(1, more="<driver name='kvm'/>"), "host doesn't support legacy PCI pass", ErrorCode.CONFIG_UNSUPPORTED),
        (pci(2), "Unmanaged PCI device 0000:02:00.0 must be manually detached from the host.*pci_0000_02_00_0",
         ErrorCode.OPERATION_INVALID),
        (pci(3), "Non-endpoint PCI devices cannot be assigned to guests", ErrorCode.INTERNAL_ERROR),
        (MDEV.format("vfio-pci"), "invalid device API 'vfio-pci' for device .*: device only supports 'vfio-ap'",
         ErrorCode.INTERNAL_ERROR),
        (MDEV.format("vfio-pci").replace(UUID, NONE), f"mediated device '{NONE}' not found", ErrorCode.DEVICE_MISSING),
        (scsi(0), "there is no SCSI device 0:0:0:0 on this host", ErrorCode.CONFIG_UNSUPPORTED),
    ],
)  # fmt: skip
def test_what_cannot_be_given_is_refused_with_what_to_do(
    host: Path, device: str, message: str, code: ErrorCode
) -> None:
    with pytest.raises(VirtError, match=message) as caught:
        check(device, host)
    assert caught.value.code is code


def test_a_device_that_another_machine_has_is_refused(host: Path) -> None:
    for device, name in (
        (usb(NAMED), "USB device 001:005 is in use by driver QEMU, domain other"),
        (pci(1), "PCI device 0000:01:00.0 is in use by driver QEMU, domain other"),
        (scsi(1), "SCSI device 0:0:0:1 is already in use by other domain.* as 'non-shareable'"),
    ):
        other, _ = check(device, host)
        with pytest.raises(VirtError, match=name) as caught:
            check(device, host, {"other": hostdevs.of_host(other)})
        assert caught.value.code is ErrorCode.OPERATION_INVALID
    shared = scsi(1, "<shareable/>")
    check(shared, host, {"other": hostdevs.of_host(machine(shared))})


def test_a_group_is_of_one_machine(host: Path) -> None:
    held = {"other": hostdevs.of_host(machine(pci(2)))}
    with pytest.raises(VirtError, match=r"PCI device 0000:02:00\.0 is in use by driver QEMU, domain other"):
        check(pci(2, function=1), host, held)
    check(pci(2, function=1), host, {"g": held["other"]})


def test_a_function_is_driven_by_vfio_in_the_live_document(host: Path) -> None:
    live, _ = check(pci(1), host)
    (device,) = live.devices.hostdevs
    assert isinstance(device, PciHostdev) and device.driver == "vfio"


def test_a_machine_with_a_device_of_the_host_stays_where_it_is() -> None:
    transient = "<teaming type='transient' persistent='net0'/>"
    for device in (usb(NAMED), pci(1, more=transient)):
        hostdevs.check_movable(machine(device))
    for device, kind in ((pci(1), "hostdev mode='subsystem' type='pci'"), (scsi(1), "type='scsi'")):
        with pytest.raises(VirtError, match=f"cannot migrate a domain with <.*{kind}>") as caught:
            hostdevs.check_movable(machine(device))
        assert caught.value.code is ErrorCode.OPERATION_UNSUPPORTED


def test_memory_is_locked_for_what_writes_into_it() -> None:
    two, one = (2 << 30), (1 << 30)
    assert locking.limit_of(machine(usb(NAMED))) is None
    assert locking.limit_of(machine(pci(1))) == two + one
    assert locking.limit_of(machine(pci(1), pci(2))) == two + one
    own = "<iommu model='intel'/>"
    head = "<domain type='qemu'><name>g</name><memory unit='GiB'>2</memory><os><type machine='q35'>hvm</type></os>"
    body = f"<devices>{pci(1)}{pci(2)}{own}</devices></domain>"
    assert locking.limit_of(document.parse(head + body, QEMU)) == 2 * two + one


def test_an_nvme_disk_is_a_function_that_qemu_drives(host: Path) -> None:
    live, notes = check(nvme(1), host)
    assert [item[:3] for item in hostdevs.functions(live.devices.disks)] == [("0000:01:00.0", True, None)]
    assert notes == []
    hostdevs.check_movable(live)
    assert locking.limit_of(live) == (3 << 30)
    _, notes = check(nvme(2), host)
    assert notes == ["PCI device 0000:02:00.0 is driven by e1000e: is it an NVMe disk?"]


@pytest.mark.parametrize(
    ("held", "wanted", "why"),
    [
        (nvme(1), nvme(1), "NVMe device 0000:01:00.0 already in use by driver QEMU domain a"),
        (nvme(1, 2), nvme(1), "PCI device 0000:01:00.0 is in use by driver QEMU, domain a"),
        (pci(1), nvme(1), "PCI device 0000:01:00.0 is in use by driver QEMU, domain a"),
        (nvme(1), pci(1), "PCI device 0000:01:00.0 is in use by driver QEMU, domain a"),
        ("", nvme(2, managed="no"), "Unmanaged PCI device 0000:02:00.0 must be manually detached"),
    ],
)
def test_an_nvme_controller_is_of_one_machine(host: Path, held: str, wanted: str, why: str) -> None:
    with pytest.raises(VirtError, match=why) as caught:
        check(wanted, host, {"a": hostdevs.of_host(machine(held))})
    assert caught.value.code == ErrorCode.OPERATION_INVALID


def test_a_disk_that_the_host_uses_is_not_taken_away(host: Path) -> None:
    disk = host / "sys/devices/0000:02:00.0/nvme/nvme0/nvme0n1/nvme0n1p1"
    disk.mkdir(parents=True)
    (disk / "dev").write_text("259:1\n")
    (host / "sys/class/block").mkdir(parents=True)
    (host / "sys/class/block/nvme0n1p1").symlink_to(disk)
    (host / "proc/self").mkdir(parents=True)
    (host / "proc/self/mountinfo").write_text("36 35 259:1 / /data rw shared:1 - ext4 /dev/nvme0n1p1 rw\n")
    why = "PCI device 0000:02:00.0 is in use by the host: nvme0n1p1 is mounted at /data; unmount it"
    for device in (nvme(2), pci(2, "yes")):
        with pytest.raises(VirtError, match=why):
            check(device, host)

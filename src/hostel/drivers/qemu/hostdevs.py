"""Devices of the host before a machine gets them: whether they are there, free, and ours to give (``virhostdev.c``)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from hostel.drivers.fault import fault
from hostel.drivers.passthrough import storage
from hostel.drivers.passthrough.pci import DRIVER, PciFunctions
from hostel.drivers.qemu.command.host import Sysfs
from hostel.drivers.qemu.command.hostdev import is_card
from hostel.drivers.qemu.command.objects import images
from hostel.drivers.qemu.document import unsupported
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.actual import actual
from hostel.model.domain.devices.device import Device
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.devices.hostdev import (
    Hostdev,
    MdevHostdev,
    PciHostdev,
    ScsiHostdev,
    ScsiHostHostdev,
    UsbHostAddress,
    UsbHostdev,
)
from hostel.model.domain.devices.interface import Interface
from hostel.model.domain.devices.source import SourceType
from hostel.model.domain.domain import Domain
from hostel.model.domain.placing.bus import spoken

_ROOT: Final = Path("/")
_MEDIATED: Final = "sys/bus/mdev/devices"


class Function(NamedTuple):
    """A PCI function of the host that a document gives a guest.

    Attributes:
        name: such as ``0000:01:00.0``.
        is_managed: whether it is taken from the host, and given back, by us.
        driver: what the document wants it to be driven by.
        interface: the network interface that it is, where it is one, as it turned out to be.
        namespace: the part of an NVMe controller that is a disk of the guest's, where QEMU itself drives it.
    """

    name: str
    is_managed: bool
    driver: str | None
    interface: Interface | None = None
    namespace: int | None = None


def of_host(domain: Domain) -> list[Device]:
    """The devices of a document that are the host's."""
    cards = [item for item in domain.devices.interfaces if is_card(item)]
    controllers = [item for item in domain.devices.disks if is_nvme(item)]
    return [*cards, *domain.devices.hostdevs, *controllers]


def is_nvme(disk: Disk) -> bool:
    """Whether an image of a disk is in an NVMe controller of the host's."""
    return any(kind == SourceType.NVME for kind, _, _ in images(disk))


def functions(devices: Iterable[Device]) -> Iterator[Function]:
    """The PCI functions among devices."""
    for device in devices:
        if isinstance(device, PciHostdev):
            yield Function(spoken(device.source.address), bool(device.managed), device.driver)
        elif isinstance(device, Interface) and is_card(device):
            real = actual(device)
            found = real.source.host_address if real.source is not None else None
            if found is not None and found.type in (None, "pci"):
                driver = device.driver.name if device.driver is not None else None
                yield Function(spoken(found), bool(real.managed), driver, real)
        elif isinstance(device, Disk):
            for kind, source, _ in images(device):
                if kind == SourceType.NVME and source.address is not None:
                    yield Function(spoken(source.address), bool(source.managed), None, None, source.namespace)


def needs_vfio(devices: Iterable[Device]) -> bool:
    """Whether there are devices that QEMU reaches by VFIO."""
    found = list(devices)
    return any(isinstance(item, MdevHostdev) for item in found) or any(True for _ in functions(found))


def check_movable(domain: Domain) -> None:
    """Refuse to take a machine's state elsewhere of which a device has a part (``qemuMigrationSrcIsAllowedHostdev``).

    Raises:
        VirtError: ``OPERATION_UNSUPPORTED``; only USB devices may stay behind, and PCI ones for which another card
            stands in meanwhile.
    """
    for device in of_host(domain):
        if isinstance(device, UsbHostdev | Disk):
            continue  # what is on a disk is looked at apart
        if isinstance(device, Interface | PciHostdev) and device.teaming and device.teaming.type == "transient":
            continue
        what = "interface type='hostdev'"
        if isinstance(device, Hostdev):
            what = f"hostdev mode='subsystem' type='{device.type}'"
        reason = f"cannot migrate a domain with <{what}>"
        raise fault(ErrorCode.OPERATION_UNSUPPORTED, reason, ErrorDomain.QEMU)


def check(
    name: str,
    devices: Iterable[Device],
    held: Mapping[str, Sequence[Device]],
    root: Path = _ROOT,
    *,
    is_cold: bool = True,
) -> list[str]:
    """Hold devices against the host; returns notes on what was left out.

    Args:
        name: the machine's that is to have them.
        devices: of a live document; USB devices have the place where they are afterwards, or are marked as missing.
        held: the devices of the host that machines have already, this one too.
        root: where the host's files lie.
        is_cold: whether the guest boots, and does not go on from what another run left.

    Raises:
        VirtError: as libvirt's, with what to do: a device is not there, cannot be given to a guest, or another machine
            has it (``OPERATION_INVALID``).
    """
    notes: list[str] = []
    wanted = list(devices)
    for device in wanted:
        match device:
            case UsbHostdev():
                notes += _find_usb(device, root, is_cold=is_cold)
            case MdevHostdev():
                _check_mediated(device, root)
            case ScsiHostdev() if device.source.protocol != "iscsi" and device.source.address is not None:
                _check_scsi(device, root)
            case _:
                pass
        _check_unused(device, held)
    found = list(functions(wanted))
    if found:
        host = PciFunctions(root, ErrorDomain.QEMU)
        _check_functions(name, found, held, host)
        notes += [
            f"PCI device {item.name} is driven by {driver}: is it an NVMe disk?"
            for item in found
            if item.namespace is not None and (driver := host.driver(item.name)) not in ("nvme", DRIVER)
        ]
    for device in wanted:
        if isinstance(device, PciHostdev):
            device.driver = "vfio"  # as live documents say it
    return notes


def _check_functions(
    machine: str, wanted: list[Function], held: Mapping[str, Sequence[Device]], host: PciFunctions
) -> None:
    if any(function.driver == "kvm" for function in wanted):
        raise unsupported("host doesn't support legacy PCI passthrough; write <driver name='vfio'/>")
    users = {item.name: (user, item) for user, devices in held.items() for item in functions(devices)}
    for function in wanted:
        name = function.name
        if not host.exists(name):
            raise unsupported(f"Device {name} not found; virsh nodedev-list --cap pci has those there are")
        if not host.is_endpoint(name):
            reason = "Non-endpoint PCI devices cannot be assigned to guests"
            raise fault(ErrorCode.INTERNAL_ERROR, f"{reason}: {name} is a bridge", ErrorDomain.QEMU)
        if host.group(name) is None:
            what = "VFIO PCI passthrough" if function.driver == "vfio" else "passthrough of host PCI devices"
            reason = f"{name} is in no IOMMU group; boot with intel_iommu=on or amd_iommu=on"
            raise unsupported(f"host doesn't support {what}: {reason}")
        for other in (name, *host.companions(name)):
            user, its = users.get(other, (machine, None))
            if its is not None and (its.name, its.namespace) == (name, function.namespace or 0):
                raise _in_use(f"NVMe device {other} already in use by driver QEMU domain {user}")
            if its is not None and (other == name or user != machine):
                raise _in_use(f"PCI device {other} is in use by driver QEMU, domain {user}")
        if not function.is_managed and host.driver(name) != DRIVER:
            node = "pci_" + name.replace(":", "_").replace(".", "_")
            what = f"Unmanaged PCI device {name} must be manually detached from the host"
            raise _in_use(f"{what}: virsh nodedev-detach {node}, or managed='yes'")
        if host.driver(name) != DRIVER and (use := storage.use_of(name, host)) is not None:
            raise _in_use(f"PCI device {name} is in use by the host: {use}")


def _in_use(what: str) -> VirtError:
    return fault(ErrorCode.OPERATION_INVALID, what, ErrorDomain.QEMU)


def _identity(device: Device) -> str:
    """What a device of the host is called where it is in use; empty where nobody can be told apart by it."""
    match device:
        case UsbHostdev() if device.source.address is not None and not device.source.missing:
            return f"USB device {device.source.address.bus:03}:{device.source.address.device:03}"
        case MdevHostdev():
            return f"mediated device /{_MEDIATED}/{device.source.address.uuid}"
        case ScsiHostdev() if device.source.protocol != "iscsi" and device.source.address is not None:
            unit, adapter = device.source.address, (device.source.adapter or "").removeprefix("scsi_host")
            return f"SCSI device {adapter}:{unit.bus}:{unit.target}:{unit.unit}"
        case ScsiHostHostdev():
            return f"vhost SCSI device {device.source.wwpn}"
        case _:
            return ""


def _check_unused(device: Device, held: Mapping[str, Sequence[Device]]) -> None:
    identity = _identity(device)
    if not identity:
        return
    for name, devices in held.items():
        same = next((item for item in devices if _identity(item) == identity), None)
        if same is None:
            continue
        if not isinstance(same, ScsiHostdev) or not isinstance(device, ScsiHostdev):
            raise _in_use(f"{identity} is in use by driver QEMU, domain {name}")
        if not (same.shareable and device.shareable):
            how = "shareable" if same.shareable else "non-shareable"
            raise _in_use(f"{identity} is already in use by other domain(s) as '{how}': {name}; write <shareable/>")


def _find_usb(device: UsbHostdev, root: Path, *, is_cold: bool) -> list[str]:
    """Find a USB device; one that need not be there is marked as missing, and comes when it is plugged in by hand."""
    source = device.source
    source.missing = None
    try:
        bus, number = _usb_place(device, Sysfs(root / "sys"))
    except VirtError as error:
        policy = source.startup_policy
        is_needed = policy != "optional" and (policy != "requisite" or is_cold)
        if is_needed or error.code == ErrorCode.OPERATION_FAILED:
            raise
        source.missing = True
        return [f"left out: {error.message} (startupPolicy='{policy}')"]
    if source.address is None or (source.address.bus, source.address.device) != (bus, number):
        source.address = UsbHostAddress(bus=bus, device=number)
        source.auto_address = True
    _check_access(root / f"dev/bus/usb/{bus:03}/{number:03}")
    return []


def _usb_place(device: UsbHostdev, host: Sysfs) -> tuple[int, int]:
    """Where a USB device is: at its place, where it has one that was not found by us; else where one of its kind is."""
    source = device.source
    vendor, product, place = source.vendor, source.product, source.address
    where = (place.bus, place.device) if place is not None and (place.bus or place.device) else None
    if vendor is None or product is None:
        bus, number = where or (0, 0)
        return host.usb_at(bus, number)
    if where is not None:
        try:
            return host.usb_at(*where, kind=(vendor, product))
        except VirtError:
            if not source.auto_address:
                raise
    return host.usb(vendor, product)


def _check_mediated(device: MdevHostdev, root: Path) -> None:
    uuid = device.source.address.uuid
    folder = root / _MEDIATED / uuid
    if not (root / "dev/vfio/vfio").exists():
        raise unsupported("Mediated host device assignment requires VFIO support; modprobe vfio")
    if not folder.exists():
        what = f"mediated device '{uuid}' not found"
        raise fault(
            ErrorCode.DEVICE_MISSING,
            f"device not found: {what}; virsh nodedev-list --cap mdev has those there are",
            ErrorDomain.QEMU,
        )
    try:
        offered = (folder / "mdev_type/device_api").read_text().strip()
    except OSError:
        return  # QEMU says what is wrong with it
    if device.model is not None and offered != device.model:
        reason = f"invalid device API '{device.model}' for device /{_MEDIATED}/{uuid}: "
        raise fault(ErrorCode.INTERNAL_ERROR, f"{reason}device only supports '{offered}'", ErrorDomain.QEMU)


def _check_scsi(device: ScsiHostdev, root: Path) -> None:
    if device.managed:
        raise fault(ErrorCode.XML_ERROR, "SCSI host device doesn't support managed mode", ErrorDomain.QEMU)
    unit = device.source.address
    assert unit is not None
    path = Sysfs(root / "sys").scsi_generic(device.source.adapter or "", unit.bus, unit.target, unit.unit)
    _check_access(root / path.removeprefix("/"))


def _check_access(path: Path) -> None:
    if not os.access(path, os.R_OK | os.W_OK):
        raise unsupported(f"you may not read and write {path}; be root, or have a rule of udev's give it to you")

"""Devices of the host before a machine gets them: whether they are there, free, and ours to give."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from hostel.drivers.fault import fault
from hostel.drivers.qemu.command.host import Sysfs
from hostel.drivers.qemu.document import unsupported
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.devices.hostdev import (
    Hostdev,
    MdevHostdev,
    PciHostdev,
    ScsiHostdev,
    UsbHostAddress,
    UsbHostdev,
)
from hostel.model.domain.domain import Domain

_SYS: Final = Path("/sys")
_DEV: Final = Path("/dev")


def check(live: Domain, others: Mapping[str, Domain], sys: Path = _SYS, dev: Path = _DEV) -> list[str]:
    """Hold the devices of the host that a document names against the host; returns notes on what was left out.

    Args:
        live: the document; USB devices have the place where they are afterwards, or are marked as missing.
        others: the live documents of the machines that run, by name.
        sys: sysfs.
        dev: where device nodes are.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED``: a device is not there, or cannot be given to a guest; ``OPERATION_INVALID``:
            another machine has it.
    """
    notes: list[str] = []
    taken = {key: name for name, domain in others.items() for item in domain.devices.hostdevs if (key := _key(item))}
    for device in live.devices.hostdevs:
        match device:
            case UsbHostdev():
                notes += _check_usb(device, Sysfs(sys), sys, dev)
            case PciHostdev():
                _check_pci(device, sys)
            case MdevHostdev():
                uuid = device.source.address.uuid
                if not (sys / "bus/mdev/devices" / uuid).exists():
                    raise unsupported(
                        f"mediated device '{uuid}' not found; virsh nodedev-list --cap mdev has those there are"
                    )
            case ScsiHostdev() if device.source.protocol != "iscsi" and device.source.address is not None:
                unit = device.source.address
                path = Sysfs(sys).scsi_generic(device.source.adapter or "", unit.bus, unit.target, unit.unit)
                _check_access(dev / path.removeprefix("/dev/"))
            case _:
                pass
        if (key := _key(device)) in taken:
            what = f"{key} is in use by driver QEMU, domain {taken[key]}"
            raise fault(ErrorCode.OPERATION_INVALID, what, ErrorDomain.QEMU)
    return notes


def _key(device: Hostdev) -> str:
    """What a device of the host is called where it is in use; empty where several machines may have it."""
    match device:
        case UsbHostdev() if device.source.address is not None and not device.source.missing:
            return f"USB device {device.source.address.bus:03}:{device.source.address.device:03}"
        case PciHostdev():
            return f"PCI device {_pci(device)}"
        case MdevHostdev():
            return f"mediated device {device.source.address.uuid}"
        case ScsiHostdev() if device.source.address is not None and not device.shareable:
            unit = device.source.address
            return f"SCSI device {device.source.adapter}:{unit.bus}:{unit.target}:{unit.unit}"
        case _:
            return ""


def _pci(device: PciHostdev) -> str:
    place = device.source.address
    return f"{place.domain:04x}:{place.bus:02x}:{place.slot:02x}.{place.function:x}"


def _check_usb(device: UsbHostdev, host: Sysfs, sys: Path, dev: Path) -> list[str]:
    """Find a USB device; one that need not be there is marked as missing, and comes when it is plugged in by hand."""
    source = device.source
    source.missing = None
    try:
        if source.vendor is not None and source.product is not None:
            bus, number = host.usb(source.vendor, source.product)
        else:
            bus, number = _usb_place(source.address, sys)
    except VirtError as error:
        if source.startup_policy != "optional":
            raise
        source.missing = True
        return [f"left out: {error.message} (startupPolicy='optional')"]
    source.address = UsbHostAddress(bus=bus, device=number)
    _check_access(dev / f"bus/usb/{bus:03}/{number:03}")
    return []


def _usb_place(address: UsbHostAddress | None, sys: Path) -> tuple[int, int]:
    bus, number = (address.bus, address.device) if address is not None else (0, 0)
    for folder in sys.glob("bus/usb/devices/*"):
        try:
            found = (int((folder / "busnum").read_text()), int((folder / "devnum").read_text()))
        except (OSError, ValueError):
            continue
        if found == (bus, number):
            return found
    raise unsupported(
        f"Did not find USB device bus:{bus} device:{number}; plug it in, or write its <vendor> and <product>"
    )


def _check_pci(device: PciHostdev, sys: Path) -> None:
    name = _pci(device)
    folder = sys / "bus/pci/devices" / name
    if not folder.exists():
        raise unsupported(f"Device {name} not found; virsh nodedev-list --cap pci has those there are")
    if not (folder / "iommu_group").exists():
        reason = "host doesn't support passthrough of host PCI devices"
        raise unsupported(f"{reason}: {name} is in no IOMMU group; boot with intel_iommu=on or amd_iommu=on")
    node = "pci_" + name.replace(":", "_").replace(".", "_")
    bound = (folder / "driver").resolve().name if (folder / "driver").exists() else None
    if bound != "vfio-pci":
        what = "is not taken from the host by itself" if device.managed else "must be manually detached from the host"
        raise unsupported(f"PCI device {name} {what}; virsh nodedev-detach {node}")


def _check_access(path: Path) -> None:
    if not os.access(path, os.R_OK | os.W_OK):
        raise unsupported(f"you may not read and write {path}; be root, or have a rule of udev's give it to you")

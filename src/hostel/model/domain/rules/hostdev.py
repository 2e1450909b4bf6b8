"""Rules for devices of the host (``virDomainHostdevDefValidate``, ``qemuValidateDomainDeviceDefHostdev``)."""

from __future__ import annotations

import re
from typing import Any, Final

from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.devices.address import (
    CcwAddress,
    DriveAddress,
    PciAddress,
    UnassignedAddress,
    UsbAddress,
)
from hostel.model.domain.devices.disk import DiskBus
from hostel.model.domain.devices.hostdev import (
    Hostdev,
    MdevHostdev,
    PciHostdev,
    ScsiHostdev,
    ScsiHostHostdev,
    UsbHostdev,
)
from hostel.model.domain.devices.interface import HostdevInterface, InterfaceType
from hostel.model.domain.domain import Domain
from hostel.model.domain.placing.bus import spoken
from hostel.model.domain.rules.rule import Machine, MachineRule, check_on, needs

_XML: Final = ErrorCode.XML_ERROR
_WWPN: Final = re.compile("naa\\.[0-9a-fA-F]{16}")
_MDEV_FEATURES: Final = {
    "vfio-pci": ("vfio-pci", "VFIO PCI device assignment is not supported by this version of QEMU"),
    "vfio-ap": ("vfio-ap", "VFIO AP device assignment is not supported by this version of QEMU"),
    "vfio-ccw": ("vfio-ccw", "VFIO CCW device assignment is not supported by this version of QEMU"),
}


def _kind(hostdev: Hostdev) -> str:
    """The type of a device's address, as messages call it."""
    return hostdev.address.WHEN["type"] or "" if hostdev.address is not None else ""


def _secret_type(hostdev: Hostdev) -> str | None:
    auth = hostdev.source.auth if isinstance(hostdev, ScsiHostdev) else None
    return auth.secret.type if auth is not None and auth.secret is not None else None


HOSTDEV_RULES: Final[tuple[MachineRule[Hostdev], ...]] = (
    MachineRule(
        lambda item, _: isinstance(item, MdevHostdev) and item.model is None,
        "Missing required attribute 'model' in element 'hostdev'",
        "/@model",
        ErrorCode.XML_ERROR,
    ),
    MachineRule(
        lambda item, _: isinstance(item, ScsiHostHostdev) and item.source.wwpn is None,
        "missing vhost-scsi hostdev source wwpn",
        "/source/@wwpn",
        ErrorCode.XML_ERROR,
    ),
    MachineRule(
        lambda item, _: isinstance(item, ScsiHostHostdev) and not _WWPN.fullmatch(item.source.wwpn or ""),
        "malformed 'wwpn' value",
        "/source/@wwpn",
        ErrorCode.XML_ERROR,
    ),
    MachineRule(
        lambda item, _: isinstance(item, ScsiHostdev) and item.source.protocol == "iscsi" and item.source.name is None,
        "missing iSCSI hostdev source path name",
        "/source/@name",
        ErrorCode.XML_ERROR,
    ),
    MachineRule(
        lambda item, _: isinstance(item, ScsiHostdev) and _secret_type(item) not in (None, "iscsi"),
        lambda item, _: f"hostdev invalid secret type '{_secret_type(item)}'",
        "/source/auth/secret/@type",
        ErrorCode.INTERNAL_ERROR,
    ),
    MachineRule(
        lambda item, _: (
            isinstance(item, PciHostdev) and not isinstance(item.address, PciAddress | UnassignedAddress | None)
        ),
        "PCI host devices must use 'pci' or 'unassigned' address type",
        "/address/@type",
        ErrorCode.INTERNAL_ERROR,
    ),
    MachineRule(
        lambda item, _: isinstance(item, ScsiHostdev) and not isinstance(item.address, DriveAddress | None),
        "SCSI host device must use 'drive' address type",
        "/address/@type",
    ),
    MachineRule(
        lambda item, _: isinstance(item, ScsiHostdev) and item.sgio == "unfiltered",
        "unfiltered sgio is no longer supported",
        "/@sgio",
    ),
    MachineRule(
        lambda item, _: (
            isinstance(item, ScsiHostHostdev) and not isinstance(item.address, PciAddress | CcwAddress | None)
        ),
        "SCSI_host host device must use 'pci' or 'ccw' address type",
        "/address/@type",
    ),
    MachineRule(
        lambda item, _: isinstance(item, UsbHostdev) and not isinstance(item.address, UsbAddress | None),
        "USB host device must use 'usb' address type",
        "/address/@type",
    ),
    *(
        MachineRule(
            lambda item, _, model=model, kind=kind: (  # type: ignore[misc]
                isinstance(item, MdevHostdev) and item.model == model and not isinstance(item.address, kind | None)
            ),
            lambda item, _: f"Unsupported address type '{_kind(item)}' with mediated device model '{item.model}'",
            "/address/@type",
            _XML,
        )
        for model, kind in (("vfio-pci", PciAddress), ("vfio-ccw", CcwAddress))
    ),
    MachineRule(
        lambda item, _: item.teaming is not None and item.teaming.type != "transient",
        "teaming hostdev devices must have type='transient'",
        "/teaming/@type",
    ),
    MachineRule(
        lambda item, _: item.teaming is not None and item.teaming.persistent is None,
        "missing required persistent attribute in hostdev teaming element",
        "/teaming/@persistent",
    ),
    MachineRule(
        lambda item, _: item.teaming is not None and not isinstance(item, PciHostdev),
        "teaming is only supported for pci hostdev devices",
        "/teaming",
    ),
)

QEMU_HOSTDEV_RULES: Final[tuple[MachineRule[Hostdev], ...]] = (
    MachineRule(
        lambda item, _: item.mode == "capabilities",
        lambda _, machine: f"hostdev mode 'capabilities' is not supported in {machine.domain.type}",
        "/@mode",
    ),
    needs(
        "usb-host.guest-resets-all",
        lambda item: isinstance(item, UsbHostdev) and item.source.guest_reset,
        "guestReset is not supported with this version of QEMU",
        "/source/@guestReset",
    ),
    needs(
        "vfio-pci",
        lambda item: isinstance(item, PciHostdev) and item.driver == "vfio",
        "VFIO PCI device assignment is not supported by this version of qemu",
        "/driver/@name",
    ),
    MachineRule(
        lambda item, _: isinstance(item, PciHostdev) and item.source.write_filtering is not None,
        "Write filtering of PCI device configuration space is not supported by qemu",
        "/source/@writeFiltering",
    ),
    MachineRule(
        lambda item, _: isinstance(item, ScsiHostHostdev) and item.boot is not None,
        "booting from assigned devices is not supported by vhost SCSI devices",
        "/boot",
    ),
    needs(
        "vhost-scsi",
        lambda item: isinstance(item, ScsiHostHostdev),
        "This QEMU doesn't support vhost-scsi devices",
    ),
    *(
        needs(
            feature,
            lambda item, model=model: isinstance(item, MdevHostdev) and item.model == model,  # type: ignore[misc]
            words,
            "/@model",
        )
        for model, (feature, words) in _MDEV_FEATURES.items()
    ),
    MachineRule(
        lambda item, _: isinstance(item, MdevHostdev) and item.model in ("vfio-pci", "vfio-ap") and item.boot,
        lambda item, _: f"booting from assigned devices is not supported by mediated devices of model {item.model}",
        "/boot",
    ),
    MachineRule(
        lambda item, _: isinstance(item, MdevHostdev) and item.model != "vfio-pci" and item.display is not None,
        "<hostdev> attribute 'display' is only supported with model='vfio-pci'",
        "/@display",
    ),
    MachineRule(
        lambda item, machine: isinstance(item, MdevHostdev) and item.display and not machine.domain.devices.graphics,
        "graphics device is needed for attribute value 'display=on' in <hostdev>",
        "/@display",
    ),
)


def _identity(hostdev: Hostdev) -> tuple[Any, ...] | None:
    """What no two devices of a domain may share (``virDomainHostdevMatch``); None where that cannot be said."""
    if isinstance(hostdev, PciHostdev):
        return "pci", spoken(hostdev.source.address)
    if isinstance(hostdev, UsbHostdev):
        place = hostdev.source.address
        if place is not None and (place.bus or place.device):
            return "usb place", place.bus, place.device
        return "usb kind", hostdev.source.vendor, hostdev.source.product
    if isinstance(hostdev, ScsiHostdev):
        source = hostdev.source
        if source.protocol == "iscsi":
            host = source.host
            return (
                "iscsi",
                source.name,
                host.name if host is not None else None,
                host.port if host is not None else None,
            )
        unit = source.address
        return "scsi", source.adapter, unit and (unit.bus, unit.target, unit.unit)
    if isinstance(hostdev, ScsiHostHostdev):
        return "vhost", hostdev.source.wwpn
    return ("mdev", hostdev.source.address.uuid) if isinstance(hostdev, MdevHostdev) else None


def check_hostdevs(machine: Machine) -> None:
    """Hold devices of the host against the rules and against each other.

    Raises:
        ModelError: one is there twice, or cannot be given to a guest.
    """
    domain = machine.domain
    devices = domain.devices
    for hostdev in devices.hostdevs:
        check_on(hostdev, devices.path(hostdev), machine, HOSTDEV_RULES)
        if machine.platform.is_qemu:
            check_on(hostdev, devices.path(hostdev), machine, QEMU_HOSTDEV_RULES)
    seen = {
        ("pci", spoken(item.source.host_address))
        for item in devices.interfaces
        if isinstance(item, HostdevInterface)
        and item.type == InterfaceType.HOSTDEV
        and item.source is not None
        and item.source.host_address is not None
        and item.source.host_address.type == "pci"
    }
    for hostdev in devices.hostdevs:
        identity = _identity(hostdev)
        if identity is not None and identity in seen:
            raise ModelError(devices.path(hostdev), "Hostdev already exists in the domain configuration")
        seen |= {identity} if identity is not None else set()
    for flag, model, words in (
        ("ramfb", "vfio-pci", "Only one vgpu device can have 'ramfb' enabled"),
        ("model", "vfio-ap", "Only one hostdev of model vfio-ap is supported"),
    ):
        found = [item for item in devices.hostdevs if isinstance(item, MdevHostdev) and item.model == model]
        found = [item for item in found if flag == "model" or item.ramfb]
        if len(found) > 1:
            raise ModelError(f"{devices.path(found[1])}/@{flag}", words, code=ErrorCode.CONFIG_UNSUPPORTED)
    _check_places(domain)


def _check_places(domain: Domain) -> None:
    """No two SCSI devices are at one place."""
    devices = domain.devices
    disks = {
        item.address.place: item.target.dev
        for item in devices.disks
        if item.target.bus == DiskBus.SCSI and isinstance(item.address, DriveAddress)
    }
    taken: set[tuple[int, int, int, int]] = set()
    for hostdev in devices.hostdevs:
        address = hostdev.address
        if not isinstance(hostdev, ScsiHostdev) or not isinstance(address, DriveAddress):
            continue
        where = (
            f"SCSI host address controller='{address.controller}' bus='{address.bus}' target='{address.target}' "
            f"unit='{address.unit}' in use by"
        )
        path = f"{devices.path(hostdev)}/address"
        if address.place in taken:
            raise ModelError(path, f"{where} another SCSI host device", code=ErrorCode.CONFIG_UNSUPPORTED)
        if address.place in disks:
            reason = f"{where} a SCSI disk: '{disks[address.place]}'"
            raise ModelError(path, reason, code=ErrorCode.CONFIG_UNSUPPORTED)
        taken.add(address.place)

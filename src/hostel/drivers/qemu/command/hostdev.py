"""Devices of the host that a guest gets (``qemuBuildHostdevCommandLine``)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from hostel.drivers.qemu.command import objects
from hostel.drivers.qemu.command.context import Context, alias_of, option
from hostel.drivers.qemu.command.place import place, rom, scsi_place, virtio_name, zpci
from hostel.drivers.qemu.command.protocol import protocol
from hostel.drivers.qemu.document import unsupported
from hostel.errors import ErrorCode, VirtError
from hostel.model.domain.actual import actual
from hostel.model.domain.devices.address import DriveAddress, UnassignedAddress
from hostel.model.domain.devices.disk import Disk, DiskTarget
from hostel.model.domain.devices.hostdev import (
    Hostdev,
    MdevHostdev,
    PciHostdev,
    ScsiHostAddress,
    ScsiHostdev,
    ScsiHostHostdev,
    UsbHostdev,
)
from hostel.model.domain.devices.interface import Interface, InterfaceSource, InterfaceType, Teaming
from hostel.model.domain.devices.source import DiskSource, SourceType
from hostel.model.domain.domain import Domain
from hostel.model.domain.placing.bus import spoken

_RESETS: Final = {
    "off": {"guest-reset": False},
    "uninitialized": {"guest-reset": True, "guest-resets-all": False},
    "on": {"guest-reset": True, "guest-resets-all": True},
}


def arguments(domain: Domain, context: Context, bootindex: dict[int, int]) -> list[str]:
    """Every device of the host in the document; those that stay unassigned are left out."""
    argv: list[str] = []
    for device in domain.devices.hostdevs:
        if not isinstance(device.address, UnassignedAddress):
            argv += one(domain, device, context, bootindex.get(id(device)))
    return argv


def one(
    domain: Domain, device: Hostdev, context: Context, bootindex: int | None, *, number: int | None = None
) -> list[str]:
    """One device of the host; ``number`` is a SCSI device's node's, where it is not its place in the document."""
    common = {"id": alias_of(device), "bootindex": bootindex}
    match device:
        case UsbHostdev():
            spec = {"driver": "usb-host", **_usb(device, context), **common}
            return option("-device", {**spec, **place(domain, device)})
        case PciHostdev():
            pair = _failover(device.teaming)
            spec = {"driver": "vfio-pci", "host": spoken(device.source.address), **common, **pair, **rom(device)}
            return [*zpci(device), *option("-device", {**spec, **place(domain, device)})]
        case ScsiHostdev():
            return _scsi(domain, device, context, common, _number(domain, device) if number is None else number)
        case ScsiHostHostdev():
            name = virtio_name("vhost-scsi", device, device.model)
            spec = {"driver": name, "wwpn": device.source.wwpn, "id": alias_of(device)}
            spec["vhostfd"] = "3" if context.hands_over else None
            return [*zpci(device), *option("-device", {**spec, **place(domain, device)})]
        case MdevHostdev():
            return option("-device", {**_mdev(device), **common, **place(domain, device)})
        case _:
            raise unsupported(f"hostdev mode='{device.mode}' type='{device.type}'; write usb, pci, scsi or mdev")


def secrets(domain: Domain) -> Iterator[objects.Needed]:
    """The secrets of SCSI devices that are on servers.

    Raises:
        VirtError: ``XML_ERROR``: a server is guarded, and no secret is named.
    """
    for device in domain.devices.hostdevs:
        if isinstance(device, ScsiHostdev):
            yield from secrets_of(device, _number(domain, device))


def secrets_of(device: ScsiHostdev, number: int) -> Iterator[objects.Needed]:
    """Those of one, by the number of its node.

    Raises:
        VirtError: as :func:`secrets`.
    """
    if device.source.auth is None:
        return
    if device.source.auth.secret is None:
        why = "<secret> is missing; write its uuid or its usage"
        raise VirtError(ErrorCode.XML_ERROR, f"XML error: hostdev '{alias_of(device)}': {why}")
    yield objects.Needed(f"{backend(number)}-secret0", device.source.auth.secret, "iscsi")


def backend(number: int) -> str:
    """The name of the node on which a guest speaks to a SCSI device."""
    return f"libvirt-{number}-backend"


def is_card(interface: Interface) -> bool:
    """Whether an interface is a network card of the host, its own or one of a network's."""
    kind = interface.actual.type if interface.actual is not None else interface.type
    return kind == InterfaceType.HOSTDEV


def card(domain: Domain, interface: Interface, bootindex: int | None) -> list[str]:
    """A network card of the host itself."""
    source = actual(interface).source or InterfaceSource()
    found = source.host_address
    if found is None or found.type not in (None, "pci"):
        raise unsupported(f"interface '{alias_of(interface)}': write <source><address type='pci' .../></source>")
    spec = {"driver": "vfio-pci", "host": spoken(found), "id": alias_of(interface), "bootindex": bootindex}
    spec |= {**_failover(interface.teaming), **rom(interface), **place(domain, interface)}
    return [*zpci(interface), *option("-device", spec)]


def _failover(teaming: Teaming | None) -> dict[str, Any]:
    """The card that stands in for this one while it is away."""
    if teaming is None or teaming.type != "transient":
        return {}
    return {"failover_pair_id": teaming.persistent}


def _usb(device: UsbHostdev, context: Context) -> dict[str, Any]:
    source = device.source
    resets = _RESETS.get(source.guest_reset or "", {})
    if source.missing:
        return resets
    address = source.address
    if address is not None:
        bus, number = address.bus, address.device
    else:
        bus, number = context.host.usb(source.vendor or 0, source.product or 0)
    if not context.has("usb-host.hostdevice"):
        return {"hostbus": bus, "hostaddr": number, **resets}
    return {"hostdevice": f"/dev/bus/usb/{bus:03}/{number:03}", **resets}


def _mdev(device: MdevHostdev) -> dict[str, Any]:
    driver = "vfio-pci-nohotplug" if device.model == "vfio-pci" and device.ramfb else device.model
    display = {True: "on", False: "off", None: None}[device.display]
    own = {"display": display, "ramfb": True if device.ramfb else None}
    return {"driver": driver, "sysfsdev": f"/sys/bus/mdev/devices/{device.source.address.uuid}", **own}


def _number(domain: Domain, device: ScsiHostdev) -> int:
    """The number of a device's node: after those of the disks' images."""
    last = max((disk.source.index or 0 for disk in domain.devices.disks if disk.source is not None), default=0)
    for disk in domain.devices.disks:
        below = disk.backing_store
        while below is not None:
            last, below = max(last, below.index or 0), below.backing_store
    same = [item for item in domain.devices.hostdevs if isinstance(item, ScsiHostdev)]
    return last + next(place for place, item in enumerate(same, 1) if item is device)


def _scsi(domain: Domain, device: ScsiHostdev, context: Context, common: dict[str, Any], number: int) -> list[str]:
    """A SCSI device: a node on which the guest speaks to it."""
    address = device.address
    if not isinstance(address, DriveAddress):
        raise unsupported(f"hostdev '{alias_of(device)}': a SCSI device without a drive address")
    source = device.source
    name = backend(number)
    argv: list[str] = []
    if source.protocol == "iscsi":
        hosts = [source.host] if source.host is not None else []
        found = DiskSource(
            protocol="iscsi", name=source.name, hosts=hosts, auth=source.auth, initiator=source.initiator
        )
        stand_in = Disk(target=DiskTarget(dev=alias_of(device)), type=SourceType.NETWORK, source=found)
        where = protocol(stand_in, SourceType.NETWORK, found, None)
        if source.auth is not None:
            where["password-secret"] = f"{name}-secret0"
            argv += objects.secret(f"{name}-secret0", context)
    else:
        unit = source.address or ScsiHostAddress(bus=0, target=0, unit=0)
        path = context.host.scsi_generic(source.adapter or "", unit.bus, unit.target, unit.unit)
        where = {"driver": "host_device", "filename": path}
    argv += option("-blockdev", {**where, "node-name": name, "read-only": device.readonly})
    spec = {"driver": "scsi-generic", "drive": name, **common, **scsi_place(domain, device, address)}
    if device.shareable and not context.hands_over:
        spec["share-rw"] = True  # without which QEMU's locks keep the others out; libvirt leaves it out
    return [*argv, *option("-device", spec)]

"""Which devices of a document another one describes, and what is said where there is none (``virDomain*Find``)."""

from __future__ import annotations

from typing import Any, Final

from hostel.codec.xml import Element
from hostel.drivers.fault import fault
from hostel.drivers.qemu.command.memory import MODULE, up
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.devices.character import (
    Channel,
    CharacterBackend,
    CharacterSource,
    CharacterType,
    Console,
    Parallel,
    Serial,
)
from hostel.model.domain.devices.controller import Controller
from hostel.model.domain.devices.device import Device
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.devices.filesystem import Filesystem
from hostel.model.domain.devices.hostdev import Hostdev, MdevHostdev, PciHostdev, ScsiHostdev, UsbHostdev
from hostel.model.domain.devices.input import Input
from hostel.model.domain.devices.paravirtual import Rng, SharedMemory, Vsock
from hostel.model.domain.devices.platform import MemoryDevice, Watchdog
from hostel.model.domain.devices.redirection import Redirdev
from hostel.model.domain.domain import Domain
from hostel.model.domain.placing.bus import spoken

_ON_PATHS: Final = frozenset({
    CharacterType.PTY, CharacterType.DEV, CharacterType.FILE, CharacterType.PIPE, CharacterType.UNIX,
})  # fmt: skip


def matching(domain: Domain, given: tuple[Element, str]) -> list[Device]:
    """The devices that ``given`` may mean, but for interfaces."""
    device, place = given
    held = getattr(domain.devices, place)
    found = held if isinstance(held, list) else [held] if held is not None else []
    return [item for item in found if isinstance(item, Device) and _means(device, item)]


def _means(wanted: Element, held: Device) -> bool:
    if not isinstance(wanted, Device) or type(wanted) is not type(held):
        return False
    match wanted, held:
        case Disk(), Disk():
            return wanted.target.dev == held.target.dev
        case Controller(), Controller():
            return (wanted.type, wanted.index) == (held.type, held.index)
        case Hostdev(), Hostdev():
            return _is_same_of_host(wanted, held)
        case MemoryDevice(), MemoryDevice():
            return _is_module(wanted, held)
        case ((Serial() | Parallel() | Console() | Channel()), CharacterBackend()):
            return is_same_port(wanted, held)
        case Redirdev(), Redirdev():
            return wanted.bus == held.bus and _is_same_end(wanted, held) and _is_there(wanted, held)
        case Filesystem(), Filesystem():
            return wanted.target == held.target
        case SharedMemory(), SharedMemory():
            return _shared(wanted) == _shared(held) and _is_there(wanted, held)
        case Watchdog(), Watchdog():
            return (wanted.model, wanted.action, wanted.address) == (held.model, held.action, held.address)
        case Vsock(), Vsock():
            return _is_same_socket(wanted, held) and _is_there(wanted, held)
        case Input(), Input():
            same = (wanted.type, wanted.bus, wanted.source) == (held.type, held.bus, held.source)
            return same and _is_there(wanted, held)
        case _:
            return _describes(wanted, held)


def _is_there(wanted: Device, held: Device) -> bool:
    """Whether a device is where another says, and has the name that it says, if it says any of both."""
    return wanted.address in (None, held.address) and wanted.alias in (None, held.alias)


def _describes(wanted: Device, held: Device) -> bool:
    """Whether everything that is said of one device is true of another."""
    values = ((field, getattr(wanted, field.name)) for field in wanted.FIELDS)
    return all(field.is_absent(value) or value == getattr(held, field.name) for field, value in values)


def _is_module(wanted: MemoryDevice, held: MemoryDevice) -> bool:
    size = up(wanted.target.size.to_kib(), MODULE)
    return (
        (wanted.model, size, wanted.target.node) == (held.model, held.target.size.to_kib(), held.target.node)
        and wanted.source in (None, held.source)
        and _is_there(wanted, held)
    )


def is_same_port(wanted: CharacterBackend, held: CharacterBackend) -> bool:
    """Whether two character devices are one and the same (``virDomainChrEquals``)."""
    if type(wanted) is not type(held) or not _is_same_end(wanted, held):
        return False
    ours, theirs = getattr(wanted, "target", None), getattr(held, "target", None)
    if isinstance(wanted, Channel):
        return _words(ours, "type", "name", "address", "port") == _words(theirs, "type", "name", "address", "port")
    names = ("type", "port") if isinstance(wanted, Serial) else ("port",)
    return all(mine in (None, other) for mine, other in zip(_words(ours, *names), _words(theirs, *names), strict=True))


def _words(target: object, *names: str) -> list[Any]:
    return [getattr(target, name, None) for name in names]


def _is_same_end(wanted: CharacterBackend, held: CharacterBackend) -> bool:
    """Whether both have the same at the host's end (``virDomainChrSourceDefIsEqual``)."""
    if wanted.type != held.type:
        return False
    ours, theirs = wanted.source or CharacterSource(), held.source or CharacterSource()
    if wanted.type in _ON_PATHS:
        return ours.path == theirs.path
    if wanted.type == CharacterType.TCP:
        return (ours.host, ours.service) == (theirs.host, theirs.service)
    if wanted.type == CharacterType.SPICEPORT:
        return ours.channel == theirs.channel
    return wanted.type != CharacterType.UDP or wanted.sources == held.sources


def _shared(item: SharedMemory) -> tuple[Any, ...]:
    size = item.size.to_bytes() if item.size is not None else None
    return item.name, size, item.model, item.role, item.server, item.msi


def _is_same_socket(wanted: Vsock, held: Vsock) -> bool:
    ours, theirs = (item.cid.auto if item.cid is not None else None for item in (wanted, held))
    return (wanted.model, bool(ours)) == (held.model, bool(theirs))


def same_hostdev(domain: Domain, wanted: Hostdev) -> Hostdev | None:
    """The device of a document that is the same one of the host (``virDomainHostdevMatch``); None where none is."""
    return next((item for item in domain.devices.hostdevs if _is_same_of_host(wanted, item)), None)


def _is_same_of_host(wanted: Hostdev, held: Hostdev) -> bool:
    if type(wanted) is not type(held):
        return False
    if isinstance(wanted, UsbHostdev) and isinstance(held, UsbHostdev):
        mine, its = wanted.source, held.source
        if mine.address is not None and mine.address.bus and mine.address.device:
            return mine.address == its.address
        return (mine.vendor, mine.product) == (its.vendor, its.product)
    if isinstance(wanted, PciHostdev) and isinstance(held, PciHostdev):
        return spoken(wanted.source.address) == spoken(held.source.address)
    if isinstance(wanted, ScsiHostdev) and isinstance(held, ScsiHostdev):
        fields = ("protocol", "name", "host", "adapter", "address")
        return all(getattr(wanted.source, field) == getattr(held.source, field) for field in fields)
    return bool(getattr(wanted, "source", None) == getattr(held, "source", None))


def _missing_hostdev(wanted: Hostdev) -> str:
    """What is said of a device of the host that is not there."""
    match wanted:
        case PciHostdev():
            return f"host pci device {spoken(wanted.source.address)} not found"
        case UsbHostdev() if wanted.source.address is not None:
            return f"host usb device {wanted.source.address.bus:03}.{wanted.source.address.device:03} not found"
        case UsbHostdev():
            vendor, product = wanted.source.vendor or 0, wanted.source.product or 0
            return f"host usb device vendor=0x{vendor:04x} product=0x{product:04x} not found"
        case ScsiHostdev() if wanted.source.protocol == "iscsi":
            return f"host scsi iSCSI path {wanted.source.name} not found"
        case ScsiHostdev() if wanted.source.address is not None:
            unit = wanted.source.address
            return f"host scsi device {wanted.source.adapter}:{unit.bus}:{unit.target}.{unit.unit} not found"
        case MdevHostdev():
            return f"mediated device {wanted.source.address.uuid} not found"
        case _:
            return "host device is not attached"


# Of what is not there: of a running machine's document, and of a definition.
_LIVE: Final = {
    "filesystem": "matching filesystem not found", "memory": "matching memory device was not found",
    "input": "matching input device not found", "vsock": "matching vsock device not found",
    "watchdog": "watchdog device not present in domain configuration",
}  # fmt: skip
_STORED: Final = {
    "filesystem": "no matching filesystem device was found", "memory": "matching memory device was not found",
    "input": "matching input device not found", "rng": "no matching RNG device was found",
    "redirdev": "no matching redirdev was not found", "shmem": "matching shmem device was not found",
    "watchdog": "domain has no watchdog",
}  # fmt: skip


def missing(given: tuple[Element, str], *, live: bool) -> VirtError:
    """What libvirt says of a device that is not there."""
    device = given[0]
    if isinstance(device, Disk) and device.address is None and device.target.position is None:
        # libvirt wants to know where it would be before it looks for it.
        what = f"Unknown disk name '{device.target.dev}' and no address specified"
        return fault(ErrorCode.XML_ERROR, what, ErrorDomain.DOMAIN)
    code, what = _missing(device, live=live)
    prefix = "device not found: " if code is ErrorCode.DEVICE_MISSING else ""
    return fault(code, prefix + what, ErrorDomain.QEMU)


def _missing(device: Element, *, live: bool) -> tuple[ErrorCode, str]:
    tag = device.TAG
    if isinstance(device, Disk):
        dev = device.target.dev
        return ErrorCode.DEVICE_MISSING, f"disk {dev} not found" if live else f"no target device {dev}"
    if not live:
        if isinstance(device, Serial | Parallel | Console | Channel):
            return ErrorCode.INVALID_ARG, "device not present in domain configuration"
        if isinstance(device, Vsock):
            return ErrorCode.OPERATION_FAILED, "matching vsock device not found"
        return ErrorCode.DEVICE_MISSING, _STORED.get(tag, "device not present in domain configuration")
    match device:
        case Serial() | Parallel() | Console() | Channel():
            return ErrorCode.DEVICE_MISSING, f"chr type '{tag}' device not present in domain configuration"
        case Redirdev():
            return ErrorCode.OPERATION_INVALID, "no matching redirdev was not found"
        case Hostdev():
            return ErrorCode.DEVICE_MISSING, _missing_hostdev(device)
        case Controller():
            return ErrorCode.DEVICE_MISSING, f"controller {device.type}:{device.index} not found"
        case Rng():
            return (
                ErrorCode.DEVICE_MISSING,
                f"model '{device.backend.model}' RNG device not present in domain configuration",
            )
        case SharedMemory():
            return ErrorCode.DEVICE_MISSING, f"model '{device.model}' shmem device not present in domain configuration"
        case _:
            return ErrorCode.DEVICE_MISSING, _LIVE.get(tag, "device not present in domain configuration")

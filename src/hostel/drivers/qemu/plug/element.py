"""Documents of single devices: reading one, and finding in a domain's document which device it means."""

from __future__ import annotations

from typing import Final, NamedTuple

from hostel.codec.xmltext import parse
from hostel.drivers.document import reading
from hostel.drivers.fault import fault
from hostel.drivers.qemu.command.memory import MODULE, up
from hostel.drivers.qemu.machines import failed
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.devices.address import PciAddress
from hostel.model.domain.devices.controller import Controller
from hostel.model.domain.devices.device import Device
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.devices.graphics import Graphics
from hostel.model.domain.devices.hostdev import Hostdev, MdevHostdev, PciHostdev, ScsiHostdev, UsbHostdev
from hostel.model.domain.devices.input import Input
from hostel.model.domain.devices.interface import Interface
from hostel.model.domain.devices.paravirtual import Rng
from hostel.model.domain.devices.platform import MemoryDevice
from hostel.model.domain.domain import Devices, Domain
from hostel.model.domain.placing.bus import spoken

# Which list of the devices an element goes into; what is missing here does not come and go.
_LISTS: Final[dict[str, str]] = {
    "disk": "disks",
    "interface": "interfaces",
    "controller": "controllers",
    "hostdev": "hostdevs",
    "rng": "rngs",
    "input": "inputs",
    "watchdog": "watchdogs",
    "memory": "memories",
    "sound": "sounds",
    "graphics": "graphics",
}


class Given(NamedTuple):
    """A device as a caller describes it; ``place`` is the field of :class:`Devices` that it belongs into."""

    device: Device
    place: str


class Wanted(NamedTuple):
    """What something is to become: a device, or a screen, which does not come and go."""

    device: Device | Graphics
    place: str


def read_device(xml: str) -> Given:
    """Read the document of one device.

    Raises:
        VirtError: ``XML_ERROR`` when it is none, ``OPERATION_UNSUPPORTED`` when it is of a kind that stays.
    """
    found = read_wanted(xml)
    if isinstance(found.device, Graphics):
        raise _stays("graphics")
    return Given(found.device, found.place)


def read_wanted(xml: str) -> Wanted:
    """Read what a device is to become, or a screen.

    Raises:
        VirtError: as :func:`read_device`.
    """
    with reading(ErrorDomain.DOMAIN):
        node = parse(xml, "device_definition")
        tag = str(node.tag)
        above = node.makeelement("devices")
        above.append(node)
        devices = Devices.from_node(above)
    place = _LISTS.get(tag)
    found = next(devices.elements(), None)
    if found is None and devices.unknown:
        raise fault(ErrorCode.XML_ERROR, f"unknown device type '{tag}'", ErrorDomain.DOMAIN)
    if place is None or not isinstance(found, Device | Graphics):
        raise _stays(tag)
    return Wanted(found, place)


def _stays(tag: str) -> VirtError:
    kinds = ", ".join(name for name in _LISTS if name != "graphics")
    what = f"Operation not supported: attach of device '{tag}' is not supported; known are {kinds}"
    return VirtError(ErrorCode.OPERATION_UNSUPPORTED, what, domain=ErrorDomain.QEMU)


def insert(domain: Domain, given: Given) -> Device:
    """Put a copy of the device into a document; returns it. Memory makes the machine's more."""
    device = given.device.copy()
    getattr(domain.devices, given.place).append(device)
    if isinstance(device, MemoryDevice):
        size = device.target.size
        size.value, size.unit = up(size.to_kib(), MODULE), "KiB"
        _grow(domain, size.to_kib())
    return device


def _grow(domain: Domain, size: int) -> None:
    """Give a machine more memory, or less; one that has all of it goes on having all."""
    total = domain.memory.to_kib() if domain.memory is not None else 0
    current = domain.current_memory
    if current is not None:
        has = current.to_kib() + size if current.to_kib() == total else min(current.to_kib(), total + size)
        current.value, current.unit = has, "KiB"
    if domain.memory is not None:
        domain.memory.value, domain.memory.unit = total + size, "KiB"


def remove(domain: Domain, device: Device) -> None:
    """Take a device out of its document."""
    for field in domain.devices.FIELDS:
        held = getattr(domain.devices, field.name)
        if isinstance(held, list):
            held[:] = [item for item in held if item is not device]
        elif held is device:
            setattr(domain.devices, field.name, None)
    if isinstance(device, MemoryDevice):
        _grow(domain, -device.target.size.to_kib())


def by_alias(domain: Domain, alias: str) -> Device | None:
    """The device of this alias."""
    return next((device for device in domain.devices.all() if device.alias == alias), None)


def find(domain: Domain, given: Given) -> Device:
    """Which device of a document another one describes, by what libvirt goes by for its kind.

    Raises:
        VirtError: ``DEVICE_MISSING``; ``OPERATION_FAILED`` when it may be several.
    """
    device = given.device
    match device:
        case Disk():
            target = device.target.dev
            disks = [item for item in domain.devices.disks if item.target.dev == target]
            return _one(disks, f"disk {target} not found")
        case Interface():
            return _interface(domain, device)
        case Controller():
            kind, index = device.type, device.index
            same = [item for item in domain.devices.controllers if item.type == kind and item.index == index]
            return _one(same, f"controller {kind}:{index} not found")
        case Hostdev():
            return _hostdev(domain, device)
        case MemoryDevice():
            modules = [item for item in domain.devices.memories if _is_module(device, item)]
            return _one(list[Device](modules), "matching memory device was not found")
        case Rng() | Input():
            devices: list[Device] = list(getattr(domain.devices, given.place))
            return _one([item for item in devices if _describes(device, item)], f"matching {device.TAG} not found")
        case _:
            held: list[Device] = list(getattr(domain.devices, given.place))
            return _one([item for item in held if _describes(device, item)], f"matching {device.TAG} not found")


def _is_module(wanted: MemoryDevice, module: MemoryDevice) -> bool:
    size = up(wanted.target.size.to_kib(), MODULE)
    return (
        wanted.model == module.model
        and size == module.target.size.to_kib()
        and wanted.target.node == module.target.node
        and wanted.source in (None, module.source)
        and wanted.alias in (None, module.alias)
        and wanted.address in (None, module.address)
    )


def _describes(wanted: Device, device: Device) -> bool:
    """Whether everything that is said of one device is true of another."""
    if type(wanted) is not type(device):
        return False
    for field in wanted.FIELDS:
        value = getattr(wanted, field.name)
        if not field.is_absent(value) and value != getattr(device, field.name):
            return False
    return True


def _one(found: list[Disk] | list[Controller] | list[Device], missing: str) -> Device:
    if not found:
        raise fault(ErrorCode.DEVICE_MISSING, f"device not found: {missing}", ErrorDomain.QEMU)
    return found[0]


def _interface(domain: Domain, wanted: Interface) -> Interface:
    mac = wanted.mac.address.lower() if wanted.mac is not None else None
    address = wanted.address if isinstance(wanted.address, PciAddress) and wanted.address.is_chosen else None
    found = [
        item
        for item in domain.devices.interfaces
        if (mac is None or (item.mac is not None and item.mac.address == mac))
        and (address is None or (isinstance(item.address, PciAddress) and item.address.place == address.place))
        and (wanted.alias is None or item.alias in (None, wanted.alias))
    ]
    if len(found) > 1:
        what = f"multiple devices matching MAC address {mac} found" if mac else "multiple matching devices found"
        raise failed(what)
    if not found:
        where = "{:04x}:{:02x}:{:02x}.{}".format(*address.place) if address is not None else "(<null>)"
        message = (
            f"device not found: no device found at address '{where}' matching MAC address '{mac or '(<null>)'}' "
            f"and alias '{wanted.alias or '(<null>)'}'"
        )
        raise VirtError(ErrorCode.DEVICE_MISSING, message, domain=ErrorDomain.QEMU)
    return found[0]


def same_hostdev(domain: Domain, wanted: Hostdev) -> Hostdev | None:
    """The device of a document that is the same one of the host (``virDomainHostdevMatch``); None where none is."""
    return next((item for item in domain.devices.hostdevs if _is_same(wanted, item)), None)


def _is_same(wanted: Hostdev, held: Hostdev) -> bool:
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


def _missing(wanted: Hostdev) -> str:
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


def _hostdev(domain: Domain, wanted: Hostdev) -> Device:
    found = same_hostdev(domain, wanted)
    if found is None:
        raise fault(ErrorCode.DEVICE_MISSING, f"device not found: {_missing(wanted)}", ErrorDomain.QEMU)
    return found

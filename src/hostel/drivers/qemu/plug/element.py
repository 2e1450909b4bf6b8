"""Documents of single devices: reading one, and finding in a domain's document which device it means."""

from __future__ import annotations

from typing import Final, NamedTuple

from hostel.codec.xml import Element
from hostel.codec.xmltext import parse
from hostel.drivers.document import reading
from hostel.drivers.fault import fault
from hostel.drivers.qemu.command.memory import MODULE, up
from hostel.drivers.qemu.machines import failed
from hostel.drivers.qemu.plug.matching import matching, missing
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.completing.disk import drop_other_places, guess_bus, sorted_disks
from hostel.model.domain.devices.address import PciAddress
from hostel.model.domain.devices.device import Device
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.devices.interface import Interface
from hostel.model.domain.devices.platform import MemoryDevice
from hostel.model.domain.domain import Devices, Domain

# What libvirt takes for a device, by its element.
_TAGS: Final = frozenset({
    "disk", "lease", "filesystem", "interface", "input", "sound", "video", "hostdev", "watchdog", "controller",
    "graphics", "hub", "redirdev", "smartcard", "memballoon", "nvram", "rng", "shmem", "tpm", "panic", "memory",
    "iommu", "vsock", "audio", "serial", "parallel", "console", "channel",
})  # fmt: skip
_PLACES: Final = {field.tag: field.name for field in Devices.FIELDS if field.tag in _TAGS}
# What neither comes nor goes, be it in a definition; sound does so there.
LASTING: Final = frozenset({
    "video", "graphics", "hub", "smartcard", "memballoon", "nvram", "tpm", "panic", "iommu", "audio",
})  # fmt: skip
LASTING_LIVE: Final = LASTING | {"sound"}
_CHARACTERS: Final = frozenset({"serial", "parallel", "console", "channel"})


class Given(NamedTuple):
    """A device as a caller describes it; ``place`` is the field of :class:`Devices` that it belongs into."""

    device: Element
    place: str

    @property
    def kind(self) -> str:
        """What libvirt calls devices of its kind."""
        return "chr" if self.device.TAG in _CHARACTERS else self.device.TAG


def read_device(xml: str) -> Given:
    """Read the document of one device.

    Raises:
        VirtError: ``XML_ERROR`` when it is none, ``CONFIG_UNSUPPORTED`` when it is of no kind that there is.
    """
    with reading(ErrorDomain.DOMAIN):
        node = parse(xml, "device_definition")
        tag = str(node.tag)
        above = parse("<devices/>", "devices")  # a document of its own: an error names the place in it
        above.append(node)
        devices = Devices.from_node(above)
    found = next(devices.elements(), None)
    if found is None or tag not in _PLACES:
        raise fault(ErrorCode.CONFIG_UNSUPPORTED, f"unknown device type '{tag}'", ErrorDomain.DOMAIN)
    if isinstance(found, Disk):
        drop_other_places(found)
    return Given(found, _PLACES[tag])


def not_done(what: str, given: Given, code: ErrorCode = ErrorCode.OPERATION_UNSUPPORTED) -> VirtError:
    """The refusal of something that is never done to devices of a kind, such as ``live attach``."""
    return fault(code, f"{what} of device '{given.kind}' is not supported", ErrorDomain.QEMU)


def insert(domain: Domain, given: Given) -> Device:
    """Put a copy of the device into a document; returns it.

    A disk comes among those of its bus, memory makes the machine's more.
    """
    device = given.device.copy()
    assert isinstance(device, Device)
    place = getattr(domain.devices, given.place)
    if isinstance(place, list):
        place.append(device)
    else:
        setattr(domain.devices, given.place, device)
    if isinstance(device, Disk):
        device.target.bus = device.target.bus or guess_bus(device)
        domain.devices.disks = sorted_disks(domain.devices.disks)
    if isinstance(device, MemoryDevice):
        size = device.target.size
        size.value, size.unit = up(size.to_kib(), MODULE), "KiB"
        _grow(domain, size.to_kib())
    return device


def _grow(domain: Domain, size: int) -> None:
    """Give a machine a module's memory, or take it: what its balloon keeps from the guest stays as much as it was."""
    total = domain.memory.to_kib() if domain.memory is not None else 0
    current = domain.current_memory
    if current is not None:
        has = current.to_kib() + size
        current.value, current.unit = has if has > 0 else min(current.to_kib(), total + size), "KiB"
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


def find(domain: Domain, given: Given, *, live: bool = True) -> Device:
    """Which device of a document another one describes, by what libvirt goes by for its kind.

    Args:
        domain: the document.
        given: the description.
        live: whether it is a running machine's; libvirt complains in other words of a definition.

    Raises:
        VirtError: there is none, mostly ``DEVICE_MISSING``; ``OPERATION_FAILED`` when it may be several.
    """
    device = given.device
    if isinstance(device, Interface):
        return _interface(domain, device)
    found = matching(domain, given)
    if not found:
        raise missing(given, live=live)
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

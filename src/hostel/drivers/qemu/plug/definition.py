"""Devices in a definition: added, taken out, replaced; what follows from it is completed afterwards."""

from __future__ import annotations

from hostel.codec.xml import Element
from hostel.drivers.fault import fault
from hostel.drivers.qemu.plug.element import LASTING, Given, find, insert, not_done, remove
from hostel.drivers.qemu.plug.leases import define_lease, undefine_lease
from hostel.drivers.qemu.plug.matching import matching, same_hostdev
from hostel.drivers.qemu.plug.requested import checked_request, find_memory
from hostel.errors import ErrorCode, ErrorDomain
from hostel.model.domain.devices.character import Channel, Console, Parallel, Serial
from hostel.model.domain.devices.controller import Controller
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.devices.filesystem import Filesystem
from hostel.model.domain.devices.graphics import Graphics
from hostel.model.domain.devices.hostdev import Hostdev
from hostel.model.domain.devices.interface import Interface
from hostel.model.domain.devices.paravirtual import SharedMemory, Vsock
from hostel.model.domain.devices.platform import Lease, MemoryDevice, Watchdog
from hostel.model.domain.domain import Domain


def attach(domain: Domain, given: Given) -> Element | None:
    """Add a device; returns what has come into the document, of which a lease is nothing that rules are for.

    Raises:
        VirtError: there is one already in its place, or one of its kind does not come and go.
    """
    device, devices = given.device, domain.devices
    if given.kind in LASTING:
        raise not_done("persistent attach", given)
    if isinstance(device, Console) and device.target is not None and device.target.type == "serial":
        raise fault(ErrorCode.OPERATION_UNSUPPORTED, "attaching serial console is not supported", ErrorDomain.QEMU)
    match device:
        case Lease():
            define_lease(domain, device)
            return None
        case Disk() if any(item.target.dev == device.target.dev for item in devices.disks):
            what = f"target {device.target.dev} already exists"
        case Controller() if device.index is not None and matching(domain, given):
            what = f"controller index='{device.index}' already exists"
        case Hostdev() if same_hostdev(domain, device) is not None:
            what = "device is already in the domain configuration"
        case SharedMemory() if matching(domain, given):
            what = "device is already in the domain configuration"
        case Serial() | Parallel() | Console() | Channel() if is_taken(domain, given):
            what = "chardev already exists"
        case Filesystem() if matching(domain, given):
            what = "Target already exists"
        case Watchdog() if devices.watchdogs:
            what = "domain already has a watchdog"
        case Vsock() if devices.vsock is not None:
            what = "domain already has a vsock device"
        case _:
            return insert(domain, given)
    raise fault(ErrorCode.OPERATION_INVALID, what, ErrorDomain.QEMU)


def is_taken(domain: Domain, given: Given) -> bool:
    """Whether a character device is there already; one whose port is to be chosen is not."""
    target = getattr(given.device, "target", None)
    return (isinstance(given.device, Channel) or getattr(target, "port", None) is not None) and bool(
        matching(domain, given)
    )


def detach(domain: Domain, given: Given) -> None:
    """Take a device out; ``given`` may be one of the document's own.

    Raises:
        VirtError: it is not there, or one of its kind does not come and go.
    """
    device = given.device
    if isinstance(device, Lease):
        undefine_lease(domain, device)
        return
    own = next((item for item in domain.devices.all() if item is device), None)
    if own is None:
        if given.kind in LASTING:
            raise not_done("persistent detach", given)
        if isinstance(device, Console) and device.target is not None and device.target.type == "serial":
            raise fault(ErrorCode.OPERATION_INVALID, "detaching serial console is not supported", ErrorDomain.QEMU)
        if isinstance(device, Watchdog):  # there is one, and it is meant
            own = next(iter(domain.devices.watchdogs), None)
    own = own or find(domain, given, live=False)
    remove(domain, own)
    if isinstance(own, Serial):
        consoles = domain.devices.consoles
        consoles[:] = [item for item in consoles if not is_console_of(item, own)]


def is_console_of(console: Console, serial: Serial) -> bool:
    """Whether a console is a serial port by another name."""
    target = console.target
    port = serial.target.port if serial.target is not None else None
    return target is not None and target.type == "serial" and target.port == port


def update(domain: Domain, given: Given) -> Element | None:
    """Replace a device by what is given; alias, address and place in the boot order stay where nothing else is said.

    Returns what has come into the document; None where something that was there has changed.

    Raises:
        VirtError: there is no such device, or none of its kind can be replaced.
    """
    wanted = given.device.copy()
    match wanted:
        case Disk():
            held = next((item for item in domain.devices.disks if item.target.dev == wanted.target.dev), None)
            if held is None:
                raise fault(ErrorCode.INVALID_ARG, f"target {wanted.target.dev} doesn't exist.", ErrorDomain.QEMU)
            if wanted.target.bus in (None, held.target.bus):
                wanted.address = wanted.address or held.address
        case Interface():
            found = find(domain, given)
            wanted.address = wanted.address or found.address
        case Graphics():
            pass
        case MemoryDevice():
            module = find_memory(domain, wanted)
            module.target.requested = checked_request(module, wanted)
            return None
        case _:
            raise not_done("persistent update", given)
    place = getattr(domain.devices, given.place)
    old = held if isinstance(wanted, Disk) else _held(domain, given)
    if isinstance(wanted, Disk | Interface) and isinstance(old, Disk | Interface):
        wanted.alias = wanted.alias or old.alias
    place[next(index for index, item in enumerate(place) if item is old)] = wanted
    return wanted


def _held(domain: Domain, given: Given) -> Interface | Graphics:
    if isinstance(given.device, Graphics):
        kind = given.device.type
        for item in domain.devices.graphics:
            if item.type == kind:
                return item
        what = f"cannot find existing graphics type '{kind}' device to modify"
        raise fault(ErrorCode.INVALID_ARG, what, ErrorDomain.QEMU)
    found = find(domain, given)
    assert isinstance(found, Interface)
    return found

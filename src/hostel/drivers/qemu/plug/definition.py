"""Devices in a definition: added, taken out, replaced; what follows from it is completed afterwards."""

from __future__ import annotations

from hostel.drivers.fault import fault
from hostel.drivers.qemu.plug.element import Given, Wanted, find, insert, remove, same_hostdev
from hostel.drivers.qemu.plug.requested import checked_request, find_memory
from hostel.errors import ErrorCode, ErrorDomain
from hostel.model.domain.devices.controller import Controller
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.devices.graphics import Graphics
from hostel.model.domain.devices.hostdev import Hostdev
from hostel.model.domain.devices.interface import Interface
from hostel.model.domain.devices.platform import MemoryDevice
from hostel.model.domain.domain import Domain


def attach(domain: Domain, given: Given) -> None:
    """Add a device.

    Raises:
        VirtError: there is one already in its place.
    """
    device = given.device
    match device:
        case Disk() if any(item.target.dev == device.target.dev for item in domain.devices.disks):
            what = f"target {device.target.dev} already exists"
        case Controller() if device.index is not None and any(
            item.type == device.type and item.index == device.index for item in domain.devices.controllers
        ):
            what = f"controller index='{device.index}' already exists"
        case Hostdev() if same_hostdev(domain, device) is not None:
            what = "device is already in the domain configuration"
        case _:
            insert(domain, given)
            return
    raise fault(ErrorCode.OPERATION_INVALID, what, ErrorDomain.QEMU)


def detach(domain: Domain, given: Given) -> None:
    """Take a device out; ``given`` may be one of the document's own.

    Raises:
        VirtError: ``DEVICE_MISSING``.
    """
    device = given.device
    if any(item is device for item in domain.devices.all()):
        remove(domain, device)
        return
    if isinstance(device, Disk) and all(item.target.dev != device.target.dev for item in domain.devices.disks):
        what = f"device not found: no target device {device.target.dev}"
        raise fault(ErrorCode.DEVICE_MISSING, what, ErrorDomain.QEMU)
    remove(domain, find(domain, given))


def update(domain: Domain, given: Wanted) -> None:
    """Replace a device by what is given; alias, address and place in the boot order stay where nothing else is said.

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
            found = find(domain, Given(wanted, given.place))
            wanted.address = wanted.address or found.address
        case Graphics():
            pass
        case MemoryDevice():
            module = find_memory(domain, wanted)
            module.target.requested = checked_request(module, wanted)
            return
        case _:
            what = f"persistent update of device '{wanted.TAG}' is not supported"
            raise fault(ErrorCode.OPERATION_UNSUPPORTED, what, ErrorDomain.QEMU)
    place = getattr(domain.devices, given.place)
    old = held if isinstance(wanted, Disk) else _held(domain, given)
    if isinstance(wanted, Disk | Interface) and isinstance(old, Disk | Interface):
        wanted.alias = wanted.alias or old.alias
    place[next(index for index, item in enumerate(place) if item is old)] = wanted


def _held(domain: Domain, given: Wanted) -> Interface | Graphics:
    if isinstance(given.device, Graphics):
        kind = given.device.type
        for item in domain.devices.graphics:
            if item.type == kind:
                return item
        what = f"cannot find existing graphics type '{kind}' device to modify"
        raise fault(ErrorCode.INVALID_ARG, what, ErrorDomain.QEMU)
    found = find(domain, Given(given.device, given.place))
    assert isinstance(found, Interface)
    return found

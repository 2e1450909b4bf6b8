"""The driver's calls about devices: attach, detach, update; live, in the definition, or both."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hostel.drivers.base import DomainRef
from hostel.drivers.base.device import DeviceModify
from hostel.drivers.base.domain import Affect
from hostel.drivers.fault import fault
from hostel.drivers.qemu import document
from hostel.drivers.qemu.running import Calls, Running
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.devices.device import Device
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.devices.graphics import Graphics
from hostel.model.domain.devices.interface import Interface
from hostel.model.domain.devices.platform import MemoryDevice
from hostel.model.domain.domain import Domain

if TYPE_CHECKING:
    from hostel.drivers.qemu.plug.element import Wanted


class DeviceCalls(Calls):
    """Devices that come and go; see :class:`hostel.drivers.base.device.DeviceDriver`."""

    def domain_attach_device_flags(self, domain: DomainRef, xml: str, affect: Affect = Affect.CURRENT) -> None:
        """Attach a device."""
        from hostel.drivers.qemu.plug.definition import attach
        from hostel.drivers.qemu.plug.element import read_device
        from hostel.drivers.qemu.plug.inward import plug_in

        given = read_device(xml)
        with self._both(domain, affect) as both:
            changed = self._changed(both.definition, lambda definition: attach(definition, given))
            if both.running is not None:
                plug_in(both.running, given, self._launcher)
            if changed is not None:
                self._define(changed)

    def domain_detach_device_flags(self, domain: DomainRef, xml: str, affect: Affect = Affect.CURRENT) -> None:
        """Detach a device; the guest has five seconds to let go of it, and may do so later."""
        from hostel.drivers.qemu.plug.definition import detach
        from hostel.drivers.qemu.plug.element import find, read_device
        from hostel.drivers.qemu.plug.outward import plug_out

        given = read_device(xml)
        with self._both(domain, affect) as both:
            changed = self._changed(both.definition, lambda definition: detach(definition, given))
            if both.running is not None:
                plug_out(both.running, find(both.running.domain, given))
            if changed is not None:
                self._define(changed)

    def domain_detach_device_alias(self, domain: DomainRef, alias: str, affect: Affect = Affect.CURRENT) -> None:
        """Ask the guest to let go of the device of an alias; returns at once."""
        from hostel.drivers.qemu.plug.definition import detach
        from hostel.drivers.qemu.plug.element import Given
        from hostel.drivers.qemu.plug.outward import plug_out

        with self._both(domain, affect) as both:
            changed = None
            if both.definition is not None:
                changed = both.definition.copy()
                device = _named(changed, alias)
                detach(changed, Given(device, ""))
            if both.running is not None:
                plug_out(both.running, _named(both.running.domain, alias), wait=False)
            if changed is not None:
                self._define(changed)

    def domain_update_device_flags(
        self,
        domain: DomainRef,
        xml: str,
        affect: Affect = Affect.CURRENT,
        flags: DeviceModify = DeviceModify.NONE,
    ) -> None:
        """Change a device: the medium of a drive, the link of an interface, the password of a screen."""
        from hostel.drivers.qemu.plug.definition import update
        from hostel.drivers.qemu.plug.element import read_wanted

        given = read_wanted(xml)
        with self._both(domain, affect) as both:
            changed = self._changed(both.definition, lambda definition: update(definition, given))
            if both.running is not None:
                self._update(both.running, given, force=bool(flags & DeviceModify.FORCE))
            if changed is not None:
                self._define(changed)

    def _changed(self, definition: Domain | None, change: Callable[[Domain], None]) -> Domain | None:
        """The definition as it will be; None where it is not to be changed."""
        if definition is None:
            return None
        changed = definition.copy()
        change(changed)
        document.finish(changed, self._launcher.platform())
        return changed

    def _update(self, machine: Running, given: Wanted, *, force: bool) -> None:
        from hostel.drivers.qemu.plug.element import Given, find
        from hostel.drivers.qemu.plug.interface import change_interface
        from hostel.drivers.qemu.plug.requested import request_memory
        from hostel.drivers.qemu.plug.screen import update_screen

        match given.device:
            case Disk() as wanted:
                self._update_disk(machine, wanted, force=force)
            case Interface() as wanted:
                held = find(machine.domain, Given(wanted, given.place))
                assert isinstance(held, Interface)
                change_interface(machine, held, wanted, self._launcher)
            case Graphics() as wanted:
                update_screen(machine, wanted, self._launcher.settings())
            case MemoryDevice() as wanted:
                request_memory(machine, wanted)
            case device:
                what = f"live update of device '{device.TAG}' is not supported"
                raise fault(ErrorCode.CONFIG_UNSUPPORTED, what, ErrorDomain.QEMU)

    def _update_disk(self, machine: Running, wanted: Disk, *, force: bool) -> None:
        from hostel.drivers.qemu.plug.medium import change_medium, place_of

        dev = wanted.target.dev
        disk = next((item for item in machine.domain.devices.disks if item.target.dev == dev), None)
        if disk is None:
            raise fault(ErrorCode.INTERNAL_ERROR, f"disk '{dev}' not found", ErrorDomain.QEMU)
        for what, old, new in (("device", disk.device, wanted.device), ("bus", disk.target.bus, wanted.target.bus)):
            if new is not None and old != new:
                text = f"cannot modify field '{what}' of the disk"
                raise fault(ErrorCode.OPERATION_UNSUPPORTED, text, ErrorDomain.QEMU)
        if place_of(wanted) != place_of(disk):
            change_medium(machine, disk, wanted, self._launcher, force=force)
            disk = next(item for item in machine.domain.devices.disks if item.target.dev == dev)
        if wanted.source is not None and disk.source is not None:
            disk.source.startup_policy = wanted.source.startup_policy
        disk.snapshot = wanted.snapshot
        machine.save()


def _named(domain: Domain, alias: str) -> Device:
    from hostel.drivers.qemu.plug.element import by_alias

    device = by_alias(domain, alias)
    if device is None:
        message = f"device not found: no device found with alias {alias}"
        raise VirtError(ErrorCode.DEVICE_MISSING, message, domain=ErrorDomain.QEMU)
    return device

"""The driver's calls about devices: attach, detach, update; live, in the definition, or both."""

from __future__ import annotations

from collections.abc import Callable

from hostel.codec.xml import Element
from hostel.drivers.base import DomainRef
from hostel.drivers.base.device import DeviceModify
from hostel.drivers.base.domain import Affect
from hostel.drivers.document import reading
from hostel.drivers.fault import fault
from hostel.drivers.qemu.calls import Calls
from hostel.errors import ErrorCode, ErrorDomain
from hostel.model.domain.devices.device import Device
from hostel.model.domain.devices.platform import Lease
from hostel.model.domain.domain import Domain


class DeviceCalls(Calls):
    """Devices that come and go; see :class:`hostel.drivers.base.device.DeviceDriver`."""

    def domain_attach_device_flags(self, domain: DomainRef, xml: str, affect: Affect = Affect.CURRENT) -> None:
        """Attach a device."""
        from hostel.drivers.qemu.plug.definition import attach
        from hostel.drivers.qemu.plug.element import read_device
        from hostel.drivers.qemu.plug.inward import plug_in, put_in
        from hostel.drivers.qemu.plug.leases import attach_lease

        given = read_device(xml)
        with self._both(domain, affect) as both:
            changed = self._changed(both.definition, lambda definition: attach(definition, given))
            if both.running is not None and isinstance(given.device, Lease):
                attach_lease(both.running, given.device)
            elif both.running is not None and not put_in(both.running, given, self._launcher):
                plug_in(both.running, given, self._launcher)
            if changed is not None:
                self._define(changed)

    def domain_detach_device_flags(self, domain: DomainRef, xml: str, affect: Affect = Affect.CURRENT) -> None:
        """Detach a device; the guest has five seconds to let go of it, and may do so later."""
        from hostel.drivers.qemu.plug.definition import detach
        from hostel.drivers.qemu.plug.element import read_device
        from hostel.drivers.qemu.plug.leases import detach_lease
        from hostel.drivers.qemu.plug.outward import meant, plug_out

        given = read_device(xml)
        with self._both(domain, affect) as both:
            changed = self._changed(both.definition, lambda definition: detach(definition, given))
            if both.running is not None and isinstance(given.device, Lease):
                detach_lease(both.running, given.device)
            elif both.running is not None:
                plug_out(both.running, meant(both.running.domain, given))
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
        from hostel.drivers.qemu.plug.change import change
        from hostel.drivers.qemu.plug.definition import update
        from hostel.drivers.qemu.plug.element import not_done, read_device

        given = read_device(xml)
        with self._both(domain, affect) as both:
            changed = self._changed(both.definition, lambda definition: update(definition, given))
            if both.running is not None:
                force = bool(flags & DeviceModify.FORCE)
                if not change(both.running, given, self._launcher, force=force):
                    raise not_done("live update", given, ErrorCode.CONFIG_UNSUPPORTED)
            if changed is not None:
                self._define(changed)

    def _changed(self, definition: Domain | None, change: Callable[[Domain], Element | None]) -> Domain | None:
        """The definition as it will be; None where it is not to be changed.

        Args:
            definition: as it is.
            change: changes it, and returns the device that came into it.
        """
        from hostel.model.domain.rules.given import check_given_device
        from hostel.model.domain.rules.rule import Machine

        if definition is None:
            return None
        changed = definition.copy()
        given = change(changed)
        platform = self._launcher.finish(changed, is_given=False)
        if given is not None:
            with reading(ErrorDomain.DOMAIN):
                check_given_device(Machine(changed, platform), given)
        return changed


def _named(domain: Domain, alias: str) -> Device:
    from hostel.drivers.qemu.plug.element import by_alias

    device = by_alias(domain, alias)
    if device is None:
        raise fault(ErrorCode.INTERNAL_ERROR, f"no device found with alias {alias}", ErrorDomain.DOMAIN)
    return device

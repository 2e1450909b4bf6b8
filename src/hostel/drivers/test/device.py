"""Devices of the test driver's domains; what changes documents is loaded when it is asked for."""

from __future__ import annotations

from hostel.drivers.base import DomainRef
from hostel.drivers.base.device import DeviceModify
from hostel.drivers.base.domain import Affect
from hostel.drivers.test.host import Host


class DeviceCalls:
    """Implements :class:`hostel.drivers.base.device.DeviceDriver`."""

    _host: Host

    def domain_attach_device_flags(self, domain: DomainRef, xml: str, affect: Affect = Affect.CURRENT) -> None:
        """Attach a device."""
        from hostel.drivers.test.plugging import attach_device

        attach_device(self._host, domain, xml, affect)

    def domain_detach_device_flags(self, domain: DomainRef, xml: str, affect: Affect = Affect.CURRENT) -> None:
        """Detach a device; this guest lets go of it at once."""
        from hostel.drivers.test.plugging import detach_device

        detach_device(self._host, domain, xml, affect)

    def domain_detach_device_alias(self, domain: DomainRef, alias: str, affect: Affect = Affect.CURRENT) -> None:
        """Detach the device of an alias."""
        from hostel.drivers.test.plugging import detach_alias

        detach_alias(self._host, domain, alias, affect)

    def domain_update_device_flags(
        self, domain: DomainRef, xml: str, affect: Affect = Affect.CURRENT, flags: DeviceModify = DeviceModify.NONE
    ) -> None:
        """Replace a device."""
        from hostel.drivers.test.plugging import update_device

        update_device(self._host, domain, xml, affect)

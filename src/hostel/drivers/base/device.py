"""Devices that are attached, detached and changed."""

from __future__ import annotations

import enum
from typing import Protocol, runtime_checkable

from hostel.drivers.base.domain import Affect, DomainRef


class DeviceModify(enum.IntFlag):
    """``virDomainDeviceModifyFlags`` beyond :class:`Affect`."""

    NONE = 0
    FORCE = 4


@runtime_checkable
class DeviceDriver(Protocol):
    """Devices of domains. ``DEVICE_MISSING`` where a document has none that is meant."""

    def domain_attach_device_flags(self, domain: DomainRef, xml: str, affect: Affect = Affect.CURRENT) -> None:
        """Attach a device; the controllers that it needs come with it."""

    def domain_detach_device_flags(self, domain: DomainRef, xml: str, affect: Affect = Affect.CURRENT) -> None:
        """Detach a device that a document describes; the guest may take longer than the call waits."""

    def domain_detach_device_alias(self, domain: DomainRef, alias: str, affect: Affect = Affect.CURRENT) -> None:
        """Ask the guest to let go of the device of an alias; an event says when it has."""

    def domain_update_device_flags(
        self, domain: DomainRef, xml: str, affect: Affect = Affect.CURRENT, flags: DeviceModify = DeviceModify.NONE
    ) -> None:
        """Change a device, or the medium of a drive; ``FORCE`` takes a medium that the guest holds."""

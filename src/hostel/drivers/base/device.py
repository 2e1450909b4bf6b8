"""Devices that are attached, detached and changed."""

from __future__ import annotations

import enum
from typing import NamedTuple, Protocol, runtime_checkable

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


class InterfaceStats(NamedTuple):
    """What went through an interface, as the guest sees it."""

    rx_bytes: int
    rx_packets: int
    rx_errs: int
    rx_drop: int
    tx_bytes: int
    tx_packets: int
    tx_errs: int
    tx_drop: int


@runtime_checkable
class InterfaceStatsDriver(Protocol):
    """Counters of interfaces."""

    def domain_interface_stats(self, domain: DomainRef, device: str) -> InterfaceStats:
        """Counters of an interface, named by its device on the host or by its MAC address."""

"""Devices of the test driver's domains: they come, go and change in the documents, and at once."""

from __future__ import annotations

from collections.abc import Callable

from hostel.codec.xml import Element
from hostel.drivers.base import DomainRef
from hostel.drivers.base.domain import Affect
from hostel.drivers.document import reading
from hostel.drivers.fault import fault
from hostel.drivers.qemu.plug.definition import attach, detach, update
from hostel.drivers.qemu.plug.element import Given, by_alias, find, read_device
from hostel.drivers.test.document import recomplete
from hostel.drivers.test.host import Host, TestDomain
from hostel.drivers.test.impact import change_documents, settled_impact
from hostel.drivers.test.lifecycle import tell_of
from hostel.errors import ErrorCode, ErrorDomain
from hostel.model.domain.devices.device import Device
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.devices.interface import Interface
from hostel.model.domain.domain import Domain


def attach_device(host: Host, domain: DomainRef, xml: str, affect: Affect) -> None:
    """Attach a device."""
    given = read_device(xml)
    with host.lock:
        found = host.domain(domain)
        if _change(found, affect, lambda document: attach(document, given)) & Affect.LIVE:
            tell_of(host, found, "device-added", device=_name(given.device))


def detach_device(host: Host, domain: DomainRef, xml: str, affect: Affect) -> None:
    """Detach a device; this guest lets go of it at once."""
    given = read_device(xml)
    with host.lock:
        found = host.domain(domain)
        meant = [find(found.live.domain, given)] if found.live is not None and affect != Affect.CONFIG else []
        if _change(found, affect, lambda document: detach(document, given)) & Affect.LIVE:
            for device in meant:
                tell_of(host, found, "device-removed", device=_name(device))


def detach_alias(host: Host, domain: DomainRef, alias: str, affect: Affect) -> None:
    """Detach the device of an alias."""

    def change(document: Domain) -> None:
        device = by_alias(document, alias)
        if device is None:
            raise fault(ErrorCode.INTERNAL_ERROR, f"no device found with alias {alias}", ErrorDomain.DOMAIN)
        detach(document, Given(device, ""))

    with host.lock:
        found = host.domain(domain)
        if _change(found, affect, change) & Affect.LIVE:
            tell_of(host, found, "device-removed", device=alias)


def update_device(host: Host, domain: DomainRef, xml: str, affect: Affect) -> None:
    """Replace a device, or a screen."""
    given = read_device(xml)
    with host.lock:
        _change(host.domain(domain), affect, lambda document: update(document, given))


def _change(found: TestDomain, affect: Affect, change: Callable[[Domain], Element | None]) -> Affect:
    """Change the documents, and complete what follows; returns which were meant."""

    def complete(document: Domain) -> None:
        with reading(ErrorDomain.DOMAIN):
            recomplete(document, change(document))

    settled = settled_impact(found, affect)
    change_documents(found, settled, complete)
    return settled


def _name(device: Element) -> str:
    """What an event names: the alias, or of a device without one what it is known by in the document."""
    if isinstance(device, Device) and device.alias is not None:
        return device.alias
    if isinstance(device, Disk):
        return device.target.dev
    if isinstance(device, Interface) and device.mac is not None:
        return device.mac.address or device.TAG
    return device.TAG

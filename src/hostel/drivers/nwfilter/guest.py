"""The filters of guests' interfaces: put in force when a guest gets an interface, and taken away when it loses it.

Whoever makes a tap for an interface calls :func:`apply` after the tap is there and before the guest runs, and
:func:`remove` after the guest, or its interface, is gone; the latter may be called where nothing was applied.
"""

from __future__ import annotations

from typing import Final

from hostel.drivers.fault import fault
from hostel.drivers.nwfilter.system import SystemNwfilterDriver
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, ErrorDomain
from hostel.model.domain.devices.interface import Interface, InterfaceType
from hostel.model.nwfilter.binding import BindingOwner, FilterBinding, complete
from hostel.model.nwfilter.filter import FilterReference, Parameter

_FILTERED: Final = (InterfaceType.ETHERNET, InterfaceType.NETWORK, InterfaceType.BRIDGE)


def check(interface: Interface, *, privileged: bool) -> None:
    """Refuse a filter that could not be enforced.

    Args:
        interface: of a guest's document.
        privileged: whether this is the host's driver, and not a user's session.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED``: the interface is of a kind that has no tap; ``OPERATION_UNSUPPORTED``: only
            the host's administrator can set rules.
    """
    if interface.filterref is None:
        return
    mac = "" if interface.mac is None else interface.mac.address
    if interface.type not in _FILTERED:
        reason = f"interface {mac} - filterref is not supported for network interfaces of type {interface.type}"
        raise fault(ErrorCode.CONFIG_UNSUPPORTED, reason, ErrorDomain.QEMU)
    if interface.virtualport is not None and interface.virtualport.type is not None:
        reason = f"filterref is not supported for network interfaces with virtualport type {interface.virtualport.type}"
        raise fault(ErrorCode.CONFIG_UNSUPPORTED, f"interface {mac} - {reason}", ErrorDomain.QEMU)
    if not privileged:
        reason = (
            f"filter '{interface.filterref.filter}' of an interface: only the system's administrator can set rules; "
            "take <filterref> out, or run the machine on qemu:///system"
        )
        raise fault(ErrorCode.OPERATION_UNSUPPORTED, reason, ErrorDomain.QEMU)


def apply(directories: Directories, interface: Interface, tap: str, *, name: str, uuid: str) -> None:
    """Put the filter of an interface in force on its tap; nothing where it names none.

    Args:
        directories: of the host's driver.
        interface: of the guest's document, with its hardware address.
        tap: the name of what carries its packets.
        name: the guest's.
        uuid: the guest's.

    Raises:
        VirtError: the rules cannot be made; none is there then, and the guest must not run.
    """
    if interface.filterref is None:
        return
    parameters = [Parameter(name=each.name, value=each.value) for each in interface.filterref.parameters]
    binding = FilterBinding(
        owner=BindingOwner(name=name, uuid=uuid),
        port_device=tap,
        link_device=None,
        mac=None if interface.mac is None else interface.mac.address,
        reference=FilterReference(filter=interface.filterref.filter, parameters=parameters),
    )
    complete(binding)
    SystemNwfilterDriver(directories).apply(binding)


def remove(directories: Directories, tap: str) -> None:
    """Take away the rules of a tap, whether it is still there or not.

    Raises:
        VirtError: the host refused.
    """
    SystemNwfilterDriver(directories).remove(tap)

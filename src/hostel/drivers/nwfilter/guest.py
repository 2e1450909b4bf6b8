"""The filters that guests' documents name, and what the host is told of them."""

from __future__ import annotations

from typing import Final

from hostel.drivers.fault import fault
from hostel.errors import ErrorCode, ErrorDomain
from hostel.model.domain.devices.interface import FilterReference as InterfaceFilter
from hostel.model.domain.devices.interface import Interface, InterfaceType
from hostel.model.nwfilter.binding import BindingOwner, FilterBinding, complete
from hostel.model.nwfilter.filter import FilterReference, Parameter

_FILTERED: Final = (InterfaceType.NETWORK, InterfaceType.BRIDGE)


def check(interface: Interface, *, enforced: bool) -> None:
    """Refuse a filter that could not be put in force.

    Args:
        interface: of a guest's document.
        enforced: whether this process can put filters in force.

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
    if not enforced:
        reason = (
            f"filter '{interface.filterref.filter}' of interface {mac}: only the system's administrator can set rules; "
            "take <filterref> out, or run the machine on qemu:///system"
        )
        raise fault(ErrorCode.OPERATION_UNSUPPORTED, reason, ErrorDomain.QEMU)


def binding_of(
    interface: Interface, reference: InterfaceFilter, tap: str, *, name: str, uuid: str | None
) -> FilterBinding:
    """The binding of an interface.

    Args:
        interface: of a guest's document, with its hardware address.
        reference: the filter that it names.
        tap: the name of what carries its packets.
        name: the guest's.
        uuid: the guest's.
    """
    parameters = [Parameter(name=each.name, value=each.value) for each in reference.parameters]
    binding = FilterBinding(
        owner=BindingOwner(name=name, uuid=uuid),
        port_device=tap,
        mac=None if interface.mac is None else interface.mac.address,
        reference=FilterReference(filter=reference.filter, parameters=parameters),
    )
    complete(binding)
    return binding

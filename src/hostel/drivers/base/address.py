"""What addresses a guest's interfaces have."""

from __future__ import annotations

import enum
from typing import NamedTuple, Protocol, runtime_checkable

from hostel.drivers.base.domain import DomainRef
from hostel.drivers.base.network import AddressType


class AddressSource(enum.IntEnum):
    """``virDomainInterfaceAddressesSource``: who is asked.

    Attributes:
        LEASE: the networks' DHCP servers.
        AGENT: the agent in the guest.
        ARP: the host, whom it has talked to.
    """

    LEASE = 0
    AGENT = 1
    ARP = 2


class GuestAddress(NamedTuple):
    """An address, and the length of its prefix where that is known."""

    type: AddressType
    address: str
    prefix: int


class InterfaceAddresses(NamedTuple):
    """An interface, by the host's name for it or by the guest's, and its addresses."""

    name: str
    mac: str | None
    addresses: list[GuestAddress]


@runtime_checkable
class AddressDriver(Protocol):
    """What addresses guests have."""

    def domain_interface_addresses(self, domain: DomainRef, source: int) -> list[InterfaceAddresses]:
        """The interfaces of a running domain; ``ARGUMENT_UNSUPPORTED`` for a source that is none."""

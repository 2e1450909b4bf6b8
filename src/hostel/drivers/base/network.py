"""Virtual networks: references and calls."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final, NamedTuple, Protocol, runtime_checkable

from hostel.drivers.base.domain import Affect

DEFAULT_NETWORK: Final = "default"  # the network that is there from the beginning


class NetworkRef(NamedTuple):
    """Names a network."""

    name: str
    uuid: str


class NetworkPortRef(NamedTuple):
    """Names a port of a network."""

    network: NetworkRef
    uuid: str


class PortCreateFlag(enum.IntFlag):
    """``virNetworkPortCreateFlags``.

    Attributes:
        RECLAIM: the guest is plugged in already.
        VALIDATE: every document is validated.
    """

    NONE = 0
    RECLAIM = 1
    VALIDATE = 2


class AddressType(enum.IntEnum):
    """``virIPAddrType``."""

    IPV4 = 0
    IPV6 = 1


class DhcpLease(NamedTuple):
    """An address that a guest has for a time, in the order of libvirt's structure.

    Attributes:
        interface: the network's bridge.
        expiry: when it is over, in seconds since 1970; 0 for never.
        type: of the address.
        mac: the guest's; None where it is not known.
        iaid: the guest's number for the interface, of DHCPv6.
        address: the address.
        prefix: the length of its prefix.
        hostname: the name that the guest gave itself.
        client_id: what the guest is known by.
    """

    interface: str
    expiry: int
    type: AddressType
    mac: str | None
    iaid: str | None
    address: str
    prefix: int
    hostname: str | None
    client_id: str | None


class NetworkDriver(Protocol):
    """Virtual networks. Lookups raise ``NO_NETWORK``."""

    def connect_list_all_networks(self) -> list[NetworkRef]:
        """Every network, active or defined."""

    def network_lookup_by_name(self, name: str) -> NetworkRef:
        """Find by name."""

    def network_lookup_by_uuid(self, uuid: str) -> NetworkRef:
        """Find by UUID."""

    def network_define_xml(self, xml: str) -> NetworkRef:
        """Make or replace a persistent definition."""

    def network_create_xml(self, xml: str) -> NetworkRef:
        """Activate a transient network."""

    def network_update(
        self, network: NetworkRef, command: int, section: int, parent: int, xml: str, affect: Affect = Affect.CURRENT
    ) -> None:
        """Change a section of the active network, of the definition, or of both.

        ``command`` and ``section`` are ``virNetworkUpdateCommand`` and ``virNetworkUpdateSection``; ``parent`` counts
        the elements above, -1 for the one that fits.
        """

    def network_undefine(self, network: NetworkRef) -> None:
        """Drop the definition; an active network becomes transient."""

    def network_create(self, network: NetworkRef) -> None:
        """Activate."""

    def network_destroy(self, network: NetworkRef) -> None:
        """Deactivate; a transient one is gone afterwards."""

    def network_is_active(self, network: NetworkRef) -> bool:
        """Whether guests can be attached."""

    def network_is_persistent(self, network: NetworkRef) -> bool:
        """Whether a definition exists."""

    def network_get_autostart(self, network: NetworkRef) -> bool:
        """Whether it is activated with the driver."""

    def network_set_autostart(self, network: NetworkRef, autostart: bool) -> None:
        """Set whether it is activated with the driver; ``OPERATION_INVALID`` for a transient network."""

    def network_get_xml_desc(self, network: NetworkRef, *, inactive: bool = False) -> str:
        """The active network's document, or with ``inactive`` the definition."""

    def network_get_bridge_name(self, network: NetworkRef) -> str:
        """The host bridge that guests are attached to; ``INTERNAL_ERROR`` where there is none."""


@runtime_checkable
class OnDemandNetworkDriver(Protocol):
    """Where the first guest that wants the network that is there from the beginning has it started."""

    def network_is_as_installed(self, network: NetworkRef) -> bool:
        """Whether nobody has defined, started or stopped it since the host was started."""


@runtime_checkable
class NetworkPortDriver(Protocol):
    """Ports of networks and leases, where a driver has them. Lookups raise ``NO_NETWORK`` and ``NO_NETWORK_PORT``."""

    def network_list_all_ports(self, network: NetworkRef) -> list[NetworkPortRef]:
        """What guests are plugged into; ``OPERATION_INVALID`` where the network is not active."""

    def network_port_lookup_by_uuid(self, network: NetworkRef, uuid: str) -> NetworkPortRef:
        """Find by UUID."""

    def network_port_create_xml(
        self, network: NetworkRef, xml: str, flags: PortCreateFlag = PortCreateFlag.NONE
    ) -> NetworkPortRef:
        """Make a port for a guest's interface; its document then says what it is plugged into."""

    def network_port_get_xml_desc(self, port: NetworkPortRef) -> str:
        """A port's document."""

    def network_port_delete(self, port: NetworkPortRef) -> None:
        """Remove a port."""

    def network_port_get_parameters(self, port: NetworkPortRef) -> dict[str, int]:
        """A port's rates, by libvirt's names."""

    def network_port_set_parameters(self, port: NetworkPortRef, params: Mapping[str, int]) -> None:
        """Set a port's rates; what is left out is no longer limited."""

    def network_get_dhcp_leases(self, network: NetworkRef, mac: str | None = None) -> list[DhcpLease]:
        """The addresses that were given out, or those of one guest."""

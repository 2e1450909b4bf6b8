"""Virtual networks: references and calls."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from hostel.drivers.base.domain import Affect


class NetworkRef(NamedTuple):
    """Names a network."""

    name: str
    uuid: str


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

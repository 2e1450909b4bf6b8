"""Network interfaces of the host: references, and the calls of who knows them."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class InterfaceRef(NamedTuple):
    """Names an interface of the host."""

    name: str
    mac: str


class InterfaceDriver(Protocol):
    """Interfaces of the host. Lookups raise ``NO_INTERFACE``."""

    def connect_list_all_interfaces(self) -> list[InterfaceRef]:
        """Every interface."""

    def interface_lookup_by_name(self, name: str) -> InterfaceRef:
        """Find by name."""

    def interface_lookup_by_mac_string(self, mac: str) -> InterfaceRef:
        """Find by MAC address; ``MULTIPLE_INTERFACES`` where several have it."""

    def interface_is_active(self, interface: InterfaceRef) -> bool:
        """Whether its link is up."""

    def interface_get_xml_desc(self, interface: InterfaceRef, *, inactive: bool = False) -> str:
        """The document; ``inactive``: as it is when the host starts."""

    def interface_define_xml(self, xml: str) -> InterfaceRef:
        """Have an interface, or have it otherwise."""

    def interface_undefine(self, interface: InterfaceRef) -> None:
        """Have it no more."""

    def interface_create(self, interface: InterfaceRef) -> None:
        """Switch it on."""

    def interface_destroy(self, interface: InterfaceRef) -> None:
        """Switch it off."""

    def interface_change_begin(self) -> None:
        """Remember how all are, for :meth:`interface_change_rollback`."""

    def interface_change_commit(self) -> None:
        """Keep what was changed."""

    def interface_change_rollback(self) -> None:
        """Have all as they were."""

    def close(self) -> None:
        """Release what the driver holds."""

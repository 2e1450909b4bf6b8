"""Filters of packets: references, and the calls of who has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from hostel.model.nwfilter.binding import FilterBinding


class NwfilterRef(NamedTuple):
    """Names a filter."""

    name: str
    uuid: str


class NwfilterBindingRef(NamedTuple):
    """Names a binding: an interface of the host, and the filter that it has."""

    port_device: str
    filter: str


@runtime_checkable
class NwfilterBindings(Protocol):
    """Which interfaces have which filters. Lookups raise ``NO_NWFILTER_BINDING``."""

    def connect_list_all_nwfilter_bindings(self) -> list[NwfilterBindingRef]:
        """Every binding."""

    def nwfilter_binding_lookup_by_port_dev(self, port_device: str) -> NwfilterBindingRef:
        """Find by the interface's name."""

    def nwfilter_binding_get_xml_desc(self, binding: NwfilterBindingRef) -> str:
        """The document."""

    def nwfilter_binding_create_xml(self, xml: str) -> NwfilterBindingRef:
        """Let an interface have a filter."""

    def nwfilter_binding_delete(self, binding: NwfilterBindingRef) -> None:
        """Let it have the filter no more."""


@runtime_checkable
class NwfilterEnforcer(Protocol):
    """Puts filters in force on the interfaces of guests."""

    def apply(self, binding: FilterBinding) -> None:
        """Put the filter of a guest that starts in force on its interface, which is there.

        Raises:
            VirtError: the rules cannot be made; there are none then, and the guest must not run.
        """

    def change(self, binding: FilterBinding) -> None:
        """Put another filter in force on the interface of a guest that runs, with no moment between.

        Raises:
            VirtError: the rules cannot be made; the interface has those before then.
        """

    def remove_of(self, owner: str, mac: str) -> None:
        """Take away the rules of a guest's interface, whatever it was called, and whether it is there or not.

        Args:
            owner: the guest's UUID.
            mac: the interface's hardware address.
        """


class NwfilterDriver(Protocol):
    """Filters of packets. Lookups raise ``NO_NWFILTER``."""

    def connect_list_all_nwfilters(self) -> list[NwfilterRef]:
        """Every filter."""

    def nwfilter_lookup_by_name(self, name: str) -> NwfilterRef:
        """Find by name."""

    def nwfilter_lookup_by_uuid(self, uuid: str) -> NwfilterRef:
        """Find by UUID."""

    def nwfilter_get_xml_desc(self, nwfilter: NwfilterRef) -> str:
        """The document."""

    def nwfilter_define_xml(self, xml: str) -> NwfilterRef:
        """Have a filter, or have it otherwise."""

    def nwfilter_undefine(self, nwfilter: NwfilterRef) -> None:
        """Have it no more."""

    def close(self) -> None:
        """Release what the driver holds."""

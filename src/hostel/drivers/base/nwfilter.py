"""Filters of packets: references, and the calls of who has them."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable


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

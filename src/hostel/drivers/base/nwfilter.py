"""Filters of packets: references, and the calls of who has them."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class NwfilterRef(NamedTuple):
    """Names a filter."""

    name: str
    uuid: str


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

"""The filters of a session, of which there are none."""

from __future__ import annotations

from typing import NoReturn

from hostel.drivers.base.nwfilter import NwfilterBindingRef, NwfilterRef
from hostel.drivers.fault import fault
from hostel.errors import ErrorCode, ErrorDomain, VirtError


class SessionNwfilterDriver:
    """Implements :class:`hostel.drivers.base.nwfilter.NwfilterDriver` where none can be set up: there are none."""

    def connect_list_all_nwfilters(self) -> list[NwfilterRef]:
        """None."""
        return []

    def nwfilter_lookup_by_name(self, name: str) -> NwfilterRef:
        """Not found."""
        raise _fault(ErrorCode.NO_NWFILTER, f"no nwfilter with matching name '{name}'")

    def nwfilter_lookup_by_uuid(self, uuid: str) -> NwfilterRef:
        """Not found."""
        raise _fault(ErrorCode.NO_NWFILTER, f"no nwfilter with matching uuid '{uuid}'")

    def nwfilter_get_xml_desc(self, nwfilter: NwfilterRef) -> str:
        """Not found."""
        self._missing(nwfilter)

    def nwfilter_define_xml(self, xml: str) -> NwfilterRef:
        """Refused: a filter that filters nothing would be worse than none."""
        raise _fault(ErrorCode.OPERATION_INVALID, "Can't define NWFilters in session mode")

    def nwfilter_undefine(self, nwfilter: NwfilterRef) -> None:
        """Not found."""
        self._missing(nwfilter)

    def connect_list_all_nwfilter_bindings(self) -> list[NwfilterBindingRef]:
        """None."""
        return []

    def nwfilter_binding_lookup_by_port_dev(self, port_device: str) -> NwfilterBindingRef:
        """Not found."""
        raise _no_binding(port_device)

    def nwfilter_binding_get_xml_desc(self, binding: NwfilterBindingRef) -> str:
        """Not found."""
        raise _no_binding(binding.port_device)

    def nwfilter_binding_create_xml(self, xml: str) -> NwfilterBindingRef:
        """Refused."""
        raise _fault(ErrorCode.OPERATION_INVALID, "Can't define NWFilter bindings in session mode")

    def nwfilter_binding_delete(self, binding: NwfilterBindingRef) -> None:
        """Not found."""
        raise _no_binding(binding.port_device)

    def close(self) -> None:
        """Nothing is held."""

    @staticmethod
    def _missing(nwfilter: NwfilterRef) -> NoReturn:
        raise _fault(ErrorCode.NO_NWFILTER, f"no nwfilter with matching uuid '{nwfilter.uuid}'")


def _no_binding(port_device: str) -> VirtError:
    return _fault(ErrorCode.NO_NWFILTER_BINDING, f"no nwfilter binding for port dev '{port_device}'")


def _fault(code: ErrorCode, detail: str) -> VirtError:
    return fault(code, detail, ErrorDomain.NWFILTER)

"""Filters that are kept in a mapping, such as one in memory."""

from __future__ import annotations

import contextlib
from collections.abc import MutableMapping

from hostel.drivers.base.nwfilter import NwfilterRef
from hostel.drivers.document import canonical_uuid, reading
from hostel.drivers.fault import fault
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.nwfilter.filter import Filter, FilterReference, read_filter


class MemoryNwfilterDriver:
    """Implements :class:`hostel.drivers.base.nwfilter.NwfilterDriver`; filters are gone with who keeps ``filters``.

    Args:
        filters: by name; changed.
        lock: held for every look and every change.
    """

    def __init__(self, filters: MutableMapping[str, Filter], lock: contextlib.AbstractContextManager[object]) -> None:
        self._filters = filters
        self._lock = lock

    def connect_list_all_nwfilters(self) -> list[NwfilterRef]:
        """Every filter, by name; one whose file is broken is left out, and refused when it is asked for."""
        found = []
        with self._lock:
            for name in list(self._filters):
                with contextlib.suppress(VirtError):
                    found.append(_ref(self._filters[name]))
        return sorted(found)

    def nwfilter_lookup_by_name(self, name: str) -> NwfilterRef:
        """Find by name."""
        with self._lock:
            return _ref(self._named(name))

    def nwfilter_lookup_by_uuid(self, uuid: str) -> NwfilterRef:
        """Find by UUID."""
        canonical = canonical_uuid(uuid)
        if canonical is None:
            reason = "uuidstr in virNWFilterLookupByUUIDString must be a valid UUID"
            raise VirtError(ErrorCode.INVALID_ARG, reason, domain=ErrorDomain.NWFILTER)
        for ref in self.connect_list_all_nwfilters():
            if ref.uuid == canonical:
                return ref
        raise _fault(ErrorCode.NO_NWFILTER, f"no nwfilter with matching uuid '{uuid}'")

    def nwfilter_get_xml_desc(self, nwfilter: NwfilterRef) -> str:
        """The document."""
        with self._lock:
            return self._of(nwfilter).format()

    def nwfilter_define_xml(self, xml: str) -> NwfilterRef:
        """Have a filter, or have it otherwise.

        Raises:
            VirtError: the document breaks a rule, or ``OPERATION_FAILED``: the name or the UUID is another's, or
                filters would include themselves.
        """
        with reading(ErrorDomain.NWFILTER):
            filter = read_filter(xml)
        with self._lock:
            self._check_new(filter)
            self._filters[_ref(filter).name] = filter
        return _ref(filter)

    def nwfilter_undefine(self, nwfilter: NwfilterRef) -> None:
        """Have it no more; filters that include it stay."""
        with self._lock:
            self._of(nwfilter)
            del self._filters[nwfilter.name]

    def close(self) -> None:
        """Nothing is held."""

    def _check_new(self, filter: Filter) -> None:
        """Refuse a filter whose name or UUID is another's, or that would include itself."""
        ref = _ref(filter)
        for known in self.connect_list_all_nwfilters():
            if known.uuid == ref.uuid and known.name != ref.name:
                reason = f"filter with same UUID but different name ('{known.name}') already exists"
                raise _fault(ErrorCode.OPERATION_FAILED, reason)
            if known.name == ref.name and known.uuid != ref.uuid:
                raise _fault(ErrorCode.OPERATION_FAILED, f"filter '{ref.name}' already exists with uuid {known.uuid}")
        if self._leads_to(filter, ref.name, set()):
            raise _fault(ErrorCode.OPERATION_FAILED, "filter would introduce a loop")

    def _leads_to(self, filter: Filter, name: str, seen: set[str]) -> bool:
        """Whether a filter includes one of a name, itself or by others."""
        for entry in filter.entries:
            if not isinstance(entry, FilterReference) or entry.filter is None or entry.filter in seen:
                continue
            seen.add(entry.filter)
            included = self._filters.get(entry.filter)
            if entry.filter == name or (included is not None and self._leads_to(included, name, seen)):
                return True
        return False

    def _named(self, name: str) -> Filter:
        found = self._filters.get(name)
        if found is None:
            raise _fault(ErrorCode.NO_NWFILTER, f"no nwfilter with matching name '{name}'")
        return found

    def _of(self, nwfilter: NwfilterRef) -> Filter:
        """The filter of a reference; another one may have its name by now."""
        found = self._named(nwfilter.name)
        if _ref(found).uuid != nwfilter.uuid:
            raise _fault(ErrorCode.NO_NWFILTER, f"no nwfilter with matching uuid '{nwfilter.uuid}' ({nwfilter.name})")
        return found


def _ref(filter: Filter) -> NwfilterRef:
    return NwfilterRef(filter.name or "", filter.uuid or "")


def _fault(code: ErrorCode, detail: str) -> VirtError:
    return fault(code, detail, ErrorDomain.NWFILTER)

"""Interfaces of the test driver's host: they can be changed, and changes taken back."""

from __future__ import annotations

from hostel.drivers.adapters import check_flags
from hostel.drivers.base.interface import InterfaceRef
from hostel.drivers.document import reading
from hostel.drivers.fault import fault
from hostel.drivers.test.host import Host, InterfaceEntry
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.interface import read_interface


class TestInterfaceDriver:
    """Implements :class:`hostel.drivers.base.interface.InterfaceDriver`.

    Args:
        host: whose interfaces they are.
    """

    __test__ = False  # not a test case, whatever its name says

    def __init__(self, host: Host) -> None:
        self._host = host

    def connect_list_all_interfaces(self) -> list[InterfaceRef]:
        """Every interface."""
        with self._host.lock:
            return [_ref(interface) for interface in self._host.interfaces.values()]

    def interface_lookup_by_name(self, name: str) -> InterfaceRef:
        """Find by name."""
        with self._host.lock:
            return _ref(self._find(name))

    def interface_lookup_by_mac_string(self, mac: str) -> InterfaceRef:
        """Find by MAC address."""
        found = [ref for ref in self.connect_list_all_interfaces() if ref.mac.lower() == mac.lower()]
        if not found:
            raise _fault(ErrorCode.NO_INTERFACE, f"no interface with matching mac '{mac}'")
        if len(found) > 1:
            raise _fault(ErrorCode.MULTIPLE_INTERFACES, f"{', '.join(ref.name for ref in found)} have mac '{mac}'")
        return found[0]

    def interface_is_active(self, interface: InterfaceRef) -> bool:
        """Whether it is switched on."""
        with self._host.lock:
            return self._find(interface.name).active

    def interface_get_xml_desc(self, interface: InterfaceRef, *, inactive: bool = False) -> str:
        """The document."""
        if inactive:
            check_flags(1, 0, "testInterfaceGetXMLDesc")
        with self._host.lock:
            return self._find(interface.name).definition.format()

    def interface_define_xml(self, xml: str) -> InterfaceRef:
        """Have an interface; one that is there stays on or off."""
        with reading(ErrorDomain.INTERFACE):
            definition = read_interface(xml)
        with self._host.lock:
            there = self._host.interfaces.get(definition.name)
            self._host.interfaces[definition.name] = InterfaceEntry(definition, there is not None and there.active)
            return _ref(self._host.interfaces[definition.name])

    def interface_undefine(self, interface: InterfaceRef) -> None:
        """Have it no more."""
        with self._host.lock:
            self._find(interface.name)
            del self._host.interfaces[interface.name]

    def interface_create(self, interface: InterfaceRef) -> None:
        """Switch it on."""
        self._switch(interface, on=True)

    def interface_destroy(self, interface: InterfaceRef) -> None:
        """Switch it off."""
        self._switch(interface, on=False)

    def interface_change_begin(self) -> None:
        """Remember how all are."""
        with self._host.lock:
            if self._host.interfaces_before is not None:
                raise _fault(ErrorCode.OPERATION_INVALID, "there is another transaction running.")
            self._host.interfaces_before = dict(self._host.interfaces)

    def interface_change_commit(self) -> None:
        """Keep what was changed."""
        with self._host.lock:
            if self._host.interfaces_before is None:
                raise _fault(ErrorCode.OPERATION_INVALID, "no transaction running, nothing to be committed.")
            self._host.interfaces_before = None

    def interface_change_rollback(self) -> None:
        """Have all as they were."""
        with self._host.lock:
            if self._host.interfaces_before is None:
                raise _fault(ErrorCode.OPERATION_INVALID, "no transaction running, nothing to rollback.")
            self._host.interfaces = self._host.interfaces_before
            self._host.interfaces_before = None

    def close(self) -> None:
        """Nothing is held."""

    def _switch(self, interface: InterfaceRef, *, on: bool) -> None:
        with self._host.lock:
            there = self._find(interface.name)
            if there.active == on:
                raise _fault(ErrorCode.OPERATION_INVALID, f"interface '{there.definition.name}' is {_state(on)}")
            self._host.interfaces[interface.name] = there._replace(active=on)

    def _find(self, name: str) -> InterfaceEntry:
        there = self._host.interfaces.get(name)
        if there is None:
            raise _fault(ErrorCode.NO_INTERFACE, f"no interface with matching name '{name}'")
        return there


def _state(on: bool) -> str:
    return "active already" if on else "not active"


def _ref(interface: InterfaceEntry) -> InterfaceRef:
    return InterfaceRef(interface.definition.name, interface.definition.mac or "")


def _fault(code: ErrorCode, detail: str) -> VirtError:
    return fault(code, detail, ErrorDomain.TEST)

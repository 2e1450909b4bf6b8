"""Interfaces of the host: looked up anew with each call, and not changed."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NoReturn

from hostel.drivers.base.interface import InterfaceRef
from hostel.drivers.fault import fault
from hostel.drivers.interface.describe import describe
from hostel.drivers.nodedev.sysfs import SysDevice, Sysfs
from hostel.errors import ErrorCode, ErrorDomain

_ROOT: Final = Path("/")


class SysfsInterfaceDriver:
    """Implements :class:`hostel.drivers.base.interface.InterfaceDriver`, as libvirt's driver does on a host with udev.

    Changes are refused: who keeps a host's network (NetworkManager, systemd-networkd, netplan, ifupdown) differs from
    host to host, and two that keep it would be at odds.

    Args:
        root: where the host's files lie.

    Attributes:
        REFUSED: methods that are there in name only.
    """

    REFUSED: Final = frozenset(
        f"interface_{name}"
        for name in ("define_xml", "undefine", "create", "destroy", "change_begin", "change_commit", "change_rollback")
    )

    def __init__(self, root: Path = _ROOT) -> None:
        self._tree = Sysfs(root)

    def connect_list_all_interfaces(self) -> list[InterfaceRef]:
        """Every interface, by name; without those in a bridge, and those of machines."""
        return [_ref(device) for device in self._listed()]

    def interface_lookup_by_name(self, name: str) -> InterfaceRef:
        """Find by name."""
        return _ref(self._find(name))

    def interface_lookup_by_mac_string(self, mac: str) -> InterfaceRef:
        """Find by MAC address."""
        found = [ref for ref in self.connect_list_all_interfaces() if ref.mac == mac.lower()]
        if not found:
            raise fault(
                ErrorCode.NO_INTERFACE, f"couldn't find interface with MAC address '{mac}'", ErrorDomain.INTERFACE
            )
        if len(found) > 1:
            detail = f"the MAC address '{mac}' matches multiple interfaces"
            raise fault(ErrorCode.MULTIPLE_INTERFACES, detail, ErrorDomain.INTERFACE)
        return found[0]

    def interface_is_active(self, interface: InterfaceRef) -> bool:
        """Whether its link is up."""
        return self._find(interface.name).attribute("operstate") == "up"

    def is_down(self, interface: InterfaceRef) -> bool:
        """Whether its link is down, which of some, such as the loopback, nobody knows."""
        return self._find(interface.name).attribute("operstate") == "down"

    def interface_get_xml_desc(self, interface: InterfaceRef, *, inactive: bool = False) -> str:
        """The document; what is when the host starts is not known, and ``inactive`` changes nothing."""
        return describe(self._find(interface.name)).format()

    def interface_define_xml(self, xml: str) -> InterfaceRef:
        """Refused."""
        self._refuse("virInterfaceDefineXML")

    def interface_undefine(self, interface: InterfaceRef) -> None:
        """Refused."""
        self._refuse("virInterfaceUndefine")

    def interface_create(self, interface: InterfaceRef) -> None:
        """Refused."""
        self._refuse("virInterfaceCreate")

    def interface_destroy(self, interface: InterfaceRef) -> None:
        """Refused."""
        self._refuse("virInterfaceDestroy")

    def interface_change_begin(self) -> None:
        """Refused."""
        self._refuse("virInterfaceChangeBegin")

    def interface_change_commit(self) -> None:
        """Refused."""
        self._refuse("virInterfaceChangeCommit")

    def interface_change_rollback(self) -> None:
        """Refused."""
        self._refuse("virInterfaceChangeRollback")

    def close(self) -> None:
        """Nothing is held."""

    def _listed(self) -> list[SysDevice]:
        return [
            device
            for device in self._tree.interfaces()
            if device.attribute("brport/state") is None and device.attribute("tun_flags") is None
        ]

    def _find(self, name: str) -> SysDevice:
        device = self._tree.interface(name)
        if device is None:
            raise fault(ErrorCode.NO_INTERFACE, f"couldn't find interface named '{name}'", ErrorDomain.INTERFACE)
        return device

    @staticmethod
    def _refuse(what: str) -> NoReturn:
        raise fault(ErrorCode.NO_SUPPORT, what, ErrorDomain.INTERFACE)


def _ref(device: SysDevice) -> InterfaceRef:
    return InterfaceRef(device.name, device.attribute("address") or "")

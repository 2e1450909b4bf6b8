"""What interfaces of networks turned out to be (``virDomainNetGetActual*``)."""

from __future__ import annotations

from hostel.model.domain.devices.interface import Interface, InterfaceSource


def actual(interface: Interface) -> Interface:
    """An interface as libvirt shows it to the world while it is in use: what it is plugged into, and how.

    Of a network, that is what the network said when the port was made; another is what its document says.
    """
    found = interface.actual
    if found is None:
        return interface
    shown = interface.copy()
    shown.actual, shown.type, shown.managed = None, found.type, found.managed
    shown.vlan, shown.virtualport, shown.bandwidth, shown.isolation = (
        found.vlan, found.virtualport, found.bandwidth, found.isolation,
    )  # fmt: skip
    asked, said = interface.source or InterfaceSource(), found.source or InterfaceSource()
    shown.source = InterfaceSource(
        network=asked.network, portgroup=asked.portgroup, portid=asked.portid, bridge=said.bridge,
        mac_table_manager=said.mac_table_manager, dev=said.dev, mode=said.mode, host_address=said.host_address,
    )  # fmt: skip
    return shown

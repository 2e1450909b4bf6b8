"""Networks and their ports, interfaces of the host, and filters of packets."""

from __future__ import annotations

from typing import Any

from hostel.drivers.adapters import uuid_text
from hostel.libvirt.method import Handle, by_uuid_text, install, kind


@kind
class virNetwork(Handle):
    """A network."""

    KIND = "network"

    def name(self) -> str:
        """The name."""
        return str(self._wire.name)

    def UUID(self) -> bytes:
        """The UUID's sixteen bytes."""
        return bytes(self._wire.uuid)

    def UUIDString(self) -> str:
        """The UUID as it is written."""
        return uuid_text(self._wire.uuid)

    def portLookupByUUIDString(self, uuidstr: str) -> Any:
        """The port of a UUID as it is written."""
        return by_uuid_text(self, "network_port", "network_port_lookup_by_uuid", uuidstr)


install(
    virNetwork,
    """
autostart() network_get_autostart
bridgeName() network_get_bridge_name
create() network_create
destroy() network_destroy
DHCPLeases(mac=None, flags=0) network_get_dhcp_leases leases
isActive() network_is_active
isPersistent() network_is_persistent
listAllPorts(flags=0) network_list_all_ports
portCreateXML(xmldesc, flags=0) network_port_create_xml
portLookupByUUID(uuid) network_port_lookup_by_uuid
setAutostart(autostart) network_set_autostart
undefine() network_undefine
update(command, section, parentIndex, xml, flags=0) network_update
XMLDesc(flags=0) network_get_xml_desc
""",
)


@kind
class virNetworkPort(Handle):
    """What is plugged into a network."""

    KIND = "network_port"
    KEEPS_MAKER = True

    def __init__(self, net: Any, _obj: Any = None) -> None:
        super().__init__(net._conn, _obj)
        self._net = net

    def network(self) -> Any:
        """The network."""
        return self._net

    def UUID(self) -> bytes:
        """The UUID's sixteen bytes."""
        return bytes(self._wire.uuid)

    def UUIDString(self) -> str:
        """The UUID as it is written."""
        return uuid_text(self._wire.uuid)


install(
    virNetworkPort,
    """
delete(flags=0) network_port_delete
parameters(flags=0) network_port_get_parameters
setParameters(params, flags=0) network_port_set_parameters
XMLDesc(flags=0) network_port_get_xml_desc
""",
)


@kind
class virInterface(Handle):
    """A network interface of the host."""

    KIND = "interface"

    def name(self) -> str:
        """The name."""
        return str(self._wire.name)

    def MACString(self) -> str:
        """The hardware address."""
        return str(self._wire.mac)


install(
    virInterface,
    """
create(flags=0) interface_create
destroy(flags=0) interface_destroy
isActive() interface_is_active
undefine() interface_undefine
XMLDesc(flags=0) interface_get_xml_desc
""",
)


@kind
class virNWFilter(Handle):
    """A filter of packets."""

    KIND = "nwfilter"

    def name(self) -> str:
        """The name."""
        return str(self._wire.name)

    def UUID(self) -> bytes:
        """The UUID's sixteen bytes."""
        return bytes(self._wire.uuid)

    def UUIDString(self) -> str:
        """The UUID as it is written."""
        return uuid_text(self._wire.uuid)


install(
    virNWFilter,
    """
undefine() nwfilter_undefine
XMLDesc(flags=0) nwfilter_get_xml_desc
""",
)


@kind
class virNWFilterBinding(Handle):
    """A filter that a device of the host has."""

    KIND = "nwfilter_binding"

    def portDev(self) -> str:
        """The device."""
        return str(self._wire.portdev)

    def filterName(self) -> str:
        """The filter."""
        return str(self._wire.filtername)


install(
    virNWFilterBinding,
    """
delete() nwfilter_binding_delete
XMLDesc(flags=0) nwfilter_binding_get_xml_desc
""",
)

"""Calls about networks that tell of several things at once: ports, leases, and what addresses a guest has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from hostel.daemon.access import api_name
from hostel.daemon.lists import visible
from hostel.daemon.machine import domain_of, driver_of
from hostel.drivers.adapters import check_flags, uuid_bytes, uuid_text
from hostel.drivers.base import NetworkRef
from hostel.drivers.fault import fault
from hostel.errors import ErrorCode
from hostel.wire.rpc.connection import Call

if TYPE_CHECKING:
    from hostel.daemon.client import Client


def _driver(client: Client, call: Call, method: str) -> Any:
    """The driver of networks, which must have a method.

    Raises:
        VirtError: ``NO_SUPPORT``.
    """
    assert client.host is not None
    driver = client.host.drivers.network
    if not hasattr(driver, method):
        raise fault(ErrorCode.NO_SUPPORT, api_name(call.procedure.name))
    return driver


def _network_of(wire: Any) -> NetworkRef:
    return NetworkRef(wire.name, uuid_text(wire.uuid))


def _ports(client: Client, call: Call) -> Sequence[Any]:
    network, needed, flags = call.arguments
    check_flags(flags, 0, "virNetworkListAllPorts")
    found = _driver(client, call, "network_list_all_ports").network_list_all_ports(_network_of(network))
    seen = visible(client, call, found, lambda port: port.uuid)
    on_the_wire = [((port.network.name, uuid_bytes(port.network.uuid)), uuid_bytes(port.uuid)) for port in seen]
    return on_the_wire if needed else [], len(seen)


def _leases(client: Client, call: Call) -> Sequence[Any]:
    network, mac, needed, flags = call.arguments
    check_flags(flags, 0, "virNetworkGetDHCPLeases")
    found = _driver(client, call, "network_get_dhcp_leases").network_get_dhcp_leases(_network_of(network), mac)
    return [lease._replace(type=int(lease.type)) for lease in found] if needed else [], len(found)


def _addresses(client: Client, call: Call) -> Sequence[Any]:
    domain, source, flags = call.arguments
    check_flags(flags, 0, "virDomainInterfaceAddresses")
    driver: Any = driver_of(client, call, "domain_interface_addresses")
    found = driver.domain_interface_addresses(domain_of(domain), source)
    return (
        [
            (one.name, one.mac, [(int(kind), address, prefix) for kind, address, prefix in one.addresses])
            for one in found
        ],
    )


ANSWERS: Final[dict[str, Callable[[Client, Call], Sequence[Any]]]] = {
    "network_list_all_ports": _ports,
    "network_get_dhcp_leases": _leases,
    "domain_interface_addresses": _addresses,
}

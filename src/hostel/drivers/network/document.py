"""The document of a virtual network as the drivers work with it (``network_conf.c``)."""

from __future__ import annotations

from typing import Final, NamedTuple

from hostel.drivers.document import Words, reading
from hostel.drivers.fault import fault
from hostel.drivers.network.functions import check_functions
from hostel.errors import ErrorCode, ErrorDomain
from hostel.model import network as model
from hostel.model.network import ForwardMode
from hostel.model.network_defaults import read_network
from hostel.model.network_support import check_supported
from hostel.model.network_update import Command, Section, update

# Modes in which libvirt itself makes and feeds the bridge.
MANAGED_MODES: Final = (None, ForwardMode.NAT, ForwardMode.ROUTE, ForwardMode.OPEN)
_WORDS: Final[Words] = {"uuid": (ErrorCode.INTERNAL_ERROR, "malformed uuid element")}
_MAX_INTERFACE_NAME: Final = 15
# Guests must not have the ports that NFS trusts.
PORTS: Final = (1024, 65535)


class NetworkDefinition(NamedTuple):
    """A network's document.

    Attributes:
        mode: of forwarding; None for an isolated network.
        bridge: the host bridge's name; None where the document names none.
        mac: the hardware address that it is to have; None where the document has none.
        xml: the whole document.
    """

    name: str
    uuid: str
    mode: ForwardMode | None
    bridge: str | None
    mac: str | None
    xml: str

    @property
    def is_managed(self) -> bool:
        """Whether libvirt itself would make and feed the bridge."""
        return self.mode in MANAGED_MODES


def parse_network(xml: str) -> NetworkDefinition:
    """Parse a network's document and complete it.

    Raises:
        VirtError: in libvirt's words.
    """
    with reading(ErrorDomain.NETWORK, _WORDS):
        return _definition(read_network(xml))


def parse_new_network(xml: str) -> NetworkDefinition:
    """Parse the document of a network that is to be defined or started, and hold it against what there is.

    Raises:
        VirtError: in libvirt's words.
    """
    with reading(ErrorDomain.NETWORK, _WORDS):
        network = read_network(xml)
        check_supported(network)
        if network.forward is not None:
            check_functions(network.forward, network.name or "")
        return _definition(network)


def updated(network: NetworkDefinition, command: Command, section: Section, parent: int, xml: str) -> NetworkDefinition:
    """A network's document with one section changed; see :func:`hostel.model.network_update.update`.

    Raises:
        VirtError: in libvirt's words.
    """
    with reading(ErrorDomain.NETWORK, _WORDS):
        changed = read_network(network.xml)
        update(changed, command, section, parent, xml)
        # Once more, as if it were defined: a change must not make what nobody could define.
        return _definition(read_network(changed.format()))


def with_bridge(network: NetworkDefinition, bridge: str, mac: str) -> NetworkDefinition:
    """A managed network's document with a bridge and its address where it names none."""
    changed = model.Network.parse(network.xml)
    changed.bridge = changed.bridge or model.Bridge()
    changed.bridge.name = changed.bridge.name or bridge
    changed.mac = changed.mac or mac
    return _definition(changed)


def with_ports(network: NetworkDefinition) -> NetworkDefinition:
    """A network that translates, with the ports that it takes where it names none."""
    if network.mode is not ForwardMode.NAT:
        return network
    told = read_network(network.xml)
    assert told.forward is not None
    if not told.ips or (told.forward.nat is not None and told.forward.nat.port is not None):
        return network
    told.forward.nat = told.forward.nat or model.Nat()
    told.forward.nat.port = model.NatPort(start=PORTS[0], end=PORTS[1])
    return _definition(told)


def with_connections(network: NetworkDefinition, count: int) -> str:
    """A network's document that says how many guests are plugged in, where there are any."""
    if not count:
        return network.xml
    told = model.Network.parse(network.xml)
    told.connections = count
    return told.format()


def _definition(network: model.Network) -> NetworkDefinition:
    mode = network.forward.mode if network.forward is not None else None
    name = network.bridge.name if network.bridge is not None else None
    if name is not None and not _is_interface_name(name):
        raise fault(
            ErrorCode.XML_ERROR,
            f"bridge name '{name}' is no name of a network interface: 1 to {_MAX_INTERFACE_NAME} characters, "
            "no '/' and no blanks",
            ErrorDomain.NETWORK,
        )
    if mode in MANAGED_MODES:
        network.bridge = network.bridge or model.Bridge()
        network.bridge.stp = True if network.bridge.stp is None else network.bridge.stp
        network.bridge.delay = network.bridge.delay or 0
    return NetworkDefinition(network.name or "", network.uuid or "", mode, name or None, network.mac, network.format())


def _is_interface_name(name: str) -> bool:
    is_short = 0 < len(name.encode()) <= _MAX_INTERFACE_NAME
    return is_short and name not in (".", "..") and not any(c in "/:" or c.isspace() for c in name)

"""The document of a virtual network, as far as attaching guests to a host's bridge needs it (``network_conf.c``).

The other elements are kept as they are written and shown in libvirt's order.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from hostel.drivers import document
from hostel.drivers.document import Node, Writer
from hostel.drivers.fault import fault
from hostel.errors import ErrorCode, ErrorDomain, VirtError

FORWARD_MODES: Final = ("nat", "route", "open", "bridge", "private", "vepa", "passthrough", "hostdev")
# Modes in which libvirt itself makes and feeds the bridge.
MANAGED_MODES: Final = (None, "nat", "route", "open")
_ORDER: Final = (
    "name", "uuid", "title", "description", "metadata", "forward", "bridge", "mtu", "mac", "domain", "dns", "vlan",
    "bandwidth", "port", "ip", "route", "virtualport", "portgroup",
)  # fmt: skip
_MAX_INTERFACE_NAME: Final = 15


class NetworkDefinition(NamedTuple):
    """A network's document.

    Attributes:
        mode: of forwarding; None for an isolated network.
        bridge: the host bridge's name; None where the document names none.
        xml: the whole document.
    """

    name: str
    uuid: str
    mode: str | None
    bridge: str | None
    xml: str


def parse_network(xml: str) -> NetworkDefinition:
    """Parse a network's document and complete it.

    Raises:
        VirtError: in libvirt's words.
    """
    root = document.parse(xml, "network", "network_definition")
    name = document.text(root, "name")
    if not name:
        raise VirtError(ErrorCode.NO_NAME, "missing name information", domain=ErrorDomain.NETWORK)
    for character in "/\n":
        if character in name:
            raise VirtError(ErrorCode.XML_DETAIL, f"invalid char in name: {character}", domain=ErrorDomain.NETWORK)
    uuid = document.uuid(root, ErrorDomain.NETWORK)
    forward = root.find("forward")
    mode = None if forward is None else forward.get("mode") or "nat"
    if mode is not None and mode not in FORWARD_MODES:
        raise fault(ErrorCode.CONFIG_UNSUPPORTED, f"unknown forwarding type '{mode}'", ErrorDomain.NETWORK)
    bridge = document.text(root, "bridge/@name") or None
    if bridge is not None and not _is_interface_name(bridge):
        raise fault(
            ErrorCode.XML_ERROR,
            f"bridge name '{bridge}' is no name of a network interface: 1 to {_MAX_INTERFACE_NAME} characters, "
            "no '/' and no blanks",
            ErrorDomain.NETWORK,
        )
    return NetworkDefinition(name, uuid, mode, bridge, _write(root, name, uuid, mode))


def _is_interface_name(name: str) -> bool:
    is_short = len(name.encode()) <= _MAX_INTERFACE_NAME
    return is_short and name not in (".", "..") and not any(c in "/:" or c.isspace() for c in name)


def _write(root: Node, name: str, uuid: str, mode: str | None) -> str:
    writer = Writer()
    writer.start("network", **{str(key): value for key, value in root.attrib.items() if key != "connections"})
    writer.leaf("name", name)
    writer.leaf("uuid", uuid)
    children = [child for child in root if child.tag not in ("name", "uuid")]
    if mode in MANAGED_MODES:
        _complete_bridge(root, children)
    for child in sorted(children, key=_position):
        writer.copy(child)
    writer.end()
    return writer.text()


def _complete_bridge(root: Node, children: list[Node]) -> None:
    bridge = root.find("bridge")
    if bridge is None:
        bridge = root.makeelement("bridge", {})
        children.append(bridge)
    for attribute, value in (("stp", "on"), ("delay", "0")):
        if attribute not in bridge.attrib:
            bridge.set(attribute, value)


def _position(child: Node) -> int:
    return _ORDER.index(str(child.tag)) if child.tag in _ORDER else len(_ORDER)

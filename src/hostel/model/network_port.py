"""The document of a network's port: what a guest's interface is plugged into (``virNetworkPortDefFormatBuf``)."""

from __future__ import annotations

from hostel.codec.xml import UUID, YES_NO, Element, attr, child, choice, setting, text
from hostel.errors import ErrorCode, ModelError
from hostel.model.address import read_mac
from hostel.model.pci_address import PciFunction
from hostel.model.port import Bandwidth, Isolation, VirtualPort, Vlan
from hostel.model.port_rules import (
    check_bandwidth,
    check_virtual_port,
    check_vlan,
    complete_vlan,
    completed_bandwidth,
    completed_virtual_port,
)


class PortOwner(Element, tag="owner"):
    """The domain that has the interface."""

    name: str | None = text(default=None)
    uuid: str | None = text(UUID.saying("Unable to parse UUID '{}'", ErrorCode.INTERNAL_ERROR), default=None)


class ReceiveFilters(Element, tag="rxfilters", drop_empty=True):
    """Whether the guest's filters are trusted."""

    trust_guest: bool | None = attr(YES_NO, name="trustGuest", default=None)


class Plug(Element, tag="plug"):
    """What the interface is connected to; which parts count depends on ``type``."""

    type: str = attr(choice("none", "network", "bridge", "direct", "hostdev-pci"))
    bridge: str | None = attr(default=None)
    dev: str | None = attr(default=None)
    mode: str | None = attr(choice("vepa", "private", "bridge", "passthrough"), default=None)
    mac_table_manager: str | None = attr(choice("kernel", "libvirt"), name="macTableManager", default=None)
    managed: bool | None = attr(YES_NO, default=None)
    driver: str | None = setting(choice("kvm", "vfio"), name="name", default=None)
    address: PciFunction | None = child(PciFunction, default=None)


class NetworkPort(Element, tag="networkport"):
    """A port."""

    uuid: str | None = text(UUID.saying("Unable to parse UUID '{}'", ErrorCode.INTERNAL_ERROR), default=None)
    owner: PortOwner | None = child(PortOwner, default=None)
    group: str | None = text(default=None)
    mac: str | None = setting(name="address", default=None)
    virtualport: VirtualPort | None = child(VirtualPort, default=None)
    bandwidth: Bandwidth | None = child(Bandwidth, default=None)
    vlan: Vlan | None = child(Vlan, default=None)
    isolation: Isolation | None = child(Isolation, default=None)
    receive_filters: ReceiveFilters | None = child(ReceiveFilters, default=None)
    plug: Plug | None = child(Plug, default=None)


def read_network_port(xml: str) -> NetworkPort:
    """Read a port's document, and complete it.

    Raises:
        ModelError: it is none, or breaks a rule; the path says where.
    """
    port = NetworkPort.parse(xml, "networkport_definition")
    validate(port)
    complete(port)
    return port


def validate(port: NetworkPort) -> None:
    """Hold a port against the rules.

    Raises:
        ModelError: a rule is broken; the words are libvirt's.
    """
    here = "/networkport"

    def missing(path: str, what: str) -> ModelError:
        return ModelError(f"{here}/{path}", f"network port has no {what}", code=ErrorCode.INTERNAL_ERROR)

    if port.uuid is None:
        raise missing("uuid", "uuid")
    if port.owner is None or port.owner.name is None:
        raise missing("owner/name", "owner name")
    if port.owner.uuid is None:
        raise missing("owner/uuid", "owner UUID")
    if port.mac is None:
        raise missing("mac", "mac")
    if read_mac(port.mac) is None:
        raise ModelError(f"{here}/mac/@address", f"Unable to parse MAC '{port.mac}'", code=ErrorCode.INTERNAL_ERROR)
    check_virtual_port(port.virtualport, f"{here}/virtualport")
    check_bandwidth(port.bandwidth, f"{here}/bandwidth", is_port=True)
    check_vlan(port.vlan, f"{here}/vlan")
    if port.plug is not None:
        _check_plug(port.plug, f"{here}/plug")


def _check_plug(plug: Plug, path: str) -> None:
    if plug.type in ("network", "bridge") and plug.bridge is None:
        raise ModelError(f"{path}/@bridge", "Missing network port bridge name")
    if plug.type == "direct" and plug.dev is None:
        raise ModelError(f"{path}/@dev", "Missing network port link device name")
    if plug.type == "hostdev-pci" and plug.address is None:
        raise ModelError(f"{path}/address", "Missing network port PCI address")


def complete(port: NetworkPort) -> None:
    """Say what was left out, and leave out what the plug does not have."""
    port.mac = read_mac(port.mac or "")
    port.virtualport = completed_virtual_port(port.virtualport)
    port.bandwidth = completed_bandwidth(port.bandwidth)
    complete_vlan(port.vlan)
    plug = port.plug
    if plug is None or plug.type == "none":
        port.plug = None
        return
    if plug.type not in ("network", "bridge"):
        plug.bridge = plug.mac_table_manager = None
    if plug.type == "direct":
        plug.mode = plug.mode or "vepa"
    else:
        plug.dev = plug.mode = None
    if plug.type != "hostdev-pci":
        plug.managed = plug.driver = plug.address = None

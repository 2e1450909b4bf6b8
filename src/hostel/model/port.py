"""What interfaces and networks have in common: bandwidth, VLANs, virtual ports, addresses and routes."""

from __future__ import annotations

from hostel.codec.xml import UUID, YES_NO, Element, attr, child, children, choice, integer

_U64 = 2**64 - 1


class Rate(Element):
    """Kilobytes a second, and kilobytes at once."""

    average: int | None = attr(integer(maximum=_U64), default=None)
    peak: int | None = attr(integer(maximum=_U64), default=None)
    floor: int | None = attr(integer(maximum=_U64), default=None)
    burst: int | None = attr(integer(maximum=_U64), default=None)


class Inbound(Rate, tag="inbound"):
    """What the guest receives."""


class Outbound(Rate, tag="outbound"):
    """What the guest sends."""


class Bandwidth(Element, tag="bandwidth", drop_empty=True):
    """Shaping of traffic (``virNetDevBandwidthFormat``)."""

    class_id: int | None = attr(integer(), name="classID", default=None)
    inbound: Inbound | None = child(Inbound, default=None)
    outbound: Outbound | None = child(Outbound, default=None)


class VlanTag(Element, tag="tag"):
    """A VLAN by its number."""

    id: int = attr(integer(0, 4095))
    native_mode: str | None = attr(choice("tagged", "untagged"), name="nativeMode", default=None)


class Vlan(Element, tag="vlan", drop_empty=True):
    """The VLANs of a port (``virNetDevVlanFormat``)."""

    trunk: bool | None = attr(YES_NO, default=None)
    tags: list[VlanTag] = children(VlanTag, factory=list)


class VirtualPortParameters(Element, tag="parameters", drop_empty=True):
    """What the switch is told."""

    managerid: int | None = attr(integer(0, 255, base=0), default=None)
    typeid: int | None = attr(integer(0, 2**24 - 1, base=0), default=None)
    typeidversion: int | None = attr(integer(0, 255, base=0), default=None)
    instanceid: str | None = attr(UUID, default=None)
    interfaceid: str | None = attr(UUID, default=None)
    profileid: str | None = attr(default=None)


class VirtualPort(Element, tag="virtualport"):
    """A port of an external switch (``virNetDevVPortProfileFormat``)."""

    type: str | None = attr(choice("none", "802.1Qbg", "802.1Qbh", "openvswitch", "midonet"), default=None)
    parameters: VirtualPortParameters | None = child(VirtualPortParameters, default=None)


class Isolation(Element, tag="port", drop_empty=True):
    """Whether guests of one bridge are kept from one another."""

    isolated: bool | None = attr(YES_NO, default=None)


class Route(Element, tag="route"):
    """A static route (``virNetDevIPRouteFormat``)."""

    family: str | None = attr(choice("ipv4", "ipv6"), default=None)
    address: str | None = attr(default=None)
    netmask: str | None = attr(default=None)
    prefix: int | None = attr(integer(0, 128), default=None)
    gateway: str | None = attr(default=None)
    metric: int | None = attr(integer(1), default=None)

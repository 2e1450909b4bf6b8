"""What a rule looks at in a packet: one class for each protocol, its attributes in libvirt's order.

``match='no'`` is about every attribute beside it.
"""

from __future__ import annotations

from typing import Final

from hostel.codec.xml import Element, attr
from hostel.model.nwfilter.value import (
    BYTE,
    COMMENT,
    CONNECTIONS,
    DSCP,
    ETHERNET_TYPE,
    HARDWARE,
    HARDWARE_MASK,
    IPV4,
    IPV4_MASK,
    IPV6,
    IPV6_MASK,
    NEGATION,
    OPCODE,
    PROTOCOL,
    SET_FLAGS,
    SET_NAME,
    SHORT,
    STATE,
    TCP_FLAGS,
    TRUTH,
    VLAN,
    VLAN_TYPE,
    WORD,
)


class Commented(Element):
    """What every match ends with."""

    comment: str | None = attr(COMMENT, default=None)


class Match(Commented, leads=True):
    """What every match begins with."""

    match: str | None = attr(NEGATION, default=None)


class EthernetMatch(Match, leads=True):
    """A frame by its hardware addresses."""

    srcmacaddr: str | None = attr(HARDWARE, default=None)
    srcmacmask: str | None = attr(HARDWARE_MASK, default=None)
    dstmacaddr: str | None = attr(HARDWARE, default=None)
    dstmacmask: str | None = attr(HARDWARE_MASK, default=None)


class MacMatch(EthernetMatch, tag="mac"):
    """A frame."""

    protocolid: str | None = attr(ETHERNET_TYPE, default=None)


class VlanMatch(EthernetMatch, tag="vlan"):
    """A frame of a VLAN."""

    vlanid: str | None = attr(VLAN, default=None)
    encap_protocol: str | None = attr(VLAN_TYPE, name="encap-protocol", default=None)


class StpMatch(Match, tag="stp"):
    """A frame of the spanning tree protocol."""

    srcmacaddr: str | None = attr(HARDWARE, default=None)
    srcmacmask: str | None = attr(HARDWARE_MASK, default=None)
    type: str | None = attr(BYTE, default=None)
    flags: str | None = attr(BYTE, default=None)
    root_priority: str | None = attr(SHORT, name="root-priority", default=None)
    root_priority_hi: str | None = attr(SHORT, name="root-priority-hi", default=None)
    root_address: str | None = attr(HARDWARE, name="root-address", default=None)
    root_address_mask: str | None = attr(HARDWARE_MASK, name="root-address-mask", default=None)
    root_cost: str | None = attr(WORD, name="root-cost", default=None)
    root_cost_hi: str | None = attr(WORD, name="root-cost-hi", default=None)
    sender_priority: str | None = attr(SHORT, name="sender-priority", default=None)
    sender_priority_hi: str | None = attr(SHORT, name="sender-priority-hi", default=None)
    sender_address: str | None = attr(HARDWARE, name="sender-address", default=None)
    sender_address_mask: str | None = attr(HARDWARE_MASK, name="sender-address-mask", default=None)
    port: str | None = attr(SHORT, default=None)
    port_hi: str | None = attr(SHORT, name="port-hi", default=None)
    age: str | None = attr(SHORT, default=None)
    age_hi: str | None = attr(SHORT, name="age-hi", default=None)
    max_age: str | None = attr(SHORT, name="max-age", default=None)
    max_age_hi: str | None = attr(SHORT, name="max-age-hi", default=None)
    hello_time: str | None = attr(SHORT, name="hello-time", default=None)
    hello_time_hi: str | None = attr(SHORT, name="hello-time-hi", default=None)
    forward_delay: str | None = attr(SHORT, name="forward-delay", default=None)
    forward_delay_hi: str | None = attr(SHORT, name="forward-delay-hi", default=None)


class ArpMatch(EthernetMatch, tag="arp"):
    """A packet of the address resolution protocol."""

    hwtype: str | None = attr(SHORT, default=None)
    protocoltype: str | None = attr(SHORT, default=None)
    opcode: str | None = attr(OPCODE, default=None)
    arpsrcmacaddr: str | None = attr(HARDWARE, default=None)
    arpdstmacaddr: str | None = attr(HARDWARE, default=None)
    arpsrcipaddr: str | None = attr(IPV4, default=None)
    arpsrcipmask: str | None = attr(IPV4_MASK, default=None)
    arpdstipaddr: str | None = attr(IPV4, default=None)
    arpdstipmask: str | None = attr(IPV4_MASK, default=None)
    gratuitous: str | None = attr(TRUTH, default=None)


class RarpMatch(ArpMatch, tag="rarp"):
    """A packet of the reverse address resolution protocol."""


class IpMatch(EthernetMatch, tag="ip"):
    """An IPv4 packet, where the bridge sees it."""

    srcipaddr: str | None = attr(IPV4, default=None)
    srcipmask: str | None = attr(IPV4_MASK, default=None)
    dstipaddr: str | None = attr(IPV4, default=None)
    dstipmask: str | None = attr(IPV4_MASK, default=None)
    protocol: str | None = attr(PROTOCOL, default=None)
    srcportstart: str | None = attr(SHORT, default=None)
    srcportend: str | None = attr(SHORT, default=None)
    dstportstart: str | None = attr(SHORT, default=None)
    dstportend: str | None = attr(SHORT, default=None)
    dscp: str | None = attr(DSCP, default=None)


class Ipv6Match(EthernetMatch, tag="ipv6"):
    """An IPv6 packet, where the bridge sees it."""

    srcipaddr: str | None = attr(IPV6, default=None)
    srcipmask: str | None = attr(IPV6_MASK, default=None)
    dstipaddr: str | None = attr(IPV6, default=None)
    dstipmask: str | None = attr(IPV6_MASK, default=None)
    protocol: str | None = attr(PROTOCOL, default=None)
    srcportstart: str | None = attr(SHORT, default=None)
    srcportend: str | None = attr(SHORT, default=None)
    dstportstart: str | None = attr(SHORT, default=None)
    dstportend: str | None = attr(SHORT, default=None)
    type: str | None = attr(BYTE, default=None)
    typeend: str | None = attr(BYTE, default=None)
    code: str | None = attr(BYTE, default=None)
    codeend: str | None = attr(BYTE, default=None)


class RoutedMatch(Match, leads=True):
    """An IPv4 packet, where the host's own stack sees it."""

    srcmacaddr: str | None = attr(HARDWARE, default=None)
    srcipaddr: str | None = attr(IPV4, default=None)
    srcipmask: str | None = attr(IPV4_MASK, default=None)
    dstipaddr: str | None = attr(IPV4, default=None)
    dstipmask: str | None = attr(IPV4_MASK, default=None)
    srcipfrom: str | None = attr(IPV4, default=None)
    srcipto: str | None = attr(IPV4, default=None)
    dstipfrom: str | None = attr(IPV4, default=None)
    dstipto: str | None = attr(IPV4, default=None)
    dscp: str | None = attr(DSCP, default=None)
    connlimit_above: str | None = attr(CONNECTIONS, name="connlimit-above", default=None)
    state: str | None = attr(STATE, default=None)
    ipset: str | None = attr(SET_NAME, default=None)
    ipsetflags: str | None = attr(SET_FLAGS, default=None)


class PortMatch(RoutedMatch, leads=True):
    """An IPv4 packet by its ports."""

    srcportstart: str | None = attr(SHORT, default=None)
    srcportend: str | None = attr(SHORT, default=None)
    dstportstart: str | None = attr(SHORT, default=None)
    dstportend: str | None = attr(SHORT, default=None)


class TcpMatch(PortMatch, tag="tcp"):
    """A TCP segment."""

    option: str | None = attr(BYTE, default=None)
    flags: str | None = attr(TCP_FLAGS, default=None)


class UdpMatch(PortMatch, tag="udp"):
    """A UDP datagram."""


class SctpMatch(PortMatch, tag="sctp"):
    """An SCTP packet."""


class IcmpMatch(RoutedMatch, tag="icmp"):
    """An ICMP message."""

    type: str | None = attr(BYTE, default=None)
    code: str | None = attr(BYTE, default=None)


class IgmpMatch(RoutedMatch, tag="igmp"):
    """An IGMP message."""


class UdpliteMatch(RoutedMatch, tag="udplite"):
    """A UDP-Lite datagram."""


class EspMatch(RoutedMatch, tag="esp"):
    """An encrypted packet of IPsec."""


class AhMatch(RoutedMatch, tag="ah"):
    """An authenticated packet of IPsec."""


class AllMatch(RoutedMatch, tag="all"):
    """Any IPv4 packet."""


class RoutedMatchV6(Match, leads=True):
    """An IPv6 packet, where the host's own stack sees it."""

    srcmacaddr: str | None = attr(HARDWARE, default=None)
    srcipaddr: str | None = attr(IPV6, default=None)
    srcipmask: str | None = attr(IPV6_MASK, default=None)
    dstipaddr: str | None = attr(IPV6, default=None)
    dstipmask: str | None = attr(IPV6_MASK, default=None)
    srcipfrom: str | None = attr(IPV6, default=None)
    srcipto: str | None = attr(IPV6, default=None)
    dstipfrom: str | None = attr(IPV6, default=None)
    dstipto: str | None = attr(IPV6, default=None)
    dscp: str | None = attr(DSCP, default=None)
    connlimit_above: str | None = attr(CONNECTIONS, name="connlimit-above", default=None)
    state: str | None = attr(STATE, default=None)
    ipset: str | None = attr(SET_NAME, default=None)
    ipsetflags: str | None = attr(SET_FLAGS, default=None)


class PortMatchV6(RoutedMatchV6, leads=True):
    """An IPv6 packet by its ports."""

    srcportstart: str | None = attr(SHORT, default=None)
    srcportend: str | None = attr(SHORT, default=None)
    dstportstart: str | None = attr(SHORT, default=None)
    dstportend: str | None = attr(SHORT, default=None)


class TcpMatchV6(PortMatchV6, tag="tcp-ipv6"):
    """A TCP segment in IPv6; libvirt's schema has ``flags``, which its parser overlooks."""

    option: str | None = attr(BYTE, default=None)
    flags: str | None = attr(TCP_FLAGS, default=None)


class UdpMatchV6(PortMatchV6, tag="udp-ipv6"):
    """A UDP datagram in IPv6."""


class SctpMatchV6(PortMatchV6, tag="sctp-ipv6"):
    """An SCTP packet in IPv6."""


class IcmpMatchV6(RoutedMatchV6, tag="icmpv6"):
    """An ICMPv6 message."""

    type: str | None = attr(BYTE, default=None)
    code: str | None = attr(BYTE, default=None)


class UdpliteMatchV6(RoutedMatchV6, tag="udplite-ipv6"):
    """A UDP-Lite datagram in IPv6."""


class EspMatchV6(RoutedMatchV6, tag="esp-ipv6"):
    """An encrypted packet of IPsec in IPv6."""


class AhMatchV6(RoutedMatchV6, tag="ah-ipv6"):
    """An authenticated packet of IPsec in IPv6."""


class AllMatchV6(RoutedMatchV6, tag="all-ipv6"):
    """Any IPv6 packet."""


MATCHES: Final[tuple[type[Match], ...]] = (
    MacMatch, VlanMatch, StpMatch, ArpMatch, RarpMatch, IpMatch, Ipv6Match, TcpMatch, UdpMatch, SctpMatch, IcmpMatch,
    IgmpMatch, UdpliteMatch, EspMatch, AhMatch, AllMatch, TcpMatchV6, UdpMatchV6, SctpMatchV6, IcmpMatchV6,
    UdpliteMatchV6, EspMatchV6, AhMatchV6, AllMatchV6,
)  # fmt: skip

"""The filters that are there for everybody, under the names and with the meaning that libvirt's packages give them.

A line that is not indented begins a filter: its name, its chain and the chain's priority. Below it are filters that it
includes, after ``+``, and rules: direction, action, priority (``-`` is the usual one), and what they look at.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Iterator, Mapping
from typing import Final

from hostel.model.nwfilter.filter import Filter, FilterReference, Rule, complete
from hostel.model.nwfilter.match import MATCHES, Match

_TEXT: Final = """
allow-arp arp
  inout accept -
allow-ipv4 ipv4
  inout accept -
allow-ipv6 ipv6
  inout accept -
allow-incoming-ipv4 ipv4
  in accept -
allow-incoming-ipv6 ipv6
  in accept -
allow-dhcp ipv4
  out accept 100 ip srcipaddr=0.0.0.0 dstipaddr=255.255.255.255 protocol=udp srcportstart=68 dstportstart=67
  in accept 100 ip protocol=udp srcportstart=67 dstportstart=68
allow-dhcp-server ipv4
  out accept 100 ip srcipaddr=0.0.0.0 dstipaddr=255.255.255.255 protocol=udp srcportstart=68 dstportstart=67
  in accept 100 ip srcipaddr=$DHCPSERVER protocol=udp srcportstart=67 dstportstart=68
allow-dhcpv6 ipv6
  out accept 100 ipv6 srcipaddr=fe80:: srcipmask=10 dstipaddr=ff02::1:2 protocol=udp srcportstart=546 dstportstart=547
  in accept 100 ipv6 protocol=udp srcportstart=547 dstportstart=546
allow-dhcpv6-server ipv6
  out accept 100 ipv6 srcipaddr=fe80:: srcipmask=10 dstipaddr=ff02::1:2 protocol=udp srcportstart=546 dstportstart=547
  in accept 100 ipv6 srcipaddr=$DHCPSERVER protocol=udp srcportstart=547 dstportstart=546
no-mac-spoofing mac -800
  out return - mac srcmacaddr=$MAC
  out drop - mac
no-ip-spoofing ipv4-ip -710
  out return 100 ip srcipaddr=0.0.0.0 protocol=udp
  out return 500 ip srcipaddr=$IP
  out drop 1000
no-ipv6-spoofing ipv6-ip -610
  out return 100 ipv6 srcipaddr=fe80:: srcipmask=10 protocol=udp
  out return 500 ipv6 srcipaddr=$IPV6
  out drop 1000
no-arp-mac-spoofing arp-mac -520
  out return 350 arp arpsrcmacaddr=$MAC
  out drop 1000
no-arp-ip-spoofing arp-ip -510
  out return 400 arp arpsrcipaddr=$IP
  out drop 1000
no-arp-spoofing root
  + no-arp-mac-spoofing
  + no-arp-ip-spoofing
no-ip-multicast ipv4
  out drop - ip dstipaddr=224.0.0.0 dstipmask=4
no-ipv6-multicast ipv6
  out drop - ipv6 dstipaddr=ff00:: dstipmask=8
no-mac-broadcast ipv4
  out drop - mac dstmacaddr=ff:ff:ff:ff:ff:ff
no-other-l2-traffic root
  inout drop 1000
no-other-rarp-traffic rarp
  inout drop 1000
qemu-announce-self-rarp rarp
  out accept 500 rarp srcmacaddr=$MAC dstmacaddr=ff:ff:ff:ff:ff:ff opcode=Request_Reverse arpsrcmacaddr=$MAC \
arpdstmacaddr=$MAC arpsrcipaddr=0.0.0.0 arpdstipaddr=0.0.0.0
  in accept 500 rarp dstmacaddr=ff:ff:ff:ff:ff:ff opcode=Request_Reverse arpsrcmacaddr=$MAC arpdstmacaddr=$MAC \
arpsrcipaddr=0.0.0.0 arpdstipaddr=0.0.0.0
qemu-announce-self root
  out accept - mac protocolid=0x835
  + qemu-announce-self-rarp
  + no-other-rarp-traffic
clean-traffic root
  + no-mac-spoofing
  + no-ip-spoofing
  out accept -650 mac protocolid=ipv4
  + allow-incoming-ipv4
  + no-arp-spoofing
  inout accept -500 mac protocolid=arp
  + no-other-l2-traffic
  + qemu-announce-self
clean-traffic-gateway root
  + no-mac-spoofing
  + no-ip-spoofing
  + no-arp-spoofing
  inout accept -500 mac protocolid=arp
  in accept - mac srcmacaddr=$GATEWAY_MAC
  out accept - mac dstmacaddr=$GATEWAY_MAC
  + no-other-l2-traffic
  + qemu-announce-self
"""
_USUAL: Final = "-"
_CLASSES: Final = {cls.TAG: cls for cls in MATCHES}


@functools.cache
def standard_filters() -> Mapping[str, Filter]:
    """Every one, by name; they are not to be changed."""
    found: dict[str, Filter] = {}
    for line in _TEXT.strip().splitlines():
        words = line.split()
        if not line.startswith(" "):
            filter = Filter(name=words[0], chain=words[1], priority=words[2] if len(words) > 2 else None)
            filter.uuid = str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{words[0]}.nwfilter.hostel"))
            found[words[0]] = filter
        elif words[0] == "+":
            filter.entries.append(FilterReference(filter=words[1]))
        else:
            direction, action, priority, *looked_at = words
            filter.entries.append(
                Rule(
                    action=action,
                    direction=direction,
                    priority=None if priority == _USUAL else priority,
                    matches=list(_matches(looked_at)),
                )
            )
    for filter in found.values():
        complete(filter)
    return found


def _matches(words: list[str]) -> Iterator[Match]:
    if words:
        cls = _CLASSES[words[0]]
        match = cls()
        for word in words[1:]:
            name, _, value = word.partition("=")
            setattr(match, name, value)
        yield match

"""What a rule about packets is to iptables and ip6tables (``iptablesCreateRuleInstance``).

Three chains see a guest's packets: ``FJ`` those that it sends to others, ``FP`` those that others send to it, ``HJ``
those that it sends to the host. A rule is put in each, so that answers come back.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from hostel.drivers.nwfilter.instance import Packet
from hostel.model.nwfilter.filter import Rule

_OLD: Final = "ESTABLISHED"
_NEW: Final = "NEW,ESTABLISHED"
_ICMP: Final = ("icmp", "icmpv6")


class _Place(NamedTuple):
    """A chain, and what a rule is in it.

    Attributes:
        inward: whether the packets go the other way than the rule says: sources are destinations.
        accept: what becomes of packets that are accepted.
        state: of the connections that are meant; None for any.
        drops_type: whether a rule about a type of ICMP message has no place here.
    """

    chain: str
    inward: bool
    accept: str
    state: str | None
    drops_type: bool


def arguments(rule: Rule, packet: Packet) -> Iterator[tuple[str, list[str]]]:
    """The chains in which a rule has a place, and what iptables is told there."""
    own = "state" in packet and rule.statematch != "false"
    for place in _own_places(rule, packet) if own else _places(rule):
        found = _rule(rule, packet, place, follows=not own)
        if found is not None:
            yield place.chain, found


def _places(rule: Rule) -> Iterator[_Place]:
    """Where connections are followed: the answers of those that the rule lets begin come back."""
    inward, both = rule.direction != "out", rule.direction == "inout"
    there, back = (None, None) if both or rule.statematch == "false" else (_OLD, _NEW) if inward else (_NEW, _OLD)
    yield _Place("FJ", inward, "RETURN", there, inward)
    yield _Place("FP", not inward, "ACCEPT", back, not inward or both)
    yield _Place("HJ", inward, "RETURN", there, inward)


def _own_places(rule: Rule, packet: Packet) -> Iterator[_Place]:
    """Where the rule says itself what state is meant: only the chains of its own direction have it."""
    inward, both = rule.direction != "out", rule.direction == "inout"
    state = packet.value("state")
    meant = None if state == "NONE" else state
    if both or not inward:
        yield _Place("FJ", inward, "RETURN", meant, inward)
    if inward:
        yield _Place("FP", not inward, "ACCEPT", meant, both)
    if both or not inward:
        yield _Place("HJ", inward, "RETURN", meant, inward)


def _rule(rule: Rule, packet: Packet, place: _Place, *, follows: bool) -> list[str] | None:
    """What iptables is told; None where the rule says nothing in this place."""
    protocol = rule.matches[0].TAG.removesuffix("-ipv6")
    limits = "connlimit_above" in packet
    has_type = protocol in _ICMP and "type" in packet
    if (limits and place.inward) or (has_type and place.drops_type):
        return None
    matches = [*_hardware(packet, place), *_addresses(packet, place), *_protocol(packet, place, protocol)]
    if place.inward and "srcmacaddr" in packet and not matches:
        return None  # the guest's own address is not that of what is sent to it
    found = ["-p", protocol, *matches]
    accepts = rule.action == "accept"
    # What is not accepted needs no answers; and a limit is on connections of any state.
    if place.state is not None and (not limits if accepts else not follows):
        found += ["-m", "conntrack", "--ctstate", place.state]
        if follows and not has_type and rule.direction != "inout":
            found += ["-m", "conntrack", "--ctdir", "Reply" if place.inward else "Original"]
    found += _last(packet, place)
    if rule.action == "continue":
        return found  # what has no target is only counted: iptables has no word for it
    return [*found, "-j", place.accept if accepts else (rule.action or "").upper()]


def _hardware(packet: Packet, place: _Place) -> list[str]:
    if "srcmacaddr" not in packet or place.inward:
        return []
    return ["-m", "mac", *packet.sign("srcmacaddr"), "--mac-source", packet.value("srcmacaddr")]


def _addresses(packet: Packet, place: _Place) -> Iterator[str]:
    for side, other in (("src", "dst"), ("dst", "src")):
        met = other if place.inward else side
        address, first = f"{side}ipaddr", f"{side}ipfrom"
        if address in packet:
            option = "--source" if met == "src" else "--destination"
            yield from (*packet.sign(address), option, _pair(packet, address, f"{side}ipmask", "/"))
        elif first in packet:
            yield from ("-m", "iprange", *packet.sign(first), f"--{met}-range")
            yield _pair(packet, first, f"{side}ipto", "-")
    if "dscp" in packet:
        yield from ("-m", "dscp", *packet.sign("dscp"), "--dscp", packet.value("dscp"))


def _protocol(packet: Packet, place: _Place, protocol: str) -> Iterator[str]:
    if "flags" in packet:
        mask, _, flags = packet.value("flags").partition("/")
        yield from (*packet.sign("flags"), "--tcp-flags", mask, flags)
    for side, other in (("src", "dst"), ("dst", "src")):
        first = f"{side}portstart"
        if first in packet:
            option = f"--{(other if place.inward else side)[0]}port"
            yield from (*packet.sign(first), option, _pair(packet, first, f"{side}portend", ":"))
    if "option" in packet:
        yield from (*packet.sign("option"), "--tcp-option", packet.value("option"))
    if protocol in _ICMP and "type" in packet:
        yield from (*packet.sign("type"), f"--{protocol}-type", _pair(packet, "type", "code", "/"))


def _last(packet: Packet, place: _Place) -> Iterator[str]:
    if "ipset" in packet and "ipsetflags" in packet:
        flags = packet.value("ipsetflags").split(",")
        if place.inward:
            flags = ["dst" if flag == "src" else "src" for flag in flags]
        yield from ("-m", "set", "--match-set", packet.value("ipset"), ",".join(flags))
    if "connlimit_above" in packet:
        limit = packet.value("connlimit_above")
        yield from ("-m", "connlimit", *packet.sign("connlimit_above"), "--connlimit-above", limit)
    if "comment" in packet:
        yield from ("-m", "comment", "--comment", packet.value("comment"))


def _pair(packet: Packet, first: str, second: str, separator: str) -> str:
    value = packet.value(first)
    return f"{value}{separator}{packet.value(second)}" if second in packet else value

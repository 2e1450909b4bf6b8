"""What a rule about frames is to ebtables (``ebtablesCreateRuleInstance``)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from hostel.drivers.nwfilter.instance import Packet
from hostel.errors import ErrorCode, ModelError
from hostel.model.nwfilter.filter import Rule

_ICMPV6: Final = "58"
GROUP_ADDRESS: Final = "01:80:c2:00:00:00"  # of bridges that speak the spanning tree protocol


class _Option(NamedTuple):
    """An option, and the attributes whose values it takes; ``other`` is the option where the direction is reversed."""

    name: str
    attribute: str
    second: str = ""
    separator: str = ":"
    other: str = ""
    hexadecimal: bool = False
    default: str = ""


_ETHERNET: Final = (
    _Option("-s", "srcmacaddr", "srcmacmask", "/", "-d"),
    _Option("-d", "dstmacaddr", "dstmacmask", "/", "-s"),
)
_ARP: Final = (
    _Option("--arp-htype", "hwtype"),
    _Option("--arp-opcode", "opcode"),
    _Option("--arp-ptype", "protocoltype", hexadecimal=True),
    _Option("--arp-ip-src", "arpsrcipaddr", "arpsrcipmask", "/", "--arp-ip-dst", default="32"),
    _Option("--arp-ip-dst", "arpdstipaddr", "arpdstipmask", "/", "--arp-ip-src", default="32"),
    _Option("--arp-mac-src", "arpsrcmacaddr", other="--arp-mac-dst"),
    _Option("--arp-mac-dst", "arpdstmacaddr", other="--arp-mac-src"),
)
_STP: Final = (
    _Option("--stp-type", "type"),
    _Option("--stp-flags", "flags"),
    _Option("--stp-root-pri", "root_priority", "root_priority_hi"),
    _Option("--stp-root-addr", "root_address", "root_address_mask", "/"),
    _Option("--stp-root-cost", "root_cost", "root_cost_hi"),
    _Option("--stp-sender-prio", "sender_priority", "sender_priority_hi"),
    _Option("--stp-sender-addr", "sender_address", "sender_address_mask", "/"),
    _Option("--stp-port", "port", "port_hi"),
    _Option("--stp-msg-age", "age", "age_hi"),
    _Option("--stp-max-age", "max_age", "max_age_hi"),
    _Option("--stp-hello-time", "hello_time", "hello_time_hi"),
    _Option("--stp-forward-delay", "forward_delay", "forward_delay_hi"),
)


def _ip(version: str) -> tuple[_Option, ...]:
    source, destination = f"--{version}-source", f"--{version}-destination"
    return (
        _Option(source, "srcipaddr", "srcipmask", "/", destination),
        _Option(destination, "dstipaddr", "dstipmask", "/", source),
        _Option(f"--{version}-protocol", "protocol"),
        _Option(f"{source}-port", "srcportstart", "srcportend", other=f"{destination}-port"),
        _Option(f"{destination}-port", "dstportstart", "dstportend", other=f"{source}-port"),
    )


# By protocol: what is said of every such frame, and the options.
_PROTOCOLS: Final[dict[str, tuple[tuple[str, ...], tuple[_Option, ...]]]] = {
    "mac": ((), (_Option("-p", "protocolid", hexadecimal=True),)),
    "vlan": (("-p", "0x8100"), (_Option("--vlan-id", "vlanid"), _Option("--vlan-encap", "encap_protocol"))),
    "stp": (("-d", GROUP_ADDRESS), _STP),
    "arp": (("-p", "0x806"), _ARP),
    "rarp": (("-p", "0x8035"), _ARP),
    "ip": (("-p", "ipv4"), (*_ip("ip"), _Option("--ip-tos", "dscp", hexadecimal=True))),
    "ipv6": (("-p", "ipv6"), _ip("ip6")),
}
BRIDGED: Final = frozenset(_PROTOCOLS)


def arguments(rule: Rule, packet: Packet, *, reverse: bool) -> list[str]:
    """What ebtables is told of a rule, after the chain; ``reverse``: of packets that go the other way.

    Raises:
        ModelError: ebtables has no way to say it.
    """
    return [*_matches(rule, packet, reverse=reverse), "-j", "DROP" if rule.action == "reject" else _target(rule)]


def _target(rule: Rule) -> str:
    return (rule.action or "").upper()


def _matches(rule: Rule, packet: Packet, *, reverse: bool) -> Iterator[str]:
    if not rule.matches:
        return
    protocol = rule.matches[0].TAG
    if protocol == "stp" and reverse and "srcmacaddr" in packet:
        reason = "STP filtering in inout direction with source MAC address set is not supported"
        raise ModelError("/filter/rule/stp/@srcmacaddr", reason, code=ErrorCode.INTERNAL_ERROR)
    said, options = _PROTOCOLS[protocol]
    for option in _ETHERNET:
        yield from _argument(option, packet, reverse=reverse)
    yield from said
    for option in options:
        yield from _argument(option, packet, reverse=reverse)
    if "gratuitous" in packet and packet.value("gratuitous") == "true":
        yield from (*packet.sign("gratuitous"), "--arp-gratuitous")
    if protocol == "ipv6" and any(name in packet for name in ("type", "typeend", "code", "codeend")):
        if "protocol" not in packet:
            yield from ("--ip6-protocol", _ICMPV6)  # without which the kernel takes no type
        sign = packet.sign("type") if "type" in packet else []
        yield from ("--ip6-icmp-type", *sign, f"{_range(packet, 'type')}/{_range(packet, 'code')}")


def _argument(option: _Option, packet: Packet, *, reverse: bool) -> Iterator[str]:
    if option.attribute not in packet:
        return
    yield option.other if reverse and option.other else option.name
    yield from packet.sign(option.attribute)
    value = packet.hexadecimal(option.attribute) if option.hexadecimal else packet.value(option.attribute)
    second = packet.value(option.second) if option.second in packet else option.default
    yield f"{value}{option.separator}{second}" if second else value


def _range(packet: Packet, name: str) -> str:
    """The range of a kind of message: all where no end is said, one where the first alone is."""
    first = packet.value(name) if name in packet else "0"
    end = f"{name}end"
    last = packet.value(end) if end in packet else first if name in packet else "255"
    return f"{first}:{last}"

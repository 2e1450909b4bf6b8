"""The commands that put a filter's rules in the way of a guest's packets (``ebiptablesApplyNewRules``).

They are put in chains of their own, ``J`` for what the guest sends and ``P`` for what is sent to it, which take the
place of those that are there at the end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from hostel.drivers.nwfilter import bridged, routed
from hostel.drivers.nwfilter.instance import Instance, packets
from hostel.errors import ErrorCode, ModelError

_INTERFACE: Final = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.\-]{0,14}", re.ASCII)
SENT, RECEIVED = "J", "P"
SENT_BEFORE, RECEIVED_BEFORE = "I", "O"  # what they are called once they are in place
# By the beginning of a chain's name: what of a frame leads to it.
LEADS: Final = {
    "ipv4": ("-p", "0x0800"),
    "ipv6": ("-p", "0x86dd"),
    "arp": ("-p", "0x0806"),
    "rarp": ("-p", "0x8035"),
    "mac": (),
    "vlan": ("-p", "0x8100"),
    "stp": ("-d", bridged.GROUP_ADDRESS),
}
ROUTED: Final = (("libvirt-out", "FP"), ("libvirt-in", "FJ"), ("libvirt-host-in", "HJ"))


class Command(NamedTuple):
    """A command; one that ``may_fail`` takes away what need not be there."""

    arguments: list[str]
    may_fail: bool = False


def commands(interface: str, rules: Iterable[Instance]) -> list[Command]:
    """The commands for a guest's interface.

    Raises:
        ModelError: a variable has no value, a rule cannot be said, or the interface's name means more than one.
    """
    check_interface(interface)
    # The root chain leads to the others.
    ordered = sorted(rules, key=lambda instance: (instance.chain != "root", _priority(instance)))
    found = [*_take_away(interface), *_bridged(interface, [rule for rule in ordered if _is_bridged(rule)])]
    for program, is_ipv6 in (("iptables", False), ("ip6tables", True)):
        own = [rule for rule in ordered if not _is_bridged(rule) and _is_ipv6(rule) is is_ipv6]
        if own:
            found += _routed(program, interface, own)
    for prefix in (SENT, RECEIVED):
        if any(_is_seen(prefix, rule) for rule in ordered):
            found.append(ebtables("-A", *link(prefix, interface)))
    return found


def check_interface(name: str) -> None:
    """Refuse what is not the name of one interface, and would mean more in a rule.

    Raises:
        ModelError: it is not.
    """
    if not _INTERFACE.fullmatch(name):
        reason = f"'{name}' cannot be the name of one interface of a guest"
        raise ModelError("/filterbinding/portdev/@name", reason, code=ErrorCode.INTERNAL_ERROR)


def _priority(instance: Instance) -> int:
    return int(instance.rule.priority or 0)


def _is_bridged(instance: Instance) -> bool:
    return not instance.rule.matches or instance.rule.matches[0].TAG in bridged.BRIDGED


def _is_ipv6(instance: Instance) -> bool:
    tag = instance.rule.matches[0].TAG
    return tag == "icmpv6" or tag.endswith("-ipv6")


def _is_seen(prefix: str, instance: Instance) -> bool:
    """Whether a rule about frames is for the packets of a chain."""
    return _is_bridged(instance) and instance.rule.direction != ("in" if prefix == SENT else "out")


def ebtables(*arguments: str, may_fail: bool = False) -> Command:
    """A command about frames."""
    return Command(["ebtables", "--concurrent", "-t", "nat", *arguments], may_fail)


def root_chain(prefix: str, interface: str) -> str:
    """The chain that leads to all others of an interface."""
    return f"libvirt-{prefix}-{interface}"


def link(prefix: str, interface: str) -> tuple[str, ...]:
    """The rule by which an interface's packets get to its chains."""
    chain, side = ("PREROUTING", "-i") if prefix in (SENT, SENT_BEFORE) else ("POSTROUTING", "-o")
    return (chain, side, interface, "-j", root_chain(prefix, interface))


def _take_away(interface: str) -> Iterator[Command]:
    """What an earlier try may have left; the chains that ``-L`` shows are to be taken away as well."""
    roots = [root_chain(prefix, interface) for prefix in (SENT, RECEIVED)]
    for prefix in (SENT, RECEIVED):
        yield ebtables("-D", *link(prefix, interface), may_fail=True)
    for root in roots:
        yield ebtables("-L", root, may_fail=True)
    for root in roots:
        yield ebtables("-F", root, may_fail=True)
        yield ebtables("-X", root, may_fail=True)


class _Chain(NamedTuple):
    priority: int
    prefix: str
    name: str


def _bridged(interface: str, rules: list[Instance]) -> Iterator[Command]:
    chains: list[_Chain] = []
    for prefix in (SENT, RECEIVED):
        seen = {rule.chain: rule.chain_priority for rule in rules if _is_seen(prefix, rule)}
        if seen:
            yield ebtables("-N", root_chain(prefix, interface))
        named = sorted(seen.items(), key=lambda item: (item[1], item[0]))
        chains += [_Chain(priority, prefix, name) for name, priority in named if _lead(name) is not None]
    chains.sort(key=lambda chain: chain.priority)
    for rule in rules:
        # A chain is there before its rules.
        priority = _priority(rule) if rule.chain == "root" else max(_priority(rule), rule.chain_priority)
        while chains and chains[0].priority <= priority:
            yield from _chain(interface, chains.pop(0))
        yield from _frames(interface, rule)
    for chain in chains:
        yield from _chain(interface, chain)


def _lead(name: str) -> tuple[str, ...] | None:
    return next((lead for beginning, lead in LEADS.items() if name.startswith(beginning)), None)


def _chain(interface: str, chain: _Chain) -> Iterator[Command]:
    name = f"{chain.prefix}-{interface}-{chain.name}"
    yield ebtables("-F", name, may_fail=True)
    yield ebtables("-X", name, may_fail=True)
    yield ebtables("-N", name)
    yield ebtables("-A", root_chain(chain.prefix, interface), *(_lead(chain.name) or ()), "-j", name)


def _frames(interface: str, instance: Instance) -> Iterator[Command]:
    rule = instance.rule
    for packet in packets(instance):
        for prefix in (SENT, RECEIVED):
            if _is_seen(prefix, instance):
                name = f"{prefix}-{interface}-{instance.chain}"
                chain = root_chain(prefix, interface) if instance.chain == "root" else name
                reverse = prefix == SENT and rule.direction == "inout"
                yield ebtables("-A", chain, *bridged.arguments(rule, packet, reverse=reverse))


def _routed(program: str, interface: str, rules: list[Instance]) -> Iterator[Command]:
    def command(*arguments: str, may_fail: bool = False) -> Command:
        return Command([program, "-w", *arguments], may_fail)

    def passing(chain: str, *how: str) -> tuple[str, ...]:
        return ("-m", "physdev", *how, interface, "-g", f"{chain}-{interface}")

    out, old_out, into = ("--physdev-is-bridged", "--physdev-out"), ("--physdev-out",), ("--physdev-in",)
    for base, chain in ROUTED:
        ways = (out, old_out) if chain == "FP" else (into,)
        yield from (command("-D", base, *passing(chain, *way), may_fail=True) for way in ways)
    for _, chain in ROUTED:
        yield command("-F", f"{chain}-{interface}", may_fail=True)
        yield command("-X", f"{chain}-{interface}", may_fail=True)
    for base in ("libvirt-in", "libvirt-out", "libvirt-in-post", "libvirt-host-in"):
        yield command("-N", base, may_fail=True)
    places = (("FORWARD", "1", "in"), ("FORWARD", "2", "out"), ("FORWARD", "3", "in-post"), ("INPUT", "1", "host-in"))
    for chain, _, base in places:
        yield command("-D", chain, "-j", f"libvirt-{base}", may_fail=True)
    for chain, number, base in places:
        yield command("-I", chain, number, "-j", f"libvirt-{base}")
    for _, chain in ROUTED:
        yield command("-N", f"{chain}-{interface}")
    for base, chain in ROUTED:
        yield command("-A", base, *passing(chain, *(out if chain == "FP" else into)))
    accepted = ("libvirt-in-post", "-m", "physdev", *into, interface, "-j", "ACCEPT")
    yield command("-D", *accepted, may_fail=True)
    yield command("-A", *accepted)
    for instance in rules:
        for packet in packets(instance):
            for chain, arguments in routed.arguments(instance.rule, packet):
                yield command("-A", f"{chain}-{interface}", *arguments)

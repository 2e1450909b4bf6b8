"""Rules that stand while an address is being learned, and where it cannot be (``ebtablesApplyBasicRules``)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hostel.drivers.nwfilter.commands import RECEIVED, SENT, Command, ebtables, link, root_chain

_BROADCAST = "ff:ff:ff:ff:ff:ff"


def basic(interface: str, mac: str) -> list[Command]:
    """Let the guest send IPv4 and ARP, from its own hardware address alone."""
    chain = root_chain(SENT, interface)
    return [
        ebtables("-N", chain),
        ebtables("-A", chain, "-s", "!", mac, "-j", "DROP"),
        ebtables("-A", chain, "-p", "IPv4", "-j", "ACCEPT"),
        ebtables("-A", chain, "-p", "ARP", "-j", "ACCEPT"),
        ebtables("-A", chain, "-j", "DROP"),
        ebtables("-A", *link(SENT, interface)),
    ]


def dhcp_only(interface: str, mac: str, servers: Sequence[str] = ()) -> list[Command]:
    """Let the guest ask for an address, and be answered by the servers, or by any where none is named; nothing else."""
    return [*_dhcp_only(interface, mac, servers), *_linked(interface)]


def _dhcp_only(interface: str, mac: str, servers: Sequence[str]) -> Iterator[Command]:
    sent, received = root_chain(SENT, interface), root_chain(RECEIVED, interface)
    udp = ("-p", "ipv4", "--ip-protocol", "udp")
    yield ebtables("-N", sent)
    yield ebtables("-N", received)
    yield ebtables("-A", sent, "-s", mac, *udp, "--ip-sport", "68", "--ip-dport", "67", "-j", "ACCEPT")
    yield ebtables("-A", sent, "-j", "DROP")
    for server in servers or ("",):
        source = ("--ip-src", server) if server else ()
        for target in (mac, _BROADCAST):
            ports = ("--ip-sport", "67", "--ip-dport", "68")
            yield ebtables("-A", received, "-d", target, *udp, *source, *ports, "-j", "ACCEPT")
    yield ebtables("-A", received, "-j", "DROP")


def nothing(interface: str) -> list[Command]:
    """Let nothing pass."""
    chains = [root_chain(prefix, interface) for prefix in (SENT, RECEIVED)]
    made = [ebtables("-N", chain) for chain in chains]
    return [*made, *(ebtables("-A", chain, "-j", "DROP") for chain in chains), *_linked(interface)]


def _linked(interface: str) -> Iterator[Command]:
    yield from (ebtables("-A", *link(prefix, interface)) for prefix in (SENT, RECEIVED))

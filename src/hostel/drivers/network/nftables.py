"""A network's rules for nftables: those that libvirt has for iptables, in chains of the network's own.

A network has base chains of its own in one table for IPv4 and one for IPv6, so that they come and go as a whole, and
nobody else's rules are touched. What iptables accepts on its way to the host itself is left out: a verdict of ours
cannot overrule another table, and where there is none everything is let in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from hostel.drivers.link.device import check_plain
from hostel.drivers.link.nft import TABLE, removal
from hostel.drivers.network.iptables import commands
from hostel.model.network import ForwardMode, Network

_FAMILIES: Final = {"iptables": "ip", "ip6tables": "ip6"}
# What is looked at first comes first: traffic among guests, to them, and from them.
_ORDER: Final = ("LIBVIRT_FWX", "LIBVIRT_FWI", "LIBVIRT_FWO")
_TRANSLATING: Final = "LIBVIRT_PRT"
_HOOKS: Final = {
    "forward": "type filter hook forward priority filter; policy accept;",
    "postrouting": "type nat hook postrouting priority srcnat; policy accept;",
}
_VERDICTS: Final = {
    "ACCEPT": "accept", "REJECT": "reject", "RETURN": "return", "MASQUERADE": "masquerade", "SNAT": "snat",
}  # fmt: skip
_MATCHES: Final = {"--in-interface": "iifname", "--out-interface": "oifname"}


def ruleset(network: Network) -> str:
    """The change that sets the rules of a completed network, whichever of them are there.

    Raises:
        VirtError: the bridge's name cannot be written into rules.
        ModelError: an address has no prefix, or the ports are no range.
    """
    if network.forward is not None and network.forward.mode is ForwardMode.OPEN:
        return ""
    bridge = _bridge(network)
    if network.forward is not None and network.forward.dev is not None:
        check_plain(network.forward.dev)
    wanted = commands(network)
    script = ""
    for program, family in _FAMILIES.items():
        rules = [command for command in wanted if command[0] == program]
        if rules:
            script += _family(family, bridge, rules)
    return script


def families(script: str) -> set[str]:
    """The families that a change of :func:`ruleset` is about."""
    return {line.split()[2] for line in script.splitlines() if line.startswith("add table")}


def withdrawal(network: Network) -> str:
    """The change after which none of a network's rules is there.

    Raises:
        VirtError: nft failed, or is not installed.
    """
    names = {f"{hook}_{_bridge(network)}" for hook in _HOOKS}
    return "".join(removal(family, names) for family in _FAMILIES.values())


def _bridge(network: Network) -> str:
    name = (network.bridge.name if network.bridge is not None else None) or ""
    check_plain(name)
    return name


def _family(family: str, bridge: str, rules: list[list[str]]) -> str:
    # Each was put before the one that came earlier.
    latest = rules[::-1]
    chains = {
        "forward": [rule for name in _ORDER for rule in latest if rule[5] == name],
        "postrouting": [rule for rule in latest if rule[5] == _TRANSLATING and rule[3] == "nat"],
    }
    script = f"add table {family} {TABLE}\n"
    for hook, content in chains.items():
        if not content:
            continue
        chain = f"{family} {TABLE} {hook}_{bridge}"
        script += f"add chain {chain} {{ {_HOOKS[hook]} }}\nflush chain {chain}\n"
        script += "".join(f"add rule {chain} {' '.join(_words(family, rule[6:]))}\n" for rule in content)
    return script


def _words(family: str, options: Sequence[str]) -> Iterator[str]:
    """One rule, from the options of iptables."""
    given = iter(options)
    negated = ""
    for option in given:
        match option:
            case "!":
                negated = "!= "
                continue
            case "--in-interface" | "--out-interface":
                yield f'{_MATCHES[option]} {negated}"{next(given)}"'
            case "--source":
                yield f"{family} saddr {negated}{next(given)}"
            case "--destination":
                yield f"{family} daddr {negated}{next(given)}"
            case "-p":
                yield f"meta l4proto {next(given)}"
            case "--match":
                next(given)
            case "--ctstate":
                yield f"ct state {next(given).lower()}"
            case "--jump":
                yield _VERDICTS[next(given)]
            case "--to-ports":
                yield f"to :{next(given)}"
            case "--to-source":
                yield f"to {next(given)}"
            case _:
                raise ValueError(f"no rule of nftables for {option}")
        negated = ""

"""Firewalls by iptables whose policy is to drop what is forwarded, as Docker sets it: networks of ours are let through.

A packet must pass the rules of all tables: what ours accept is dropped there all the same. Two rules per network let it
pass, in Docker's chain for such rules where there is one; what a network does not have is refused by ours as before.
Where nobody has such a policy, nothing is done.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from hostel.drivers import tool
from hostel.errors import ErrorDomain, VirtError

_PROGRAMS: Final = {"ip": "iptables", "ip6": "ip6tables"}
_DOCKERS: Final = "DOCKER-USER"  # which Docker makes for its host's administrator, and leaves alone
_WAYS: Final = ("-i", "-o")
_MARK: Final = "-m comment --comment hostel -j ACCEPT"
_SECONDS: Final = 30.0


def let_through(bridge: str, families: Collection[str]) -> None:
    """Have forwarded packets of a bridge accepted, where they would be dropped.

    Raises:
        VirtError: iptables refused.
    """
    for family in families:
        rules = _rules(_PROGRAMS[family])
        if "-P FORWARD DROP" not in rules:
            continue
        chain = _DOCKERS if f"-N {_DOCKERS}" in rules else "FORWARD"
        known = {tuple(rule.split()[2:4]) for rule in rules if rule.endswith(_MARK)}
        for way in _WAYS:
            if (way, bridge) not in known:
                _run(_PROGRAMS[family], "-I", chain, way, bridge, *_MARK.split())


def forget(bridge: str) -> None:
    """Take the rules of a bridge away again.

    Raises:
        VirtError: iptables refused.
    """
    for program in _PROGRAMS.values():
        for rule in _rules(program):
            words = rule.split()
            if rule.endswith(_MARK) and words[0] == "-A" and words[3] == bridge:
                _run(program, "-D", *words[1:])


def _rules(program: str) -> list[str]:
    """All rules of the table, as iptables writes them; none where it has none, or is not installed."""
    if tool.find(program) is None:
        return []
    try:
        return _run(program, "-S").splitlines()
    except VirtError:  # the kernel has no such tables
        return []


def _run(program: str, *words: str) -> str:
    return tool.run([program, "-w", *words], ErrorDomain.NETWORK, timeout=_SECONDS).out

"""The host's rules for a guest's interface: put there, put in place of those before, and taken away.

New rules are made in chains of their own, beside those that are in force, and packets go through both; when all of
them are there those before go, and the new ones get their names. So there is no moment without rules, and where one
cannot be made the others are taken away again, and those before stay.

What is there is always looked at first: nothing is taken away that another has made, whatever was interrupted, and
what cannot be taken away is no small matter.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from hostel.drivers import tool
from hostel.drivers.fault import fault, printable
from hostel.drivers.nwfilter.commands import (
    LEADS,
    RECEIVED,
    RECEIVED_BEFORE,
    SENT,
    SENT_BEFORE,
    Command,
    ebtables,
    link,
    root_chain,
)
from hostel.errors import ErrorCode, ErrorDomain

_TIMEOUT: Final = 60.0  # seconds; they wait for one another
_BRIDGE_CHAIN: Final = re.compile(r"Bridge chain: (\S+), entries: \d+, policy: \w+")
# How the programs say that the kernel has no such table, or one that they cannot have made.
_ABSENT: Final = re.compile("does not exist|not supported|insmod|No such file or directory|incompatible")
_JUMP: Final = re.compile(r"-j (\S+)")
_ROUTED: Final = ("iptables", "ip6tables")
_SHOWN: Final = {name: Path(f"/proc/sys/net/bridge/bridge-nf-call-{name}") for name in _ROUTED}
_BASE_CHAINS: Final = ("libvirt-in", "libvirt-out", "libvirt-in-post", "libvirt-host-in")
# The names of an interface's chains, by those that are new: what they are called once they are in place.
_IN_PLACE: Final = {SENT: SENT_BEFORE, RECEIVED: RECEIVED_BEFORE}
_ROUTED_IN_PLACE: Final = {"FJ": "FI", "FP": "FO", "HJ": "HI"}


class Firewall:
    """The rules of the network namespace that this process is in; the caller keeps others from changing them."""

    def make(self, interface: str, commands: Iterable[Command]) -> None:
        """Make new rules beside those that are in force; where one fails, none of the new ones stays.

        Raises:
            VirtError: ``INTERNAL_ERROR``, with the command and what it said; ``SYSTEM_ERROR``: its program is not
                installed.
        """
        wanted = list(commands)
        self._check_seen(wanted)
        self.remove_new(interface)
        linked = {program for program in _ROUTED if _Packets.read(program).has_base}
        try:
            for command in wanted:
                if not _is_done(command, linked):
                    self._run(command)
        except BaseException:
            self.remove_new(interface)
            self._remove_shared()
            raise

    @staticmethod
    def _check_seen(commands: Iterable[Command]) -> None:
        """Refuse rules about packets where bridges do not show them to iptables: they would filter nothing."""
        for program in {command.arguments[0] for command in commands} & set(_SHOWN):
            try:
                is_shown = _SHOWN[program].read_text().strip() == "1"
                advice = f"'echo 1 > {_SHOWN[program]}'"
            except OSError:
                is_shown, advice = False, "'modprobe br_netfilter'"
            if not is_shown:
                reason = f"the host's bridges do not show packets to {program}, so that its rules would filter nothing"
                raise fault(ErrorCode.OPERATION_UNSUPPORTED, f"{reason}; do {advice}", ErrorDomain.NWFILTER)

    def switch(self, interface: str) -> None:
        """Let new rules take the place of those before."""
        self._remove(interface, _IN_PLACE.values(), _ROUTED_IN_PLACE.values())
        frames = _Frames.read()
        for prefix, name in _IN_PLACE.items():
            if root_chain(prefix, interface) in frames.rules:
                for chain in frames.below(root_chain(prefix, interface)):
                    self._run(ebtables("-E", chain, name + chain[1:]))
                self._run(ebtables("-E", root_chain(prefix, interface), root_chain(name, interface)))
        for program in _ROUTED:
            chains = _Packets.read(program).chains
            for prefix, name in _ROUTED_IN_PLACE.items():
                if f"{prefix}-{interface}" in chains:
                    self._run(Command([program, "-w", "-E", f"{prefix}-{interface}", f"{name}-{interface}"]))

    def remove_new(self, interface: str) -> None:
        """Take new rules away that are not in place."""
        self._remove(interface, _IN_PLACE, _ROUTED_IN_PLACE)

    def remove(self, interface: str) -> None:
        """Take all rules of an interface away, and what was made for all interfaces where this was the last."""
        self._remove(interface, (*_IN_PLACE, *_IN_PLACE.values()), (*_ROUTED_IN_PLACE, *_ROUTED_IN_PLACE.values()))
        self._remove_shared()

    def _remove_shared(self) -> None:
        """Take away what was made for all interfaces where none has rules."""
        for program in _ROUTED:
            packets = _Packets.read(program)
            if not packets.chains.issuperset(_BASE_CHAINS) or any(rule[0] in _BASE_CHAINS for rule in packets.rules):
                continue
            for rule in packets.rules:
                if rule[-1] in _BASE_CHAINS:
                    self._run(Command([program, "-w", "-D", *rule]))
            for chain in _BASE_CHAINS:
                self._run(Command([program, "-w", "-X", chain]))

    def _remove(self, interface: str, prefixes: Iterable[str], routed: Iterable[str]) -> None:
        names = [f"{prefix}-{interface}" for prefix in routed]
        every = {f"{prefix}-{interface}" for prefix in (*_ROUTED_IN_PLACE, *_ROUTED_IN_PLACE.values())}
        for program in _ROUTED:
            packets = _Packets.read(program)
            is_last = packets.chains.isdisjoint(every.difference(names))
            for rule in packets.rules:
                if rule[-1] in names or (is_last and _accepts(rule, interface)):
                    self._run(Command([program, "-w", "-D", *rule]))
            for name in names:
                if name in packets.chains:
                    self._run(Command([program, "-w", "-F", name]))
                    self._run(Command([program, "-w", "-X", name]))
        frames = _Frames.read()
        for prefix in prefixes:
            self._remove_frames(frames, prefix, interface)

    def _remove_frames(self, frames: _Frames, prefix: str, interface: str) -> None:
        root = root_chain(prefix, interface)
        gone = frames.below(root)
        if root in frames.rules:
            if frames.leads("PREROUTING", root) or frames.leads("POSTROUTING", root):
                self._run(ebtables("-D", *link(prefix, interface)))
            gone = [root, *gone]
        # One that was made and not yet linked to is no one else's, either.
        gone += [name for name in frames.unused(f"{prefix}-{interface}-") if name not in gone]
        for action in ("-F", "-X"):
            for name in gone:
                self._run(ebtables(action, name))

    @staticmethod
    def _run(command: Command) -> None:
        ended = _ended(command.arguments)
        if ended.code and not command.may_fail:
            said = printable(" ".join(ended.err.split()))
            reason = f"Failed to apply firewall rules {printable(shlex.join(command.arguments))}: {said}"
            raise fault(ErrorCode.INTERNAL_ERROR, reason, ErrorDomain.NWFILTER)


def _ended(words: Sequence[str]) -> tool.Ended:
    return tool.run(words, ErrorDomain.NWFILTER, expected=range(256), timeout=_TIMEOUT)


def _listed(words: Sequence[str]) -> str:
    """What a program lists; nothing where the kernel has no such table.

    Raises:
        VirtError: ``INTERNAL_ERROR``: it lists nothing for another reason. Rules that are there would be left, and
            those that are new not put in their place.
    """
    ended = _ended(words)
    if ended.code and not _ABSENT.search(ended.err):
        said = printable(" ".join(ended.err.split()))
        reason = f"Failed to list firewall rules {printable(shlex.join(words))}: {said}"
        raise fault(ErrorCode.INTERNAL_ERROR, reason, ErrorDomain.NWFILTER)
    return ended.out


class _Frames(NamedTuple):
    """The chains of ebtables' table, and of each the chains that its rules lead to, in their order."""

    rules: dict[str, list[str]]

    @classmethod
    def read(cls) -> _Frames:
        """What is there now; nothing where the program is not installed."""
        rules: dict[str, list[str]] = {}
        if tool.find("ebtables") is not None:
            chain: list[str] = []
            for line in _listed(ebtables("-L").arguments).splitlines():
                if named := _BRIDGE_CHAIN.match(line):
                    chain = rules.setdefault(named[1], [])
                elif jump := _JUMP.search(line):
                    chain.append(jump[1])
        return cls(rules)

    def leads(self, chain: str, other: str) -> bool:
        """Whether a chain's rules lead to another one."""
        return other in self.rules.get(chain, ())

    def below(self, chain: str) -> list[str]:
        """The chains of the same interface to which a chain's rules lead."""
        return list(dict.fromkeys(name for name in self.rules.get(chain, ()) if name in self.rules))

    def unused(self, beginning: str) -> list[str]:
        """The chains for a protocol that begin so, and to which no rule leads."""
        used = {name for names in self.rules.values() for name in names}
        return [
            name
            for name in self.rules
            if name.startswith(beginning) and name.removeprefix(beginning).startswith(tuple(LEADS)) and name not in used
        ]


class _Packets(NamedTuple):
    """The chains of a program's table for packets, and the words of its rules, each with its chain first."""

    chains: set[str]
    rules: list[list[str]]

    @property
    def has_base(self) -> bool:
        """Whether what all interfaces share is there, and comes first."""
        forward = [rule[-1] for rule in self.rules if rule[0] == "FORWARD"]
        inward = [rule[-1] for rule in self.rules if rule[0] == "INPUT"]
        return forward[:3] == list(_BASE_CHAINS[:3]) and inward[:1] == list(_BASE_CHAINS[3:])

    @classmethod
    def read(cls, program: str) -> _Packets:
        """What is there now; nothing where the program is not installed, or the kernel has no such table."""
        chains: set[str] = set()
        rules: list[list[str]] = []
        if tool.find(program) is not None:
            # What is cared for has no quotes.
            for line in _listed([program, "-w", "-S"]).splitlines():
                words = line.split()
                if words[0] == "-N":
                    chains.add(words[1])
                elif words[0] == "-A":
                    rules.append(words[1:])
        return cls(chains, rules)


def _is_done(command: Command, linked: Collection[str]) -> bool:
    """Whether a command is not needed: new rules were taken away before, and what all share may be there already."""
    program, arguments = command.arguments[0], command.arguments[2:]
    if program not in linked:
        return command.may_fail and program == "ebtables"
    return arguments[-1] in _BASE_CHAINS or (command.may_fail and arguments[1] != "libvirt-in-post")


def _accepts(rule: Sequence[str], interface: str) -> bool:
    """Whether a rule lets through what an interface's own rules have let through."""
    return rule[0] == "libvirt-in-post" and list(rule[-4:]) == ["--physdev-in", interface, "-j", "ACCEPT"]

"""What the systems of libosinfo's database have drivers for, and what they want: for the names that our table lacks.

A system has what it says, and what those say that it derives from or is a clone of.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Final

from hostel.cli.virt_install.database import Database, System
from hostel.cli.virt_install.osinfo import GENERIC, Hardware
from hostel.cli.virt_install.osinfo import System as Known
from hostel.cli.virt_install.tree import Node
from hostel.units import GiB, MiB

_VIRTIO: Final = "http://pcisig.com/pci/1af4/"
# Each device by its older and its newer identifier, where it has both.
_DEVICES: Final = {
    "disk": ("1001", "1042"), "net": ("1000", "1041"), "scsi": ("1004", "1048"), "serial": ("1003", "1043"),
    "rng": ("1005", "1044"), "balloon": ("1002", "1045"), "gpu": ("1050",), "input": ("1052",),
}  # fmt: skip
_MODERN_NET: Final = f"{_VIRTIO}1041"
_XHCI: Final = "http://pcisig.com/pci/1b36/0004"
_Q35: Final = "http://qemu.org/chipset/x86/q35"
# The network cards of a PC, the one that is preferred first.
_CARDS: Final = {
    "e1000": "8086/100e", "rtl8139": "10ec/8139", "ne2k_pci": "10ec/8029", "pcnet": "1022/2000",
}  # fmt: skip
_WINDOWS: Final = ("win9x", "winnt", "win16")
_LOCAL_TIME: Final = (*_WINDOWS, "solaris")
_SERIAL_SINCE: Final = "rhel6.0"  # which says nothing of it in some versions of the database
_ARCH: Final = "x86_64"  # whose numbers are taken
_FAMILIES: Final = ("derives-from", "clones")


def named(name: str) -> Known | None:
    """The system of a short name in the host's database; None where it has none."""
    database = Database.of_host(os.environ)
    found = database.system(name)
    return None if found is None else _known(database, found, found.short_names()[0])


def identified(identifier: str) -> Known | None:
    """The system of an identifier in the host's database; None where it has none."""
    database = Database.of_host(os.environ)
    found = database.system_of(identifier)
    return None if found is None else _known(database, found, (found.short_names() or [""])[0])


def least_memory(database: Database, system: System, arch: str) -> int:
    """The memory that a system cannot do without, in MiB; 0 where nothing is said."""
    return _Lineage(database, system).amount("minimum", "ram", arch) // MiB


def names() -> list[str]:
    """All names of the host's database, those of a system in one line, as ``virt-install --osinfo list`` sorts them."""
    lines = [*Database.of_host(os.environ).names(), [GENERIC]]
    lines.sort(key=lambda line: _natural(line[0]))
    return [", ".join(sorted(set(line))) for line in lines] if len(lines) > 1 else []


def _natural(name: str) -> list[str | int]:
    """How names are sorted: numbers in them by what they are, the largest first."""
    return [-int(part) if part.isdigit() else part.lower() for part in re.split("([0-9]+)", name)]


def _known(database: Database, system: System, name: str) -> Known:
    lineage = _Lineage(database, system)
    devices = lineage.devices()

    def has(*identifiers: str) -> bool:
        return any(f"{_VIRTIO}{identifier}" in devices for identifier in identifiers)

    virtio = {field: has(*identifiers) for field, identifiers in _DEVICES.items()}
    if not virtio["serial"]:
        virtio["serial"] = lineage.comes_from(_SERIAL_SINCE)
    family = system.text("family")
    cards = (card for card, identifier in _CARDS.items() if f"http://pcisig.com/pci/{identifier}" in devices)
    hardware = Hardware(
        **virtio,
        usb3=_XHCI in devices,
        q35=_Q35 in devices and (not virtio["net"] or _MODERN_NET in devices),
        windows=family in _WINDOWS,
        efi=system.needs_efi(_ARCH),
        card=next(cards, "e1000"),
        local_time=family in _LOCAL_TIME,
        vcpus=lineage.wanted("n-cpus") or 1,
        memory=lineage.wanted("ram") // MiB,
        storage=lineage.wanted("storage") // GiB,
    )
    return Known(name, system.identifier, hardware)


class _Lineage:
    """A system and those that it is made from."""

    def __init__(self, database: Database, system: System) -> None:
        self._database = database
        self._system = system
        self._read: dict[str, System | None] = {system.identifier: system}

    def _related(self, kinds: tuple[str, ...]) -> Iterator[System]:
        """The system, and what it stands on, nearest first."""
        queue, seen = [self._system], {self._system.identifier}
        while queue:
            system = queue.pop(0)
            yield system
            for identifier in (node.get("id", "") for kind in kinds for node in system.children(kind)):
                if identifier not in seen:
                    seen.add(identifier)
                    if identifier not in self._read:
                        self._read[identifier] = self._database.system_of(identifier)
                    if (found := self._read[identifier]) is not None:
                        queue.append(found)

    def devices(self) -> set[str]:
        """The identifiers of all that it drives; what the nearest says of one counts."""
        said: dict[str, bool] = {}
        for system in self._related(_FAMILIES):
            for node in system.children("devices/device"):
                said.setdefault(node.get("id", ""), node.get("supported") != "false")
        return {identifier for identifier, supported in said.items() if supported}

    def comes_from(self, name: str) -> bool:
        """Whether some system that it derives from, is a clone of or upgrades has a short name."""
        return any(name in system.short_names()[:1] for system in self._related((*_FAMILIES, "upgrades")))

    def wanted(self, what: str) -> int:
        """How much of something is recommended, or twice of what is needed at least; 0 where nothing is said."""
        return self.amount("recommended", what, _ARCH) or 2 * self.amount("minimum", what, _ARCH)

    def amount(self, kind: str, what: str, arch: str) -> int:
        """How much of something is ``recommended`` or the ``minimum`` on an architecture; 0 where nothing is said."""
        for system in self._related(_FAMILIES):
            said = {node.get("arch"): node for node in system.children("resources")}
            for place in (arch, "all"):
                text = said[place].findtext(f"{kind}/{what}") if place in said else None
                if text and text.isdigit():
                    return int(text)
            if not any(_inherits(node, kind) for node in said.values()):
                return 0
        return 0


def _inherits(resources: Node, kind: str) -> bool:
    inner = resources.find(kind)
    return resources.get("inherit") == "true" or (inner is not None and inner.get("inherit") == "true")

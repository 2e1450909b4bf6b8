"""What the connection can run: its capabilities document, and the best choice where the user left one open."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from hostel.codec import xmltext
from hostel.errors import UsageError
from hostel.objects import Connection

_PREFERRED: Final = ("kvm", "xen", "qemu")
_VERSIONED: Final = {"pc": "pc-i440fx-", "q35": "pc-q35-"}


class Platform(NamedTuple):
    """One way to run guests: a row of the capabilities, chosen."""

    type: str
    os_type: str
    arch: str
    emulator: str | None
    machines: tuple[str, ...]
    features: frozenset[str]


class Host:
    """A connection as virt-install sees it.

    Attributes:
        connection: the open connection.
        is_qemu: machines are run by QEMU; otherwise by the test hypervisor.
        arch: the host's architecture.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.is_qemu = connection.uri.startswith("qemu")
        self._root = xmltext.parse(connection.capabilities(), "capabilities")
        self.arch: str = self._root.findtext("host/cpu/arch") or "x86_64"

    @property
    def has_spice(self) -> bool:
        """Whether SPICE displays may be had."""
        return not self.is_qemu

    def choose(self, type: str | None, os_type: str | None, arch: str | None, machine: str | None) -> Platform:
        """Find what runs guests of these kinds; None leaves the choice open.

        Raises:
            UsageError: nothing does; the message names what to write instead.
        """
        guest = self._guest(os_type, arch)
        if guest is None:
            wanted = f" for architecture '{arch}'" if arch else ""
            kind = f"virtualization type '{os_type}'" if os_type else "any virtualization options"
            raise UsageError(f"Host does not support {kind}{wanted}; {self._known()}")
        found = [domain for domain in guest.findall("arch/domain") if type in (None, domain.get("type"))]
        found = [domain for domain in found if machine is None or _has(_machines(guest, domain), machine)]
        if not found:
            raise UsageError(self._refusal(guest, type, machine))
        rank = {kind: index for index, kind in enumerate(_PREFERRED)}
        domain = min(found, key=lambda domain: rank.get(domain.get("type"), len(rank)))
        return Platform(
            domain.get("type"),
            guest.findtext("os_type"),
            guest.find("arch").get("name"),
            domain.findtext("emulator") or guest.findtext("arch/emulator"),
            _machines(guest, domain),
            _features(guest),
        )

    def _guest(self, os_type: str | None, arch: str | None) -> Any | None:
        guests = self._root.findall("guest")
        for wanted in [arch] if arch else [self.arch, None]:
            for guest in guests:
                if os_type in (None, guest.findtext("os_type")) and wanted in (None, guest.find("arch").get("name")):
                    return guest
        return None

    def _known(self) -> str:
        kinds = {f"{guest.findtext('os_type')} on {guest.find('arch').get('name')}": None for guest in self._guests()}
        return "it has " + ", ".join(kinds)

    def _guests(self) -> list[Any]:
        return list(self._root.findall("guest"))

    def _refusal(self, guest: Any, type: str | None, machine: str | None) -> str:
        os_type, arch = guest.findtext("os_type"), guest.find("arch").get("name")
        domains = guest.findall("arch/domain")
        kinds = [domain.get("type") for domain in domains]
        if machine is not None and type in (None, *kinds):
            known = ", ".join({name: None for domain in domains for name in _machines(guest, domain)})
            return (
                f"Host does not support domain type {type or kinds[0]} with machine '{machine}' for virtualization "
                f"type '{os_type}' with architecture '{arch}'" + (f"; it has {known}" if known else "")
            )
        why = "KVM runs no guest on this host; " if type == "kvm" and self.is_qemu else ""
        return (
            f"Host does not support domain type {type} for virtualization type '{os_type}' with architecture "
            f"'{arch}': {why}use --virt-type {' or '.join(kinds)}"
        )


def _machines(guest: Any, domain: Any) -> tuple[str, ...]:
    elements = domain.findall("machine") or guest.findall("arch/machine")
    names: dict[str, None] = {}
    for element in elements:
        names[element.text] = None
        if canonical := element.get("canonical"):
            names[canonical] = None
    return tuple(names)


def _has(machines: tuple[str, ...], wanted: str) -> bool:
    """Whether a machine is there, by its name or as an older version of one."""
    return wanted in machines or any(
        alias in machines and wanted.startswith(prefix) for alias, prefix in _VERSIONED.items()
    )


def _features(guest: Any) -> frozenset[str]:
    return frozenset(element.tag for element in guest.findall("features/*") if element.get("default", "on") == "on")

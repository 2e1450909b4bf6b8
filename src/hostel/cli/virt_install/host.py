"""What the connection can run: its capabilities document, and the best choice where the user left one open."""

from __future__ import annotations

import contextlib
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from hostel.cli.virt_install.domaincaps import DomainCapabilities, host_model, security_features
from hostel.codec import xmltext
from hostel.drivers.base.capabilities import BaselineFlag, DomainCapabilitiesDriver, ProcessorDriver
from hostel.errors import UsageError, VirtError
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
    loader: str | None = None


class Host:
    """A connection as virt-install sees it.

    Attributes:
        connection: the open connection.
        driver: the hypervisor: ``qemu``, ``test`` and others.
        is_remote: whether it is on another machine.
        arch: the host's architecture.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        parts = urlsplit(connection.uri)
        self.driver, _, transport = parts.scheme.partition("+")
        self.is_remote = bool(parts.hostname) or transport not in ("", "unix")
        self._root = xmltext.parse(connection.capabilities(), "capabilities")
        self.arch: str = self._root.findtext("host/cpu/arch") or "x86_64"
        self.cpu_model: str | None = self._root.findtext("host/cpu/model")
        self._told: dict[tuple[str | None, ...], DomainCapabilities] = {}

    @property
    def is_qemu(self) -> bool:
        """Whether machines are run by QEMU."""
        return self.driver == "qemu"

    @property
    def is_privileged(self) -> bool:
        """Whether its machines are the host's own, and no user's."""
        return not self.is_test and urlsplit(self.connection.uri).path != "/session"

    @property
    def is_test(self) -> bool:
        """Whether they are invented."""
        return self.driver == "test"

    @property
    def names_filesystems(self) -> bool:
        """Whether the target of a file system is a name and no directory."""
        return self.is_qemu or self.is_test

    @property
    def tells(self) -> bool:
        """Whether the driver says what its machines can have."""
        return isinstance(self.connection.hypervisor, DomainCapabilitiesDriver)

    @property
    def security_models(self) -> list[str]:
        """The models of security labels, best first."""
        return [model.text or "" for model in self._root.iterfind("host/secmodel/model")]

    def domain_capabilities(
        self, emulator: str | None, arch: str | None, machine: str | None, type: str | None
    ) -> DomainCapabilities:
        """What the hypervisor says of machines of this kind."""
        key = (emulator, arch, machine, type)
        if key not in self._told:
            driver, xml = self.connection.hypervisor, None
            if isinstance(driver, DomainCapabilitiesDriver):
                with contextlib.suppress(VirtError):  # nothing is told of such machines
                    xml = driver.connect_get_domain_capabilities(*key)
            self._told[key] = DomainCapabilities(xml)
        return self._told[key]

    def security_features(self, told: DomainCapabilities) -> list[str]:
        """Which features of the host's processor guard against its flaws; none where the driver cannot tell."""
        cpu = host_model(told)
        if cpu is None:
            return []
        driver = self.connection.hypervisor
        if not isinstance(driver, ProcessorDriver):
            return []
        kind = (told.text("path"), told.text("arch"), told.text("machine"), told.text("domain"))
        with contextlib.suppress(VirtError):
            return security_features(driver.connect_baseline_hypervisor_cpu(*kind, [cpu], BaselineFlag.EXPAND_FEATURES))
        with contextlib.suppress(VirtError):
            return security_features(driver.connect_baseline_cpu([cpu], BaselineFlag.EXPAND_FEATURES))
        return []

    def newest(self, machine: str, os_type: str | None, arch: str | None, type: str | None) -> str:
        """The name that stands for the newest version of a machine's type.

        Raises:
            UsageError: no name does.
        """
        guest = self._guest(os_type, arch)
        domains = (
            [] if guest is None else [domain for domain in guest.findall("arch/domain") if domain.get("type") == type]
        )
        listed = domains[0].findall("machine") if domains else []
        for element in listed or ([] if guest is None else guest.findall("arch/machine")):
            name = element.text or ""
            if element.get("canonical") and machine.startswith(_VERSIONED.get(name, f"{name}-")):
                return name
        raise UsageError(f"Don't know how to refresh machine type '{machine}'")

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
            guest.findtext("arch/loader"),
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

"""The domain document as the test driver has it: the model, with the defaults of libvirt's test driver."""

from __future__ import annotations

import itertools
from typing import Final

from hostel.codec.xml import Element
from hostel.drivers.document import Words, reading
from hostel.drivers.fault import fault
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.defaults import complete
from hostel.model.domain.devices.interface import InterfaceTarget
from hostel.model.domain.domain import Domain
from hostel.model.domain.inactive import forget_run
from hostel.model.domain.platform import Platform
from hostel.model.domain.rules.given import check_given_device
from hostel.model.domain.rules.rule import Machine
from hostel.model.domain.secure import hide_passwords
from hostel.model.domain.validate import validate
from hostel.model.snapshot import Snapshot
from hostel.units import KiB

_PLATFORM: Final = Platform(arch="i686")
_WORDS: Final[Words] = {"uuid": (ErrorCode.INTERNAL_ERROR, "malformed uuid element")}
_RESTARTING: Final = ("restart", "rename-restart")


class DomainDefinition:
    """A domain's document, complete.

    Attributes:
        domain: the model; nobody changes it.
    """

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self.name = domain.name or ""
        self.uuid = domain.uuid or ""

    @property
    def max_memory(self) -> int:
        """KiB."""
        return self.domain.memory.to_kib() if self.domain.memory is not None else 0

    @property
    def memory(self) -> int:
        """KiB."""
        current = self.domain.current_memory
        return self.max_memory if current is None else current.to_kib()

    @property
    def vcpus(self) -> int:
        """How many there are at first."""
        vcpu = self.domain.vcpu
        return 1 if vcpu is None else vcpu.current or vcpu.value

    @property
    def shutdown_ends(self) -> bool:
        """Whether the machine is off after the guest has shut down."""
        return self.domain.on_poweroff not in _RESTARTING

    @property
    def reboot_ends(self) -> bool:
        """Whether it is off after the guest has rebooted."""
        return self.domain.on_reboot not in _RESTARTING

    def format(self, id: int = -1, *, secure: bool = True) -> str:
        """Write the document; with an ``id`` that of a running domain, and passwords only if ``secure``."""
        if id == -1 and secure:
            return self.domain.format()
        shown = self.domain.copy()
        shown.id = None if id == -1 else id
        if not secure:
            hide_passwords(shown)
        return shown.format()


def parse_domain(xml: str, *, is_given: bool = True) -> DomainDefinition:
    """Parse a domain's document, that is given or was taken before, and complete it as the driver's defaults have it.

    Raises:
        VirtError: in libvirt's words.
    """
    with reading(ErrorDomain.DOMAIN, _WORDS):
        domain = Domain.parse(xml, "domain_definition")
        complete_kept(domain)
        validate(domain, _PLATFORM, is_given=is_given)
    _name_interfaces(domain)
    return DomainDefinition(domain)


def complete_kept(domain: Domain) -> None:
    """Complete the document of a domain, or one that a snapshot keeps, which no rules are held against.

    Raises:
        ModelError: it cannot be completed.
        VirtError: something that every document has is missing.
    """
    _check(domain)
    forget_run(domain)
    complete(domain, _PLATFORM)
    _choose_cards(domain)


def complete_snapshot(snapshot: Snapshot) -> None:
    """Complete the documents that a snapshot keeps: of the domain as it ran, and as it was defined.

    Raises:
        ModelError: one cannot be completed.
        VirtError: something that every document has is missing.
    """
    for kept in (snapshot.domain, snapshot.inactive_domain):
        if isinstance(kept, Domain):
            complete_kept(kept)


def _name_interfaces(domain: Domain) -> None:
    """Give interfaces without a name on the host the first ones that the document does not have."""
    known = {interface.target.dev for interface in domain.devices.interfaces if interface.target is not None}
    free = (name for number in itertools.count() if (name := f"testnet{number}") not in known)
    for interface in domain.devices.interfaces:
        if interface.target is None or not interface.target.dev:
            interface.target = InterfaceTarget(dev=next(free))


def _choose_cards(domain: Domain) -> None:
    """Say which graphics card is the usual one (``testDomainDevicesDefPostParse``)."""
    system = domain.os.type if domain.os is not None else None
    card, memory = "cirrus", 16 * KiB
    if system is not None and system.value in ("xen", "linux"):
        card, memory = "xen", 4 * KiB
    elif system is not None and system.arch in ("ppc64", "ppc64le"):
        card = "vga"
    for video in domain.devices.videos:
        if video.model is not None and video.model.type == "default":
            video.model.type, video.model.vram = card, video.model.vram or memory


def recomplete(domain: Domain, given: Element | None) -> None:
    """Complete a document that was changed; ``given`` is what has come into it.

    Raises:
        ModelError: a rule is broken.
    """
    complete(domain, _PLATFORM)
    validate(domain, _PLATFORM, is_given=False)
    if given is not None:
        check_given_device(Machine(domain, _PLATFORM), given)


def _check(domain: Domain) -> None:
    if not domain.name:
        raise VirtError(ErrorCode.NO_NAME, "missing name information", domain=ErrorDomain.DOMAIN)
    if "/" in domain.name:
        raise fault(ErrorCode.XML_ERROR, f"name {domain.name} cannot contain '/'", ErrorDomain.DOMAIN)
    has_cells = domain.cpu is not None and domain.cpu.numa is not None and bool(domain.cpu.numa.cells)
    if not has_cells and (domain.memory is None or not domain.memory.to_kib()):
        raise fault(
            ErrorCode.XML_ERROR,
            "Memory size must be specified via <memory> or in the <numa> configuration",
            ErrorDomain.DOMAIN,
        )
    if domain.os is None or domain.os.type is None or not domain.os.type.value:
        raise fault(ErrorCode.XML_ERROR, "an os <type> must be specified", ErrorDomain.DOMAIN)

"""What a hypervisor brings to a document that leaves things out: its machines, its emulator, its models.

Defaults and places are worked out from a document and one of these; the host is not asked.
"""

from __future__ import annotations

import enum
import os
import uuid as uuids
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from hostel.model.domain.devices.controller import ControllerType
from hostel.model.domain.domain import Domain


class Board(enum.Enum):
    """The kind of machine, as far as its buses go."""

    I440FX = "i440fx"
    Q35 = "q35"
    ISA = "isa"
    PSERIES = "pseries"
    ARM_VIRT = "arm-virt"
    RISCV_VIRT = "riscv-virt"
    S390_CCW = "s390-ccw"
    MALTA = "malta"
    VERSATILE = "versatilepb"
    OTHER = "other"


class HostDevice(NamedTuple):
    """A PCI device of the host, as far as guests get it.

    Attributes:
        iommu_group: the number of its group; None where the host has no IOMMU.
        is_express: whether it is a PCI Express device.
    """

    iommu_group: int | None
    is_express: bool


class HostAudio(NamedTuple):
    """When guests are heard on the host itself, and how.

    Attributes:
        driver: the way to the host's sound; None where the host was given none (QEMU_AUDIO_DRV).
        sdl_driver: what SDL uses (SDL_AUDIODRIVER).
        with_vnc: whether also guests are heard that are seen over VNC.
        without_graphics: whether also guests are heard that nobody sees.
    """

    driver: str | None = None
    sdl_driver: str | None = None
    with_vnc: bool = False
    without_graphics: bool = False


class Sev(NamedTuple):
    """What AMD's SEV, memory that the processor encrypts, is like on a host.

    Attributes:
        pdh: the platform's key (Diffie-Hellman), base64.
        cert_chain: the certificates that it is proved by, base64.
        cpu0_id: the first processor's own number, base64; None where QEMU does not tell it.
        cbitpos: which bit of an address says that its page is encrypted.
        reduced_phys_bits: how many bits addresses lose by that.
        max_guests: how many guests there may be at a time whose registers are not encrypted.
        max_es_guests: how many whose registers are.
    """

    pdh: str
    cert_chain: str
    cpu0_id: str | None
    cbitpos: int
    reduced_phys_bits: int
    max_guests: int
    max_es_guests: int


class Platform(NamedTuple):
    """What one emulator brings, for one architecture and one way of running guests.

    Attributes:
        is_qemu: whether devices get the places and the company that QEMU's machines give them.
        arch: the architecture of guests that name none.
        host_arch: the host's architecture.
        emulator: the program, for documents that name none; None where there is no such thing.
        machine: the machine type of guests that name none.
        aliases: machine types that stand for others, such as ``pc``.
        cpu: QEMU's default processor model.
        cpus: that of machine types which have another one, or None where one has none.
        has_host_model: whether the emulator knows what the host's processor is like.
        shares_memory: whether a machine's memory can be shared as a whole, and not only cell by cell.
        models: the processor models that QEMU knows; None where nobody asked.
        host_nodes: the host's NUMA nodes; None where nobody looked.
        page_sizes: the large pages that the host gives to guests, in KiB; None where nobody looked.
        features: what the emulator can do, by the names of libvirt's capability flags, such as ``piix3-usb-uhci``.
        gic_versions: versions of ARM's interrupt controller that guests can have.
        security_model: the security driver whose labels guests get.
        state_directory: where machines keep what is theirs alone, such as UEFI variables.
        nvram_directory: where UEFI's variables are kept that the document gives no place; None to give none.
        channel_directory: where sockets of channels are made that name none.
        types: the types of domains that the emulator runs; None where nobody asked.
        tpm_versions: versions of TPMs that can be emulated.
        audio: how guests are heard on the host.
        host_devices: the host's PCI devices, by address: ``0000:06:12.5``.
        sev: what SEV is like on the host; None where it has none.
        spice_tls: whether screens can be looked at by SPICE over TLS.
        wide_scsi: whether a SCSI bus has fifteen disks by their names, and not seven.
        random_bytes: what identifiers and hardware addresses are made of.
    """

    is_qemu: bool = False
    arch: str | None = None
    host_arch: str = "x86_64"
    emulator: str | None = None
    machine: str | None = None
    aliases: Mapping[str, str] = {}
    cpu: str | None = None
    cpus: Mapping[str, str | None] = {}
    has_host_model: bool = False
    shares_memory: bool = True
    models: frozenset[str] | None = None
    host_nodes: frozenset[int] | None = None
    page_sizes: frozenset[int] | None = None
    features: frozenset[str] = frozenset()
    gic_versions: tuple[int, ...] = ()
    security_model: str = "none"
    state_directory: str = "/var/lib/libvirt/qemu"
    nvram_directory: str | None = None
    channel_directory: str = "/var/lib/libvirt/qemu/channel/target"
    types: frozenset[str] | None = None
    tpm_versions: frozenset[str] = frozenset({"1.2", "2.0"})
    audio: HostAudio = HostAudio()
    host_devices: Mapping[str, HostDevice] = {}
    sev: Sev | None = None
    spice_tls: bool = True
    wide_scsi: bool = False
    random_bytes: Callable[[int], bytes] = os.urandom

    def has(self, feature: str) -> bool:
        """Whether the emulator has a feature."""
        return feature in self.features

    def new_uuid(self) -> str:
        """An identifier that nobody has."""
        return str(uuids.UUID(bytes=self.random_bytes(16), version=4))


X86: Final = ("i686", "x86_64")
ARM: Final = ("armv6l", "armv7l", "aarch64")
PPC64: Final = ("ppc64", "ppc64le")
S390: Final = ("s390", "s390x")
RISCV: Final = ("riscv32", "riscv64")
MIPS: Final = ("mips", "mipsel", "mips64", "mips64el")
_BUILT_IN_ESP: Final = {"mips64": ("magnum", "pica61"), "mips64el": ("magnum", "pica61"), "m68k": ("q800",)}


def arch_of(domain: Domain) -> str:
    """The architecture of a document's machine; empty where it has none."""
    return (domain.os.type.arch if domain.os is not None else None) or ""


def board_of(domain: Domain) -> Board:
    """Which board a document's machine type means."""
    arch = arch_of(domain)
    machine = (domain.os.type.machine if domain.os is not None else None) or ""
    if arch in X86:
        return x86_board(machine)
    if arch in ARM and machine == "versatilepb":
        return Board.VERSATILE
    if arch in S390 and machine.startswith("s390-ccw"):
        return Board.S390_CCW
    if arch in MIPS and machine == "malta":
        return Board.MALTA
    for archs, name, board in (
        (PPC64, "pseries", Board.PSERIES),
        (ARM, "virt", Board.ARM_VIRT),
        (RISCV, "virt", Board.RISCV_VIRT),
    ):
        if arch in archs and (machine == name or machine.startswith(f"{name}-")):
            return board
    return Board.OTHER


def x86_board(machine: str) -> Board:
    """The board that a machine type of x86 means."""
    if machine == "isapc":
        return Board.ISA
    if machine == "q35" or machine.startswith("pc-q35-"):
        return Board.Q35
    if machine == "pc" or machine.startswith(("pc-0.", "pc-1.", "pc-i440fx-", "rhel")):
        return Board.I440FX
    return Board.OTHER


def has_built_in_scsi(domain: Domain) -> bool:
    """Whether a machine has an ESP of its own, as workstations of Sun, MIPS and Apple do."""
    machine = domain.os.type.machine if domain.os is not None else None
    arch = arch_of(domain)
    return arch == "sparc" or machine in _BUILT_IN_ESP.get(arch, ())


def has_built_in_ide(domain: Domain) -> bool:
    """Whether a machine has an IDE controller of its own."""
    machine = domain.os.type.machine if domain.os is not None else None
    return board_of(domain) == Board.I440FX or machine in ("malta", "sun4u", "g3beige")


def supports_pci(domain: Domain, platform: Platform) -> bool:
    """Whether devices of a machine can be on PCI at all."""
    if arch_of(domain) not in (*ARM, *RISCV):
        return True
    board = board_of(domain)
    return board == Board.VERSATILE or (board in (Board.ARM_VIRT, Board.RISCV_VIRT) and platform.has("gpex-pcihost"))


def _root_model(domain: Domain) -> str | None:
    root = (item for item in domain.devices.controllers if item.type == ControllerType.PCI and item.index == 0)
    return next((item.model for item in root), None)


def has_pcie_root(domain: Domain) -> bool:
    """Whether a machine's first PCI bus is PCI Express."""
    return _root_model(domain) == "pcie-root"


def has_pci_root(domain: Domain) -> bool:
    """Whether a machine's first PCI bus is conventional."""
    return _root_model(domain) == "pci-root"

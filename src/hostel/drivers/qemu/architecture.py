"""The architectures of guests: what runs them, and which package has it (``virQEMUCapsFindBinaryForArch``)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from typing import Final, NamedTuple

from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.domain import Domain
from hostel.model.domain.platform import ARM, X86, arch_of

USUAL: Final = "x86_64"


class Architecture(NamedTuple):
    """What is known of guests of one architecture.

    Attributes:
        bits: the width of its words.
        programs: what runs them; the first that is there is taken.
        package: the Debian package that has the first.
        machine: the machine type of documents that name none, where QEMU has it; else QEMU has one of its own.
    """

    bits: int
    programs: Sequence[str]
    package: str
    machine: str | None = None


def _row(bits: int, package: str, target: str, machine: str | None = None) -> Architecture:
    return Architecture(bits, (f"qemu-system-{target}",), f"qemu-system-{package}", machine)


# In libvirt's order.
GUESTS: Final = {
    "alpha": _row(64, "misc", "alpha", "clipper"),
    "armv6l": _row(32, "arm", "arm", "integratorcp"),
    "armv7l": _row(32, "arm", "arm", "integratorcp"),
    "aarch64": _row(64, "arm", "aarch64", "integratorcp"),
    "cris": _row(32, "misc", "cris", "axis-dev88"),
    "i686": Architecture(32, ("qemu-system-i386", "qemu-system-x86_64"), "qemu-system-x86", "pc"),
    "m68k": _row(32, "misc", "m68k", "mcf5208evb"),
    "microblaze": _row(32, "misc", "microblaze", "petalogix-s3adsp1800"),
    "microblazeel": _row(32, "misc", "microblazeel", "petalogix-s3adsp1800"),
    "mips": _row(32, "mips", "mips", "malta"),
    "mipsel": _row(32, "mips", "mipsel", "malta"),
    "mips64": _row(64, "mips", "mips64", "malta"),
    "mips64el": _row(64, "mips", "mips64el", "malta"),
    "ppc": _row(32, "ppc", "ppc", "g3beige"),
    "ppc64": _row(64, "ppc", "ppc64", "pseries"),
    "ppc64le": _row(64, "ppc", "ppc64", "pseries"),
    "riscv32": _row(32, "misc", "riscv32", "spike_v1.10"),
    "riscv64": _row(64, "misc", "riscv64", "spike_v1.10"),
    "s390x": _row(64, "misc", "s390x", "s390-ccw-virtio"),
    "sh4": _row(32, "misc", "sh4", "shix"),
    "sh4eb": _row(32, "misc", "sh4eb", "shix"),
    "sparc": _row(32, "sparc", "sparc", "SS-5"),
    "sparc64": _row(64, "sparc", "sparc64", "sun4u"),
    USUAL: _row(64, "x86", "x86_64", "pc"),
    "xtensa": _row(32, "misc", "xtensa", "sim"),
    "xtensaeb": _row(32, "misc", "xtensaeb", "sim"),
}


def host_architecture() -> str:
    """The host's, as libvirt calls it; that of most hosts where it has no QEMU."""
    found = os.uname().machine
    return found if found in GUESTS else USUAL


def program(arch: str) -> str | None:
    """The path of what runs guests of an architecture; None where it is not installed, or there is none."""
    row = GUESTS.get(arch)
    return next(filter(None, map(shutil.which, row.programs)), None) if row is not None else None


def to_install(arch: str) -> str:
    """The end of a message that nothing runs guests of an architecture: what to install; empty where nothing helps."""
    return f"; install {GUESTS[arch].package}" if arch in GUESTS else ""


def runs_natively(arch: str, host: str | None = None) -> bool:
    """Whether a host's processors can be guests of an architecture, by KVM."""
    host = host or host_architecture()
    return arch == host or (arch in X86 and host == "x86_64") or (arch in ARM[1:] and host == "aarch64")


def find_emulator(domain: Domain | None = None) -> str:
    """The path of QEMU: the document's, or the one on the path that runs guests of its architecture.

    Raises:
        VirtError: it is not installed.
    """
    arch = (arch_of(domain) if domain is not None else "") or host_architecture()
    named, row = domain.devices.emulator if domain is not None else None, GUESTS.get(arch, GUESTS[USUAL])
    found = shutil.which(named) if named else program(arch)
    if found is None:
        name = named or row.programs[0]
        message = f"unsupported configuration: '{name}' is not there or not executable; install {row.package}"
        raise VirtError(ErrorCode.CONFIG_UNSUPPORTED, message, domain=ErrorDomain.QEMU)
    return found

"""Which QEMU is meant by a question, and whether it can do what is asked for (``virQEMUCapsCacheLookupDefault``)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, NamedTuple

from hostel.drivers.fault import fault
from hostel.drivers.qemu import probe
from hostel.drivers.qemu.architecture import GUESTS, host_architecture, program, runs_natively, to_install
from hostel.drivers.qemu.capabilities import machines
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.capabilities import GuestMachine
from hostel.model.domain.domain import DomainType

ARCHITECTURES: Final = frozenset(
    {"alpha", "armv6l", "armv7l", "armv7b", "aarch64", "cris", "i686", "ia64", "lm32", "loongarch64", "m68k",
     "microblaze", "microblazeel", "mips", "mipsel", "mips64", "mips64el", "openrisc", "parisc", "parisc64", "ppc",
     "ppc64", "ppc64le", "ppcemb", "riscv32", "riscv64", "s390", "s390x", "sh4", "sh4eb", "sparc", "sparc64",
     "unicore32", "x86_64", "xtensa", "xtensaeb"}
)  # fmt: skip
# What an emulator's target runs besides guests of the same name.
_TARGETS: Final[dict[str, tuple[str, ...]]] = {
    "i386": ("i686",),
    "x86_64": ("x86_64", "i686"),
    "arm": ("armv6l", "armv7l"),
    "ppc64": ("ppc64", "ppc64le"),
}


class Chosen(NamedTuple):
    """An emulator, and for what.

    Attributes:
        path: the program.
        arch: the architecture of the guest.
        type: the domain's type, ``qemu`` or ``kvm``.
        machine: the machine type as it is called in full.
        max_cpus: how many processors that machine has at most.
    """

    path: str
    arch: str
    type: DomainType
    machine: str
    max_cpus: int

    @property
    def is_kvm(self) -> bool:
        """Whether KVM runs the guest."""
        return self.type == DomainType.KVM


def choose(
    cache: Path, path: str | None = None, arch: str | None = None, machine: str | None = None, kind: str | None = None
) -> Chosen:
    """The emulator that is asked about; what is not said is as a new machine would have it.

    Args:
        cache: where QEMU's answers are remembered.
        path: the program.
        arch: the guest's architecture.
        machine: its machine type, which may be an alias.
        kind: the domain's type.

    Raises:
        VirtError: in libvirt's words: there is no such emulator, or it cannot do it.
    """
    wanted = _type(kind)
    if arch is not None and arch not in ARCHITECTURES:
        raise _wrong(f"unknown architecture: {arch}")
    path = _program(path, arch)
    target = probe.target(path, cache)
    if target is None:
        raise fault(ErrorCode.INTERNAL_ERROR, f"Failed to start QEMU binary {path} for probing", ErrorDomain.QEMU)
    arch = arch or host_architecture()
    if arch not in _TARGETS.get(target, (target,)):
        raise _wrong(f"Emulator '{path}' does not support arch '{arch}'")
    runs_kvm = runs_natively(arch) and probe.kvm_runs(path, cache)
    if wanted not in (None, DomainType.QEMU) and not (wanted == DomainType.KVM and runs_kvm):
        accelerator = "kvm" if wanted == DomainType.KVM else "tcg"
        raise _wrong(f"the accel '{accelerator}' is not supported by '{path}' on this host")
    chosen = wanted or (DomainType.KVM if runs_kvm else DomainType.QEMU)
    found = _machine(machines(probe.machine_types(path, cache), GUESTS[arch].machine), machine)
    if found is None:
        raise _wrong(f"the machine '{machine}' is not supported by emulator '{path}'")
    return Chosen(path, arch, chosen, found.canonical or found.name, found.max_cpus or 0)


def _type(kind: str | None) -> DomainType | None:
    try:
        return None if kind is None else DomainType(kind)
    except ValueError:
        raise _wrong(f"unknown virttype: {kind}") from None


def _program(path: str | None, arch: str | None) -> str:
    if path is not None:
        if not os.access(path, os.X_OK):
            what = "Permission denied" if Path(path).exists() else "No such file or directory"
            raise VirtError(ErrorCode.SYSTEM_ERROR, f"Cannot check QEMU binary {path}: {what}", domain=ErrorDomain.QEMU)
        return path
    arch = arch or host_architecture()
    found = program(arch)
    if found is None:
        what = f"unable to find any emulator to serve '{arch}' architecture{to_install(arch)}"
        raise fault(ErrorCode.CONFIG_UNSUPPORTED, what, ErrorDomain.QEMU)
    return found


def _machine(types: list[GuestMachine], name: str | None) -> GuestMachine | None:
    if name is None:
        return types[0] if types else None
    return next((item for item in types if item.name == name), None)


def _wrong(what: str) -> VirtError:
    return fault(ErrorCode.INVALID_ARG, what, ErrorDomain.QEMU)

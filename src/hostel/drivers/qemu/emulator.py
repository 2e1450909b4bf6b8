"""Which QEMU is meant by a question or a document, and whether it can do what is asked for.

By ``virQEMUCapsCacheLookupDefault`` for questions, ``qemuValidateDomainDef`` for documents.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final, NamedTuple

from hostel.drivers.fault import fault
from hostel.drivers.qemu import probe
from hostel.drivers.qemu.architecture import GUESTS, host_architecture, program, runs_natively, to_install
from hostel.drivers.qemu.capabilities import machines
from hostel.drivers.qemu.document import unsupported
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.capabilities import GuestMachine
from hostel.model.domain.domain import Domain, DomainType
from hostel.model.domain.platform import X86, arch_of

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
    "aarch64": ("aarch64", "armv7l"),
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
    arch = arch or host_architecture()
    if not _runs(path, arch, cache):
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


def check(domain: Domain, cache: Path) -> None:
    """Hold a document that is read against the emulator that is to run it: one that it names has to be there.

    Where none is named and none is installed, documents of x86 are taken: they can be started once it is.

    Raises:
        VirtError: in libvirt's words.
    """
    arch, named = arch_of(domain) or host_architecture(), domain.devices.emulator
    if arch not in ARCHITECTURES:
        raise fault(ErrorCode.CONFIG_UNSUPPORTED, f"Unknown architecture {arch}", ErrorDomain.DOMAIN)
    if named:
        _check_program(named)
    path = named or program(arch)
    if path is None:
        if arch not in X86:
            raise unsupported(f"No emulator found for arch '{arch}'{to_install(arch)}")
        return
    if not _runs(path, arch, cache):
        raise unsupported(f"Emulator '{path}' does not support arch '{arch}'")
    if domain.type == DomainType.KVM and not (runs_natively(arch) and probe.kvm_opens()):
        raise _no_kvm(path, probe.why_no_kvm() if runs_natively(arch) else f"it is not {arch}")
    machine = domain.os.type.machine if domain.os is not None else None
    if machine is not None and _machine(machines(probe.machine_types(path, cache), None), machine) is None:
        raise unsupported(f"Emulator '{path}' does not support machine type '{machine}'")


def check_kvm(path: str, cache: Path) -> None:
    """Refuse to start under a KVM that runs no guest, though it may be opened.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED``, with what to do.
    """
    if not probe.kvm_runs(path, cache):
        raise _no_kvm(path, probe.why_no_kvm())


def _no_kvm(path: str, why: str) -> VirtError:
    return unsupported(
        f"Emulator '{path}' does not support virt type 'kvm': KVM runs no guest on this host ({why}); "
        "write <domain type='qemu'>, or --virt-type qemu"
    )


def _check_program(path: str) -> None:
    try:
        is_directory = stat.S_ISDIR(os.stat(path).st_mode)
    except OSError as error:
        archs = (arch for arch, row in GUESTS.items() if Path(path).name in row.programs)
        what = f"Cannot check QEMU binary {path}: {error.strerror}{to_install(next(archs, ''))}"
    else:
        if not is_directory and os.access(path, os.X_OK):
            return
        what = f"QEMU binary {path} is not executable: {os.strerror(errno.EISDIR if is_directory else errno.EACCES)}"
    raise fault(ErrorCode.SYSTEM_ERROR, what, ErrorDomain.QEMU)


def _runs(path: str, arch: str, cache: Path) -> bool:
    """Whether a program is a QEMU for guests of an architecture.

    Raises:
        VirtError: it is no QEMU, or does not run.
    """
    target = probe.target(path, cache)
    if target is None:
        what = f"Failed to start QEMU binary {path} for probing: {probe.complaint(path)}"
        raise fault(ErrorCode.INTERNAL_ERROR, what, ErrorDomain.QEMU)
    return arch in _TARGETS.get(target, (target,))


def _program(path: str | None, arch: str | None) -> str:
    if path is not None:
        _check_program(path)
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

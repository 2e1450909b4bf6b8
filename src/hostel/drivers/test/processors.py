"""Processors that the invented host knows by name: those of libvirt's own map (``src/cpu_map``)."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from hostel.drivers.adapters import check_flags
from hostel.drivers.base.capabilities import BaselineFlag, CompareFlag
from hostel.drivers.fault import fault
from hostel.drivers.test.lifecycle import refused
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.platform import X86

_X86: Final = """
    486 pentium pentium2 pentium3 pentiumpro coreduo n270 core2duo qemu32 kvm32 cpu64-rhel5 cpu64-rhel6 qemu64 kvm64
    Conroe Penryn Nehalem Nehalem-IBRS Westmere Westmere-IBRS SandyBridge SandyBridge-IBRS IvyBridge IvyBridge-IBRS
    Haswell-noTSX Haswell-noTSX-IBRS Haswell Haswell-IBRS Broadwell-noTSX Broadwell-noTSX-IBRS Broadwell Broadwell-IBRS
    Skylake-Client Skylake-Client-IBRS Skylake-Client-noTSX-IBRS Skylake-Server Skylake-Server-IBRS
    Skylake-Server-noTSX-IBRS Cascadelake-Server Cascadelake-Server-noTSX Icelake-Client Icelake-Client-noTSX
    Icelake-Server Icelake-Server-noTSX Cooperlake Snowridge athlon phenom Opteron_G1 Opteron_G2 Opteron_G3 Opteron_G4
    Opteron_G5 EPYC EPYC-IBPB EPYC-Rome EPYC-Milan Dhyana
"""
_PPC64: Final = "POWER6 POWER7 POWER8 POWER9 POWER10 POWERPC_e5500 POWERPC_e6500"
_ANY: Final = ("aarch64", "armv6l", "armv7b", "armv7l", "s390", "s390x")
# Those of libvirt's architectures whose processors have no names.
_NAMELESS: Final = """
    alpha cris ia64 lm32 m68k microblaze microblazeel mips mips64 mips64el mipsel openrisc parisc parisc64
    ppc ppcemb ppcle riscv32 riscv64 sh4 sh4eb sparc sparc64 unicore32 xtensa xtensaeb
"""


class ProcessorCalls:
    """See :class:`hostel.drivers.base.capabilities.ProcessorDriver`."""

    def connect_get_cpu_model_names(self, arch: str) -> list[str]:
        """The models of an architecture; none where any may be.

        Raises:
            VirtError: ``INVALID_ARG``: there is no such architecture; ``NO_SUPPORT``: its processors have no names.
        """
        if arch in X86:
            return _X86.split()
        if arch in ("ppc64", "ppc64le"):
            return _PPC64.split()
        if arch in _ANY:
            return []
        if arch in _NAMELESS.split():
            what = f"'{arch}' architecture is not supported by CPU driver"
            raise fault(ErrorCode.NO_SUPPORT, what, ErrorDomain.CPU)
        raise fault(ErrorCode.INVALID_ARG, f"cannot find architecture {arch}", ErrorDomain.TEST)

    def connect_compare_cpu(self, xml: str, flags: CompareFlag = CompareFlag.NONE) -> int:
        """Refused, as by libvirt's."""
        raise _unsupported("virConnectCompareCPU")

    def connect_baseline_cpu(self, xml_cpus: Sequence[str], flags: BaselineFlag = BaselineFlag.NONE) -> str:
        """What processors have in common; what the features of models are, a QEMU of x86 tells that is installed.

        Raises:
            VirtError: ``NO_SUPPORT``: there is none; or as the driver of QEMU's.
        """
        from hostel.drivers.qemu.architecture import program, to_install

        check_flags(flags, BaselineFlag.EXPAND_FEATURES, "testConnectBaselineCPU")
        if program("x86_64") is None:
            raise refused(ErrorCode.NO_SUPPORT, f"virConnectBaselineCPU{to_install('x86_64')}")
        from hostel.drivers.qemu.cpu.answers import Answers

        with tempfile.TemporaryDirectory() as cache:  # it is asked once by each process
            return Answers(Path(cache), list).connect_baseline_cpu(xml_cpus, flags)

    def connect_compare_hypervisor_cpu(
        self,
        emulator: str | None,
        arch: str | None,
        machine: str | None,
        type: str | None,
        xml: str,
        flags: CompareFlag = CompareFlag.NONE,
    ) -> int:
        """Refused, as by libvirt's."""
        raise _unsupported("virConnectCompareHypervisorCPU")

    def connect_baseline_hypervisor_cpu(
        self,
        emulator: str | None,
        arch: str | None,
        machine: str | None,
        type: str | None,
        xml_cpus: Sequence[str],
        flags: BaselineFlag = BaselineFlag.NONE,
    ) -> str:
        """Refused, as by libvirt's."""
        raise _unsupported("virConnectBaselineHypervisorCPU")


def _unsupported(function: str) -> VirtError:
    return refused(ErrorCode.NO_SUPPORT, function)

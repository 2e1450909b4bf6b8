"""The driver's calls about emulators and processors; what answers them is loaded when one is made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hostel.drivers.base.capabilities import BaselineFlag, CompareFlag
from hostel.drivers.qemu.calls import Calls

if TYPE_CHECKING:
    from hostel.drivers.qemu.cpu.answers import Answers


class ProcessorCalls(Calls):
    """See :class:`hostel.drivers.base.capabilities.ProcessorDriver`, and the one before it."""

    _cache: Path

    def _answers(self) -> Answers:
        from hostel.drivers.qemu.cpu.answers import Answers

        return Answers(self._cache, self._launcher.firmware)

    def connect_get_domain_capabilities(
        self,
        emulator: str | None = None,
        arch: str | None = None,
        machine: str | None = None,
        type: str | None = None,
    ) -> str:
        """What an emulator can do for a machine."""
        return self._answers().connect_get_domain_capabilities(emulator, arch, machine, type)

    def connect_get_cpu_model_names(self, arch: str) -> list[str]:
        """The models of an architecture."""
        return self._answers().connect_get_cpu_model_names(arch)

    def connect_compare_cpu(self, xml: str, flags: CompareFlag = CompareFlag.NONE) -> int:
        """How the host is to a processor."""
        return self._answers().connect_compare_cpu(xml, flags)

    def connect_compare_hypervisor_cpu(
        self,
        emulator: str | None,
        arch: str | None,
        machine: str | None,
        type: str | None,
        xml: str,
        flags: CompareFlag = CompareFlag.NONE,
    ) -> int:
        """How what an emulator gives on this host is to a processor."""
        return self._answers().connect_compare_hypervisor_cpu(emulator, arch, machine, type, xml, flags)

    def connect_baseline_cpu(self, xml_cpus: Sequence[str], flags: BaselineFlag = BaselineFlag.NONE) -> str:
        """The processor that hosts have in common."""
        return self._answers().connect_baseline_cpu(xml_cpus, flags)

    def connect_baseline_hypervisor_cpu(
        self,
        emulator: str | None,
        arch: str | None,
        machine: str | None,
        type: str | None,
        xml_cpus: Sequence[str],
        flags: BaselineFlag = BaselineFlag.NONE,
    ) -> str:
        """The processor that an emulator gives on this host and that others have, too."""
        return self._answers().connect_baseline_hypervisor_cpu(emulator, arch, machine, type, xml_cpus, flags)

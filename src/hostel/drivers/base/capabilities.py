"""What emulators can do, and what processors are: the host's, and those of documents."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Protocol, runtime_checkable


class CpuComparison(enum.IntEnum):
    """``virCPUCompareResult``: a host's processor beside one that is wanted."""

    INCOMPATIBLE = 0
    IDENTICAL = 1
    SUPERSET = 2


class CompareFlag(enum.IntFlag):
    """``virConnectCompareCPUFlags``; documents are always validated."""

    NONE = 0
    FAIL_INCOMPATIBLE = 1
    VALIDATE = 2


class BaselineFlag(enum.IntFlag):
    """``virConnectBaselineCPUFlags``."""

    NONE = 0
    EXPAND_FEATURES = 1
    MIGRATABLE = 2


@runtime_checkable
class DomainCapabilitiesDriver(Protocol):
    """Emulators."""

    def connect_get_domain_capabilities(
        self,
        emulator: str | None = None,
        arch: str | None = None,
        machine: str | None = None,
        type: str | None = None,
    ) -> str:
        """What an emulator can do for a machine; what is not said is as for a new one."""


@runtime_checkable
class ModelNamesDriver(Protocol):
    """Names of processors."""

    def connect_get_cpu_model_names(self, arch: str) -> list[str]:
        """The models of an architecture."""


@runtime_checkable
class ProcessorDriver(ModelNamesDriver, Protocol):
    """Processors; ``INTERNAL_ERROR`` where a document names a model or a feature that nobody knows."""

    def connect_compare_cpu(self, xml: str, flags: CompareFlag = CompareFlag.NONE) -> int:
        """How the host is to a processor, as :class:`CpuComparison`; ``CPU_INCOMPATIBLE`` where that is asked for."""

    def connect_baseline_cpu(self, xml_cpus: Sequence[str], flags: BaselineFlag = BaselineFlag.NONE) -> str:
        """The processor that hosts have in common."""

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

"""What is done to a running machine beside its devices: memory, processors, keys, pictures, numbers."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol, runtime_checkable

from hostel.drivers.base.domain import Affect, ConsoleStream, DomainRef

# The names of the numbers about memory, in the order of ``virDomainMemoryStatTags``.
MEMORY_STATS: Final = (
    "swap_in", "swap_out", "major_fault", "minor_fault", "unused", "available", "actual", "rss", "usable",
    "last_update", "disk_caches", "hugetlb_pgalloc", "hugetlb_pgfail",
)  # fmt: skip


class MemoryFlag(enum.IntFlag):
    """``virDomainMemoryModFlags`` beyond :class:`Affect`."""

    NONE = 0
    MAXIMUM = 4


class VcpuFlag(enum.IntFlag):
    """``virDomainVcpuFlags`` beyond :class:`Affect`."""

    NONE = 0
    MAXIMUM = 4
    GUEST = 8
    HOTPLUGGABLE = 16


class StatsFlag(enum.IntFlag):
    """``virDomainStatsTypes``; none of them asks for all."""

    ALL = 0
    STATE = 1
    CPU_TOTAL = 2
    BALLOON = 4
    VCPU = 8
    INTERFACE = 16
    BLOCK = 32
    PERF = 64
    IOTHREAD = 128
    MEMORY = 256
    DIRTYRATE = 512
    VM = 1024


class Screenshot(NamedTuple):
    """A picture of a guest's screen and its type, such as ``image/x-portable-pixmap``."""

    mime: str
    content: bytes


@runtime_checkable
class ChannelDriver(Protocol):
    """Channels between programs of a guest and of the host."""

    def domain_open_channel(self, domain: DomainRef, name: str | None = None, *, force: bool = False) -> ConsoleStream:
        """Attach to a channel by its alias or the name of its port; the first one when None."""


@runtime_checkable
class VcpuDriver(Protocol):
    """Processors one by one."""

    def domain_set_vcpu(self, domain: DomainRef, cpumap: str, state: int, affect: Affect = Affect.CURRENT) -> None:
        """Give a domain processors by their numbers (``state`` 1), or take them (0)."""


@runtime_checkable
class MachineDriver(Protocol):
    """Running machines. Names of statistics are libvirt's."""

    def domain_set_memory_flags(
        self, domain: DomainRef, memory: int, affect: Affect, flags: MemoryFlag = MemoryFlag.NONE
    ) -> None:
        """Change the memory that the guest has, in KiB, or with ``MAXIMUM`` the most that it may have."""

    def domain_set_vcpus_flags(
        self, domain: DomainRef, count: int, affect: Affect, flags: VcpuFlag = VcpuFlag.NONE
    ) -> None:
        """Change how many processors the guest has, or with ``MAXIMUM`` may have; with ``GUEST`` how many it uses."""

    def domain_memory_stats(self, domain: DomainRef) -> Mapping[str, int]:
        """The guest's memory in numbers, in KiB: ``actual``, ``rss``, and what the guest tells of itself."""

    def domain_set_memory_stats_period(self, domain: DomainRef, period: int, affect: Affect = Affect.CURRENT) -> None:
        """How often, in seconds, the guest is asked for these; 0: never."""

    def connect_get_all_domain_stats(
        self,
        domains: Sequence[DomainRef],
        stats: StatsFlag = StatsFlag.ALL,
        *,
        backing: bool = False,
        enforce: bool = False,
    ) -> list[tuple[DomainRef, Mapping[str, int | str]]]:
        """Statistics of domains; of all of them where none is given; ``enforce``: refused where some are not known."""

    def domain_screenshot(self, domain: DomainRef, screen: int = 0) -> Screenshot:
        """A picture of the guest's screen."""

    def domain_send_key(self, domain: DomainRef, codeset: int, holdtime: int, keycodes: Sequence[int]) -> None:
        """Press keys together for ``holdtime`` milliseconds; ``codeset`` is ``virKeycodeSet``'s number."""

    def domain_inject_nmi(self, domain: DomainRef) -> None:
        """Send a non-maskable interrupt."""

    def domain_qemu_monitor_command(
        self, domain: DomainRef, command: str, *, human: bool = False, files: Sequence[int] = ()
    ) -> str:
        """Give QEMU a command as it is, with open files: JSON, or ``human`` words; returns its answer."""

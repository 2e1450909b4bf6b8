"""Where a domain's threads run, its I/O threads, and its shares and limits.

Sets of the host's CPUs are bits, the lowest of the first byte for CPU 0, as libvirt has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from hostel.drivers.base.domain import Affect, DomainRef


class PinInfo(NamedTuple):
    """Sets of CPUs, one after the other, and how many."""

    cpumaps: bytes
    total: int


class VcpuInfo(NamedTuple):
    """A virtual CPU that is there.

    Attributes:
        number: its number.
        state: 1, it runs.
        cpu_time: nanoseconds that it has run.
        cpu: the host's CPU that it was last on.
    """

    number: int
    state: int
    cpu_time: int
    cpu: int


class Vcpus(NamedTuple):
    """The virtual CPUs of a running domain, and where each may run."""

    info: Sequence[VcpuInfo]
    cpumaps: bytes


class IoThreadInfo(NamedTuple):
    """An I/O thread, and where it may run."""

    number: int
    cpumap: bytes


class IoThreads(NamedTuple):
    """I/O threads, and how many."""

    info: Sequence[IoThreadInfo]
    total: int


class CpuStats(NamedTuple):
    """Numbers of one CPU of the host after the other, or of all together, and how many there are of each."""

    parameters: Sequence[tuple[str, int]]
    total: int


class SchedulerType(NamedTuple):
    """The kind of scheduler, and how many parameters it has."""

    type: str
    total: int


@runtime_checkable
class PinningDriver(Protocol):
    """Says where threads run."""

    def domain_pin_vcpu(self, domain: DomainRef, vcpu: int, cpumap: bytes) -> None:
        """Let a virtual CPU of a running domain run on these CPUs only."""

    def domain_pin_vcpu_flags(self, domain: DomainRef, vcpu: int, cpumap: bytes, affect: Affect) -> None:
        """Let a virtual CPU run on these CPUs only."""

    def domain_get_vcpu_pin_info(self, domain: DomainRef, count: int, length: int, affect: Affect) -> PinInfo:
        """Where the first ``count`` virtual CPUs may run, each in ``length`` bytes."""

    def domain_get_vcpus(self, domain: DomainRef, count: int, length: int) -> Vcpus:
        """The first ``count`` virtual CPUs of a running domain; where they may run, each in ``length`` bytes."""

    def domain_pin_emulator(self, domain: DomainRef, cpumap: bytes, affect: Affect) -> None:
        """Let the emulator's own threads run on these CPUs only."""

    def domain_get_emulator_pin_info(self, domain: DomainRef, length: int, affect: Affect) -> PinInfo:
        """Where they may run, in ``length`` bytes."""

    def domain_get_cpu_stats(self, domain: DomainRef, width: int, first: int, count: int) -> CpuStats:
        """Times of the domain on ``count`` CPUs from the ``first`` on, or for -1 on all together.

        A ``count`` of 0 asks how many CPUs there are, a ``width`` of 0 how many numbers there are of each.
        """


@runtime_checkable
class IoThreadDriver(Protocol):
    """Changes I/O threads."""

    def domain_get_iothread_info(self, domain: DomainRef, affect: Affect) -> IoThreads:
        """Every I/O thread."""

    def domain_pin_iothread(self, domain: DomainRef, iothread: int, cpumap: bytes, affect: Affect) -> None:
        """Let an I/O thread run on these CPUs only."""

    def domain_add_iothread(self, domain: DomainRef, iothread: int, affect: Affect) -> None:
        """Add one."""

    def domain_del_iothread(self, domain: DomainRef, iothread: int, affect: Affect) -> None:
        """Take one away, which nothing uses."""

    def domain_set_iothread_params(
        self, domain: DomainRef, iothread: int, parameters: Mapping[str, Any], affect: Affect
    ) -> None:
        """Change how one polls, and its pool of threads."""


@runtime_checkable
class LimitsDriver(Protocol):
    """Changes shares and limits; each call knows libvirt's parameters by name."""

    def domain_get_scheduler_type(self, domain: DomainRef) -> SchedulerType:
        """What schedules processors."""

    def domain_get_scheduler_parameters_flags(
        self, domain: DomainRef, affect: Affect = Affect.CURRENT
    ) -> Mapping[str, Any]:
        """Shares of processors."""

    def domain_set_scheduler_parameters_flags(
        self, domain: DomainRef, parameters: Mapping[str, Any], affect: Affect = Affect.CURRENT
    ) -> None:
        """Change them."""

    def domain_get_memory_parameters(self, domain: DomainRef, affect: Affect) -> Mapping[str, Any]:
        """Limits of memory."""

    def domain_set_memory_parameters(self, domain: DomainRef, parameters: Mapping[str, Any], affect: Affect) -> None:
        """Change them."""

    def domain_get_blkio_parameters(self, domain: DomainRef, affect: Affect) -> Mapping[str, Any]:
        """Shares of disk traffic."""

    def domain_set_blkio_parameters(self, domain: DomainRef, parameters: Mapping[str, Any], affect: Affect) -> None:
        """Change them."""

    def domain_get_numa_parameters(self, domain: DomainRef, affect: Affect) -> Mapping[str, Any]:
        """Which nodes memory comes from."""

    def domain_set_numa_parameters(self, domain: DomainRef, parameters: Mapping[str, Any], affect: Affect) -> None:
        """Change them."""

    def domain_get_interface_parameters(self, domain: DomainRef, device: str, affect: Affect) -> Mapping[str, Any]:
        """How an interface's traffic is shaped."""

    def domain_set_interface_parameters(
        self, domain: DomainRef, device: str, parameters: Mapping[str, Any], affect: Affect
    ) -> None:
        """Change it."""

    def domain_get_perf_events(self, domain: DomainRef, affect: Affect) -> Mapping[str, bool]:
        """Which events are counted."""

    def domain_set_perf_events(self, domain: DomainRef, parameters: Mapping[str, Any], affect: Affect) -> None:
        """Change which."""

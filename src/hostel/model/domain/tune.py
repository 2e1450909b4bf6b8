"""Shares of the host: processors, disks, threads, resource groups."""

from __future__ import annotations

from typing import Final

from hostel.codec.xml import YES_NO, Element, attr, child, children, choice, integer, setting, text
from hostel.model.numberset import NUMBERS, NUMBERS_OR_NONE

_U64 = 2**64 - 1
_SCHEDULERS = ("batch", "idle", "fifo", "rr")


class BlkioDevice(Element, tag="device"):
    """Limits for one device of the host."""

    path: str = text()
    weight: int | None = text(integer(), default=None)
    read_iops_sec: int | None = text(integer(), default=None)
    write_iops_sec: int | None = text(integer(), default=None)
    read_bytes_sec: int | None = text(integer(maximum=_U64), default=None)
    write_bytes_sec: int | None = text(integer(maximum=_U64), default=None)


class Blkiotune(Element, tag="blkiotune", drop_empty=True):
    """Shares of disk traffic."""

    weight: int | None = text(integer(), default=None)
    devices: list[BlkioDevice] = children(BlkioDevice, factory=list)


class VcpuPin(Element, tag="vcpupin"):
    """Which processors a virtual CPU runs on."""

    vcpu: int = attr(integer())
    cpuset: str = attr(NUMBERS)


class IoThreadPin(Element, tag="iothreadpin"):
    """Which processors an I/O thread runs on."""

    iothread: int = attr(integer())
    cpuset: str = attr(NUMBERS)


class EmulatorScheduler(Element, tag="emulatorsched"):
    """How the emulator's threads are scheduled."""

    scheduler: str = attr(choice(*_SCHEDULERS))
    priority: int | None = attr(integer(), default=None)


class VcpuScheduler(Element, tag="vcpusched"):
    """How virtual CPUs are scheduled."""

    vcpus: str = attr(NUMBERS)
    scheduler: str = attr(choice(*_SCHEDULERS))
    priority: int | None = attr(integer(), default=None)


class IoThreadScheduler(Element, tag="iothreadsched"):
    """How I/O threads are scheduled."""

    iothreads: str = attr(NUMBERS)
    scheduler: str = attr(choice(*_SCHEDULERS))
    priority: int | None = attr(integer(), default=None)


class TunedCache(Element, tag="cache"):
    """A share of a processor cache."""

    id: int = attr(integer())
    level: int = attr(integer())
    type: str = attr(choice("both", "code", "data"))
    size: int = attr(integer(maximum=_U64))
    unit: str | None = attr(default=None)


class CacheMonitor(Element, tag="monitor"):
    """What is measured of a cache."""

    level: int = attr(integer())
    vcpus: str = attr(NUMBERS)


class Cachetune(Element, tag="cachetune"):
    """Shares of caches for some virtual CPUs."""

    vcpus: str = attr(NUMBERS_OR_NONE)
    id: str | None = attr(default=None)
    caches: list[TunedCache] = children(TunedCache, factory=list)
    monitors: list[CacheMonitor] = children(CacheMonitor, factory=list)


class TunedNode(Element, tag="node"):
    """A share of a node's bandwidth, in per cent."""

    id: int = attr(integer())
    bandwidth: int = attr(integer())


class MemoryMonitor(Element, tag="monitor"):
    """What is measured of bandwidth."""

    vcpus: str = attr(NUMBERS)


class Memorytune(Element, tag="memorytune"):
    """Shares of memory bandwidth for some virtual CPUs."""

    vcpus: str = attr(NUMBERS_OR_NONE)
    id: str | None = attr(default=None)
    nodes: list[TunedNode] = children(TunedNode, factory=list)
    monitors: list[MemoryMonitor] = children(MemoryMonitor, factory=list)


class Cputune(Element, tag="cputune", drop_empty=True):
    """Shares of processors (``virDomainCputuneDefFormat``)."""

    shares: int | None = text(integer(maximum=_U64), default=None)
    period: int | None = text(integer(maximum=_U64), default=None)
    quota: int | None = text(integer(-(2**63), 2**63 - 1), default=None)
    global_period: int | None = text(integer(maximum=_U64), default=None)
    global_quota: int | None = text(integer(-(2**63), 2**63 - 1), default=None)
    emulator_period: int | None = text(integer(maximum=_U64), default=None)
    emulator_quota: int | None = text(integer(-(2**63), 2**63 - 1), default=None)
    iothread_period: int | None = text(integer(maximum=_U64), default=None)
    iothread_quota: int | None = text(integer(-(2**63), 2**63 - 1), default=None)
    vcpupins: list[VcpuPin] = children(VcpuPin, factory=list)
    emulatorpin: str | None = setting(NUMBERS, name="cpuset", default=None)
    iothreadpins: list[IoThreadPin] = children(IoThreadPin, factory=list)
    emulatorsched: EmulatorScheduler | None = child(EmulatorScheduler, default=None)
    vcpuscheds: list[VcpuScheduler] = children(VcpuScheduler, factory=list)
    iothreadscheds: list[IoThreadScheduler] = children(IoThreadScheduler, factory=list)
    cachetunes: list[Cachetune] = children(Cachetune, factory=list)
    memorytunes: list[Memorytune] = children(Memorytune, factory=list)

    @property
    def resctrls(self) -> list[Cachetune | Memorytune]:
        """Shares of caches, and then of memory bandwidth."""
        return [*self.cachetunes, *self.memorytunes]


class IoThread(Element, tag="iothread"):
    """An I/O thread by its number."""

    id: int = attr(integer(1))
    thread_pool_min: int | None = attr(integer(), default=None)
    thread_pool_max: int | None = attr(integer(), default=None)


class IoThreadIds(Element, tag="iothreadids", drop_empty=True):
    """I/O threads one by one."""

    iothreads: list[IoThread] = children(IoThread, factory=list)


class DefaultIoThread(Element, tag="defaultiothread", drop_empty=True):
    """The main loop's pool of threads."""

    thread_pool_min: int | None = attr(integer(), default=None)
    thread_pool_max: int | None = attr(integer(), default=None)


class Resource(Element, tag="resource", drop_empty=True):
    """The domain's place among the host's resource groups."""

    partition: str | None = text(default=None)
    appid: str | None = setting(tag="fibrechannel", name="appid", default=None)


PERF_EVENTS: Final = (
    "cmt", "mbmt", "mbml", "cpu_cycles", "instructions", "cache_references", "cache_misses", "branch_instructions",
    "branch_misses", "bus_cycles", "stalled_cycles_frontend", "stalled_cycles_backend", "ref_cpu_cycles", "cpu_clock",
    "task_clock", "page_faults", "context_switches", "cpu_migrations", "page_faults_min", "page_faults_maj",
    "alignment_faults", "emulation_faults",
)  # fmt: skip


class PerfEvent(Element, tag="event"):
    """One performance counter."""

    name: str = attr(choice(*PERF_EVENTS))
    enabled: bool = attr(YES_NO)


class Perf(Element, tag="perf", drop_empty=True):
    """Performance counters of the host's."""

    events: list[PerfEvent] = children(PerfEvent, factory=list)


class UserMap(Element, tag="uid"):
    """User numbers of a container as the host's."""

    start: int = attr(integer())
    target: int = attr(integer())
    count: int = attr(integer())


class GroupMap(Element, tag="gid"):
    """Group numbers of a container as the host's."""

    start: int = attr(integer())
    target: int = attr(integer())
    count: int = attr(integer())


class IdMap(Element, tag="idmap", drop_empty=True):
    """Numbers of users and groups of a container."""

    uids: list[UserMap] = children(UserMap, factory=list)
    gids: list[GroupMap] = children(GroupMap, factory=list)

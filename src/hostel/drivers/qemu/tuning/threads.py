"""QEMU's threads: which they are, where the host runs them, and how it schedules them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hostel.drivers import procstat
from hostel.drivers.fault import fault, system_fault
from hostel.drivers.qemu.tuning import cores, shares
from hostel.drivers.qemu.tuning.groups import place_thread
from hostel.drivers.tuning.iothread import entries
from hostel.drivers.tuning.pinning import emulator_pin, iothread_pin, vcpu_pin
from hostel.errors import ErrorCode, ErrorDomain
from hostel.model.domain.domain import Domain
from hostel.model.domain.tune import Cputune, EmulatorScheduler, IoThreadScheduler, VcpuScheduler
from hostel.model.numberset import parse_numbers

if TYPE_CHECKING:
    from hostel.drivers.cgroup.group import Group
    from hostel.drivers.qemu.monitor import Monitor

_ONLINE: Final = Path("/sys/devices/system/cpu/online")
_POLICIES: Final = {
    "batch": os.SCHED_BATCH, "idle": os.SCHED_IDLE, "fifo": os.SCHED_FIFO, "rr": os.SCHED_RR,
}  # fmt: skip
IOTHREAD: Final = "iothread"  # what begins the names of I/O threads in QEMU


def online_cpus() -> frozenset[int]:
    """The host's CPUs that work."""
    try:
        return parse_numbers(_ONLINE.read_text().strip())
    except (OSError, ValueError):
        return frozenset(range(os.cpu_count() or 1))


def vcpu_threads(qmp: Monitor, pid: int) -> dict[int, int]:
    """Each virtual CPU's thread.

    Raises:
        QmpError: QEMU does not say.
        VirtError: ``OPERATION_INVALID``: they have no threads of their own.
    """
    found = {int(each["cpu-index"]): int(each["thread-id"]) for each in qmp.execute("query-cpus-fast")}
    threads = set(found.values())
    if pid in threads or len(threads) < len(found):
        raise fault(ErrorCode.OPERATION_INVALID, "cpu affinity is not supported", ErrorDomain.QEMU)
    return found


def iothread_threads(qmp: Monitor) -> dict[int, int]:
    """Each I/O thread's thread, by its number.

    Raises:
        QmpError: QEMU does not say.
    """
    found = {}
    for each in qmp.execute("query-iothreads"):
        name = str(each["id"])
        if name.startswith(IOTHREAD) and name.removeprefix(IOTHREAD).isdecimal():
            found[int(name.removeprefix(IOTHREAD))] = int(each["thread-id"])
    return found


def times(pid: int, thread: int) -> procstat.ProcessStat:
    """How long a thread has run, and where.

    Raises:
        VirtError: ``SYSTEM_ERROR``: it is no more.
    """
    try:
        return procstat.read(pid, thread)
    except OSError as error:
        raise system_fault(error, "cannot get vCPU placement & pCPU time", ErrorDomain.QEMU) from error


def place(thread: int, cpus: Collection[int]) -> None:
    """Let a thread run on these CPUs only.

    Raises:
        VirtError: ``SYSTEM_ERROR``: the host refuses.
    """
    try:
        os.sched_setaffinity(thread, cpus)
    except (OSError, OverflowError) as error:
        reason = error if isinstance(error, OSError) else OSError(str(error))
        raise system_fault(reason, f"cannot set CPU affinity on process {thread}", ErrorDomain.QEMU) from error


def placement(thread: int) -> frozenset[int]:
    """The CPUs that a thread may run on.

    Raises:
        VirtError: ``SYSTEM_ERROR``: it is no more.
    """
    try:
        return frozenset(os.sched_getaffinity(thread))
    except OSError as error:
        raise system_fault(error, f"cannot get CPU affinity of process {thread}", ErrorDomain.QEMU) from error


def settle(domain: Domain, qmp: Monitor, pid: int, group: Group | None = None, *, apart: str = "none") -> None:
    """Place and schedule every thread of a machine, as its document says.

    Args:
        domain: the machine's document.
        qmp: its QEMU.
        pid: QEMU's process id.
        group: its control group, in which threads have groups of their own.
        apart: which of its threads share their cores with nobody.

    Raises:
        QmpError: QEMU does not say which its threads are.
        VirtError: the host refuses.
    """
    tune = domain.cputune or Cputune()
    if apart != "none":
        cores.keep_apart(apart, pid, vcpu_threads(qmp, pid) if apart == "vcpus" else {})
    if group is not None:
        _group_threads(domain, qmp, pid, group)
    if domain.cputune is None and (domain.vcpu is None or domain.vcpu.cpuset is None):
        return
    if (cpus := emulator_pin(domain)) is not None:
        for thread in _tasks(pid):
            with contextlib.suppress(ProcessLookupError):
                place(thread, cpus)
    if tune.emulatorsched is not None:
        _schedule(pid, tune.emulatorsched)
    if any((tune.vcpupins, tune.vcpuscheds, tune.emulatorpin, tune.resctrls)):
        found = vcpu_threads(qmp, pid)
        for number, thread in found.items():
            settle_vcpu(domain, number, thread)
        shares.settle(domain, found)
    if entries(domain):
        for number, thread in iothread_threads(qmp).items():
            settle_iothread(domain, number, thread)


def _group_threads(domain: Domain, qmp: Monitor, pid: int, group: Group) -> None:
    """Give the threads that are there groups of their own, where they have none yet."""
    place_thread(group, domain, "emulator", 0, pid)
    found = {int(each["cpu-index"]): int(each["thread-id"]) for each in qmp.execute("query-cpus-fast")}
    if len(set(found.values())) == len(found):
        for number, thread in found.items():
            place_thread(group, domain, "vcpu", number, thread)
    for number, thread in iothread_threads(qmp).items():
        place_thread(group, domain, "iothread", number, thread)


def settle_vcpu(domain: Domain, number: int, thread: int) -> None:
    """Place and schedule the thread of a virtual CPU.

    Raises:
        VirtError: the host refuses.
    """
    tune = domain.cputune or Cputune()
    place(thread, vcpu_pin(domain, number) or online_cpus())
    for each in tune.vcpuscheds:
        if number in parse_numbers(each.vcpus):
            _schedule(thread, each)


def settle_iothread(domain: Domain, number: int, thread: int) -> None:
    """Place and schedule an I/O thread.

    Raises:
        VirtError: the host refuses.
    """
    tune = domain.cputune or Cputune()
    place(thread, iothread_pin(domain, number) or online_cpus())
    for each in tune.iothreadscheds:
        if number in parse_numbers(each.iothreads):
            _schedule(thread, each)


def _tasks(pid: int) -> Iterator[int]:
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/task").iterdir():
            yield int(entry.name)


def _schedule(thread: int, wanted: EmulatorScheduler | VcpuScheduler | IoThreadScheduler) -> None:
    try:
        os.sched_setscheduler(thread, _POLICIES[wanted.scheduler], os.sched_param(wanted.priority or 0))
    except OSError as error:
        raise system_fault(error, f"Cannot set scheduler parameters for pid {thread}", ErrorDomain.QEMU) from error

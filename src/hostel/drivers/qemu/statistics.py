"""Numbers about machines: what QEMU, the guest and the host tell of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from hostel.drivers import procstat
from hostel.drivers.base import DomainRef
from hostel.drivers.base.device import InterfaceStats
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.machine import StatsFlag
from hostel.drivers.fault import fault
from hostel.drivers.qemu import perf
from hostel.drivers.qemu.balloon import polling, refresh
from hostel.drivers.qemu.block.statistics import block_statistics
from hostel.drivers.qemu.calls import Calls, no_domain
from hostel.drivers.qemu.machines import invalid
from hostel.drivers.qemu.running import Running
from hostel.drivers.qemu.status import Status
from hostel.drivers.qemu.tuning import shares
from hostel.drivers.tuning.parameter import PERF
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.actual import actual
from hostel.model.domain.devices.interface import Interface, InterfaceType
from hostel.model.domain.domain import Domain

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
# What a guest tells, by virsh's names; those in bytes are shown in KiB.
_GUEST: Final = {
    "swap_in": "stat-swap-in", "swap_out": "stat-swap-out", "major_fault": "stat-major-faults",
    "minor_fault": "stat-minor-faults", "unused": "stat-free-memory", "available": "stat-total-memory",
    "usable": "stat-available-memory", "disk_caches": "stat-disk-caches",
    "hugetlb_pgalloc": "stat-htlb-pgalloc", "hugetlb_pgfail": "stat-htlb-pgfail",
}  # fmt: skip
_COUNTED: Final = ("major_fault", "minor_fault", "hugetlb_pgalloc", "hugetlb_pgfail")
_UNKNOWN: Final = 2**64 - 1
_BALLOON: Final = {
    "swap_in": "swap_in", "swap_out": "swap_out", "major_fault": "major_fault", "minor_fault": "minor_fault",
    "unused": "unused", "available": "available", "usable": "usable", "last_update": "last-update",
    "disk_caches": "disk_caches", "hugetlb_pgalloc": "hugetlb_pgalloc", "hugetlb_pgfail": "hugetlb_pgfail",
    "rss": "rss",
}  # fmt: skip


# Of the host's own counters of a device, its receiving ones first.
_COUNTERS: Final = Path("/proc/thread-self/net/dev")  # of the network that this process is in
_NET: Final = ("bytes", "pkts", "errs", "drop")

_POLLING: Final = ("poll-max-ns", "poll-grow", "poll-shrink")
_MEASURING: Final = ("unstarted", "measuring", "measured")  # in the order of virDomainDirtyRateStatus


class StatisticsCalls(Calls):
    """Statistics; see :class:`hostel.drivers.base.machine.MachineDriver`."""

    def domain_memory_stats(self, domain: DomainRef) -> Mapping[str, int]:
        """The guest's memory in numbers."""
        with self._running(domain, moving=True) as machine:
            return memory(machine)

    def domain_interface_stats(self, domain: DomainRef, device: str) -> InterfaceStats:
        """Counters of an interface, which the host has."""
        for interface in self._written(domain, Affect.LIVE).current.devices.interfaces:
            mac = interface.mac.address if interface.mac is not None else ""
            name = _name(interface)
            if device.lower() == mac.lower() or device == name:
                break
        else:
            raise fault(ErrorCode.INVALID_ARG, f"'{device}' is not a known interface", ErrorDomain.DOMAIN)
        if name is None:
            raise fault(ErrorCode.INTERNAL_ERROR, "Interface name not provided", ErrorDomain.NONE)
        if interface.type == InterfaceType.VHOSTUSER:
            return _switched(name)
        found = _traffic(interface, name)
        if found is None:
            raise fault(ErrorCode.INTERNAL_ERROR, "/proc/net/dev: Interface not found", ErrorDomain.NONE)
        return found

    def domain_set_memory_stats_period(self, domain: DomainRef, period: int, affect: Affect = Affect.CURRENT) -> None:
        """How often the guest is asked."""
        with self._both(domain, affect) as both:
            for document in (both.running.domain if both.running is not None else None, both.definition):
                device = document.devices.memballoon if document is not None else None
                if document is not None and (device is None or device.model == "none"):
                    raise invalid("No memory balloon device configured, can not set the collection period")
            if both.running is not None and (device := both.running.domain.devices.memballoon) is not None:
                both.running.ask("qom-set", **polling(device.alias), value=period)
                device.stats_period = period or None
                both.running.save()
            if both.definition is not None and (device := both.definition.devices.memballoon) is not None:
                device.stats_period = period or None
                self._define(both.definition)

    def connect_get_all_domain_stats(
        self,
        domains: Sequence[DomainRef],
        stats: StatsFlag = StatsFlag.ALL,
        *,
        backing: bool = False,
        enforce: bool = False,
    ) -> list[tuple[DomainRef, Mapping[str, int | str]]]:
        """Statistics of domains; those that are gone when it is their turn are left out."""
        found = []
        for ref in domains or self._machines.refs():
            try:
                found.append((ref, self._statistics(ref, stats, backing=backing)))
            except VirtError:
                if domains:
                    raise
        return found

    def _statistics(self, ref: DomainRef, stats: StatsFlag, *, backing: bool) -> Mapping[str, int | str]:
        """Statistics of a domain; what QEMU would have to say is left out where it says nothing for long."""
        state = self.domain_get_state(ref)
        found: dict[str, int | str] = {}
        if _wants(stats, StatsFlag.STATE):
            found |= {"state.state": int(state.state), "state.reason": state.reason}
        known = self._machines.seen(ref.name)
        if known is not None and _wants(stats, StatsFlag.CPU_TOTAL):
            found |= _processor_time(known.pid) | shares.caches(known.domain)
        if known is not None and _wants(stats, StatsFlag.MEMORY):
            found |= shares.bandwidths(known.domain)

        def look(machine: Running | None) -> dict[str, int | str]:
            document = machine.domain if machine is not None else self._machines.definition(ref.name)
            if document is None:
                raise no_domain(f"name '{ref.name}'")
            return _counted_by(machine, document, stats, backing=backing)

        def recorded(known: Status | None) -> dict[str, int | str]:
            return _interfaces(known.domain) if known is not None and _wants(stats, StatsFlag.INTERFACE) else {}

        return found | self._look(ref, look, recorded)


def _wants(stats: StatsFlag, flag: StatsFlag) -> bool:
    return stats == StatsFlag.ALL or bool(stats & flag)


def _counted_by(machine: Running | None, document: Domain, stats: StatsFlag, *, backing: bool) -> dict[str, int | str]:
    """What QEMU says, of a machine that runs, and what a document does."""
    found: dict[str, int | str] = {}
    if _wants(stats, StatsFlag.BALLOON):
        found |= _balloon(machine, document)
    if _wants(stats, StatsFlag.VCPU):
        found |= _vcpus(machine, document)
    if machine is not None and _wants(stats, StatsFlag.INTERFACE):
        found |= _interfaces(document)
    if _wants(stats, StatsFlag.BLOCK):
        found |= block_statistics(machine, document, backing=backing)
    if machine is not None and _wants(stats, StatsFlag.PERF):
        counted = perf.counted(Path(machine.status.run))
        found |= {f"perf.{name}": counted[name] for name in PERF if name in counted}
    if machine is not None and _wants(stats, StatsFlag.IOTHREAD):
        found |= _iothreads(machine)
    if machine is not None and _wants(stats, StatsFlag.DIRTYRATE):
        found |= _dirty_rate(machine)
    return found


def memory(machine: Running) -> dict[str, int]:
    """The guest's memory, in KiB but for counts, by virsh's names."""
    found: dict[str, int] = {}
    device = machine.domain.devices.memballoon
    if device is not None and device.model != "none":
        found["actual"] = int(machine.ask("query-balloon")["actual"]) >> 10
        path = f"/machine/peripheral/{device.alias}"
        told: dict[str, Any] = machine.attempt("qom-get", path=path, property="guest-stats") or {}
        for name, word in _GUEST.items():
            number = int(told.get("stats", {}).get(word, _UNKNOWN)) % (_UNKNOWN + 1)
            if number != _UNKNOWN:
                found[name] = number if name in _COUNTED else number >> 10
        if told:
            found["last_update"] = int(told.get("last-update", 0))
    elif machine.domain.memory is not None:
        found["actual"] = machine.domain.memory.to_kib()
    found["rss"] = _resident(machine.status.pid)
    return found


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE >> 10
    except (OSError, ValueError, IndexError):
        return 0


def _processor_time(pid: int) -> dict[str, int]:
    times = procstat.cpu_times(pid)
    if times is None:
        return {"cpu.time": 0}
    user, system = times
    return {"cpu.time": user + system, "cpu.user": user, "cpu.system": system}


def _balloon(machine: Running | None, document: Domain) -> dict[str, int]:
    most = document.memory.to_kib() if document.memory is not None else 0
    current = document.current_memory.to_kib() if document.current_memory is not None else most
    if machine is None:
        return {"balloon.current": current, "balloon.maximum": most}
    told = memory(machine)
    refresh(machine)
    now = machine.domain.current_memory
    found = {"balloon.current": now.to_kib() if now is not None else current, "balloon.maximum": most}
    return found | {f"balloon.{name}": told[word] for word, name in _BALLOON.items() if word in told}


def _vcpus(machine: Running | None, document: Domain) -> dict[str, int]:
    most = document.vcpu.value if document.vcpu is not None else 1
    current = (document.vcpu.current or most) if document.vcpu is not None else 1
    found = {"vcpu.current": current, "vcpu.maximum": most}
    if machine is None:
        return found
    for vcpu in machine.ask("query-cpus-fast"):
        number, thread = int(vcpu["cpu-index"]), int(vcpu["thread-id"])
        found[f"vcpu.{number}.state"] = 1
        used, delayed = _thread_times(machine.status.pid, thread)
        found[f"vcpu.{number}.time"] = used
        found[f"vcpu.{number}.wait"] = 0
        found[f"vcpu.{number}.delay"] = delayed
    return found


def _iothreads(machine: Running) -> dict[str, int]:
    """How each thread for I/O looks for work (``qemuDomainGetStatsIOThread``); nothing where there is none."""
    threads = machine.ask("query-iothreads")
    found = {"iothread.count": len(threads)} if threads else {}
    for thread in threads:
        number = str(thread["id"]).removeprefix("iothread")
        found |= {f"iothread.{number}.{name}": int(thread[name]) for name in _POLLING if name in thread}
    return found


def _dirty_rate(machine: Running) -> dict[str, int | str]:
    """How fast memory was changed when that was last measured (``qemuDomainGetStatsDirtyRate``)."""
    said = machine.ask("query-dirty-rate")
    found: dict[str, int | str] = {
        "dirtyrate.calc_status": _MEASURING.index(said["status"]),
        "dirtyrate.calc_start_time": int(said["start-time"]),
        "dirtyrate.calc_period": int(said["calc-time"]),
        "dirtyrate.calc_mode": str(said.get("mode", "page-sampling")),
    }
    if said["status"] == "measured":
        found["dirtyrate.megabytes_per_second"] = int(said["dirty-rate"])
        for vcpu in said.get("vcpu-dirty-rate", ()):
            found[f"dirtyrate.vcpu.{vcpu['id']}.megabytes_per_second"] = int(vcpu["dirty-rate"])
    return found


def _thread_times(pid: int, thread: int) -> tuple[int, int]:
    """Nanoseconds that a thread ran, and that it was kept from a CPU; without the kernel's statistics none."""
    try:
        used, delayed, *_ = Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()
        return int(used), int(delayed)
    except (OSError, ValueError):
        return 0, 0


def _name(interface: Interface) -> str | None:
    return interface.target.dev if interface.target is not None else None


def _traffic(interface: Interface, name: str) -> InterfaceStats | None:
    """The guest's side: what it receives is what the host sends, but where they share one device."""
    try:
        lines = (line.partition(":") for line in _COUNTERS.read_text().splitlines())
        numbers = next(list(map(int, rest.split())) for label, _, rest in lines if label.strip() == name)
    except (OSError, ValueError, StopIteration):
        return None
    received, sent = numbers[:4], numbers[8:12]
    is_shared = actual(interface).type == InterfaceType.DIRECT
    return InterfaceStats(*(received + sent if is_shared else sent + received))


def _switched(name: str) -> InterfaceStats:
    """What the switch has counted that serves an interface.

    Raises:
        VirtError: ``INTERNAL_ERROR``: it knows of none, or is not there.
    """
    from hostel.drivers.link import openvswitch

    return InterfaceStats(*openvswitch.statistics(name))


def _counted(interface: Interface, name: str) -> InterfaceStats | None:
    """Counters of either kind; None where nobody counts."""
    if interface.type == InterfaceType.VHOSTUSER:
        with contextlib.suppress(VirtError):
            return _switched(name)
        return None
    return _traffic(interface, name)


def _interfaces(document: Domain) -> dict[str, int | str]:
    found: dict[str, int | str] = {"net.count": len(document.devices.interfaces)}
    for number, interface in enumerate(document.devices.interfaces):
        if (name := _name(interface)) is None:
            continue
        found[f"net.{number}.name"] = name
        told = _counted(interface, name)
        words = [f"{way}.{what}" for way in ("rx", "tx") for what in _NET]
        found |= {f"net.{number}.{word}": value for word, value in zip(words, told or (), strict=told is not None)}
    return found

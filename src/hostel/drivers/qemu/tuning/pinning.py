"""The driver's calls that say on which of the host's CPUs threads run."""

from __future__ import annotations

from typing import Final

from hostel.drivers import procstat
from hostel.drivers.base import DomainRef
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.machine import VcpuFlag
from hostel.drivers.base.tuning import CpuStats, PinInfo, VcpuInfo, Vcpus
from hostel.drivers.counting import check_one, vcpus
from hostel.drivers.fault import fault
from hostel.drivers.qemu.calls import Calls, no_domain
from hostel.drivers.qemu.machines import invalid
from hostel.drivers.qemu.running import Running
from hostel.drivers.qemu.tuning.threads import online_cpus, place, placement, times, vcpu_threads
from hostel.drivers.tuning.cpumap import cpumap, cpumaps
from hostel.drivers.tuning.pinning import emulator_pin, most_vcpus, pin_emulator, pin_vcpu, vcpu_pin, wanted
from hostel.errors import ErrorCode, ErrorDomain, QmpError
from hostel.model.numberset import format_numbers

_RUNNING: Final = 1  # VIR_VCPU_RUNNING
_ALL: Final = -1
_TOTAL: Final = 3  # numbers about all CPUs together


class PinningCalls(Calls):
    """Where threads run; see :class:`hostel.drivers.base.tuning.PinningDriver`."""

    def domain_pin_vcpu(self, domain: DomainRef, vcpu: int, cpumap: bytes) -> None:
        """Pin a virtual CPU's thread."""
        self.domain_pin_vcpu_flags(domain, vcpu, cpumap, Affect.LIVE)

    def domain_pin_vcpu_flags(self, domain: DomainRef, vcpu: int, cpumap: bytes, affect: Affect) -> None:
        """Pin a virtual CPU's thread, and have the definition say so."""
        with self._both(domain, affect) as both:
            definition = both.definition
            if definition is not None and vcpu >= most_vcpus(definition):
                count = vcpus(definition, VcpuFlag.NONE)
                what = f"vcpu {vcpu} is out of range of persistent cpu count {count}"
                raise fault(ErrorCode.INVALID_ARG, what, ErrorDomain.QEMU)
            cpus = wanted(cpumap, ErrorDomain.QEMU)
            if both.running is not None:
                self._pin_running(both.running, vcpu, cpus)
            if definition is not None:
                pin_vcpu(definition, vcpu, cpus)
                self._define(definition)

    def _pin_running(self, machine: Running, vcpu: int, cpus: frozenset[int]) -> None:
        threads = _vcpus(machine)
        if vcpu >= most_vcpus(machine.domain):
            what = f"vcpu {vcpu} is out of range of live cpu count {most_vcpus(machine.domain)}"
            raise fault(ErrorCode.INVALID_ARG, what, ErrorDomain.QEMU)
        if vcpu in threads:
            place(threads[vcpu], cpus)
        pin_vcpu(machine.domain, vcpu, cpus)
        machine.save()
        machine.publish("tunable", **{f"cputune.vcpupin{vcpu}": format_numbers(cpus)})

    def domain_get_vcpu_pin_info(self, domain: DomainRef, count: int, length: int, affect: Affect) -> PinInfo:
        """Where virtual CPUs may run, as the document says."""
        check_one(affect)
        document, host = self._written(domain, affect).advised, online_cpus()
        numbers = range(min(count, most_vcpus(document)))
        sets = [vcpu_pin(document, number) or host for number in numbers]
        return PinInfo(cpumaps(sets, length), len(sets))

    def domain_get_vcpus(self, domain: DomainRef, count: int, length: int) -> Vcpus:
        """Virtual CPUs as the host has them."""
        with self._machines.locked(domain.name), self._held(domain) as machine:
            if machine is None:
                if self._machines.definition(domain.name) is None:
                    raise no_domain(f"name '{domain.name}'")
                raise invalid("cannot retrieve vcpu information for inactive domain")
            pid, threads = machine.status.pid, _vcpus(machine)
            info, sets = [], []
            for number, thread in sorted(threads.items())[:count]:
                found = times(pid, thread)
                info.append(VcpuInfo(number, _RUNNING, found.user + found.system, found.cpu))
                sets.append(placement(thread))
        return Vcpus(info, cpumaps(sets, length))

    def domain_pin_emulator(self, domain: DomainRef, cpumap: bytes, affect: Affect) -> None:
        """Pin QEMU's main thread, and have the definition say so."""
        with self._both(domain, affect, asks=False) as both:
            cpus = wanted(cpumap, ErrorDomain.QEMU)
            if (machine := both.running) is not None:
                place(machine.status.pid, cpus)
                pin_emulator(machine.domain, cpus)
                machine.save()
                machine.publish("tunable", **{"cputune.emulatorpin": format_numbers(cpus)})
            if both.definition is not None:
                pin_emulator(both.definition, cpus)
                self._define(both.definition)

    def domain_get_emulator_pin_info(self, domain: DomainRef, length: int, affect: Affect) -> PinInfo:
        """Where the emulator may run, as the document says."""
        check_one(affect)
        return PinInfo(cpumap(emulator_pin(self._written(domain, affect).advised) or online_cpus(), length), 1)

    def domain_get_cpu_stats(self, domain: DomainRef, width: int, first: int, count: int) -> CpuStats:
        """Times of all CPUs together; the host tells none of them by itself of a process."""
        machine = self._written(domain, Affect.LIVE).running
        assert machine is not None
        if first != _ALL:
            return CpuStats((), 0 if count else max(online_cpus()) + 1)
        if not width:
            return CpuStats((), _TOTAL)
        user, system = procstat.cpu_times(machine.status.pid) or (0, 0)
        numbers = (("cpu_time", user + system), ("user_time", user), ("system_time", system))
        return CpuStats(numbers[:width], min(width, _TOTAL))


def _vcpus(machine: Running) -> dict[int, int]:
    try:
        return vcpu_threads(machine.qmp, machine.status.pid)
    except QmpError as error:
        raise machine.translated(error, "query-cpus-fast") from error

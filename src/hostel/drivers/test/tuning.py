"""Where the test driver's domains would run, and their shares and limits: all of it is kept in their documents."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from hostel.drivers.adapters import check_flags
from hostel.drivers.base import DomainRef
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.machine import VcpuFlag
from hostel.drivers.base.tuning import CpuStats, IoThreadInfo, IoThreads, PinInfo, SchedulerType, VcpuInfo, Vcpus
from hostel.drivers.counting import check_one, vcpus
from hostel.drivers.fault import fault
from hostel.drivers.test.document import DomainDefinition
from hostel.drivers.test.host import Host
from hostel.drivers.test.impact import one_document, settled_impact
from hostel.drivers.test.lifecycle import TEXT_OKAY, no_flags
from hostel.drivers.test.nodeinfo import INFO
from hostel.drivers.tuning import iothread as iothreads
from hostel.drivers.tuning import limits
from hostel.drivers.tuning.cpumap import cpumap as bits
from hostel.drivers.tuning.cpumap import cpumaps
from hostel.drivers.tuning.parameter import ParameterType, check
from hostel.drivers.tuning.pinning import (
    emulator_pin,
    iothread_pin,
    most_vcpus,
    pin_emulator,
    pin_iothread,
    pin_vcpu,
    vcpu_pin,
    wanted,
)
from hostel.errors import ErrorCode, ErrorDomain
from hostel.model.domain.domain import Domain

_HOST: Final = frozenset(range(INFO.nodes * INFO.sockets * INFO.cores * INFO.threads))
_TOTAL: Final = (("cpu_time", 48_772_617_035), ("user_time", 5_540_000_000), ("system_time", 6_460_000_000))
_VCPU_LESS: Final = 1_234_567_890  # nanoseconds that a virtual CPU runs less than the host's
_ALL: Final = -1
_RUNNING: Final = 1  # VIR_VCPU_RUNNING
_WEIGHT: Final = 50
_SCHEDULER: Final = {"weight": ParameterType.UINT}
_POLLING: Final = ("poll_max_ns", "poll_grow", "poll_shrink")


class TuningCalls:
    """Implements the protocols of :mod:`hostel.drivers.base.tuning`."""

    _host: Host

    def domain_pin_vcpu(self, domain: DomainRef, vcpu: int, cpumap: bytes) -> None:
        """Pin a virtual CPU that there is at first, while the domain runs."""
        with self._host.lock:
            if self._host.domain(domain).live is None:
                raise fault(ErrorCode.OPERATION_INVALID, "cannot pin vcpus on an inactive domain", ErrorDomain.TEST)

        def change(document: Domain) -> None:
            if vcpu >= vcpus(document, VcpuFlag.NONE):
                what = f"requested vcpu '{vcpu}' is not present in the domain"
                raise fault(ErrorCode.INVALID_ARG, what, ErrorDomain.TEST)
            pin_vcpu(document, vcpu, wanted(cpumap, ErrorDomain.TEST))

        self._change_one(domain, Affect.LIVE, change)

    def domain_pin_vcpu_flags(self, domain: DomainRef, vcpu: int, cpumap: bytes, affect: Affect) -> None:
        """The same: libvirt's test driver takes no flags."""
        check_flags(affect, 0, "testDomainPinVcpuFlags")
        self.domain_pin_vcpu(domain, vcpu, cpumap)

    def domain_get_vcpu_pin_info(self, domain: DomainRef, count: int, length: int, affect: Affect) -> PinInfo:
        """Where virtual CPUs may run."""
        document = self._look(domain, affect)
        sets = [vcpu_pin(document, number) or _HOST for number in range(min(count, most_vcpus(document)))]
        return PinInfo(cpumaps(sets, length), len(sets))

    def domain_get_vcpus(self, domain: DomainRef, count: int, length: int) -> Vcpus:
        """Virtual CPUs, each on the last of the CPUs that it may be on."""
        with self._host.lock:
            found = self._host.domain(domain)
            if found.live is None:
                what = "cannot list vcpus for an inactive domain"
                raise fault(ErrorCode.OPERATION_INVALID, what, ErrorDomain.TEST)
            document = found.live.domain
        sets = [vcpu_pin(document, number) or _HOST for number in range(min(count, vcpus(document, VcpuFlag.NONE)))]
        time_used = time.time_ns() // 10_000  # it grows, as in libvirt's
        info = [VcpuInfo(number, _RUNNING, time_used, max(cpus)) for number, cpus in enumerate(sets)]
        return Vcpus(info, cpumaps(sets, length))

    def domain_pin_emulator(self, domain: DomainRef, cpumap: bytes, affect: Affect) -> None:
        """Pin the emulator that there is not."""
        self._change_one(domain, affect, lambda document: pin_emulator(document, wanted(cpumap, ErrorDomain.TEST)))

    def domain_get_emulator_pin_info(self, domain: DomainRef, length: int, affect: Affect) -> PinInfo:
        """Where it may run."""
        return PinInfo(bits(emulator_pin(self._look(domain, affect)) or _HOST, length), 1)

    def domain_get_cpu_stats(self, domain: DomainRef, width: int, first: int, count: int) -> CpuStats:
        """Invented times, the same each time."""
        with self._host.lock:
            settled_impact(self._host.domain(domain), Affect.LIVE)
        if first == _ALL:
            return CpuStats(_TOTAL[:width], min(width, len(_TOTAL)) if width else len(_TOTAL))
        cpus = INFO.cores
        if not count:
            return CpuStats((), cpus)
        if not width:
            return CpuStats((), 2)
        if first >= cpus:
            what = f"start_cpu {first} larger than maximum of {cpus - 1}"
            raise fault(ErrorCode.INVALID_ARG, what, ErrorDomain.TEST)
        found: list[tuple[str, int]] = []
        for cpu in range(first, min(cpus, first + count)):
            used = _TOTAL[0][1] // cpus + cpu
            found += (("cpu_time", used), ("vcpu_time", used - _VCPU_LESS))[:width]
        return CpuStats(found, min(width, 2))

    def domain_get_iothread_info(self, domain: DomainRef, affect: Affect) -> IoThreads:
        """Every I/O thread of the document; one that is not pinned has as many CPUs as the domain."""
        document = self._look(domain, affect)
        host = frozenset(range(vcpus(document, VcpuFlag.NONE)))
        info = [
            IoThreadInfo(entry.id, bits(iothread_pin(document, entry.id) or host))
            for entry in iothreads.entries(document)
        ]
        return IoThreads(info, len(info))

    def domain_pin_iothread(self, domain: DomainRef, iothread: int, cpumap: bytes, affect: Affect) -> None:
        """Pin an I/O thread."""

        def change(document: Domain) -> None:
            cpus = wanted(cpumap, ErrorDomain.TEST, "iothread cpumap list")
            iothreads.find(document, iothread, "iothreadid {} not found")
            pin_iothread(document, iothread, cpus)

        self._change_one(domain, affect, change)

    def domain_add_iothread(self, domain: DomainRef, iothread: int, affect: Affect) -> None:
        """Add an I/O thread."""
        iothreads.check_number(iothread, ErrorDomain.TEST)
        self._change_one(domain, affect, lambda document: iothreads.add(document, iothread))

    def domain_del_iothread(self, domain: DomainRef, iothread: int, affect: Affect) -> None:
        """Take an I/O thread away."""
        iothreads.check_number(iothread, ErrorDomain.TEST)
        self._change_one(domain, affect, lambda document: iothreads.delete(document, iothread))

    def domain_set_iothread_params(
        self, domain: DomainRef, iothread: int, parameters: Mapping[str, Any], affect: Affect
    ) -> None:
        """Nothing polls: what is asked is checked."""
        check_flags(affect, Affect.LIVE, "testDomainSetIOThreadParams")
        iothreads.check_number(iothread, ErrorDomain.TEST)
        iothreads.find(self._look(domain, affect).copy(), iothread)
        check(parameters, dict.fromkeys(_POLLING, ParameterType.ULLONG))

    def domain_get_scheduler_type(self, domain: DomainRef) -> SchedulerType:
        """An invented one."""
        return SchedulerType("fair", 1)

    def domain_get_scheduler_parameters_flags(
        self, domain: DomainRef, affect: Affect = Affect.CURRENT
    ) -> Mapping[str, Any]:
        """An invented weight."""
        if affect:  # who asks so takes strings, which libvirt's counts as a flag, too
            raise no_flags(affect | TEXT_OKAY, "testDomainGetSchedulerParametersFlags")
        self._look(domain, affect)
        return {"weight": _WEIGHT}

    def domain_set_scheduler_parameters_flags(
        self, domain: DomainRef, parameters: Mapping[str, Any], affect: Affect = Affect.CURRENT
    ) -> None:
        """Nothing is scheduled: what is asked is checked."""
        check(parameters, _SCHEDULER)
        self._check_scheduled(domain, affect, "testDomainSetSchedulerParametersFlags")

    def domain_get_memory_parameters(self, domain: DomainRef, affect: Affect) -> Mapping[str, Any]:
        """Limits of memory."""
        return limits.memory(self._look(domain, affect))

    def domain_set_memory_parameters(self, domain: DomainRef, parameters: Mapping[str, Any], affect: Affect) -> None:
        """Change them."""
        self._change_one(domain, affect, lambda document: limits.set_memory(document, parameters))

    def domain_get_blkio_parameters(self, domain: DomainRef, affect: Affect) -> Mapping[str, Any]:
        """Shares of disk traffic."""
        return limits.blkio(self._look(domain, affect))

    def domain_set_blkio_parameters(self, domain: DomainRef, parameters: Mapping[str, Any], affect: Affect) -> None:
        """Change them."""
        self._change_one(domain, affect, lambda document: limits.set_blkio(document, parameters))

    def domain_get_numa_parameters(self, domain: DomainRef, affect: Affect) -> Mapping[str, Any]:
        """Which nodes memory comes from."""
        return limits.numa(self._look(domain, affect))

    def domain_set_numa_parameters(self, domain: DomainRef, parameters: Mapping[str, Any], affect: Affect) -> None:
        """Change which; the mode of what runs stays."""
        with self._host.lock:
            found = self._host.domain(domain)
            document = one_document(found, affect)
            limits.check_numa(parameters, ErrorDomain.TEST)
            has_mode = document.domain.numatune is not None and document.domain.numatune.memory is not None
            mode = parameters.get("numa_mode")
            if document is found.live and has_mode and mode not in (None, limits.numa(document.domain)["numa_mode"]):
                what = "can't change numatune mode for running domain"
                raise fault(ErrorCode.OPERATION_INVALID, what, ErrorDomain.TEST)
        self._change_one(domain, affect, lambda document: limits.set_numa(document, parameters))

    def domain_get_interface_parameters(self, domain: DomainRef, device: str, affect: Affect) -> Mapping[str, Any]:
        """How an interface's traffic would be shaped."""
        return limits.bandwidth(limits.find_interface(self._look(domain, affect), device))

    def domain_set_interface_parameters(
        self, domain: DomainRef, device: str, parameters: Mapping[str, Any], affect: Affect
    ) -> None:
        """Change it."""

        def change(document: Domain) -> None:
            limits.set_bandwidth(limits.find_interface(document, device), parameters)

        self._change_one(domain, affect, change)

    def domain_get_perf_events(self, domain: DomainRef, affect: Affect) -> Mapping[str, bool]:
        """Which events would be counted."""
        return limits.perf(self._look(domain, affect))

    def domain_set_perf_events(self, domain: DomainRef, parameters: Mapping[str, Any], affect: Affect) -> None:
        """Change which."""
        self._change_one(domain, affect, lambda document: limits.set_perf(document, parameters))

    def _look(self, domain: DomainRef, affect: Affect) -> Domain:
        with self._host.lock:
            return one_document(self._host.domain(domain), affect).domain

    def _check_scheduled(self, domain: DomainRef, affect: Affect, function: str) -> None:
        check_flags(affect, 0, function)
        self._look(domain, affect)

    def _change_one(self, domain: DomainRef, affect: Affect, change: Callable[[Domain], None]) -> None:
        """Change one document, which is replaced: what runs or the definition, and never both, as in libvirt."""
        check_one(affect)
        with self._host.lock:
            found = self._host.domain(domain)
            settled = settled_impact(found, affect)
            old = found.live if settled & Affect.LIVE else found.definition
            assert old is not None
            copy = old.domain.copy()
            change(copy)
            document = DomainDefinition(copy)
            if settled & Affect.LIVE:
                found.live = document
                if not found.persistent:
                    found.definition = document
            else:
                found.definition = document

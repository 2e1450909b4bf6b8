"""The driver's calls about shares and limits: of definitions, and of what runs as far as the host lets this driver.

Machines of the host's own connection are in control groups; of others, what only such a group could do is refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from hostel.drivers.base import DomainRef
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.tuning import SchedulerType
from hostel.drivers.cgroup.limits import weight
from hostel.drivers.counting import check_one
from hostel.drivers.fault import fault
from hostel.drivers.qemu import perf
from hostel.drivers.qemu.calls import Both, Calls
from hostel.drivers.qemu.running import Running
from hostel.drivers.qemu.tuning import groups
from hostel.drivers.tuning import limits
from hostel.drivers.tuning.parameter import PERF, SCHEDULER, check
from hostel.errors import ErrorCode, ErrorDomain
from hostel.model.domain.actual import actual
from hostel.model.domain.devices.interface import InterfaceType
from hostel.model.domain.domain import Domain

# virNetDevSupportsBandwidth
_SHAPED: Final = (InterfaceType.BRIDGE, InterfaceType.NETWORK, InterfaceType.DIRECT, InterfaceType.ETHERNET)
_POSIX: Final = "posix"


class LimitsCalls(Calls):
    """Shares and limits; see :class:`hostel.drivers.base.tuning.LimitsDriver`."""

    def domain_get_scheduler_type(self, domain: DomainRef) -> SchedulerType:
        """The host's own."""
        _check_privileged("CPU", ErrorCode.OPERATION_UNSUPPORTED)
        running = self._written(domain, Affect.CURRENT).running
        if running is not None:
            groups.needed(running.status, "cpu")
        return SchedulerType(_POSIX, len(SCHEDULER))

    def domain_get_scheduler_parameters_flags(
        self, domain: DomainRef, affect: Affect = Affect.CURRENT
    ) -> Mapping[str, Any]:
        """Those that the running machine's group has, or those of the definition."""
        _check_privileged("CPU", ErrorCode.CONFIG_UNSUPPORTED)
        both = self._one(domain, affect)
        if both.running is None:
            return limits.scheduler(both.current)
        return groups.scheduler(groups.needed(both.running.status, "cpu"), both.running.domain)

    def domain_set_scheduler_parameters_flags(
        self, domain: DomainRef, parameters: Mapping[str, Any], affect: Affect = Affect.CURRENT
    ) -> None:
        """Change those of the running machine, and of the definition."""
        _check_privileged("CPU", ErrorCode.CONFIG_UNSUPPORTED)
        with self._both(domain, affect, asks=False) as both:
            group = None if both.running is None else groups.needed(both.running.status, "cpu")
            self._change_definition(both, parameters, limits.set_scheduler)
            if both.running is not None and group is not None:
                after = both.running.domain.copy()
                given = {name: value for name, value in parameters.items() if value or name == "cpu_shares"}
                limits.set_scheduler(after, given)
                groups.set_scheduler(group, after, given)
                self._keep(both.running, after)
                both.running.publish("tunable", **{f"cputune.{name}": value for name, value in given.items()})
            self._keep_definition(both)

    def domain_get_memory_parameters(self, domain: DomainRef, affect: Affect) -> Mapping[str, Any]:
        """Those that the running machine's group has, or those of the definition."""
        _check_privileged("Memory", ErrorCode.OPERATION_UNSUPPORTED)
        both = self._one(domain, affect)
        if both.running is None:
            return limits.memory(both.current)
        return groups.memory(groups.needed(both.running.status, "memory"))

    def domain_set_memory_parameters(self, domain: DomainRef, parameters: Mapping[str, Any], affect: Affect) -> None:
        """Change those of the running machine, and of the definition."""
        _check_privileged("Memory", ErrorCode.OPERATION_UNSUPPORTED)
        with self._both(domain, affect, asks=False) as both:
            group = None if both.running is None else groups.needed(both.running.status, "memory")
            self._change_definition(both, parameters, limits.set_memory)
            if both.running is not None and group is not None:
                after = both.running.domain.copy()
                limits.set_memory(after, parameters)
                groups.set_memory(group, both.running.domain, parameters)
                self._keep(both.running, after)
            self._keep_definition(both)

    def domain_get_blkio_parameters(self, domain: DomainRef, affect: Affect) -> Mapping[str, Any]:
        """Those of the running machine, with the weight that its group has, or those of the definition."""
        _check_privileged("Block I/O", ErrorCode.CONFIG_UNSUPPORTED)
        both = self._one(domain, affect)
        found = limits.blkio(both.current)
        if both.running is not None:
            found["weight"] = weight(groups.needed(both.running.status, "blkio"))
        return found

    def domain_set_blkio_parameters(self, domain: DomainRef, parameters: Mapping[str, Any], affect: Affect) -> None:
        """Change those of the running machine, and of the definition."""
        _check_privileged("Block I/O", ErrorCode.CONFIG_UNSUPPORTED)
        with self._both(domain, affect, asks=False) as both:
            group = None if both.running is None else groups.needed(both.running.status, "blkio")
            self._change_definition(both, parameters, limits.set_blkio)
            if both.running is not None and group is not None:
                after = both.running.domain.copy()
                limits.set_blkio(after, parameters)
                groups.set_blkio(group, parameters)
                self._keep(both.running, after)
            self._keep_definition(both)

    def domain_get_numa_parameters(self, domain: DomainRef, affect: Affect) -> Mapping[str, Any]:
        """Those of the running machine, or of the definition."""
        return limits.numa(self._one(domain, affect).advised)

    def domain_set_numa_parameters(self, domain: DomainRef, parameters: Mapping[str, Any], affect: Affect) -> None:
        """Change those of the running machine, whose memory moves, and of the definition."""
        limits.check_numa(parameters, ErrorDomain.QEMU)
        with self._both(domain, affect, asks=False) as both:
            if both.running is not None:
                _check_privileged("NUMA", ErrorCode.OPERATION_UNSUPPORTED)
                self._move_memory(both.running, parameters)
            self._change_definition(both, parameters, limits.set_numa)
            self._keep_definition(both)

    def _move_memory(self, machine: Running, parameters: Mapping[str, Any]) -> None:
        group = groups.needed(machine.status, "cpuset")
        now = machine.domain.numatune.memory if machine.domain.numatune is not None else None
        mode = parameters.get("numa_mode")
        why = None
        if mode is not None and now is not None and now.mode != limits.MODES[mode]:
            why = "can't change numatune mode for running domain"
        elif mode == limits.MODES.index("strict") and parameters.get("numa_nodeset") != (now.nodeset if now else None):
            why = "can't change nodeset for strict mode for running domain"
        elif "numa_nodeset" in parameters and now is not None and now.mode != "restrictive":
            why = "change of nodeset for running domain requires restrictive numa mode"
        if why is not None:
            raise fault(ErrorCode.OPERATION_INVALID, why, ErrorDomain.QEMU)
        after = machine.domain.copy()
        limits.set_numa(after, parameters)
        if "numa_nodeset" in parameters:
            groups.set_nodes(group, machine.domain, parameters["numa_nodeset"])
        self._keep(machine, after)

    def domain_get_interface_parameters(self, domain: DomainRef, device: str, affect: Affect) -> Mapping[str, Any]:
        """Those of the running machine's interface, or of the definition's."""
        return limits.bandwidth(actual(limits.find_interface(self._one(domain, affect).current, device)))

    def domain_set_interface_parameters(
        self, domain: DomainRef, device: str, parameters: Mapping[str, Any], affect: Affect
    ) -> None:
        """Change those of the running machine's interface, where this process may, and of the definition's."""
        with self._both(domain, affect, asks=False) as both:
            for document in (both.running.domain if both.running is not None else None, both.definition):
                interface = limits.find_interface(document, device) if document is not None else None
                if interface is not None and interface.type not in _SHAPED:
                    what = f"setting bandwidth on interfaces of type '{interface.type}' is not implemented yet"
                    raise fault(ErrorCode.CONFIG_UNSUPPORTED, what, ErrorDomain.QEMU)
            if both.definition is not None:
                limits.set_bandwidth(limits.find_interface(both.definition, device), parameters)
            if both.running is not None:
                self._reshape(both.running, device, parameters)
            if both.definition is not None:
                self._define(both.definition)

    def _reshape(self, machine: Running, device: str, parameters: Mapping[str, Any]) -> None:
        interface, wiring = limits.find_interface(machine.domain, device), self._launcher.wiring
        if not wiring.makes(interface):
            what = f"the traffic of '{device}' is shaped by who has the privilege to; use --config, or qemu:///system"
            raise fault(ErrorCode.OPERATION_UNSUPPORTED, what, ErrorDomain.QEMU)
        shown = actual(interface).copy()
        limits.set_bandwidth(shown, parameters)
        wiring.reshape(machine.domain, interface, shown.bandwidth)
        machine.save()

    def domain_get_perf_events(self, domain: DomainRef, affect: Affect) -> Mapping[str, bool]:
        """What is counted of the running machine, or what the definition has."""
        both = self._one(domain, affect)
        if both.running is None:
            return limits.perf(both.current)
        counted = perf.counted(Path(both.running.status.run))
        return {name: name in counted for name in PERF}

    def domain_set_perf_events(self, domain: DomainRef, parameters: Mapping[str, Any], affect: Affect) -> None:
        """Change what is counted of the running machine, and what the definition has."""
        check(parameters, PERF)
        with self._both(domain, affect, asks=False) as both:
            self._change_definition(both, parameters, limits.set_perf)
            if (machine := both.running) is not None:
                begin = [name for name, value in parameters.items() if value]
                end = [name for name, value in parameters.items() if not value]
                log = self._machines.log(machine.name)
                perf.change(Path(machine.status.run), machine.status.pid, log, begin=begin, end=end)
                limits.set_perf(machine.domain, parameters)
                machine.save()
            self._keep_definition(both)

    def _one(self, domain: DomainRef, affect: Affect) -> Both:
        """What a question is about."""
        check_one(affect)
        return self._written(domain, affect)

    @staticmethod
    def _change_definition(
        both: Both, parameters: Mapping[str, Any], change: Callable[[Domain, Mapping[str, Any]], None]
    ) -> None:
        if both.definition is not None:
            change(both.definition, parameters)

    def _keep_definition(self, both: Both) -> None:
        if both.definition is not None:
            self._define(both.definition)

    @staticmethod
    def _keep(machine: Running, after: Domain) -> None:
        """Have the live document say what its machine's group was just told."""
        live = machine.domain
        live.cputune, live.memtune, live.blkiotune, live.numatune = (
            after.cputune, after.memtune, after.blkiotune, after.numatune,
        )  # fmt: skip
        machine.save()


def _check_privileged(what: str, code: ErrorCode) -> None:
    """Refuse what libvirt's sessions refuse, to those who are not root."""
    if os.geteuid() != 0:
        raise fault(code, f"{what} tuning is not available in session mode", ErrorDomain.QEMU)

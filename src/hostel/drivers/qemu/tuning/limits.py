"""The driver's calls about shares and limits: of definitions, and of what runs as far as the host lets this driver.

Machines are in no control group of their own. What only a control group could do to a running one is refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Final

from hostel.drivers.base import DomainRef
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.tuning import SchedulerType
from hostel.drivers.counting import check_one
from hostel.drivers.fault import fault
from hostel.drivers.qemu.running import Calls, Running
from hostel.drivers.tuning import limits
from hostel.drivers.tuning.parameter import PERF, SCHEDULER, check
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.actual import actual
from hostel.model.domain.devices.interface import InterfaceType
from hostel.model.domain.domain import Domain

# virNetDevSupportsBandwidth
_SHAPED: Final = (InterfaceType.BRIDGE, InterfaceType.NETWORK, InterfaceType.DIRECT, InterfaceType.ETHERNET)
_POSIX: Final = "posix"
_NO_GROUP: Final = "is not mounted for this domain: machines are in no control group; use --config"


class LimitsCalls(Calls):
    """Shares and limits; see :class:`hostel.drivers.base.tuning.LimitsDriver`."""

    def domain_get_scheduler_type(self, domain: DomainRef) -> SchedulerType:
        """The host's own."""
        _check_privileged("CPU", ErrorCode.OPERATION_UNSUPPORTED)
        with self._both(domain, Affect.CURRENT) as both:
            if both.running is not None:
                raise _no_group("cgroup CPU controller")
        return SchedulerType(_POSIX, len(SCHEDULER))

    def domain_get_scheduler_parameters_flags(
        self, domain: DomainRef, affect: Affect = Affect.CURRENT
    ) -> Mapping[str, Any]:
        """Those of the definition."""
        _check_privileged("CPU", ErrorCode.CONFIG_UNSUPPORTED)
        return self._look(domain, affect, "cgroup CPU controller", limits.scheduler)

    def domain_set_scheduler_parameters_flags(
        self, domain: DomainRef, parameters: Mapping[str, Any], affect: Affect = Affect.CURRENT
    ) -> None:
        """Change the definition's."""
        _check_privileged("CPU", ErrorCode.CONFIG_UNSUPPORTED)
        self._change(domain, parameters, affect, "cgroup CPU controller", limits.set_scheduler)

    def domain_get_memory_parameters(self, domain: DomainRef, affect: Affect) -> Mapping[str, Any]:
        """Those of the definition."""
        _check_privileged("Memory", ErrorCode.OPERATION_UNSUPPORTED)
        return self._look(domain, affect, "cgroup memory controller", limits.memory)

    def domain_set_memory_parameters(self, domain: DomainRef, parameters: Mapping[str, Any], affect: Affect) -> None:
        """Change the definition's."""
        _check_privileged("Memory", ErrorCode.OPERATION_UNSUPPORTED)
        self._change(domain, parameters, affect, "cgroup memory controller", limits.set_memory)

    def domain_get_blkio_parameters(self, domain: DomainRef, affect: Affect) -> Mapping[str, Any]:
        """Those of the definition."""
        _check_privileged("Block I/O", ErrorCode.CONFIG_UNSUPPORTED)
        return self._look(domain, affect, "blkio cgroup", limits.blkio)

    def domain_set_blkio_parameters(self, domain: DomainRef, parameters: Mapping[str, Any], affect: Affect) -> None:
        """Change the definition's."""
        _check_privileged("Block I/O", ErrorCode.CONFIG_UNSUPPORTED)
        self._change(domain, parameters, affect, "blkio cgroup", limits.set_blkio)

    def domain_get_numa_parameters(self, domain: DomainRef, affect: Affect) -> Mapping[str, Any]:
        """Those of the running machine, or of the definition."""
        check_one(affect, ErrorDomain.QEMU)
        with self._both(domain, affect) as both:
            return limits.numa(both.current)

    def domain_set_numa_parameters(self, domain: DomainRef, parameters: Mapping[str, Any], affect: Affect) -> None:
        """Change the definition's."""
        limits.check_numa(parameters, ErrorDomain.QEMU)
        with self._both(domain, affect) as both:
            if both.running is not None:
                _check_privileged("NUMA", ErrorCode.OPERATION_UNSUPPORTED)
                raise _no_group("cgroup cpuset controller")
            assert both.definition is not None
            limits.set_numa(both.definition, parameters)
            self._define(both.definition)

    def domain_get_interface_parameters(self, domain: DomainRef, device: str, affect: Affect) -> Mapping[str, Any]:
        """Those of the running machine's interface, or of the definition's."""
        check_one(affect, ErrorDomain.QEMU)
        with self._both(domain, affect) as both:
            return limits.bandwidth(actual(limits.find_interface(both.current, device)))

    def domain_set_interface_parameters(
        self, domain: DomainRef, device: str, parameters: Mapping[str, Any], affect: Affect
    ) -> None:
        """Change those of the running machine's interface, where this process may, and of the definition's."""
        with self._both(domain, affect) as both:
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
        """What the definition has; of a running machine nothing is counted."""
        with self._both(domain, affect) as both:
            return dict.fromkeys(PERF, False) if both.running is not None else limits.perf(both.current)

    def domain_set_perf_events(self, domain: DomainRef, parameters: Mapping[str, Any], affect: Affect) -> None:
        """Change the definition's; those of a running machine can only be ended."""
        check(parameters, PERF)
        with self._both(domain, affect) as both:
            if both.definition is not None:
                limits.set_perf(both.definition, parameters)
            if both.running is not None and any(parameters.values()):
                what = "events of a running machine are counted by no process that stays; use --config"
                raise fault(ErrorCode.OPERATION_UNSUPPORTED, what, ErrorDomain.QEMU)
            if both.definition is not None:
                self._define(both.definition)

    def _look(
        self, domain: DomainRef, affect: Affect, controller: str, look: Callable[[Domain], Mapping[str, Any]]
    ) -> Mapping[str, Any]:
        check_one(affect, ErrorDomain.QEMU)
        with self._both(domain, affect) as both:
            if both.running is not None:
                raise _no_group(controller)
            return look(both.current)

    def _change(
        self,
        domain: DomainRef,
        parameters: Mapping[str, Any],
        affect: Affect,
        controller: str,
        change: Callable[[Domain, Mapping[str, Any]], None],
    ) -> None:
        with self._both(domain, affect) as both:
            if both.running is not None:
                raise _no_group(controller)
            assert both.definition is not None
            change(both.definition, parameters)
            self._define(both.definition)


def _check_privileged(what: str, code: ErrorCode) -> None:
    """Refuse what libvirt's sessions refuse, to those who are not root."""
    if os.geteuid() != 0:
        raise fault(code, f"{what} tuning is not available in session mode", ErrorDomain.QEMU)


def _no_group(controller: str) -> VirtError:
    return fault(ErrorCode.OPERATION_INVALID, f"{controller} {_NO_GROUP}", ErrorDomain.QEMU)

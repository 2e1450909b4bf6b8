"""The driver's calls that count processors, and find out whether QEMU answers."""

from __future__ import annotations

from typing import Final

from hostel.drivers.base import DomainRef
from hostel.drivers.base.counting import ControlInfo, ControlState
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.machine import VcpuFlag
from hostel.drivers.counting import check_one, vcpus
from hostel.drivers.fault import fault
from hostel.drivers.qemu.agent import open_agent
from hostel.drivers.qemu.calls import Calls, no_domain
from hostel.drivers.qemu.inside import online
from hostel.drivers.qemu.machines import not_running
from hostel.drivers.qemu.running import Running
from hostel.errors import ErrorCode, ErrorDomain, VirtError

_MONITOR: Final = 2  # VIR_DOMAIN_CONTROL_ERROR_REASON_MONITOR
_PATIENCE: Final = 0.2  # seconds that a call may hold the domain, and it counts as free


class CountingCalls(Calls):
    """Looking at domains; see :class:`hostel.drivers.base.counting.CountingDriver`."""

    def domain_get_vcpus_flags(self, domain: DomainRef, affect: Affect, flags: VcpuFlag = VcpuFlag.NONE) -> int:
        """How many processors the running domain has, or its definition."""
        check_one(affect)
        with self._both(domain, affect, moving=True) as both:
            if flags & VcpuFlag.GUEST:
                return _in_guest(both.running, flags)
            return vcpus(both.current, flags)

    def domain_get_control_info(self, domain: DomainRef) -> ControlInfo:
        """Whether QEMU's monitor answers, and nobody holds the domain."""
        try:
            with self._machines.locked(domain.name, _PATIENCE):
                if self._machines.live(domain.name) is None:
                    if self._machines.definition(domain.name) is None:
                        raise no_domain(f"name '{domain.name}'")
                    raise not_running()
        except VirtError as error:
            if error.code is not ErrorCode.OPERATION_TIMEOUT:
                raise
            return ControlInfo(ControlState.OCCUPIED)
        try:
            with self._running(domain, moving=True) as machine:
                machine.ask("query-name")
        except VirtError as error:
            if error.code is ErrorCode.OPERATION_INVALID:
                raise  # it has ended meanwhile
            return ControlInfo(ControlState.ERROR, _MONITOR)
        return ControlInfo(ControlState.OK)


def _in_guest(machine: Running | None, flags: VcpuFlag) -> int:
    """How many processors the guest itself has, or uses."""
    if machine is None:
        what = "vCPU count provided by the guest agent can only be requested for live domains"
        raise fault(ErrorCode.INVALID_ARG, what, ErrorDomain.QEMU)
    with open_agent(machine) as agent:
        known = online(agent)
    return len(known) if flags & VcpuFlag.MAXIMUM else sum(cpu.online for cpu in known)

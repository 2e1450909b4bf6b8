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
from hostel.drivers.qemu.calls import Calls
from hostel.drivers.qemu.inside import online
from hostel.drivers.qemu.machines import GLANCE, DomainHeld
from hostel.drivers.qemu.running import Running
from hostel.errors import ErrorCode, ErrorDomain, VirtError

_MONITOR: Final = 2  # VIR_DOMAIN_CONTROL_ERROR_REASON_MONITOR
_PATIENCE: Final = 0.2  # seconds that a call may hold the domain, and it counts as free


class CountingCalls(Calls):
    """Looking at domains; see :class:`hostel.drivers.base.counting.CountingDriver`."""

    def domain_get_vcpus_flags(self, domain: DomainRef, affect: Affect, flags: VcpuFlag = VcpuFlag.NONE) -> int:
        """How many processors the running domain has, or its definition."""
        check_one(affect)
        if not flags & VcpuFlag.GUEST:
            return vcpus(self._written(domain, affect).current, flags)
        with self._machines.talking(domain.name), self._both(domain, affect, moving=True) as both:
            return _in_guest(both.running, flags)

    def domain_get_control_info(self, domain: DomainRef) -> ControlInfo:
        """Whether QEMU's monitor answers, and nobody holds the domain."""
        try:
            with self._running(domain, moving=True, wait=_PATIENCE, patience=2 * GLANCE) as machine:
                machine.ask("query-name")
        except DomainHeld:
            return ControlInfo(ControlState.OCCUPIED)
        except VirtError as error:
            if error.code in (ErrorCode.OPERATION_INVALID, ErrorCode.NO_DOMAIN):
                raise
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

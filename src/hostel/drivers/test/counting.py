"""Looking at the test driver's domains."""

from __future__ import annotations

from hostel.drivers.base import DomainRef
from hostel.drivers.base.counting import ControlInfo, ControlState
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.machine import VcpuFlag
from hostel.drivers.counting import vcpus
from hostel.drivers.fault import fault
from hostel.drivers.test.host import Host
from hostel.drivers.test.impact import one_document, settled_impact
from hostel.errors import ErrorCode


class CountingCalls:
    """Implements :class:`hostel.drivers.base.counting.CountingDriver`."""

    _host: Host

    def domain_get_vcpus_flags(self, domain: DomainRef, affect: Affect, flags: VcpuFlag = VcpuFlag.NONE) -> int:
        """How many processors the running domain has, or its definition."""
        if flags & VcpuFlag.GUEST:
            what = f"unsupported flags ({int(VcpuFlag.GUEST):#x}) in function testDomainGetVcpusFlags"
            raise fault(ErrorCode.INVALID_ARG, what)
        with self._host.lock:
            return vcpus(one_document(self._host.domain(domain), affect).domain, flags)

    def domain_get_control_info(self, domain: DomainRef) -> ControlInfo:
        """A running domain always answers."""
        with self._host.lock:
            settled_impact(self._host.domain(domain), Affect.LIVE)
        return ControlInfo(ControlState.OK)

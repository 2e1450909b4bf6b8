"""Looking at the test driver's domains."""

from __future__ import annotations

from typing import Final

from hostel.drivers.base import DomainRef
from hostel.drivers.base.counting import ControlInfo, ControlState
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.machine import VcpuFlag
from hostel.drivers.counting import vcpus
from hostel.drivers.test.host import Host
from hostel.drivers.test.impact import one_document
from hostel.drivers.test.lifecycle import no_flags, running

# Seconds up to and from which the guest's clock means another state, and how many reasons an error may have.
_CONTROLLED: Final = (
    (10000, 0, ControlState.JOB),
    (30000, 10000, ControlState.OCCUPIED),
    (60000, 30000, ControlState.ERROR),
)
_REASONS: Final = 4


class CountingCalls:
    """Implements :class:`hostel.drivers.base.counting.CountingDriver`."""

    _host: Host

    def domain_get_vcpus_flags(self, domain: DomainRef, affect: Affect, flags: VcpuFlag = VcpuFlag.NONE) -> int:
        """How many processors the running domain has, or its definition."""
        if flags & VcpuFlag.GUEST:
            raise no_flags(VcpuFlag.GUEST, "testDomainGetVcpusFlags")
        with self._host.lock:
            return vcpus(one_document(self._host.domain(domain), affect).domain, flags)

    def domain_get_control_info(self, domain: DomainRef) -> ControlInfo:
        """What the guest's clock says: testers set it to what they want to see."""
        with self._host.lock:
            seconds = running(self._host, domain).clock[0]
        for end, first, state in _CONTROLLED:
            if 0 < seconds < end:
                details = seconds % _REASONS if state is ControlState.ERROR else 0
                return ControlInfo(state, details, seconds - first)
        return ControlInfo(ControlState.OK)

"""How many processors domains have, and whether anybody answers for them."""

from __future__ import annotations

import enum
from typing import NamedTuple, Protocol, runtime_checkable

from hostel.drivers.base.domain import Affect, DomainRef
from hostel.drivers.base.machine import VcpuFlag


class ControlState(enum.IntEnum):
    """``virDomainControlState``."""

    OK = 0
    JOB = 1
    OCCUPIED = 2
    ERROR = 3


class ControlInfo(NamedTuple):
    """Whether a domain can be told anything.

    Attributes:
        state: a :class:`ControlState`.
        details: what is wrong: 2, its monitor does not answer.
        state_time: milliseconds since then, of what is under way.
    """

    state: int
    details: int = 0
    state_time: int = 0


@runtime_checkable
class CountingDriver(Protocol):
    """Looks at domains."""

    def domain_get_vcpus_flags(self, domain: DomainRef, affect: Affect, flags: VcpuFlag = VcpuFlag.NONE) -> int:
        """How many processors a domain has, or with ``MAXIMUM`` may have."""

    def domain_get_control_info(self, domain: DomainRef) -> ControlInfo:
        """Whether a running domain can be told anything."""

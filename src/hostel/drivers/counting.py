"""What a document says of processors."""

from __future__ import annotations

from hostel.drivers.base.domain import Affect
from hostel.drivers.base.machine import VcpuFlag
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.domain import Domain


def vcpus(domain: Domain, flags: VcpuFlag) -> int:
    """How many there are, or with ``MAXIMUM`` may be."""
    if domain.vcpu is None:
        return 1
    return domain.vcpu.value if flags & VcpuFlag.MAXIMUM else domain.vcpu.current or domain.vcpu.value


def check_one(affect: Affect) -> None:
    """Refuse to look at two documents at once, which libvirt does before it asks a driver.

    Raises:
        VirtError: ``INVALID_ARG``.
    """
    if affect == Affect.LIVE | Affect.CONFIG:
        what = "Flags 'VIR_DOMAIN_AFFECT_LIVE' and 'VIR_DOMAIN_AFFECT_CONFIG' are mutually exclusive"
        said = ("virDomainObjGetOneDefState", "flags", None, 0, 0)
        raise VirtError(ErrorCode.INVALID_ARG, what, domain=ErrorDomain.DOMAIN, details=said)


def not_zero(memory: int) -> None:
    """Refuse a guest without memory.

    Raises:
        VirtError: ``INVALID_ARG``.
    """
    if memory <= 0:
        raise VirtError(ErrorCode.INVALID_ARG, "memory in virDomainSetMemoryFlags must not be zero")

"""How much memory QEMU may lock: devices of the host write into the guest's, which must not move meanwhile."""

from __future__ import annotations

import resource
from typing import Final

from hostel.drivers.fault import fault
from hostel.drivers.privilege import Capability, may
from hostel.drivers.qemu.hostdevs import needs_vfio, of_host
from hostel.drivers.qemu.settings import NO_LIMITS, Limits
from hostel.drivers.tool import require
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.domain import Domain

_MMIO_KIB: Final = 1 << 20  # what QEMU maps for devices beside the guest's memory


def limit_of(domain: Domain) -> int | None:
    """How many bytes QEMU locks at most for devices that reach the guest's memory; None where there are none.

    It is the guest's memory; for each device, where the guest's own IOMMU maps it for each
    (``qemuDomainGetMemLockLimitBytes``).
    """
    devices = of_host(domain)
    if not needs_vfio(devices):
        return None
    memory = domain.memory.to_kib() if domain.memory is not None else 0
    count = sum(needs_vfio([device]) for device in devices) if domain.devices.iommu is not None else 1
    return (count * memory + _MMIO_KIB) * 1024


def allow(domain: Domain, pid: int) -> None:
    """Let a QEMU that runs lock what devices of its document need.

    Raises:
        VirtError: ``SYSTEM_ERROR``: we may not.
    """
    wanted = limit_of(domain)
    if wanted is None:
        return
    try:
        soft, hard = resource.prlimit(pid, resource.RLIMIT_MEMLOCK)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            most = hard if hard == resource.RLIM_INFINITY else max(hard, wanted)
            resource.prlimit(pid, resource.RLIMIT_MEMLOCK, (wanted, most))
    except OSError as error:
        if not may(Capability.IPC_LOCK):  # with which nothing is counted
            raise _refused(wanted) from error


def limited(argv: list[str], domain: Domain, limits: Limits = NO_LIMITS) -> list[str]:
    """The command that runs QEMU's with as much memory to lock as its devices need, and what the host says besides.

    Raises:
        VirtError: ``SYSTEM_ERROR``: it needs more than we may allow it.
    """
    words = [f"--{name}={value}:{value}" for name, value in limits._asdict().items() if value]
    if words:
        argv = [require("prlimit", ErrorDomain.QEMU), *words, *argv]
    wanted = limit_of(domain)
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if wanted is None or soft == resource.RLIM_INFINITY or soft >= wanted:
        return argv
    is_enough = hard == resource.RLIM_INFINITY or hard >= wanted
    if is_enough or may(Capability.SYS_RESOURCE):
        which = "-S -l" if is_enough else "-l"  # both limits, where the upper one is in the way
        return ["sh", "-c", f'ulimit {which} "$0" && exec "$@"', str(-(-wanted // 1024)), *argv]
    if may(Capability.IPC_LOCK):
        return argv
    raise _refused(wanted)


def _refused(wanted: int) -> VirtError:
    fix = "give the user 'memlock unlimited' in /etc/security/limits.conf, or use qemu:///system"
    reason = f"cannot limit locked memory of QEMU to {wanted} bytes: Operation not permitted; {fix}"
    return fault(ErrorCode.SYSTEM_ERROR, reason, ErrorDomain.QEMU)

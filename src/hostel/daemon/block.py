"""Calls about disks and their jobs that are not a method of a driver with other words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final
from xml.sax.saxutils import quoteattr

from hostel.drivers.adapters import check_flags, uuid_text
from hostel.drivers.base import DomainRef
from hostel.drivers.base.block import BlockCopyFlag, BlockDriver, BlockRebaseFlag
from hostel.drivers.fault import fault
from hostel.errors import ErrorCode
from hostel.units import MiB
from hostel.wire.rpc.connection import Call

if TYPE_CHECKING:
    from hostel.daemon.client import Client

_IN_BYTES: Final = 1  # of virDomainBlockJobInfoFlags and virDomainBlockJobSetSpeedFlags
# Of virDomainBlockRebaseFlags, those about copies; the first two are as in virDomainBlockCopyFlags.
_COPY_RAW, _COPY, _COPY_DEVICE = 4, 8, 32
_COPY_FLAGS: Final = 1 | 2 | _COPY_RAW | _COPY | _COPY_DEVICE
_MAX: Final = 2**64 - 1
_COUNTERS: Final = ("rd_operations", "rd_bytes", "wr_operations", "wr_bytes", "errs")
_UNKNOWN: Final = -1
_COPY_SETTINGS: Final = ("bandwidth", "granularity", "buf-size")


def _driver(client: Client, call: Call) -> tuple[BlockDriver, DomainRef]:
    from hostel.daemon.access import api_name

    assert client.host is not None
    driver: object = client.host.drivers.hypervisor
    if not hasattr(driver, "domain_block_stats_flags"):
        raise fault(ErrorCode.NO_SUPPORT, api_name(call.procedure.name))
    domain = call.arguments[0]
    return driver, DomainRef(domain.name, uuid_text(domain.uuid), domain.id)  # type: ignore[return-value]


def _stats(client: Client, call: Call) -> Sequence[Any]:
    driver, domain = _driver(client, call)
    counters = driver.domain_block_stats_flags(domain, call.arguments[1])
    return tuple(counters.get(name, _UNKNOWN) for name in _COUNTERS)


def _disk_errors(client: Client, call: Call) -> Sequence[Any]:
    _, wanted, flags = call.arguments
    check_flags(flags, 0, "virDomainGetDiskErrors")
    driver, domain = _driver(client, call)
    errors = driver.domain_get_disk_errors(domain)
    return errors[:wanted], len(errors)


def _pull(client: Client, call: Call) -> Sequence[Any]:
    _, disk, bandwidth, flags = call.arguments
    check_flags(flags, BlockRebaseFlag.BANDWIDTH_BYTES, "virDomainBlockPull")
    driver, domain = _driver(client, call)
    driver.domain_block_rebase(domain, disk, None, bandwidth, BlockRebaseFlag(flags))
    return ()


def _copy(client: Client, call: Call) -> Sequence[Any]:
    _, disk, xml, parameters, flags = call.arguments
    check_flags(flags, sum(BlockCopyFlag), "virDomainBlockCopy")
    settings = dict.fromkeys(_COPY_SETTINGS, 0)
    for name, (_, value) in parameters:
        if name not in settings:
            raise fault(ErrorCode.INVALID_ARG, f"unexpected parameter '{name}' for function virDomainBlockCopy")
        settings[name] = int(value)
    driver, domain = _driver(client, call)
    bandwidth, granularity, buf_size = settings.values()
    driver.domain_block_copy(domain, disk, xml, bandwidth, granularity, buf_size, BlockCopyFlag(flags))
    return ()


def _rebase(client: Client, call: Call) -> Sequence[Any]:
    """Pull; or copy to the file that ``base`` is then, which is the older way to say so."""
    _, disk, base, bandwidth, flags = call.arguments
    check_flags(flags, _COPY_FLAGS | sum(BlockRebaseFlag), "virDomainBlockRebase")
    driver, domain = _driver(client, call)
    if not flags & _COPY:
        check_flags(flags, sum(BlockRebaseFlag), "virDomainBlockRebase")
        driver.domain_block_rebase(domain, disk, base, bandwidth, BlockRebaseFlag(flags))
        return ()
    if flags & BlockRebaseFlag.RELATIVE:
        raise fault(ErrorCode.CONFIG_UNSUPPORTED, "Relative backing during copy not supported yet")
    if base is None:
        raise fault(ErrorCode.INVALID_ARG, "base in virDomainBlockRebase must not be NULL")
    kind, attribute = ("block", "dev") if flags & _COPY_DEVICE else ("file", "file")
    xml = f"<disk type='{kind}'><source {attribute}={quoteattr(base)}/>"
    xml += "<driver type='raw'/></disk>" if flags & _COPY_RAW else "</disk>"
    speed = bandwidth if flags & BlockRebaseFlag.BANDWIDTH_BYTES else bandwidth * MiB
    if speed > _MAX:
        raise fault(ErrorCode.OVERFLOW, f"bandwidth must be less than {_MAX // MiB + 1}")
    same = BlockCopyFlag(flags & (BlockCopyFlag.SHALLOW | BlockCopyFlag.REUSE_EXT))  # equal in both
    driver.domain_block_copy(domain, disk, xml, speed, 0, 0, same)
    return ()


def _job_info(client: Client, call: Call) -> Sequence[Any]:
    _, disk, flags = call.arguments
    check_flags(flags, _IN_BYTES, "virDomainGetBlockJobInfo")
    driver, domain = _driver(client, call)
    info = driver.domain_get_block_job_info(domain, disk)
    if info is None:
        return 0, 0, 0, 0, 0
    # Whole MiB, and no limit must not come of a small one.
    bandwidth = info.bandwidth if flags else -(-info.bandwidth // MiB)
    return 1, info.type, bandwidth, info.cur, info.end


def _job_speed(client: Client, call: Call) -> Sequence[Any]:
    _, disk, bandwidth, flags = call.arguments
    check_flags(flags, _IN_BYTES, "virDomainBlockJobSetSpeed")
    speed = bandwidth if flags else bandwidth * MiB
    if speed > _MAX:
        raise fault(ErrorCode.OVERFLOW, f"bandwidth must be less than {_MAX // MiB + 1}")
    driver, domain = _driver(client, call)
    driver.domain_block_job_set_speed(domain, disk, speed)
    return ()


ANSWERS: Final[dict[str, Callable[[Client, Call], Sequence[Any]]]] = {
    "domain_block_stats": _stats,
    "domain_get_disk_errors": _disk_errors,
    "domain_block_pull": _pull,
    "domain_block_copy": _copy,
    "domain_block_rebase": _rebase,
    "domain_get_block_job_info": _job_info,
    "domain_block_job_set_speed": _job_speed,
}

"""What groups limit: shares and time of processors, memory, disk traffic, nodes (``vircgroupv[12].c``)."""

from __future__ import annotations

import os
import stat
from typing import Final

from hostel.drivers.cgroup.group import Group, read, write
from hostel.drivers.fault import fault, system_fault
from hostel.errors import ErrorCode, ErrorDomain, VirtError

UNLIMITED: Final = 2**53 - 1  # KiB: VIR_DOMAIN_MEMORY_PARAM_UNLIMITED
_SHARES: Final = (2, 262144)
_QUOTA_MOST: Final = 17592186044415
# Limits of memory by libvirt's names: the files of version 1, and of version 2.
_MEMORY: Final = {
    "hard_limit": ("memory.limit_in_bytes", "memory.max"),
    "soft_limit": ("memory.soft_limit_in_bytes", "memory.high"),
    "swap_hard_limit": ("memory.memsw.limit_in_bytes", "memory.swap.max"),
}
_DEVICES: Final = {
    "read_iops_sec": ("blkio.throttle.read_iops_device", "riops"),
    "write_iops_sec": ("blkio.throttle.write_iops_device", "wiops"),
    "read_bytes_sec": ("blkio.throttle.read_bps_device", "rbps"),
    "write_bytes_sec": ("blkio.throttle.write_bps_device", "wbps"),
}


def shares(group: Group) -> int:
    """What the group gets of processors that others want, too: a number beside theirs."""
    return _number(read(group.folder("cpu") / ("cpu.weight" if group.is_unified("cpu") else "cpu.shares")))


def set_shares(group: Group, value: int) -> None:
    """Change it.

    Raises:
        VirtError: ``INVALID_ARG``: out of range; ``SYSTEM_ERROR``: the host refuses.
    """
    if not _SHARES[0] <= value <= _SHARES[1]:
        what = f"shares '{value}' must be in range [{_SHARES[0]}, {_SHARES[1]}]"
        raise fault(ErrorCode.INVALID_ARG, what)
    write(group.folder("cpu") / ("cpu.weight" if group.is_unified("cpu") else "cpu.shares"), str(value))


def bandwidth(group: Group) -> tuple[int, int]:
    """A period, and how long in each the group may run, both in microseconds."""
    folder = group.folder("cpu")
    if group.is_unified("cpu"):
        quota, _, period = read(folder / "cpu.max").partition(" ")
        return _number(period), _QUOTA_MOST if quota == "max" else _number(quota)
    return _number(read(folder / "cpu.cfs_period_us")), _number(read(folder / "cpu.cfs_quota_us"))


def set_bandwidth(group: Group, period: int | None, quota: int | None) -> None:
    """Change the period, the time in it, or both; 0 and None leave one as it is.

    Raises:
        VirtError: the host refuses; then both are as they were.
    """
    folder = group.folder("cpu")
    if group.is_unified("cpu"):
        if period or quota:
            now = read(folder / "cpu.max").split()
            words = now[0] if not quota else "max" if quota < 0 or quota >= _QUOTA_MOST else str(quota)
            write(folder / "cpu.max", f"{words} {period or now[1]}")
        return
    before = read(folder / "cpu.cfs_period_us")
    if period:
        write(folder / "cpu.cfs_period_us", str(period))
    if quota:
        try:
            write(folder / "cpu.cfs_quota_us", str(quota))
        except VirtError:
            write(folder / "cpu.cfs_period_us", before)
            raise


def memory(group: Group, name: str) -> int:
    """A limit of memory by libvirt's name, in KiB; ``UNLIMITED`` where there is none, or the kernel counts no swap."""
    path = group.folder("memory") / _MEMORY[name][group.is_unified("memory")]
    if name == "swap_hard_limit" and not path.exists():
        return UNLIMITED
    text = read(path)
    most = 2**63 - os.sysconf("SC_PAGE_SIZE")  # what version 1 says where there is no limit
    return UNLIMITED if text == "max" or _number(text) >= most else _number(text) >> 10


def set_memory(group: Group, name: str, value: int) -> None:
    """Change a limit of memory, in KiB.

    Raises:
        VirtError: ``INVALID_ARG``: too large; ``SYSTEM_ERROR``: the host refuses.
    """
    if value > UNLIMITED:
        raise fault(ErrorCode.INVALID_ARG, f"Memory '{value}' must be less than {UNLIMITED}")
    is_unified = group.is_unified("memory")
    none = "max" if is_unified else "-1"
    path = group.folder("memory") / _MEMORY[name][is_unified]
    write(path, none if value == UNLIMITED else str(value << 10))


def weight(group: Group) -> int:
    """What the group gets of disk traffic that others want, too.

    Raises:
        VirtError: ``OPERATION_INVALID``: the kernel has no such shares.
    """
    name = _weight_file(group)
    text = read(group.folder("blkio") / name)
    return _number(text.split("default ")[-1].split()[0] if text else "0")


def set_weight(group: Group, value: int) -> None:
    """Change it.

    Raises:
        VirtError: ``OPERATION_INVALID``: the kernel has no such shares; ``SYSTEM_ERROR``: the host refuses.
    """
    name = _weight_file(group)
    write(group.folder("blkio") / name, f"default {value}" if name == "io.weight" else str(value))


def _weight_file(group: Group) -> str:
    is_unified = group.is_unified("blkio")
    names = ("io.bfq.weight", "io.weight") if is_unified else ("blkio.bfq.weight", "blkio.weight")
    for name in names:
        if (group.folder("blkio") / name).exists():
            return name
    what = "blkio weight" if is_unified else "blkio device weight"
    raise fault(ErrorCode.OPERATION_INVALID, f"{what} is valid only for bfq or cfq scheduler")


def set_device(group: Group, path: str, name: str, value: int) -> None:
    """Change a limit, or the weight, of the traffic with one device of the host; 0 is no limit.

    Raises:
        VirtError: ``OPERATION_INVALID``: the kernel has no weights of devices; ``SYSTEM_ERROR``: the path is that of no
            device, or the host refuses.
    """
    folder, number = group.folder("blkio"), _device(path)
    is_unified = group.is_unified("blkio")
    if name == "weight":
        file = folder / ("io.weight" if is_unified else "blkio.weight_device")
        if not file.exists():
            raise fault(ErrorCode.OPERATION_INVALID, "blkio device weight is valid only for cfq scheduler")
        write(file, f"{number} {value}")
    elif is_unified:
        write(folder / "io.max", f"{number} {_DEVICES[name][1]}={value or 'max'}")
    else:
        write(folder / _DEVICES[name][0], f"{number} {value}")


def set_nodes(group: Group, nodes: str) -> None:
    """Take memory from these nodes of the host only."""
    write(group.folder("cpuset") / "cpuset.mems", nodes)


def _device(path: str) -> str:
    try:
        found = os.stat(path)
    except OSError as error:
        raise system_fault(error, f"Path '{path}' is not accessible") from error
    if not stat.S_ISBLK(found.st_mode):
        raise VirtError(ErrorCode.SYSTEM_ERROR, f"Path '{path}' must be a block device: Invalid argument")
    return f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        what = f"Unable to parse '{text}' as an integer"
        raise fault(ErrorCode.INTERNAL_ERROR, what, ErrorDomain.NONE) from None

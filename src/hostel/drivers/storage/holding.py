"""Holding a volume's file while it is changed, with QEMU's own locks: a machine and we exclude each other."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from hostel.block import permission
from hostel.block.permission import Permission
from hostel.drivers.fault import fault, printable, system_fault
from hostel.errors import BlockError, ErrorCode, ErrorDomain, ImageLocked, VirtError


@contextlib.contextmanager
def translating(doing: str, name: str, path: str) -> Iterator[None]:
    """Turn the host's and the block layer's errors into libvirt's; ``doing`` says what failed."""
    try:
        yield
    except ImageLocked:
        raise in_use(name, path) from None
    except BlockError as error:
        message = f"{doing}: {error}" + (f" ({error.hint})" if error.hint else "")
        raise fault(ErrorCode.OPERATION_FAILED, printable(" ".join(message.split())), ErrorDomain.STORAGE) from error
    except OSError as error:
        raise system_fault(error, doing, ErrorDomain.STORAGE) from error


def in_use(name: str, path: str) -> VirtError:
    """The refusal to change a volume that somebody uses; names who."""
    holders = ", ".join([*permission.find_holders(path), *_kernel_holders(path)])
    holders = holders or "another process or a running operation"
    return fault(ErrorCode.OPERATION_INVALID, f"volume '{name}' is still in use by {holders}", ErrorDomain.STORAGE)


def _kernel_holders(path: str) -> list[str]:
    """What of this host's kernel uses a device or one of its partitions: mounts, and devices made of it."""
    found: list[str] = []
    with contextlib.suppress(OSError):
        status = os.stat(path)
        if not stat.S_ISBLK(status.st_mode):
            return []
        entry = os.path.realpath(f"/sys/dev/block/{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}")
        places = [
            entry,
            *(os.path.join(entry, name) for name in os.listdir(entry) if name.startswith(os.path.basename(entry))),
        ]
        for place in places:
            with open(f"{place}/dev", encoding="ascii") as file:
                number = file.read().strip()
            with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
                rows = [line.split(" ") for line in table]
            found += [f"the mount on {row[4]}" for row in rows if row[2] == number]
            if os.path.isdir(f"{place}/holders"):
                found += [f"/dev/{holder}" for holder in sorted(os.listdir(f"{place}/holders"))]
    return found


@contextlib.contextmanager
def held(name: str, path: str) -> Iterator[int]:
    """Open a volume's file and keep everybody else off it meanwhile; yields the descriptor.

    A device is taken from the kernel as well: not while it, or a partition of it, is mounted or part of another.

    Raises:
        VirtError: ``OPERATION_INVALID`` when somebody uses it.
        OSError: the host refuses.
    """
    exclusive = os.O_EXCL if stat.S_ISBLK(os.stat(path).st_mode) else 0
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | exclusive)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise in_use(name, path) from None
        raise
    try:
        lock(descriptor, name, path)
        yield descriptor
    finally:
        os.close(descriptor)


def lock(descriptor: int, name: str, path: str) -> None:
    """Take a file for ourselves until ``descriptor`` is closed.

    Raises:
        VirtError: ``OPERATION_INVALID`` when somebody uses it.
    """
    used = Permission.CONSISTENT_READ | Permission.WRITE | Permission.RESIZE
    try:
        permission.lock(descriptor, path, used, Permission.NONE)
    except ImageLocked:
        raise in_use(name, path) from None


@contextlib.contextmanager
def held_for_removal(name: str, path: str) -> Iterator[None]:
    """Make sure that nobody uses a file while it is removed; a link that leads nowhere is used by nobody.

    Raises:
        VirtError: ``OPERATION_INVALID`` when somebody uses it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        yield
        return
    try:
        lock(descriptor, name, path)
        yield
    finally:
        os.close(descriptor)

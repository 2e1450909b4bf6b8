"""Holding a volume's file while it is changed, with QEMU's own locks: a machine and we exclude each other."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from hostel.block import permission
from hostel.block.permission import Permission
from hostel.cause import in_line, sentence
from hostel.cause.holder import find_holders, kernel_holders, lock_hint
from hostel.drivers.fault import fault, printable, system_fault
from hostel.errors import BlockError, ErrorCode, ErrorDomain, ImageLocked, VirtError


@contextlib.contextmanager
def translating(doing: str, name: str, path: str, *, removing: bool = False) -> Iterator[None]:
    """Turn the host's and the block layer's errors into libvirt's; ``doing`` says what failed."""
    try:
        yield
    except ImageLocked:
        raise in_use(name, path) from None
    except BlockError as error:
        message = " ".join(f"{doing}: {sentence(error)}".split())
        raise fault(ErrorCode.OPERATION_FAILED, printable(message), ErrorDomain.STORAGE) from error
    except OSError as error:
        raise system_fault(error, doing, ErrorDomain.STORAGE, path=path, removing=removing) from error


def in_use(name: str, path: str) -> VirtError:
    """The refusal to change a volume that somebody uses; names who."""
    holders = ", ".join([*find_holders(path), *kernel_holders(path)])
    holders = holders or f"another process or a running operation; {in_line(lock_hint(path))}"
    return fault(ErrorCode.OPERATION_INVALID, f"volume '{name}' is still in use by {holders}", ErrorDomain.STORAGE)


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

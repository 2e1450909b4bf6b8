"""Cores of the host that a machine shares with nobody: core scheduling (``core-scheduling.rst``, prctl(2)).

Threads with one cookie run beside one another on a core, and no others with them. A new thread has the cookie of the
one that made it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Mapping
from typing import Final

from hostel.drivers.fault import fault, system_fault
from hostel.errors import ErrorCode, ErrorDomain

_PR_SCHED_CORE: Final = 62
_GET, _CREATE, _SHARE_TO, _SHARE_FROM = range(4)
_THREAD, _PROCESS, _GROUP = range(3)  # PR_SCHED_CORE_SCOPE_…


class Kernel:
    """The kernel's call; its errors are :class:`OSError`."""

    def __init__(self) -> None:
        self._prctl = ctypes.CDLL(None, use_errno=True).prctl

    def call(self, command: int, pid: int, scope: int) -> int:
        """Do something to the cookies of a thread, of its process or of that one's group; the cookie, where asked."""
        cookie = ctypes.c_ulong(0)
        where = ctypes.byref(cookie) if command == _GET else None
        if self._prctl(_PR_SCHED_CORE, command, ctypes.c_ulong(pid), ctypes.c_ulong(scope), where):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return int(cookie.value)


def check(kind: str, kernel: Kernel | None = None) -> None:
    """Refuse a setting that the kernel cannot keep.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED``: it has no core scheduling; ``SYSTEM_ERROR``: it does not say.
    """
    if kind == "none":
        return
    try:
        (kernel or Kernel()).call(_GET, 0, _THREAD)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise system_fault(error, "Unable to detect SCHED_CORE", ErrorDomain.QEMU) from error
        raise fault(ErrorCode.CONFIG_UNSUPPORTED, "SCHED_CORE not supported by kernel", ErrorDomain.QEMU) from error


def keep_apart(kind: str, pid: int, vcpus: Mapping[int, int], kernel: Kernel | None = None) -> None:
    """Give a machine's threads a cookie of their own, where they have none; those that came since get the same.

    Args:
        kind: which threads: ``vcpus``, all of QEMU's (``emulator``), or those of its helpers too (``full``).
        pid: QEMU's process.
        vcpus: the threads of its processors, by their numbers.
        kernel: who is asked.

    Raises:
        VirtError: ``SYSTEM_ERROR``: the host refuses.
    """
    if kind == "none":
        return
    kernel = kernel or Kernel()
    try:
        if kind != "vcpus":
            if not kernel.call(_GET, pid, _THREAD):
                kernel.call(_CREATE, pid, _PROCESS if kind == "emulator" else _GROUP)
            return
        first, *others = [vcpus[number] for number in sorted(vcpus)] or [0]
        if first and not kernel.call(_GET, first, _THREAD):
            kernel.call(_CREATE, first, _THREAD)
        if others:
            _share(first, others, kernel)
    except OSError as error:
        raise system_fault(error, "Unable to set SCHED_CORE", ErrorDomain.QEMU) from error


def _share(first: int, others: list[int], kernel: Kernel) -> None:
    """Give threads the cookie of another one, by a thread of ours that has it for as long as that takes.

    Raises:
        OSError: the kernel refuses.
    """
    failed: list[OSError] = []

    def pass_on() -> None:
        try:
            kernel.call(_SHARE_FROM, first, _THREAD)
            for other in others:
                kernel.call(_SHARE_TO, other, _THREAD)
        except OSError as error:
            failed.append(error)

    passing = threading.Thread(target=pass_on)
    passing.start()
    passing.join()
    if failed:
        raise failed[0]

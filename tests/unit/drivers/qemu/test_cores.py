"""Core scheduling: what the kernel is asked, by a kernel that remembers; and what the real one says."""

from __future__ import annotations

import errno
import os
import threading

import pytest

from hostel.drivers.qemu.tuning import cores
from hostel.drivers.qemu.tuning.cores import Kernel
from hostel.errors import ErrorCode, VirtError


class Remembering(Kernel):
    """A kernel with a process of some threads: their cookies, and which of ours have had one."""

    def __init__(self, *threads: int, refuses: int = 0) -> None:
        self.cookies = dict.fromkeys(threads, 0)
        self._own: dict[int, int] = {}
        self._refuses = refuses
        self.created: list[tuple[int, int]] = []

    def call(self, command: int, pid: int, scope: int) -> int:
        if self._refuses:
            raise OSError(self._refuses, os.strerror(self._refuses))
        me = threading.get_ident()
        if command == 0:
            return self.cookies[pid] if pid else self._own.get(me, 0)
        if command == 1:
            self.created.append((pid, scope))
            for thread in [pid] if scope == 0 else self.cookies:
                self.cookies[thread] = len(self.created)
        elif command == 2:
            self.cookies[pid] = self._own[me]
        else:
            self._own[me] = self.cookies[pid]
            assert me != threading.main_thread().ident, "we would have the machine's cookie for good"
        return 0


def test_processors_share_a_cookie_and_those_that_come_later_get_it() -> None:
    kernel = Remembering(10, 11, 12, 13)
    cores.keep_apart("vcpus", 10, {0: 11, 1: 12}, kernel)
    assert kernel.cookies == {10: 0, 11: 1, 12: 1, 13: 0}
    cores.keep_apart("vcpus", 10, {0: 11, 1: 12, 2: 13}, kernel)
    assert kernel.cookies == {10: 0, 11: 1, 12: 1, 13: 1}
    assert kernel.created == [(11, 0)]


@pytest.mark.parametrize(("kind", "scope"), [("emulator", 1), ("full", 2)])
def test_all_of_qemu_gets_a_cookie_once_and_its_helpers_where_that_is_asked(kind: str, scope: int) -> None:
    kernel = Remembering(10, 11)
    for _ in range(2):
        cores.keep_apart(kind, 10, {0: 11}, kernel)
    assert kernel.created == [(10, scope)]
    assert kernel.cookies == {10: 1, 11: 1}


def test_nothing_is_asked_where_nothing_is_to_be_kept_apart() -> None:
    kernel = Remembering(10, refuses=errno.EPERM)
    cores.check("none", kernel)
    cores.keep_apart("none", 10, {0: 10}, kernel)


def test_a_kernel_that_cannot_is_said_in_libvirts_words() -> None:
    with pytest.raises(VirtError, match="unsupported configuration: SCHED_CORE not supported by kernel") as caught:
        cores.check("full", Remembering(refuses=errno.EINVAL))
    assert caught.value.code == ErrorCode.CONFIG_UNSUPPORTED
    with pytest.raises(VirtError, match="Unable to detect SCHED_CORE: No such device"):
        cores.check("full", Remembering(refuses=errno.ENODEV))
    with pytest.raises(VirtError, match="Unable to set SCHED_CORE: Operation not permitted"):
        cores.keep_apart("vcpus", 10, {0: 11, 1: 12}, Remembering(refuses=errno.EPERM))


def test_the_kernel_here_gives_threads_a_cookie_or_says_that_it_has_none() -> None:
    failed: list[VirtError] = []

    def ask() -> None:  # a thread of its own, for what it gets it keeps
        try:
            cores.check("full")
            kernel, own = Kernel(), threading.get_native_id()
            cores.keep_apart("vcpus", os.getpid(), {0: own}, kernel)
            assert kernel.call(0, own, 0)
        except VirtError as error:
            failed.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    asking.join()
    assert not failed or "SCHED_CORE" in failed[0].message

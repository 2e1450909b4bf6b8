"""Events that the kernel counts for a process: ``perf_event_open(2)``, which Python does not have."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import struct
import sys
from pathlib import Path
from typing import Final

_HARDWARE, _SOFTWARE = 0, 1
# By libvirt's names; include/uapi/linux/perf_event.h has the numbers.
_KINDS: Final = {
    "cpu_cycles": (_HARDWARE, 0),
    "instructions": (_HARDWARE, 1),
    "cache_references": (_HARDWARE, 2),
    "cache_misses": (_HARDWARE, 3),
    "branch_instructions": (_HARDWARE, 4),
    "branch_misses": (_HARDWARE, 5),
    "bus_cycles": (_HARDWARE, 6),
    "stalled_cycles_frontend": (_HARDWARE, 7),
    "stalled_cycles_backend": (_HARDWARE, 8),
    "ref_cpu_cycles": (_HARDWARE, 9),
    "cpu_clock": (_SOFTWARE, 0),
    "task_clock": (_SOFTWARE, 1),
    "page_faults": (_SOFTWARE, 2),
    "context_switches": (_SOFTWARE, 3),
    "cpu_migrations": (_SOFTWARE, 4),
    "page_faults_min": (_SOFTWARE, 5),
    "page_faults_maj": (_SOFTWARE, 6),
    "alignment_faults": (_SOFTWARE, 7),
    "emulation_faults": (_SOFTWARE, 8),
}
# What a cache holds and moves for a process, by hardware that kernels before 4.14 had a driver for.
RESOURCE: Final = {"cmt": 1, "mbmt": 2, "mbml": 3}
_RESOURCE_TYPE: Final = Path("/sys/devices/intel_cqm/type")
_OCCUPANCY_SCALE: Final = Path("/sys/devices/intel_cqm/events/llc_occupancy.scale")
_CALL: Final = {
    "x86_64": 298, "i686": 336, "aarch64": 241, "riscv64": 241, "ppc64le": 319, "ppc64": 319, "s390x": 331,
}  # fmt: skip
_ATTRIBUTES: Final = struct.Struct("=IIQQQQQIIQ")  # struct perf_event_attr, PERF_ATTR_SIZE_VER0
_DISABLED, _INHERIT = 1, 2
_ENABLE: Final = 0x2400  # PERF_EVENT_IOC_ENABLE
_CLOSE_ON_EXEC: Final = 8  # PERF_FLAG_FD_CLOEXEC
_PARANOID: Final = Path("/proc/sys/kernel/perf_event_paranoid")


def is_here(name: str) -> bool:
    """Whether this host has what counts an event; of most events only opening them tells."""
    return name not in RESOURCE or _RESOURCE_TYPE.exists()


class Counter:
    """One event of a process and of the threads that it starts from now on."""

    def __init__(self, name: str, pid: int) -> None:
        """Begin to count.

        Raises:
            OSError: the kernel does not count it.
        """
        kind, config = _KINDS[name] if name in _KINDS else (int(_RESOURCE_TYPE.read_text()), RESOURCE[name])
        self._scale = int(_OCCUPANCY_SCALE.read_text()) if name == "cmt" else 1
        size = _ATTRIBUTES.size
        attributes = _ATTRIBUTES.pack(kind, size, config, 0, 0, 0, _DISABLED | _INHERIT, 0, 0, 0)
        self._descriptor = _perf_event_open(attributes, pid)
        try:
            fcntl.ioctl(self._descriptor, _ENABLE, 0)
        except OSError:
            self.close()
            raise

    def read(self) -> int:
        """How often it has happened, or for how many nanoseconds."""
        return int.from_bytes(os.read(self._descriptor, 8), sys.byteorder) * self._scale

    def close(self) -> None:
        """Count no more."""
        os.close(self._descriptor)


def _perf_event_open(attributes: bytes, pid: int) -> int:
    number = _CALL.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    library = ctypes.CDLL(None, use_errno=True)
    any_processor = no_group = -1
    descriptor: int = library.syscall(
        number, ctypes.c_char_p(attributes), pid, any_processor, no_group, ctypes.c_ulong(_CLOSE_ON_EXEC)
    )
    if descriptor < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return descriptor


def paranoia() -> int | None:
    """``kernel.perf_event_paranoid``, which from 2 on keeps others than root from what the kernel does."""
    try:
        return int(_PARANOID.read_text())
    except (OSError, ValueError):
        return None

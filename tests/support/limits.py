"""Run as a program, it becomes a command that may not raise its limits, and does not know it."""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from typing import Final

# Of struct seccomp_data: the call, and its second argument; of prlimit(2) the limits that sanlock raises.
_NUMBER: Final = 0
_SECOND: Final = 24
_PRLIMIT64: Final = 302  # of x86-64
_LIMITS: Final = (8, 14)  # RLIMIT_MEMLOCK, RLIMIT_RTPRIO
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF's instructions
_DONE, _ALLOWED = 0x00050000, 0x7FFF0000  # SECCOMP_RET_ERRNO with 0, SECCOMP_RET_ALLOW


def without_limits(command: list[str]) -> None:
    """Become a command whose limits stay as they are: sanlock ends where it may not raise them, as in containers."""
    steps = (
        (_LOAD, 0, 0, _NUMBER), (_IF_EQUAL, 0, 4, _PRLIMIT64), (_LOAD, 0, 0, _SECOND), (_IF_EQUAL, 1, 0, _LIMITS[0]),
        (_IF_EQUAL, 0, 1, _LIMITS[1]), (_RETURN, 0, 0, _DONE), (_RETURN, 0, 0, _ALLOWED),
    )  # fmt: skip
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    described = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(program)))
    library = ctypes.CDLL(None, use_errno=True)
    for number, first, second in ((38, 1, 0), (22, 2, ctypes.addressof(described))):  # NO_NEW_PRIVS, SECCOMP
        if library.prctl(number, ctypes.c_ulong(first), ctypes.c_ulong(second), ctypes.c_ulong(0), ctypes.c_ulong(0)):
            raise OSError(ctypes.get_errno(), "prctl")
    os.execvp(command[0], command)


if __name__ == "__main__":
    without_limits(sys.argv[1:])

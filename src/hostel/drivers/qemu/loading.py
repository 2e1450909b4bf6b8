"""Memory that was saved, as a QEMU takes it that was started for it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from hostel.drivers.qemu import monitor
from hostel.drivers.qemu.pause import Pause
from hostel.drivers.tool import require
from hostel.errors import ErrorDomain, QmpError, VirtError

_POLL: Final = 0.05  # seconds
_MEMORY_SECONDS: Final = 600.0
_END_SECONDS: Final = 5.0


def take_memory(qmp: monitor.Monitor, path: Path, offset: int, unpack: Sequence[str]) -> None:
    """Have a QEMU that waits for it take its memory from a file.

    Raises:
        QmpError: it does not fit the machine, or does not come to an end.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise QmpError("GenericError", f"cannot open '{path}': {error.strerror}") from error
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, descriptor)
        os.lseek(descriptor, offset, os.SEEK_SET)
        if unpack:
            descriptor = stack.enter_context(_unpacked(descriptor, unpack))
        qmp.pass_file("hostel-memory", descriptor)
        qmp.execute("migrate-incoming", uri="fd:hostel-memory")
        deadline, pause = time.monotonic() + _MEMORY_SECONDS, Pause(_POLL)
        while (found := qmp.execute("query-migrate")).get("status") != "completed":
            if found.get("status") == "failed":
                raise QmpError("GenericError", f"the memory in '{path}' does not fit: {found.get('error-desc', '')}")
            if time.monotonic() >= deadline:
                raise QmpError("Timeout", f"QEMU does not take the memory in '{path}'")
            pause()


@contextlib.contextmanager
def _unpacked(descriptor: int, command: Sequence[str]) -> Iterator[int]:
    """The end of a pipe, into which a tool unpacks what it reads; the tool does not outlive it."""
    try:
        words = [require(command[0], ErrorDomain.QEMU), *command[1:]]
    except VirtError as error:
        raise QmpError("GenericError", error.message) from error
    reading, writing = os.pipe()
    try:
        try:
            tool = subprocess.Popen(words, stdin=descriptor, stdout=writing)
        finally:
            os.close(writing)
        try:
            yield reading
        finally:
            tool.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # it hangs in the kernel, and ends after that
                tool.wait(_END_SECONDS)
    finally:
        os.close(reading)

"""QEMU that hangs when all but it has ended, and what lets it go on.

Before its last step QEMU's main thread waits until the coroutine that carries out commands has ended (its
``monitor_cleanup()``). A command that comes at this very moment is handed to that coroutine after the thread has
looked, and before it sleeps; nothing wakes the thread then, and QEMU is there for ever, with its disks closed. A client
that asks a machine often meets this once in some thousand ends. Any signal that QEMU handles wakes the thread: after
SIGTERM it ends as it would have.

SIGTERM would be the end of a guest that still runs, so it is sent only where none can.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from hostel.drivers import procstat, signals
from hostel.drivers.qemu import process
from hostel.drivers.qemu.block.chain import images
from hostel.drivers.qemu.status import Status
from hostel.model.domain.devices.source import SourceType
from hostel.model.domain.domain import Domain

_END_SECONDS: Final = 5.0
# The main loop waits for three descriptors at least. Within QEMU's last step it is one, and perhaps that of Linux AIO.
_MOST_WAITED_FOR: Final = 2
_PPOLL: Final = {"x86_64": 271, "aarch64": 73, "ppc64le": 281, "s390x": 302, "riscv64": 73}
_LOCAL: Final = (SourceType.FILE, SourceType.BLOCK)
_Identity = tuple[int, int, int]


def let_end(status: Status, *, told: bool) -> bool:
    """Let QEMU end that has not answered, where it hangs in its last step; whether it has ended.

    Args:
        status: the machine.
        told: whether QEMU has said that it shuts down.
    """
    if not (_ends_by_itself(status.domain) if told else _has_closed(status) and _sleeps_alone(status.pid)):
        return False
    with contextlib.suppress(OSError):
        signals.send(status.pid, signal.SIGTERM, partial(procstat.runs, status.pid, status.started))
    return process.ended(status.pid, status.started, _END_SECONDS)


def _ends_by_itself(domain: Domain) -> bool:
    """Whether QEMU ends when it has said that it shuts down."""
    return domain.on_poweroff != "restart"


def _has_closed(status: Status) -> bool:
    """Whether QEMU has none of its disks open; not so where that cannot be told."""
    try:
        wanted = {_identity(path) for path in _files(status.domain)}
        entries = list(Path(f"/proc/{status.pid}/fd").iterdir())
    except OSError:
        return False
    for entry in entries:
        try:
            if _identity(entry) in wanted:
                return False
        except FileNotFoundError:
            continue  # it was closed meanwhile
        except OSError:
            return False
    return True


def _files(domain: Domain) -> Iterator[Path]:
    """Every file and device of the host that QEMU has open for as long as it runs.

    Raises:
        FileNotFoundError: there is one that cannot be named by a path.
    """
    for disk in domain.devices.disks:
        for image in images(disk):
            if image.type not in _LOCAL:
                raise FileNotFoundError(image.path)
            yield Path(image.path)
    if any(hostdev.type == "scsi" for hostdev in domain.devices.hostdevs):
        raise FileNotFoundError("a SCSI device of the host")
    if domain.os is not None and (loader := domain.os.loader) is not None and loader.path:
        yield Path(loader.path)
    if domain.os is not None and (nvram := domain.os.nvram) is not None:
        yield Path(nvram.path or (nvram.source.file if nvram.source is not None else None) or "/nonexistent")


def _identity(path: Path) -> _Identity:
    """What tells an open file or device from others, whatever it is called.

    Raises:
        OSError: it is not there, or may not be looked at.
    """
    found = path.stat()
    if stat.S_ISBLK(found.st_mode):
        return stat.S_IFBLK, found.st_rdev, 0
    return stat.S_IFMT(found.st_mode), found.st_dev, found.st_ino


def _sleeps_alone(pid: int) -> bool:
    """Whether a process's main thread waits without limit, and for less than its main loop does.

    The kernel shows a sleeping thread's call to whoever may trace it: its number, and its arguments.
    """
    try:
        words = Path(f"/proc/{pid}/syscall").read_text().split()
        number, _, count, limit = (int(word, 0) for word in words[:4])
    except (OSError, ValueError):  # "running" among them
        return False
    return number == _PPOLL.get(os.uname().machine) and count <= _MOST_WAITED_FOR and limit == 0

"""The end of a machine whose lock another call has, which may wait for a QEMU that hangs.

QEMU is ended first then, without the lock, as libvirt does: whoever has it finds QEMU gone, as where it has died. That
this was asked for is said before, in the run's directory, by a file for each who asks. One that goes over to another
image is not: what it was on last has to be written down before.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Final

from hostel.drivers.base import DestroyFlag
from hostel.drivers.qemu import process
from hostel.drivers.qemu.block.switching import is_switching
from hostel.drivers.qemu.machines import Machines, failed
from hostel.drivers.qemu.status import MERGING, Status

HELD_SECONDS: Final = 2.0  # that another call has to end before


def end_held(machines: Machines, name: str, flags: DestroyFlag) -> bool:
    """End QEMU, and wait for whoever has the machine's lock; whether the machine is gone then.

    Args:
        machines: the session's.
        name: the machine's.
        flags: whether QEMU is killed where it does not end by itself, and the logs go.

    Raises:
        DomainHeld: the lock stays held; the machine is gone for whoever looks next.
        VirtError: ``OPERATION_FAILED``: QEMU does not end, or its logs cannot be removed.
    """
    status = _known(machines, name)
    if status is None:
        return False
    announced = _announce(status)
    if not process.end(status.pid, status.started, kill=not flags & DestroyFlag.GRACEFUL):
        _withdraw(announced)
        raise failed(f"QEMU, process {status.pid}, does not end")
    process.exit_status(Path(status.run), 2)
    with machines.locked(name):
        is_gone = machines.live(name) is None
        if is_gone and flags & DestroyFlag.REMOVE_LOGS:
            machines.remove_logs(name)
        return is_gone


def _announce(status: Status) -> Path | None:
    """Say that a machine is destroyed; gives the file by which that is said, None where it could not be."""
    with contextlib.suppress(OSError):  # a disk that is full keeps nobody from ending a machine
        while True:
            status.destruction.mkdir(mode=0o700, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # another one has just given up
                file, path = tempfile.mkstemp(dir=status.destruction)
                os.close(file)
                return Path(path)
    return None


def _withdraw(announced: Path | None) -> None:
    """Say so no longer, unless others do."""
    if announced is not None:
        announced.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            announced.parent.rmdir()


def _known(machines: Machines, name: str) -> Status | None:
    """The machine as it was last written down; also one that is being started, once its QEMU is there."""
    status = machines.seen(name)
    if status is not None:
        # The one is off to its users; of the other QEMU alone knows which image its guest writes to.
        return None if status.ending == MERGING or is_switching(status) else status
    try:
        status = Status.parse(machines.statuses.read(name) or "")
    except ValueError:
        return None
    found = process.supervised_qemu(Path(status.run), 0) if not status.pid else None
    return status._replace(pid=found[0], started=found[1]) if found is not None else None

"""Who moves a domain: a lock on a file, kept from step to step, which goes with the process that had it."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Final

from hostel.drivers.fault import fault
from hostel.drivers.store import is_locked, take_lock
from hostel.errors import ErrorCode, ErrorDomain

_held: Final[dict[Path, int]] = {}
_lock: Final = threading.Lock()


def take(path: Path) -> None:
    """Have the lease, until :func:`let_go`; once is enough for this process.

    Raises:
        VirtError: ``OPERATION_TIMEOUT``: another process has it.
    """
    with _lock:
        if path in _held:
            return
        descriptor = take_lock(path)
        if descriptor is None:
            what = "cannot acquire state change lock: the domain is held by another migration"
            raise fault(ErrorCode.OPERATION_TIMEOUT, what, ErrorDomain.QEMU)
        _held[path] = descriptor


def let_go(path: Path) -> None:
    """Have the lease no more; a process that has none of it may say so."""
    with _lock:
        descriptor = _held.pop(path, None)
        if descriptor is not None:
            os.close(descriptor)


def is_leased(path: Path) -> bool:
    """Whether somebody has it, in this process or in another."""
    return path in _held or is_locked(path)

"""Noticing that the host was started anew: what ran is gone, and what is marked for it starts by itself."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from hostel.drivers.store import Directories, Store
from hostel.errors import VirtError

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_MARK: Final = "boot"
Missed = Callable[[str, str], None]  # is told what was to start by itself and did not, and why


class Start(enum.Enum):
    """What an opening of the session finds.

    ``FIRST`` is told to one caller of all processes, and so is ``AFTER_REBOOT``, which besides knows that nothing of
    what is recorded as running can be.
    """

    ANOTHER = "another"
    FIRST = "first"
    AFTER_REBOOT = "after reboot"


def claim_start(directories: Directories) -> Start:
    """Say what this opening is, once and for all processes.

    Where the mark cannot be written everybody is ``ANOTHER``, so that looking works on a read-only file system.
    """
    boot = _boot_id()
    store = Store(directories.state, suffix=".id")
    try:
        if store.read(_MARK) == boot:
            return Start.ANOTHER
        with store.locked():
            known = store.read(_MARK)
            if known == boot:
                return Start.ANOTHER
            store.write(_MARK, boot)
    except VirtError:
        return Start.ANOTHER
    return Start.FIRST if known is None else Start.AFTER_REBOOT


def nobody(_what: str, _why: str) -> None:
    """Tell nobody what did not start."""


@contextlib.contextmanager
def noting(what: str, missed: Missed) -> Iterator[None]:
    """Start something by itself; where it fails that is told, and keeps nothing else from being started."""
    try:
        yield
    except VirtError as error:
        missed(what, error.message)


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"

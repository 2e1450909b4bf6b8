"""What a lock manager is asked for, whichever it is (``src/locking/lock_driver.h``)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from hostel.drivers.fault import fault
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, ErrorDomain
from hostel.model.domain.devices.platform import Lease


class Owner(NamedTuple):
    """Who has locks: a machine, and the process that is its QEMU."""

    uuid: str
    name: str
    id: int
    pid: int


class Claim(NamedTuple):
    """A lock as a lock manager knows it; see :class:`hostel.drivers.qemu.status.Lock`."""

    space: str
    name: str
    path: str = ""
    offset: int = 0
    shared: bool = False


class LockManager(Protocol):
    """A lock manager; every call that reaches it may raise :class:`VirtError`.

    Attributes:
        name: as ``qemu.conf`` has it.
        uses_state: whether what it says of locks goes with a machine that moves.
        needs_leases: whether a machine with disks that are its own alone must have leases.
    """

    name: str
    uses_state: bool
    needs_leases: bool

    def prepare(self) -> None:
        """Make what locks are kept in, where that is ours to do."""

    def check_action(self, action: str | None) -> None:
        """Refuse what cannot follow when locks are lost (``on_lockfailure``)."""

    def of_lease(self, lease: Lease) -> Claim:
        """The lock that a lease stands for."""

    def of_image(self, path: str, *, shared: bool) -> Claim | None:
        """The lock of an image that is written to; None where images have none of their own."""

    def register(self, owner: Owner, action: str, run: Path) -> int:
        """Connect as the process that we are, which is about to become QEMU; the connection, which it keeps.

        Args:
            owner: the machine.
            action: what its document wants when its locks are lost; empty for nothing.
            run: the directory of its sockets.
        """

    def acquire(self, owner: Owner, claims: Sequence[Claim]) -> None:
        """Get all of these locks, or none."""

    def release(self, owner: Owner, claims: Sequence[Claim]) -> None:
        """Let go of locks; of one that is not there nothing is said."""

    def inquire(self, owner: Owner) -> str:
        """What it says of a machine's locks."""


def open_manager(name: str, directories: Directories) -> LockManager:
    """The lock manager of a name, as its own file of settings has it.

    Raises:
        VirtError: the file cannot be read, or says what cannot be.
    """
    if name == "lockd":
        from hostel.drivers.qemu.lockmanager.lockd import Lockd

        return Lockd(directories, is_privileged=os.geteuid() == 0)
    if name == "sanlock":
        from hostel.drivers.qemu.lockmanager.sanlock import Sanlock

        return Sanlock(directories)
    raise fault(ErrorCode.CONFIG_UNSUPPORTED, f"there is no lock manager '{name}'", ErrorDomain.QEMU)

"""virtlockd: locks on files of this host or of a file system that hosts share (``lock_driver_lockd.c``).

Each machine's QEMU has a connection that may do nothing; while that is there virtlockd keeps the machine's locks, and
it kills a QEMU whose connection ends before the QEMU does. What is asked of it later comes over connections of ours.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from hostel.drivers.fault import fault
from hostel.drivers.qemu.conffile import load
from hostel.drivers.qemu.libvirt_daemon import Connection, LibvirtDaemon, folder_of
from hostel.drivers.qemu.lockmanager.claims import holder_of
from hostel.drivers.qemu.lockmanager.manager import Claim, Owner
from hostel.drivers.storage.backends.scsi import unit_key
from hostel.drivers.store import Directories
from hostel.drivers.tool import run
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.devices.platform import Lease
from hostel.wire.rpc.programs import LOCK_SPACE

_FILE: Final = "qemu-lockd.conf"
_SHARED: Final = 1
_MADE: Final = 2
_DEVICES: Final = "/dev"


class LockdSettings(NamedTuple):
    """``qemu-lockd.conf``.

    Attributes:
        for_disks: whether images that are written to are locked.
        needs_leases: whether machines must have leases otherwise.
        files: where files are whose locks stand for images; empty where images are locked themselves.
        volumes: likewise for LVM's volumes, by their UUIDs.
        units: likewise for SCSI units, by their serial numbers.
    """

    for_disks: bool
    needs_leases: bool
    files: str
    volumes: str
    units: str

    @classmethod
    def read(cls, directories: Directories) -> LockdSettings:
        """Read them.

        Raises:
            VirtError: the file cannot be read as one.
        """
        file = load(directories, _FILE)
        for_disks = file.flag("auto_disk_leases", default=True)
        return cls(
            for_disks,
            file.flag("require_lease_for_disks", default=not for_disks),
            *(file.text(f"{kind}_lockspace_dir", "") for kind in ("file", "lvm", "scsi")),
        )


class Lockd:
    """See :class:`hostel.drivers.qemu.lockmanager.manager.LockManager`.

    Args:
        directories: the session's.
        is_privileged: whether virtlockd is the host's, and not this user's.
    """

    name = "lockd"
    uses_state = False

    def __init__(self, directories: Directories, *, is_privileged: bool) -> None:
        self._settings = LockdSettings.read(directories)
        folder = folder_of(directories, is_privileged=is_privileged)
        self._daemon = LibvirtDaemon("virtlockd", LOCK_SPACE, ErrorDomain.LOCKING, folder, is_privileged)
        theirs = folder / "qemu"
        self._machines = [directories.state / "qemu", theirs, theirs / "run"]
        self.needs_leases = self._settings.needs_leases

    def prepare(self) -> None:
        """Make the lockspaces that images are locked in."""
        spaces = self._spaces()
        with self._connected() as connection:
            for space in spaces:
                connection.call("create_lockspace", space)

    def _spaces(self) -> list[str]:
        found = self._settings.files, self._settings.volumes, self._settings.units
        return [space for space in found if space and self._settings.for_disks]

    def check_action(self, action: str | None) -> None:
        """Nothing is refused: as libvirt has it, a QEMU whose locks are lost is killed whatever is said."""

    def of_lease(self, lease: Lease) -> Claim:
        """A file in a lockspace that is a folder.

        Raises:
            VirtError: the lease has what no such file has.
        """
        if lease.target.offset:
            raise _wrong("Offset must be zero for this lock manager")
        if lease.lockspace is None:
            raise _wrong("Missing path or lockspace for lease resource")
        return Claim(f"{lease.target.path}/{lease.lockspace}", lease.key, lease.target.path)

    def of_image(self, path: str, *, shared: bool) -> Claim | None:
        """The image itself, or a file that stands for it."""
        if not self._settings.for_disks:
            return None
        if path.startswith(_DEVICES) and self._settings.volumes and (key := _volume_key(path)):
            return Claim(self._settings.volumes, key, shared=shared)
        if path.startswith(_DEVICES) and self._settings.units and (key := unit_key(path)):
            return Claim(self._settings.units, key, shared=shared)
        if self._settings.files:
            name = hashlib.sha256(os.fsencode(path)).hexdigest()
            return Claim(self._settings.files, name, shared=shared)
        return Claim("", path, shared=shared)

    def register(self, owner: Owner, action: str, run: Path) -> int:
        """Connect for a QEMU; nothing is done when locks are lost, since it is killed then."""
        with self._connected(owner) as connection:
            connection.call("restrict", 0)
            return os.dup(connection.fileno())

    def acquire(self, owner: Owner, claims: Sequence[Claim]) -> None:
        """Get locks, one after the other."""
        got: list[Claim] = []
        with self._connected(owner) as connection:
            for space in self._spaces():
                connection.call("create_lockspace", space)  # of which a virtlockd that was started anew knows nothing
            for claim in claims:
                try:
                    connection.call("acquire_resource", claim.space, claim.name, _flags(claim))
                except VirtError as error:
                    for other in got:
                        connection.call("release_resource", other.space, other.name, 0)
                    raise self._explained(error, owner, claim) from error
                got.append(claim)

    def release(self, owner: Owner, claims: Sequence[Claim]) -> None:
        """Let go of locks, of all that are there."""
        failure: VirtError | None = None
        with self._connected(owner) as connection:
            for claim in claims:
                try:
                    connection.call("release_resource", claim.space, claim.name, 0)
                except VirtError as error:
                    if error.code is not ErrorCode.RESOURCE_BUSY and "does not hold" not in error.message:
                        failure = error
        if failure is not None:
            raise failure

    def inquire(self, owner: Owner) -> str:
        """Nothing: a file's lock has no history."""
        return ""

    def _explained(self, error: VirtError, owner: Owner, claim: Claim) -> VirtError:
        """What virtlockd refuses, with who has it, or what to do."""
        if error.code is ErrorCode.RESOURCE_BUSY:
            why = holder_of(self, claim, owner, self._machines)
        elif "Lockspace for path" in error.message:
            known = ", ".join(self._spaces()) or "none"
            why = f"the lockspaces of leases are those that '{_FILE}' names, which are {known}"
        else:
            return error
        return VirtError(error.code, f"{error.message}; {why}", domain=error.domain)

    @contextlib.contextmanager
    def _connected(self, owner: Owner | None = None) -> Iterator[Connection]:
        """A connection, in the name of a machine."""
        with self._daemon.connected() as connection:
            if owner is not None:
                named = (uuid.UUID(owner.uuid).bytes, owner.name, owner.id, owner.pid)
                connection.call("register", named, 0)
            yield connection


def _flags(claim: Claim) -> int:
    """How a lock is had; the file of a lease is its owner's to make."""
    stands_for_image = claim.space and not claim.path
    return (_SHARED if claim.shared else 0) | (_MADE if stands_for_image else 0)


def _volume_key(path: str) -> str:
    """The UUID of an LVM volume; empty where it is none."""
    command = ["lvs", "--noheadings", "--unbuffered", "--nosuffix", "--options", "uuid", path]
    return run(command, ErrorDomain.LOCKING, expected=range(256)).out.strip()


def _wrong(what: str) -> VirtError:
    return fault(ErrorCode.INTERNAL_ERROR, what, ErrorDomain.LOCKING)

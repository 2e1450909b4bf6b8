"""virtlockd: locks on files of this host or of a file system that hosts share (``lock_driver_lockd.c``).

Each machine's QEMU has a connection that may do nothing; while that is there virtlockd keeps the machine's locks, and
it kills a QEMU whose connection ends before the QEMU does. What is asked of it later comes over connections of ours.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from hostel.drivers.fault import fault, system_fault
from hostel.drivers.qemu.conffile import load
from hostel.drivers.qemu.lockmanager.claims import holder_of
from hostel.drivers.qemu.lockmanager.manager import Claim, Owner
from hostel.drivers.storage.backends.scsi import unit_key
from hostel.drivers.store import Directories
from hostel.drivers.tool import find, run
from hostel.errors import ErrorCode, ErrorDomain, ProtocolError, VirtError
from hostel.model.domain.devices.platform import Lease
from hostel.wire.rpc.connection import ClientConnection, Reply
from hostel.wire.rpc.programs import LOCK_SPACE

_FILE: Final = "qemu-lockd.conf"
_SYSTEM: Final = Path("/run/libvirt")
_SOCKET: Final = "virtlockd-sock"
_SECONDS: Final = 30.0  # that an answer may take
_START_SECONDS: Final = 10.0
_IDLE: Final = 120  # seconds after which a virtlockd that was started for us ends when nobody needs it
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
        self._is_privileged = is_privileged
        self._folder = _SYSTEM if is_privileged else runtime_folder(directories) / "libvirt"
        theirs = self._folder / "qemu"
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
    def _connected(self, owner: Owner | None = None) -> Iterator[_Connection]:
        """A connection, in the name of a machine."""
        path = self._folder / _SOCKET
        try:
            connection = _Connection(self._connect(path))
        except OSError as error:
            what = f"Failed to connect socket to '{path}'"
            if isinstance(error, FileNotFoundError | ConnectionRefusedError):
                fix = "systemctl start virtlockd.socket" if self._is_privileged else "install libvirt-daemon"
                error = type(error)(error.errno, f"{os.strerror(error.errno or 0)}; virtlockd does not run: {fix}")
            raise system_fault(error, what, ErrorDomain.LOCKING) from error
        with connection:
            if owner is not None:
                named = (uuid.UUID(owner.uuid).bytes, owner.name, owner.id, owner.pid)
                connection.call("register", named, 0)
            yield connection

    def _connect(self, path: Path) -> socket.socket:
        """Connect; a user's own virtlockd is started where it does not run."""
        try:
            return _opened(path)
        except (FileNotFoundError, ConnectionRefusedError):
            program = find("virtlockd")
            if self._is_privileged or program is None:
                raise
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        environment = {**os.environ, "XDG_RUNTIME_DIR": str(self._folder.parent)}
        try:
            done = subprocess.run(
                [program, "--daemon", f"--timeout={_IDLE}"],
                env=environment, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                timeout=_START_SECONDS, check=False, start_new_session=True, text=True, errors="replace",
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise OSError(errno.ETIMEDOUT, f"virtlockd has not started within {_START_SECONDS:.0f} seconds") from error
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["it says nothing"]
            raise OSError(errno.ECHILD, f"virtlockd does not start: {said[-1]}")
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                return _opened(path)
            except (FileNotFoundError, ConnectionRefusedError):
                if time.monotonic() >= deadline:
                    raise
            time.sleep(0.05)


class _Connection:
    """Calls of virtlockd's, one after the other."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._machine = ClientConnection({LOCK_SPACE.number: LOCK_SPACE})

    def __enter__(self) -> _Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def fileno(self) -> int:
        """Its descriptor."""
        return self._socket.fileno()

    def call(self, name: str, *arguments: Any) -> None:
        """Call; what is answered is only whether it was done.

        Raises:
            VirtError: virtlockd's own; ``SYSTEM_ERROR``: it does not answer.
        """
        call, data = self._machine.call(LOCK_SPACE, LOCK_SPACE.by_name[name], arguments)
        try:
            self._socket.sendall(data)
            while True:
                received = self._socket.recv(1 << 16)
                if not received:
                    raise ConnectionResetError(errno.ECONNRESET, "virtlockd has ended the connection")
                for event in self._machine.receive(self._machine.splitter.feed(received)):
                    if isinstance(event, Reply) and event.serial == call.serial:
                        if event.error is not None:
                            raise event.error
                        return
        except (OSError, ProtocolError) as error:
            reason = error if isinstance(error, OSError) else OSError(errno.EPROTO, str(error))
            raise system_fault(reason, "virtlockd did not answer", ErrorDomain.LOCKING) from error


def runtime_folder(directories: Directories) -> Path:
    """Where a user's programs keep their sockets, each in a folder of its own."""
    own = directories.state.name == "hostel"
    return directories.state.parent if own else directories.cache.parent


def _flags(claim: Claim) -> int:
    """How a lock is had; the file of a lease is its owner's to make."""
    stands_for_image = claim.space and not claim.path
    return (_SHARED if claim.shared else 0) | (_MADE if stands_for_image else 0)


def _opened(path: Path) -> socket.socket:
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        connected.settimeout(_SECONDS)
        connected.connect(str(path))
    except BaseException:
        connected.close()
        raise
    return connected


def _volume_key(path: str) -> str:
    """The UUID of an LVM volume; empty where it is none."""
    command = ["lvs", "--noheadings", "--unbuffered", "--nosuffix", "--options", "uuid", path]
    return run(command, ErrorDomain.LOCKING, expected=range(256)).out.strip()


def _wrong(what: str) -> VirtError:
    return fault(ErrorCode.INTERNAL_ERROR, what, ErrorDomain.LOCKING)

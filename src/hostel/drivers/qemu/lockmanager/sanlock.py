"""sanlock: leases on storage that hosts share, lost by who cannot write there (``lock_driver_sanlock.c``)."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from hostel.cause.holder import describe
from hostel.drivers.fault import fault, system_fault
from hostel.drivers.qemu.conffile import ConfFile, load
from hostel.drivers.qemu.lockmanager import failing
from hostel.drivers.qemu.lockmanager import sanlock_library as library
from hostel.drivers.qemu.lockmanager.manager import Claim, Owner
from hostel.drivers.qemu.lockmanager.sanlock_library import SanlockError
from hostel.drivers.qemu.ownership.user import group_id, user_id
from hostel.drivers.store import Directories
from hostel.drivers.tool import find, run
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.devices.platform import Lease

_FILE: Final = "qemu-sanlock.conf"
_FOLDER: Final = "/var/lib/libvirt/sanlock"
_DISKS: Final = "__LIBVIRT__DISKS__"  # libvirt's lockspace of disks
_TRIES: Final = 10
_LETTING_GO_SECONDS: Final = 10.0  # that storage may take to note that who had a lease has ended
_POLL: Final = 0.02  # seconds
_NOT_FOLLOWED: Final = ("restart", "ignore")
_HELD: Final = re.compile(r"r (?P<space>[^:]*):(?P<name>[^:]*):.* p (?P<pid>\d+)")


class SanlockSettings(NamedTuple):
    """``qemu-sanlock.conf``.

    Attributes:
        for_disks: whether images that are written to have leases of their own.
        needs_leases: whether machines must have leases otherwise.
        folder: where leases of images are.
        host_id: this host's number among those that share the folder; 0 where it has none.
        io_timeout: seconds that storage may take; 0 for as sanlock has it.
        user: whose those files are; -1 for whose they are anyway.
        group: likewise.
    """

    for_disks: bool
    needs_leases: bool
    folder: str
    host_id: int
    io_timeout: int
    user: int
    group: int

    @classmethod
    def read(cls, directories: Directories) -> SanlockSettings:
        """Read them.

        Raises:
            VirtError: the file cannot be read as one, or names nobody.
        """
        file = load(directories, _FILE)
        for_disks = file.flag("auto_disk_leases")
        return cls(
            for_disks,
            file.flag("require_lease_for_disks", default=not for_disks),
            file.text("disk_lease_dir", _FOLDER),
            file.number("host_id", 0),
            file.number("io_timeout", 0),
            _number(file, "user", user_id),
            _number(file, "group", group_id),
        )


def _number(file: ConfFile, kind: str, look_up: Callable[[str], int]) -> int:
    """Who is named, as a number; -1 where nobody is."""
    name = file.text(kind, "")
    try:
        return look_up(name) if name else -1
    except VirtError as error:
        raise file.wrong(f"{file.path}: there is no {kind} '{name}'") from error


class Sanlock:
    """See :class:`hostel.drivers.qemu.lockmanager.manager.LockManager`."""

    name = "sanlock"
    uses_state = True

    def __init__(self, directories: Directories) -> None:
        self._settings = SanlockSettings.read(directories)
        self._directories = directories
        self.needs_leases = self._settings.needs_leases

    def prepare(self) -> None:
        """Have this host take part in the lockspace of disks."""
        if not self._settings.for_disks:
            return
        if not self._settings.host_id:
            raise _wrong(f"Automatic disk lease mode enabled, but no host ID is set; set host_id in '{_FILE}'")
        path = self._path(_DISKS)
        space = library.lockspace(_DISKS, self._settings.host_id, path)
        if not Path(self._settings.folder).is_dir():
            why = "parent directory does not exist or is not a directory"
            raise _wrong(f"Unable to create lockspace {path}: {why}")
        self._make(path, "lockspace", lambda: library.write_lockspace(space, self._settings.io_timeout))
        self._take_part(space, path)

    def _take_part(self, space: library.Lockspace, path: str) -> None:
        for _ in range(_TRIES):
            try:
                return library.add_lockspace(space, self._settings.io_timeout)
            except SanlockError as error:
                if error.code == -errno.EEXIST:
                    return None
                if error.code != -errno.EINPROGRESS:
                    raise _refused(error, f"Unable to add lockspace {path}") from error
            with contextlib.suppress(SanlockError):
                library.wait_for_lockspace(space)
        raise _refused(SanlockError(-errno.EINPROGRESS), f"Unable to add lockspace {path}")

    def _make(self, path: str, what: str, write: Callable[[], None]) -> None:
        """Make a file of leases where there is none, whole or not at all; it is the daemon's user's.

        Raises:
            VirtError: the host or sanlock refused.
        """
        try:
            mode = 0o600 | (0o060 if self._settings.group >= 0 and what == "lockspace" else 0)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        except FileExistsError:
            return self._give(path, what)
        except OSError as error:
            raise system_fault(error, f"Unable to create {what} {path}", ErrorDomain.LOCKING) from error
        try:
            with open(descriptor, "wb") as file, _explained(f"Unable to initialize {what} {path}"):
                if self._settings.user >= 0 or self._settings.group >= 0:
                    os.fchown(file.fileno(), self._settings.user, self._settings.group)
                size = library.align(path)
                os.posix_fallocate(file.fileno(), 0, size)
                os.fsync(file.fileno())
                write()
        except BaseException:
            Path(path).unlink(missing_ok=True)
            raise
        return None

    def _give(self, path: str, what: str) -> None:
        """Give a lockspace that is there to the daemon's user."""
        user, group = self._settings.user, self._settings.group
        with _explained(f"cannot change the owner of '{path}'"):
            found = os.stat(path)
            if what == "lockspace" and stat.S_ISREG(found.st_mode):
                if (user >= 0 and user != found.st_uid) or (group >= 0 and group != found.st_gid):
                    os.chown(path, user, group)
                if group >= 0 and found.st_mode & 0o060 != 0o060:
                    os.chmod(path, 0o660)

    def check_action(self, action: str | None) -> None:
        """Refuse what sanlock does not do when locks are lost."""
        if action in _NOT_FOLLOWED:
            what = f"Failure action {action} is not supported by sanlock; write poweroff or pause"
            raise fault(ErrorCode.CONFIG_UNSUPPORTED, what, ErrorDomain.LOCKING)

    def of_lease(self, lease: Lease) -> Claim:
        """A lease on storage.

        Raises:
            VirtError: a name is longer than sanlock knows.
        """
        for what, text, room in (
            ("Resource name", lease.key, library.NAME_ROOM),
            ("Lease path", lease.target.path, library.PATH_ROOM),
            ("Resource lockspace", lease.lockspace or "", library.NAME_ROOM),
        ):
            if len(text.encode()) >= room:
                raise _wrong(f"{what} '{text}' exceeds {room} characters")
        return Claim(lease.lockspace or "", lease.key, lease.target.path, lease.target.offset or 0)

    def of_image(self, path: str, *, shared: bool) -> Claim | None:
        """A lease in the folder for them, which is made when it is first wanted."""
        if not self._settings.for_disks:
            return None
        name = hashlib.md5(os.fsencode(path), usedforsecurity=False).hexdigest()
        return Claim(_DISKS, name, self._path(name), shared=shared)

    def _path(self, name: str) -> str:
        return f"{self._settings.folder}/{name}"

    def register(self, owner: Owner, action: str, run: Path) -> int:
        """Connect for a QEMU, and say what is run when its leases are lost."""
        with _explained("Failed to open socket to sanlock daemon"):
            connection = library.register()
        if action:
            helper = failing.make_helper(self._directories, owner.name, action, run)
            with _explained("Failed to register lock failure action"):
                library.set_helper(connection, str(helper))
        with _explained("Failed to restrict process"):
            library.restrict(connection)
        return connection

    def acquire(self, owner: Owner, claims: Sequence[Claim]) -> None:
        """Get all leases; those of images are made where they are missing."""
        of_images = [claim for claim in claims if claim.space == _DISKS and claim.path == self._path(claim.name)]
        if of_images:
            self.prepare()  # a host that could not write there for a while takes part no more
        for claim in of_images:
            self._make(claim.path, "lease", functools.partial(library.write_resource, _resource(claim)))
        try:
            _acquire(owner, claims)
        except SanlockError as error:
            code = ErrorCode.RESOURCE_BUSY if error.is_its_own else ErrorCode.SYSTEM_ERROR
            raise _refused(error, "Failed to acquire lock", code, why=_why(error, owner, claims)) from error

    def release(self, owner: Owner, claims: Sequence[Claim]) -> None:
        """Let go of leases, of all that are there."""
        failure: SanlockError | None = None
        for claim in claims:
            try:
                library.release(owner.pid, [_resource(claim)])
            except SanlockError as error:
                if error.code not in library.NOT_THERE:
                    failure = error
        if failure is not None:
            raise _refused(failure, "Failed to release lock")

    def inquire(self, owner: Owner) -> str:
        """Which leases it has, with their versions."""
        with _explained("Failed to inquire lock"):
            return library.inquire(owner.pid)


def _acquire(owner: Owner, claims: Sequence[Claim]) -> None:
    """Get leases; one of a process of this host that has just ended, when sanlock has let go of it."""
    deadline = time.monotonic() + _LETTING_GO_SECONDS
    while True:
        try:
            return library.acquire(owner.pid, owner.name, [_resource(claim) for claim in claims])
        except SanlockError as error:
            if error.code != -errno.EAGAIN or time.monotonic() >= deadline:
                raise
        time.sleep(_POLL)


def _resource(claim: Claim) -> library.Resource:
    return library.resource(claim.space, claim.name, claim.path, claim.offset, shared=claim.shared)


def _why(error: SanlockError, owner: Owner, claims: Sequence[Claim]) -> str:
    """What is behind a refusal: who has a lease, or what has to be done before."""
    if error.code == -errno.ENOSPC:
        spaces = " or ".join(sorted({f"'{claim.space}'" for claim in claims}))
        return f"this host takes no part in lockspace {spaces}; 'sanlock client add_lockspace' has it do so"
    if error.code == -errno.ESRCH:
        return f"sanlock does not know QEMU, process {owner.pid}; it was started anew since"
    if error.code == -errno.EAGAIN:
        return "sanlock still lets go of it, for who had it has ended; try again"
    here = _held_here()
    names = [(claim.space, claim.name) for claim in claims]
    found = [describe(pid) for which, pid in here if which in names and pid != owner.pid]
    if not found:
        hosts = sorted({host for claim in claims for host in library.owners(_resource(claim))})
        found = [f"host {host} of the lockspace" for host in hosts]
    return f"it is held by {', '.join(found)}" if found else ""


def _held_here() -> Iterator[tuple[tuple[str, str], int]]:
    """The leases of processes of this host, as sanlock's own tool tells of them."""
    if find("sanlock") is None:
        return
    for line in run(["sanlock", "client", "status"], ErrorDomain.LOCKING, expected=range(256)).out.splitlines():
        if (held := _HELD.match(line)) is not None:
            yield (held["space"], held["name"]), int(held["pid"])


@contextlib.contextmanager
def _explained(doing: str) -> Iterator[None]:
    """Translate what is refused meanwhile."""
    try:
        yield
    except SanlockError as error:
        raise _refused(error, doing) from error
    except OSError as error:
        raise system_fault(error, doing, ErrorDomain.LOCKING) from error


def _refused(error: SanlockError, doing: str, code: ErrorCode = ErrorCode.SYSTEM_ERROR, *, why: str = "") -> VirtError:
    """Sanlock's refusal as libvirt's error."""
    if error.is_its_own and code is ErrorCode.SYSTEM_ERROR:
        code = ErrorCode.INTERNAL_ERROR
    if error.code in (-errno.ENOENT, -errno.ECONNREFUSED) and not why:
        why = "sanlock does not run: systemctl start sanlock"
    return fault(code, f"{doing}: {error}{f'; {why}' if why else ''}", ErrorDomain.LOCKING)


def _wrong(what: str) -> VirtError:
    return fault(ErrorCode.INTERNAL_ERROR, what, ErrorDomain.LOCKING)

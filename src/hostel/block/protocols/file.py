"""Protocol ``file``: a regular file of this host, with sparse areas and QEMU's locks."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from typing import Final, Self

from hostel.block import notice, permission
from hostel.block.driver import Cache, OpenMode, Supports, Threading
from hostel.block.interruption import breaks_in
from hostel.block.node import BlockNode
from hostel.block.options import Kind, Option, Options
from hostel.block.permission import Permission
from hostel.block.powers import ModeChange
from hostel.block.protocols.file_space import FileSpace
from hostel.cause import explain
from hostel.errors import BlockError
from hostel.units import MiB

# What is used and shared of a file in which an image is laid out.
CREATING: Final = (
    Permission.CONSISTENT_READ | Permission.WRITE | Permission.RESIZE,
    Permission.CONSISTENT_READ | Permission.WRITE_UNCHANGED,
)


class FileDriver(FileSpace):
    """Bytes of a host file.

    Reads beyond the end are zeroes and writes beyond it extend the file. Errors of the host are
    :class:`OSError` with the path; a failed sync is never forgotten (:class:`hostel.block.lasting.LastingSync`).
    """

    name = "file"
    supports = Supports.WRITE | Supports.ZEROES | Supports.DISCARD | Supports.GROWS
    threading = Threading.PARALLEL
    create_options: Final = Options(
        Option("size", Kind.SIZE, "Virtual disk size"),
        Option("nocow", Kind.BOOL, "Turn off copy-on-write (valid only on btrfs)"),
        Option("preallocation", Kind.STRING, "Preallocation mode (allowed values: off, falloc, full)"),
        Option("extent_size_hint", Kind.SIZE, "Extent size hint for the image file, 0 to disable"),
    )

    def __init__(self, fd: int, path: str, *, no_flush: bool, direct: bool = False, locking: bool = True) -> None:
        super().__init__(fd, path, no_flush=no_flush, direct=direct)
        self._locking = locking
        self._locked: tuple[Permission, Permission] | None = None
        self._shared_reading = ~(Permission.WRITE | Permission.RESIZE) & Permission.ALL  # once it is only read

    @classmethod
    def open(cls, path: str, mode: OpenMode) -> Self:
        """Open an existing file; :meth:`lock` it before relying on its content.

        Raises:
            BlockError: it cannot be opened; the text is QEMU's.
        """
        cache = mode.cache
        if mode.options.get("aio") == "native" and not cache.direct:
            raise BlockError(
                "aio=native was specified, but it requires cache.direct=on, which was not specified.",
                errno=errno.EINVAL,
            )
        flags = (os.O_RDONLY if mode.read_only else os.O_RDWR) | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            fd = os.open(path, flags | (os.O_DIRECT if cache.direct else 0))
        except (OSError, ValueError) as error:
            if cache.direct and _errno(error) == errno.EINVAL:
                raise _no_direct(path) from None
            raise _open_error(path, error, write=not mode.read_only) from None
        try:
            status = os.fstat(fd)
            cls._require(path, status.st_mode)
            if not status.st_size and stat.S_ISREG(status.st_mode):
                _require_end(fd, path)
            os.set_blocking(fd, True)
            locking = mode.options.get("locking") != "off"
            return cls(fd, path, no_flush=cache.no_flush, direct=cache.direct, locking=locking)
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def _require(cls, path: str, kind: int) -> None:
        """Refuse what is not of the driver's kind; ``kind`` is the host's mode of the open file."""
        if not stat.S_ISREG(kind):
            raise BlockError(f"'{cls.name}' driver requires '{path}' to be a regular file", errno=errno.EINVAL)

    @classmethod
    def create(cls, path: str, mode: OpenMode, *, emptied: bool = True) -> Self:
        """Create a file, or empty an existing one once nobody else is found to use it.

        Unless it is to be ``emptied``, an existing one keeps what it holds.
        The options ``nocow`` and ``extent_size_hint`` (bytes) are hints: a file system without them does without.

        Raises:
            BlockError: it cannot be created; the text is QEMU's.
            ImageLocked: another process uses the existing file.
        """
        from hostel.block.protocols.file_hints import set_hints

        extent_size = int(mode.options.get("extent_size_hint", MiB))
        if extent_size >= 2**32:
            raise BlockError("Extent size hint is too large", errno=errno.EINVAL)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)
        except (OSError, ValueError) as error:
            hint = explain(_errno(error), path, write=True)
            raise BlockError(f"Could not create '{path}': {_reason(error)}", errno=_errno(error), hint=hint) from None
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise BlockError(f"Could not create '{path}': It exists and is no regular file", errno=errno.EINVAL)
            os.set_blocking(fd, True)
            permission.lock(fd, path, *CREATING)
            if emptied:
                os.ftruncate(fd, 0)
            set_hints(fd, no_copy_on_write=mode.options.get("nocow") is True, extent_size=extent_size)
            if mode.cache.direct:
                _set_direct(fd, path)
            return cls(fd, path, no_flush=mode.cache.no_flush, direct=mode.cache.direct)
        except BaseException:
            os.close(fd)
            raise

    def lock(self, used: Permission, shared: Permission) -> None:
        """Tell other processes what we use of the file and what we let them use; closing it ends that.

        Raises:
            ImageLocked: another process excludes us.
        """
        if self._locking:
            permission.lock(self._fd, self._path, used, shared)
        self._locked = used, shared

    def divide(self) -> None:
        """Go on in a forked child, whose parent has this very file open, and ends its locks on it."""
        self._locked = None
        self._starting, self._seeking, self._past = threading.RLock(), threading.RLock(), None

    def _take_locks_of(self, former: FileDriver, used: Permission, shared: Permission) -> None:
        """Lock as :meth:`lock` does, in the place of a driver of the same file."""
        if self._locking:
            permission.lock(self._fd, self._path, used, shared, former=former._fd)
        self._locked = used, shared

    def reopened(self, change: ModeChange) -> FileDriver:
        """The same file, whatever its name is by now, open in another way; this driver is closed.

        Raises:
            BlockError: the host refuses; this driver is as it was then.
            ImageLocked: another process excludes us; likewise.
        """
        mode = change(OpenMode(cache=Cache(direct=self.is_direct, no_flush=self._no_flush)))
        read_only, cache = mode.read_only, mode.cache
        try:
            fd = os.open(f"/proc/self/fd/{self._fd}", _flags(read_only=read_only, direct=cache.direct))
        except OSError as error:
            if cache.direct and error.errno == errno.EINVAL:
                raise _no_direct(self._path) from None
            raise _open_error(self._path, error, write=not read_only) from None
        try:
            return self._succeeded(fd, cache, read_only=read_only)
        except BaseException:
            os.close(fd)
            raise

    def _succeeded(self, fd: int, cache: Cache, *, read_only: bool) -> FileDriver:
        """The driver of a descriptor of the same file; this one is closed."""
        driver = type(self)(fd, self._path, no_flush=cache.no_flush, direct=cache.direct, locking=self._locking)
        driver._sync = self._sync
        driver.discarded = self.discarded
        if self._locked is not None:
            self._pass_locks_to(driver, read_only=read_only)
        try:
            os.close(self._forget())
        except OSError as error:
            if breaks_in(error):
                raise
            # The number is free even so. What the host tells us so late it could not store must fail the next sync.
            driver._sync.fail(error)
            notice.tell(f"'{self._path}', which was opened anew, could not be closed: {error.strerror}")
        return driver

    def _pass_locks_to(self, driver: FileDriver, *, read_only: bool) -> None:
        assert self._locked is not None
        used, shared = Permission.CONSISTENT_READ, self._shared_reading
        if bool(self._locked[0] & Permission.WRITE) is not read_only:
            used, shared = self._locked
        elif not read_only:
            used |= Permission.WRITE | Permission.RESIZE
            driver._shared_reading = self._locked[1]
            shared = self._locked[1] & ~(Permission.WRITE | Permission.RESIZE)
        try:
            driver._take_locks_of(self, used, shared)
        except OSError:
            self._take_locks_of(driver, *self._locked)
            raise

    def close(self) -> None:
        """Close the file, and end its locks.

        Raises:
            OSError: the host could not store what was written. The file is closed nevertheless.
            BlockError: EBUSY: a request that goes past the node does not end. The file stays open.
        """
        fd = self._forget()
        if self._locked is not None and fd >= 0:
            # A program that another thread is starting has the file open until it is one, and the locks with it.
            with contextlib.suppress(OSError):
                permission.unlock(fd)
        try:
            os.close(fd)
        except OSError as error:
            self._fail(error)


def _errno(error: OSError | ValueError) -> int:
    return (error.errno if isinstance(error, OSError) else None) or errno.EINVAL


def _reason(error: OSError | ValueError) -> str:
    # ValueError: a NUL byte in the name.
    return os.strerror(_errno(error))


def _flags(*, read_only: bool, direct: bool) -> int:
    return (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC | (os.O_DIRECT if direct else 0)


def _require_end(fd: int, path: str) -> None:
    """Refuse a file that has no size and is not empty, as those of ``/proc``: it would be copied as nothing."""
    try:
        os.lseek(fd, 0, os.SEEK_END)
    except OSError as error:
        raise BlockError(
            f"Could not refresh total sector count: {error.strerror}",
            errno=error.errno,
            hint=f"The kernel makes '{path}' up while it is read.",
        ) from None


def _no_direct(path: str) -> BlockError:
    return BlockError(f"Could not open '{path}': filesystem does not support O_DIRECT", errno=errno.EINVAL)


def _set_direct(fd: int, path: str) -> None:
    import fcntl

    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_DIRECT)
    except OSError:
        raise _no_direct(path) from None


def _open_error(path: str, error: OSError | ValueError, *, write: bool) -> BlockError:
    hint = explain(_errno(error), path, write=write)
    return BlockError(f"Could not open '{path}': {_reason(error)}", errno=_errno(error), hint=hint)


def open_file(path: str, mode: OpenMode, name: str = "") -> FileDriver:
    """Open a file with the driver of a name, or else with the one that it is for: block devices have their own.

    Raises:
        BlockError: it cannot be opened, or is not of the driver's kind.
    """
    if name == "file" or (not name and not _is_block_device(path)):
        return FileDriver.open(path, mode)
    from hostel.block.protocols.host_device import driver_for

    return driver_for(path, name).open(path, mode)


def _is_block_device(path: str) -> bool:
    # Character devices only for those who ask for one: an image may name its backing file, and /dev/zero has no end.
    try:
        return stat.S_ISBLK(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def create_file(path: str, *, mode: OpenMode, name: str = "", emptied: bool = True) -> BlockNode:
    """Create or empty a file and return its node; what a device's driver is for is opened.

    Args:
        path: the file's name.
        mode: how it is opened, with the options for a new file.
        name: the driver; where none is named, the one that the path is for.
        emptied: whether an existing file loses what it holds.

    Raises:
        BlockError: the host refuses.
        ImageLocked: another process uses the file or the device.
    """
    driver_class: type[FileDriver] = FileDriver
    if name not in ("", FileDriver.name) or (not name and _is_block_device(path)):
        from hostel.block.protocols.host_device import driver_for

        driver_class = driver_for(path, name)
    return BlockNode(driver_class.create(path, mode, emptied=emptied), path, read_only=False, cache=mode.cache)

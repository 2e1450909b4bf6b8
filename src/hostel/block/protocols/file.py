"""Protocol ``file``: a regular file of this host, with sparse areas and QEMU's locks."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final, NoReturn, Self

from hostel.block import notice, permission
from hostel.block.driver import BlockDriver, Cache, OpenMode, Supports, Threading
from hostel.block.extent import Extent, Status
from hostel.block.gate import BYPASS, Gate
from hostel.block.interruption import breaks_in
from hostel.block.lasting import LastingSync
from hostel.block.marks import DiscardCount
from hostel.block.node import BlockNode
from hostel.block.options import Kind, Option, Options
from hostel.block.permission import Permission
from hostel.block.powers import ModeChange, Preallocation
from hostel.block.protocols.direct import DirectFile, probe_alignment
from hostel.cause import explain
from hostel.errors import BlockError
from hostel.units import SECTOR, MiB

_FALLOC_KEEP_SIZE: Final = 1
_FALLOC_PUNCH_HOLE: Final = 2
_FALLOC_ZERO_RANGE: Final = 16
# What a file system answers when it has no such operation; everything else is a failure.
UNSUPPORTED: Final = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV, errno.ENOTTY})
_ZEROES: Final = memoryview(bytes(MiB))
_FIRST_BLOCK: Final = 4096  # bytes
_END_TIMEOUT: Final = 60.0  # seconds for requests that go past the node when a file is closed
# What is used and shared of a file in which an image is laid out.
CREATING: Final = (
    Permission.CONSISTENT_READ | Permission.WRITE | Permission.RESIZE,
    Permission.CONSISTENT_READ | Permission.WRITE_UNCHANGED,
)
RESIZE_FAILURES: Final = {  # what could not be done where a file does not get its size
    Preallocation.OFF: "Could not resize file",
    Preallocation.METADATA: "Could not resize file",
    Preallocation.FALLOC: "Could not preallocate new data",
    Preallocation.FULL: "Could not write zeros for preallocation",
}


class FileDriver(BlockDriver):
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
        super().__init__()
        self._fd = fd  # -1 once it is closed: the number is soon another file's
        self._path = path
        self._no_flush = no_flush
        self.is_direct = direct
        self._direct: DirectFile | None = None
        self._starting = threading.RLock()  # a signal handler may come here again
        self._seeking = threading.RLock()
        self._past: Gate | None = None
        self._locking = locking
        self._locked: tuple[Permission, Permission] | None = None
        self._shared_reading = ~(Permission.WRITE | Permission.RESIZE) & Permission.ALL  # once it is only read
        self._sync = LastingSync()
        self.discarded = DiscardCount()
        self._can_zero = True
        self._can_punch = True
        # Where extents() last found data. Finding its end takes a file system as long as the data is large; and what
        # others make a hole meanwhile reads as zeroes all the same.
        self._data = (0, 0)

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

    @property
    def identity(self) -> tuple[int, int]:
        """The host's device and inode numbers: two names of one file have the same identity."""
        status = os.fstat(self._fd)
        return status.st_dev, status.st_ino

    @property
    def length(self) -> int:
        """The file's size in bytes."""
        return os.fstat(self._fd).st_size

    @property
    def allocated_length(self) -> int:
        """Bytes that the file occupies on the host."""
        return os.fstat(self._fd).st_blocks * 512

    def fileno(self) -> int:
        """The descriptor, to be used as :class:`hostel.block.gate.Bypass` says; -1 once it is closed."""
        return self._fd

    @property
    def past(self) -> Gate:
        """The gate of those who read and write the file past its node."""
        with self._seeking:
            self._past = self._past or Gate()
            return self._past

    def pread(self, offset: int, buf: memoryview) -> None:
        """Fill ``buf``; what lies beyond the end reads as zeroes."""
        try:
            if self.is_direct:
                done = self._direct_file().pread(offset, buf)
                buf[done:] = bytes(len(buf) - done)
                return
            done = os.preadv(self._fd, [buf], offset)
            while done < len(buf):
                more = os.preadv(self._fd, [buf[done:]], offset + done)
                if not more:
                    buf[done:] = bytes(len(buf) - done)
                    return
                done += more
        except OSError as error:
            self._fail(error)

    def pwrite(self, offset: int, data: memoryview) -> None:
        """Write all of ``data``."""
        try:
            if self.is_direct:
                self._direct_file().pwrite(offset, data)
                return
            done = os.pwrite(self._fd, data, offset)
            while done < len(data):
                done += os.pwrite(self._fd, data[done:], offset + done)
        except OSError as error:
            self._fail(error)

    def _direct_file(self) -> DirectFile:
        # Not before the first transfer: a file that was just made may tell its alignment only once it has its size.
        with self._starting:  # there must be one only: it keeps the writers of one block apart
            if self._direct is None:
                self._direct = DirectFile(self._fd, probe_alignment(self._fd, self._path))
            return self._direct

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """Zero a range by asking the file system, or else by writing."""
        self._data = (0, 0)
        end = offset + length
        is_new = offset >= self.length
        if is_new and not unmap and self._fallocate(_FALLOC_ZERO_RANGE, offset, length):
            return
        if is_new or (unmap and self._can_punch):
            # Never by ftruncate(): another thread may write beyond the end meanwhile, and would lose it again.
            if end > self.length:
                self.pwrite(end - 1, _ZEROES[:1])
            # Growing a file makes a hole, which is all that unmap could give.
            self._can_punch = self._fallocate(_FALLOC_PUNCH_HOLE | _FALLOC_KEEP_SIZE, offset, length)
            if self._can_punch or is_new:
                return
        if self._can_zero:
            self._can_zero = self._fallocate(_FALLOC_ZERO_RANGE, offset, length)
            if self._can_zero:
                return
        self._write_zeroes_out(offset, length)

    def _write_zeroes_out(self, offset: int, length: int) -> None:
        end = offset + length
        for start in range(offset, end, len(_ZEROES)):
            self.pwrite(start, _ZEROES[: min(len(_ZEROES), end - start)])

    def zeroes_fast(self, *, unmap: bool) -> bool:
        """Whether the file system zeroes, as far as is known: a first refusal is remembered."""
        return self._can_zero or (unmap and self._can_punch)

    def discard(self, offset: int, length: int) -> None:
        """Punch a hole, where the file system can."""
        self._data = (0, 0)
        if self._can_punch:
            self._can_punch = self._fallocate(_FALLOC_PUNCH_HOLE | _FALLOC_KEEP_SIZE, offset, length)
        self.discarded.count(length if self._can_punch else 0)

    def flush(self) -> None:
        """Sync the file's data."""
        if not self._no_flush:
            self._sync(lambda: self._store(os.fdatasync))

    def _store(self, sync: Callable[[int], None]) -> None:
        try:
            sync(self._fd)
        except OSError as error:
            self._fail(error)

    @property
    def alignment(self) -> int:
        """Bytes that requests to the file are aligned to: 1, but for direct input and output."""
        return self._direct_file().alignment if self.is_direct else 1

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Data and holes, as the file system knows them."""
        end = offset + length
        whole = max(end, self.length)
        block = self._direct_file().alignment if self.is_direct else SECTOR
        while offset < end:
            low, high = self._data
            if not low <= offset < high:
                start = self._seek(offset, os.SEEK_DATA, end)
                if start > offset:
                    yield Extent(offset, start - offset, Status.ZERO | Status.ALLOCATED, offset)
                    offset = start
                    if offset == end:
                        return
                high = self._seek(offset, os.SEEK_HOLE, whole)
                # A file that shrinks under us must not stop us from getting on. And a disk has no part of a sector:
                # the one in which the file ends is data to its end, and so is a block of direct input and output.
                high = -(-high // block) * block if high > offset else end
                self._data = (offset, high)
            stop = min(high, end)
            yield Extent(offset, stop - offset, Status.DATA | Status.ALLOCATED, offset)
            offset = stop

    def resize(self, size: int, preallocation: Preallocation = Preallocation.OFF) -> None:
        """Set the file's size.

        Raises:
            BlockError: the host refuses; the old size is then restored.
        """
        self._data = (0, 0)
        old = self.length
        if preallocation is Preallocation.METADATA:
            raise BlockError("Unsupported preallocation mode: metadata", errno=errno.ENOTSUP)
        if preallocation is not Preallocation.OFF and size < old:
            raise BlockError("Preallocation can't be used for shrinking files", errno=errno.EINVAL)
        try:
            os.ftruncate(self._fd, size)
            if size > old and preallocation is Preallocation.FALLOC:
                os.posix_fallocate(self._fd, old, size - old)
            elif size > old and preallocation is Preallocation.FULL:
                self._write_zeroes_out(old, size - old)
                os.ftruncate(self._fd, size)  # direct I/O has written whole blocks
                self._sync(lambda: self._store(os.fsync))
            if not old and preallocation is not Preallocation.FULL:
                self._allocate_first_block(size)
        except OSError as error:
            os.ftruncate(self._fd, old)
            if breaks_in(error):
                raise
            message = f"{RESIZE_FAILURES[preallocation]}: {os.strerror(error.errno or 0)}"
            hint = explain(error.errno, self._path, write=True, needed=size - old)
            raise BlockError(message, errno=error.errno, hint=hint) from None

    def _allocate_first_block(self, size: int) -> None:
        """Give a new file its first block, as QEMU does: some hosts tell the alignment of direct I/O by it."""
        length = _FIRST_BLOCK if size >= _FIRST_BLOCK else SECTOR
        if size < length:
            return
        from mmap import mmap

        with contextlib.suppress(OSError), mmap(-1, length) as aligned:
            os.pwrite(self._fd, aligned, 0)

    def preallocate(self, offset: int, length: int) -> None:
        """Reserve space on the host; bytes that are there stay, and the file grows to the end of the range."""
        try:
            os.posix_fallocate(self._fd, offset, length)
        except OSError as error:
            self._fail(error)

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

    def _forget(self) -> int:
        """The descriptor, which nobody uses any more, to be closed by the caller.

        The node keeps its requests out meanwhile; who goes past the node, or looks for holes, is kept out here.
        """
        with self._seeking:
            fd, self._fd = self._fd, -1
            past = self._past
        try:
            if past is not None and not past.close(_END_TIMEOUT):
                raise BlockError(f"Requests to '{self._path}' do not come to an end; it stays open", errno=errno.EBUSY)
        except BaseException:
            self._fd = fd
            raise
        BYPASS.changed()  # also for who has the number, and has not asked for the gate yet
        if past is not None:
            past.open()
        self._direct = None
        return fd

    def _lseek(self, offset: int, whence: int) -> int:
        """``lseek(2)``, which may be asked for beside the node, and would move in another file once it is closed."""
        with self._seeking:
            return os.lseek(self._fd, offset, whence)

    def _seek(self, offset: int, whence: int, end: int) -> int:
        try:
            return min(self._lseek(offset, whence), end)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data up to the end
                return end
            return offset if whence == os.SEEK_DATA else end

    def _fallocate(self, mode: int, offset: int, length: int) -> bool:
        with self.changing(offset, length):
            return fallocate(self._fd, self._path, mode, offset, length)

    def changing(self, offset: int, length: int) -> contextlib.AbstractContextManager[None]:
        """To be held while the host changes a range in other ways than by a write: see :class:`DirectFile`."""
        return self._direct_file().changing(offset, length) if self.is_direct else contextlib.nullcontext()

    def _fail(self, error: OSError) -> NoReturn:
        if breaks_in(error):  # of a signal handler, not of the host
            raise error
        raise OSError(error.errno, error.strerror, self._path) from None


_libc: Any = None


def _libc_fallocate(fd: int, mode: int, offset: int, length: int) -> int:
    """``fallocate(2)``, which Python does not offer; the errno, or 0."""
    global _libc
    import ctypes

    if _libc is None:
        _libc = ctypes.CDLL(None, use_errno=True)
        _libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    while _libc.fallocate(fd, mode, offset, length):
        code = ctypes.get_errno()
        if code != errno.EINTR:
            return code
    return 0


def fallocate(fd: int, path: str, mode: int, offset: int, length: int) -> bool:
    """Ask the file system for a range; False where it has no such operation.

    Raises:
        OSError: it failed.
    """
    code = _libc_fallocate(fd, mode, offset, length)
    if code == 0:
        return True
    if code in UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), path)


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

"""The directory on the host, changed without ever leaving it.

Every step goes from the directory's own descriptor, one name at a time and through no link, to directories that are
known; and nothing is changed, moved over or removed that is not the very file that was shown.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Callable
from typing import Final

from hostel.block.protocols.vvfat.guest import Node
from hostel.block.protocols.vvfat.tree import Identity, changed
from hostel.errors import BlockError, ImageLocked

_TEMPORARY: Final = ".hostel-"  # what names begin with that are gone when all is well
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_RENAME_NOREPLACE: Final = 1  # linux/fs.h

Fill = Callable[[int], None]


class HostDirectory:
    """The directory, of which only one process at a time may be the writer.

    Args:
        path: where it is.
        known: what it has to be.

    Raises:
        BlockError: it cannot be opened, or is another one.
        ImageLocked: somebody else writes it.
    """

    def __init__(self, path: str, known: Identity) -> None:
        self.path = path
        try:
            self._top = os.open(path, _DIRECTORY)
        except (OSError, ValueError) as error:
            raise self._failed("", error) from None
        self._open: tuple[Node, int] | None = None  # the last directory
        self._changed: dict[int, Node] = {}  # directories to be synced
        found = Identity.of(os.fstat(self._top))
        if (found.device, found.inode) != (known.device, known.inode):
            os.close(self._top)
            raise changed(path)
        try:
            fcntl.flock(self._top, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._top)
            raise ImageLocked(
                f"'{path}' is written by somebody else", hint="Is another process using the directory as a disk?"
            ) from None
        except OSError:
            return  # the host's file system has no locks

    def make_directory(self, parent: Node, name: str) -> Identity:
        """Make a directory where nothing is."""
        path = self._join(parent, name)
        try:
            at = self._at(parent)
            os.mkdir(name, dir_fd=at)
            found = os.stat(name, dir_fd=at, follow_symlinks=False)
        except OSError as error:
            raise self._failed(path, error) from None
        self._touch(parent)
        return Identity.of(found)

    def move(self, node: Node, parent: Node, name: str, over: Node | None = None) -> None:
        """Give a file or directory another place: where nothing is, or where ``over`` is, which is gone then."""
        assert node.parent is not None
        self._require(node)
        if over is not None:
            self._require(over)
        try:
            source = os.dup(self._at(node.parent))
            try:
                target = self._at(parent)
                if over is not None:
                    os.rename(node.name, name, src_dir_fd=source, dst_dir_fd=target)
                else:
                    _rename_to_nothing(source, node.name, target, name)
            finally:
                os.close(source)
        except OSError as error:
            raise self._failed(self._join(parent, name), error) from None
        self._touch(node.parent)
        self._touch(parent)
        if node.is_directory:
            self._leave()

    def remove(self, node: Node) -> None:
        """Remove a file, or a directory that is empty."""
        assert node.parent is not None
        self._require(node)
        self._leave(node)
        try:
            at = self._at(node.parent)
            (os.rmdir if node.is_directory else os.unlink)(node.name, dir_fd=at)
        except OSError as error:
            raise self._failed(node.path, error) from None
        self._touch(node.parent)

    def create(self, parent: Node, name: str, fill: Fill) -> Identity:
        """Make a file where nothing is; it has its whole content as soon as it has its name."""
        try:
            at = self._at(parent)
            found = _new_unnamed(at, name, fill)
            if found is None:
                temporary = self._temporary(at, 0o666, fill)
                try:
                    found = os.stat(temporary, dir_fd=at, follow_symlinks=False)
                    _rename_to_nothing(at, temporary, at, name)
                except BaseException:
                    os.unlink(temporary, dir_fd=at)
                    raise
        except OSError as error:
            raise self._failed(self._join(parent, name), error) from None
        self._touch(parent)
        return Identity.of(found)

    def replace(self, node: Node, fill: Fill) -> Identity:
        """Put another file in a file's place, at once."""
        assert node.parent is not None
        self._require(node)
        try:
            at = self._at(node.parent)
            old = os.stat(node.name, dir_fd=at, follow_symlinks=False)
            temporary = self._temporary(at, stat.S_IMODE(old.st_mode), fill)
            try:
                if (os.geteuid(), os.getegid()) != (old.st_uid, old.st_gid):
                    _give(at, temporary, old)
                found = os.stat(temporary, dir_fd=at, follow_symlinks=False)
                self._require(node)
                os.rename(temporary, node.name, src_dir_fd=at, dst_dir_fd=at)
            except BaseException:
                os.unlink(temporary, dir_fd=at)
                raise
        except OSError as error:
            raise self._failed(node.path, error) from None
        self._touch(node.parent)
        return Identity.of(found)

    def is_shared(self, node: Node) -> bool:
        """Whether a file has other names, under which it must not change."""
        try:
            return self._status(node).st_nlink > 1
        except OSError as error:
            raise self._failed(node.path, error) from None

    def open_file(self, node: Node, flags: int) -> int:
        """Open a file that has to be the one that is known; its descriptor is the caller's to close."""
        assert node.parent is not None
        try:
            # Where a pipe has taken its place, opening must not wait for whoever reads it.
            flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(node.name, flags, dir_fd=self._at(node.parent))
        except OSError as error:
            raise self._failed(node.path, error) from None
        if Identity.of(os.fstat(descriptor)) != node.known:
            os.close(descriptor)
            raise changed(os.path.join(self.path, node.path))
        return descriptor

    def sync(self) -> None:
        """Make the changes of directories survive a power cut; those of files do already."""
        for node in self._changed.values():
            try:
                os.fsync(self._at(node))
            except OSError as error:
                raise self._failed(node.path, error) from None
        self._changed.clear()

    def forget(self, node: Node) -> None:
        """A directory is gone, and needs no sync."""
        self._changed.pop(id(node), None)

    def close(self) -> None:
        """Let others write."""
        self._leave()
        top, self._top = self._top, -1
        if top >= 0:
            os.close(top)

    # ---- inside

    def _at(self, directory: Node) -> int:
        """A descriptor of a directory, which stays open until the next one is asked for."""
        if directory.parent is None:
            return self._top
        if self._open is not None and self._open[0] is directory:
            return self._open[1]
        self._leave()
        steps: list[Node] = []
        step = directory
        while step.parent is not None:
            steps.append(step)
            step = step.parent
        at = os.dup(self._top)
        try:
            for step in reversed(steps):
                former, at = at, os.open(step.name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
                os.close(former)  # which is gone, whatever comes of that
                found = Identity.of(os.fstat(at))
                if step.known is None or (found.device, found.inode) != (step.known.device, step.known.inode):
                    raise changed(os.path.join(self.path, step.path))
        except BaseException:
            os.close(at)
            raise
        self._open = directory, at
        return at

    def _leave(self, node: Node | None = None) -> None:
        if self._open is not None and node in (None, self._open[0]):
            descriptor, self._open = self._open[1], None
            os.close(descriptor)

    def _touch(self, directory: Node) -> None:
        self._changed[id(directory)] = directory

    def _status(self, node: Node) -> os.stat_result:
        assert node.parent is not None
        return os.stat(node.name, dir_fd=self._at(node.parent), follow_symlinks=False)

    def _require(self, node: Node) -> None:
        """Refuse to touch what is not what was shown."""
        try:
            found = Identity.of(self._status(node))
        except FileNotFoundError:
            raise changed(os.path.join(self.path, node.path)) from None
        except OSError as error:
            raise self._failed(node.path, error) from None
        known = node.known
        same = known is not None and (
            (found.device, found.inode) == (known.device, known.inode) if node.is_directory else found == known
        )
        if not same:
            raise changed(os.path.join(self.path, node.path))

    def _temporary(self, at: int, mode: int, fill: Fill) -> str:
        name = temporary_name()
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=at)
        try:
            fill(descriptor)
            os.fsync(descriptor)
        except BaseException:
            os.unlink(name, dir_fd=at)
            raise
        finally:
            os.close(descriptor)
        return name

    def _join(self, parent: Node, name: str) -> str:
        return f"{parent.path}/{name}" if parent.path else name

    def _failed(self, path: str, error: Exception) -> BlockError:
        if isinstance(error, BlockError):
            return error
        number = getattr(error, "errno", None) or errno.EINVAL
        whole = os.path.join(self.path, path) if path else self.path
        hint = None
        if number in (errno.EEXIST, errno.ENOTEMPTY):
            hint = "It holds what the guest has not seen, and that is not removed."
        return BlockError(f"Could not write '{whole}': {os.strerror(number)}", errno=number, hint=hint)


def temporary_name() -> str:
    """A name that nothing has."""
    return _TEMPORARY + secrets.token_hex(8)


def _give(at: int, name: str, old: os.stat_result) -> None:
    """Let a new file have the owner of the old one, where that is allowed."""
    try:
        os.chown(name, old.st_uid, old.st_gid, dir_fd=at, follow_symlinks=False)
        os.chmod(name, stat.S_IMODE(old.st_mode), dir_fd=at)  # which a change of owner may have cut
    except PermissionError:
        return


def _new_unnamed(at: int, name: str, fill: Fill) -> os.stat_result | None:
    """Make a file that gets its name last; None where the host's file system has no such files."""
    try:
        descriptor = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666, dir_fd=at)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT):
            return None
        raise
    try:
        fill(descriptor)
        os.fsync(descriptor)
        try:
            os.link(f"/proc/self/fd/{descriptor}", name, dst_dir_fd=at, follow_symlinks=True)
        except FileNotFoundError:  # no /proc
            return None
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def _rename_to_nothing(source: int, name: str, target: int, new: str) -> None:
    """Rename, but never over what is there.

    Raises:
        OSError: something is there, or the host refuses.
    """
    library = ctypes.CDLL(None, use_errno=True)
    call = getattr(library, "renameat2", None)
    if call is not None:
        if call(source, os.fsencode(name), target, os.fsencode(new), ctypes.c_uint(_RENAME_NOREPLACE)) == 0:
            return
        code = ctypes.get_errno()
        if code not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(code, os.strerror(code), new)
    try:
        os.stat(new, dir_fd=target, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(name, new, src_dir_fd=source, dst_dir_fd=target)
        return
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new)


def set_time(descriptor: int, stamp: tuple[int, int]) -> None:
    """Give a file the time that a guest's entry has, in the host's own time; none where that is no time."""
    date, clock = stamp
    moment = ((date >> 9) + 1980, date >> 5 & 15, date & 31, clock >> 11, clock >> 5 & 63, (clock & 31) * 2, 0, 0, -1)
    if not (1 <= moment[1] <= 12 and 1 <= moment[2] <= 31 and moment[3] < 24 and moment[4] < 60 and moment[5] < 60):
        return
    try:
        seconds = int(time.mktime(moment))
    except (OverflowError, ValueError):
        return
    os.utime(descriptor, ns=(os.fstat(descriptor).st_atime_ns, seconds * 10**9))

"""The files of a directory, and what their FAT entries need to know of them."""

from __future__ import annotations

import errno
import os
import stat
import struct
import time
from collections.abc import Iterator
from typing import Final, NamedTuple

from hostel.block.protocols.vvfat import names
from hostel.errors import BlockError, InvalidImage
from hostel.units import GiB

ENTRY: Final = 32  # bytes of an entry of a directory
_ENTRY: Final = struct.Struct("<11sBBB7HI")
_MAX_FILE: Final = 4 * GiB - 1  # bytes
MAX_DIRECTORY: Final = 65536  # entries
MAX_FILES: Final = 1 << 18  # of all directories together
MAX_DEPTH: Final = 100
_EARLIEST, _LATEST = 315532800, 4354819198  # seconds since 1970: 1980, and the end of 2107


class Identity(NamedTuple):
    """By which a file is known again, unchanged."""

    device: int
    inode: int
    size: int
    changed: int  # nanoseconds since 1970

    @classmethod
    def of(cls, found: os.stat_result) -> Identity:
        """That of a file."""
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


class File:
    """A file or a directory.

    Attributes:
        path: on the host.
        found: what the host said of it.
        parent: the directory that it is in; None of the first one.
        slots: its short name, and the entries of the long one before it.
        children: of a directory.
        cluster: where its bytes begin; 0 of an empty file, and as long as it has no place.
        known: as what it is known again; another one once we have written it.
        pinned: a descriptor of what it was, where it is on the host no more; else -1.
    """

    __slots__ = ("children", "cluster", "found", "known", "parent", "path", "pinned", "slots")

    def __init__(self, path: str, found: os.stat_result, parent: File | None, slots: tuple[bytes, bytes]) -> None:
        self.path = path
        self.found = found
        self.known = Identity.of(found)
        self.pinned = -1
        self.parent = parent
        self.slots = slots
        self.children: list[File] = []
        self.cluster = 0

    @property
    def is_directory(self) -> bool:
        """Whether it is one."""
        return stat.S_ISDIR(self.found.st_mode)

    @property
    def entries(self) -> int:
        """Entries of a directory, but for a volume's label."""
        own = 0 if self.parent is None else 2  # itself, and the one that it is in
        return own + sum(1 + len(child.slots[1]) // ENTRY for child in self.children)


def scan(path: str) -> File:
    """Look at a directory and all below it. Links are not followed, wherever they lead.

    Raises:
        BlockError: it cannot be read.
        InvalidImage: FAT cannot hold what is in it.
    """
    try:
        top = File(path, os.stat(path), None, (b"", b""))
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    waiting, count = [(top, 1)], 0
    while waiting:
        directory, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise InvalidImage(f"'{directory.path}' lies below more than {MAX_DEPTH} directories")
        for child in _children(directory):
            directory.children.append(child)
            count += 1
            if count > MAX_FILES:
                raise InvalidImage(f"'{path}' holds more than {MAX_FILES} files")
        if directory.entries > MAX_DIRECTORY:
            raise InvalidImage(f"'{directory.path}' needs more than the {MAX_DIRECTORY} entries of a directory")
        waiting += [(child, depth + 1) for child in directory.children if child.is_directory]
    return top


def _unreadable(path: str, error: Exception) -> BlockError:
    number = getattr(error, "errno", None) or errno.EINVAL
    return BlockError(f"Could not read directory {path}: {os.strerror(number)}", errno=number)


def _children(directory: File) -> Iterator[File]:
    """What is in a directory, in the order of the names: the disk is the same wherever it is made."""
    try:
        descriptor = os.open(directory.path, os.O_RDONLY | os.O_DIRECTORY | (os.O_NOFOLLOW if directory.parent else 0))
    except (OSError, ValueError) as error:
        raise _unreadable(directory.path, error) from None
    try:
        now, then = os.fstat(descriptor), directory.found
        if (now.st_dev, now.st_ino) != (then.st_dev, then.st_ino):
            raise changed(directory.path)
        with os.scandir(descriptor) as entries:
            found = sorted((each.name, each.stat(follow_symlinks=False)) for each in entries)
    except OSError as error:
        if isinstance(error, BlockError):
            raise
        raise _unreadable(directory.path, error) from None
    finally:
        os.close(descriptor)
    short, seen = names.ShortNames(), dict[str, str]()
    for name, status in found:
        path = os.path.join(directory.path, name)
        _check(name, path, status)
        if (other := seen.setdefault(names.folded(name), name)) != name:
            raise InvalidImage(f"'{path}' and '{other}' are one name for FAT, which does not tell capitals from others")
        chosen = short.add(name)
        yield File(path, status, directory, (chosen, names.long_entries(name, chosen)))


def _check(name: str, path: str, status: os.stat_result) -> None:
    names.check(name, path)
    if stat.S_ISLNK(status.st_mode):
        raise InvalidImage(f"'{path}' is a symbolic link, and those are not followed", hint="Copy what it leads to.")
    if not stat.S_ISDIR(status.st_mode) and not stat.S_ISREG(status.st_mode):
        raise InvalidImage(f"'{path}' is neither a file nor a directory")
    if stat.S_ISREG(status.st_mode) and status.st_size > _MAX_FILE:
        raise InvalidImage(f"'{path}' has {status.st_size} bytes; a file on FAT has 4 GiB less one at most")


def changed(path: str) -> BlockError:
    """What is said when a file is no longer the one that was shown."""
    return BlockError(f"'{path}' was changed while it is shown as a part of a disk", hint="Open the disk again.")


def entry(file: File, name: bytes, cluster: int) -> bytes:
    """The entry of a file, by its name or ``.`` or ``..``."""
    is_directory, found = file.is_directory, file.found
    made, made_at = _date(found.st_ctime)
    written, written_at = _date(found.st_mtime)
    read, _ = _date(found.st_atime)
    high, low = cluster >> 16, cluster & 0xFFFF
    times = (made_at, made, read, high, written_at, written, low)
    attributes = 0x10 if is_directory else 0x20 if found.st_mode & 0o222 else 0x21  # which may not be written
    return _ENTRY.pack(name, attributes, 0, 0, *times, 0 if is_directory else found.st_size)


def _date(seconds: float) -> tuple[int, int]:
    """A date and a time of the day as FAT has them: in the host's own time, of 1980 and later."""
    now = time.localtime(min(max(seconds, _EARLIEST + 86400), _LATEST - 86400))
    return (
        now.tm_year - 1980 << 9 | now.tm_mon << 5 | now.tm_mday,
        now.tm_hour << 11 | now.tm_min << 5 | min(now.tm_sec, 59) // 2,
    )

"""The driver of protocol ``vvfat``."""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Self

from hostel.block.driver import FormatInfo, OpenMode, Supports
from hostel.block.extent import Extent, Status
from hostel.block.node import fill_zeroes
from hostel.block.options import Kind, Option, OptionError, Options
from hostel.block.protocol import Creation, ProtocolDriver
from hostel.block.protocols.vvfat import tree
from hostel.block.protocols.vvfat.tree import File, Identity
from hostel.block.protocols.vvfat.volume import FAT_TYPES, Volume, geometry
from hostel.codec.qobject import compact_json
from hostel.errors import BlockError, ReadOnly
from hostel.units import SECTOR

if TYPE_CHECKING:
    from hostel.block.protocols.vvfat.writing import WritableVolume

_SCHEME: Final = "fat:"
_LABEL: Final = "QEMU VVFAT"
_OPEN_FILES: Final = 16


class VvfatDriver(ProtocolDriver):
    """A directory as a disk. What is in it was looked at once; what is in its files is read when it is wanted.

    Where it may be written, ``rw``, the directory follows the disk (:mod:`hostel.block.protocols.vvfat.writing`).
    """

    name = "vvfat"
    creation = Creation.NONE
    options: Final = Options(  # type: ignore[misc]
        Option("dir", Kind.STRING, "Host directory to map to the vvfat device"),
        Option("fat-type", Kind.NUMBER, "FAT type (12, 16 or 32)", "0"),
        Option("floppy", Kind.BOOL, "Create a floppy rather than a hard disk image", "off"),
        Option("label", Kind.STRING, "Use a volume label other than QEMU VVFAT"),
        Option("rw", Kind.BOOL, "Make the image writable", "off"),
    )

    def __init__(
        self, top: File, fat_type: int, *, floppy: bool, label: bytes, filename: str, writable: bool = False
    ) -> None:
        super().__init__()
        self.filename = filename
        self._open: OrderedDict[File, int] = OrderedDict()  # descriptors, the last used behind the others
        self._volume = Volume(top, geometry(fat_type, floppy=floppy, needed=_needed(top)), label, self._read_file)
        self._written: WritableVolume | None = None
        if writable:
            from hostel.block.protocols.vvfat.writing import WritableVolume

            self.supports = Supports.WRITE
            self._written = WritableVolume(self._volume, top)

    @classmethod
    def parse_filename(cls, name: str) -> Mapping[str, Any]:
        """Read ``fat:[floppy:][12:|16:|32:][rw:]DIRECTORY``; the directory is all that follows those words.

        Raises:
            OptionError: it is no such name.
        """
        if not name.startswith(_SCHEME):
            raise OptionError("File name string must start with 'fat:'")
        found: dict[str, Any] = {"fat-type": 0, "dir": "", "floppy": False, "rw": False}
        rest = name.removeprefix(_SCHEME)
        while True:
            word, colon, behind = rest.partition(":")
            if not colon:
                break
            if word in map(str, FAT_TYPES):
                found["fat-type"] = int(word)
            elif word in ("floppy", "rw"):
                found[word] = True
            elif word:
                break
            rest = behind
        return found | {"dir": rest}

    @classmethod
    def open(cls, options: Mapping[str, Any], mode: OpenMode, *, creating: bool = False) -> Self:
        """Look at the directory.

        Raises:
            OptionError: an option is unknown, missing or wrong.
            ReadOnly: it was to be written, and ``rw`` does not say so.
            ImageLocked: somebody else writes it.
            InvalidImage: FAT cannot hold what is in it.
            BlockError: it cannot be read.
        """
        values = cls.converted(options)
        if "dir" not in values:
            raise OptionError("vvfat block driver requires a 'dir' option")
        directory, fat_type = str(values["dir"]), int(values["fat-type"])
        label = _label(str(values.get("label", _LABEL)))
        if values["rw"]:
            if mode.read_only:
                raise BlockError("Unable to set VVFAT to 'rw' when drive is read-only", errno=errno.EPERM)
        elif not mode.read_only:
            raise ReadOnly("Image is read-only", errno=errno.EACCES)
        given = {**options, "driver": cls.name}
        order = ("fat-type", "dir", "driver", "floppy", "label", "rw")  # QEMU's
        filename = f"json:{compact_json({name: given[name] for name in order if name in given})}"
        top, floppy, writable = tree.scan(directory), bool(values["floppy"]), bool(values["rw"])
        return cls(top, fat_type, floppy=floppy, label=label, filename=filename, writable=writable)

    @property
    def length(self) -> int:
        """The disk's size in bytes."""
        return self._volume.geometry.total * SECTOR

    def pread(self, offset: int, buf: memoryview) -> None:
        """Make up the file system, or read a file.

        Raises:
            BlockError: a file was changed since the disk was opened, or cannot be read.
        """
        (self._written or self._volume).pread(offset, buf)

    def pwrite(self, offset: int, data: memoryview) -> None:
        """Write what the directory will follow.

        Raises:
            BlockError: what makes the disk one was to be changed; there is no room; or the host refuses.
        """
        assert self._written is not None
        self._written.pwrite(offset, data)

    def flush(self) -> None:
        """Bring what was written into the directory, if it makes sense by now.

        Raises:
            BlockError: the host refuses.
        """
        if self._written is not None:
            self._written.flush()

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Data up to the last file's end, and where something was written; else zeroes."""
        below = self._extents(offset, length)
        return below if self._written is None else self._written.extents(below)

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        end, used = offset + length, self._volume.used
        if offset < used:
            stop = min(end, used)
            yield Extent(offset, stop - offset, Status.DATA | Status.ALLOCATED)
            offset = stop
        if offset < end:
            yield Extent(offset, end - offset, Status.ZERO | Status.ALLOCATED)

    def info(self) -> FormatInfo:
        """Nothing is known of it."""
        return FormatInfo(dirty=None)

    def close(self) -> None:
        """Bring the last writes into the directory, and close the files.

        Raises:
            BlockError: they do not get there; the error tells what becomes of them.
        """
        try:
            if self._written is not None:
                self._written.finish()
        finally:
            while self._open:
                os.close(self._open.popitem()[1])

    def _read_file(self, file: File, offset: int, buf: memoryview) -> None:
        descriptor = file.pinned if file.pinned >= 0 else self._descriptor(file)
        inside = max(0, min(len(buf), file.found.st_size - offset))
        done = 0
        while done < inside:
            count = os.preadv(descriptor, [buf[done:inside]], offset + done)
            if not count:
                raise tree.changed(file.path)
            done += count
        fill_zeroes(buf[inside:])
        if Identity.of(os.fstat(descriptor)) != file.known:
            raise tree.changed(file.path)

    def _descriptor(self, file: File) -> int:
        descriptor = self._open.pop(file, -1)
        if descriptor < 0:
            descriptor = _open_file(file)
        self._open[file] = descriptor
        if len(self._open) > _OPEN_FILES:
            os.close(self._open.popitem(last=False)[1])
        return descriptor


def _open_file(file: File) -> int:
    """Open a file that has to be the one that was found."""
    try:
        # Where a pipe has taken its place, opening must not wait for whoever writes into it.
        descriptor = os.open(file.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
            raise tree.changed(file.path) from None
        raise BlockError(f"Could not open '{file.path}': {error.strerror}", errno=error.errno) from None
    if Identity.of(os.fstat(descriptor)) != file.known:
        os.close(descriptor)
        raise tree.changed(file.path)
    return descriptor


def _label(text: str) -> bytes:
    data = text.encode(errors="surrogateescape")
    if len(data) > 11:
        raise OptionError("vvfat label cannot be longer than 11 bytes")
    return data.ljust(11)


def _needed(top: File) -> int:
    """The bytes that a directory takes, in clusters of the largest size."""
    total, waiting = 0, [top]
    while waiting:
        file = waiting.pop()
        length = (file.entries + 1) * tree.ENTRY if file.is_directory else file.found.st_size
        total += -(-length // (64 * SECTOR)) * 64 * SECTOR
        waiting += file.children
    return total

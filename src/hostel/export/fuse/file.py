"""The file that programs see: what FUSE's requests do to a node."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from hostel.block.chain import block_status, held, length_in_file, rounded_length
from hostel.block.draining import bypass_closed
from hostel.block.extent import Status
from hostel.block.node import BlockNode
from hostel.block.powers import Preallocation
from hostel.errors import BlockError, InvalidImage
from hostel.units import INT64_MAX, SECTOR, MiB
from hostel.wire.fuse import protocol
from hostel.wire.fuse.protocol import (
    AttributesReply,
    Fallocate,
    Init,
    Opcode,
    OpenReply,
    Seek,
    Set,
    SetAttributes,
    StatfsReply,
    Transfer,
    WriteReply,
)

_KEEP_SIZE, _PUNCH_HOLE, _ZERO_RANGE = 1, 2, 16
_BLOCK: Final = 4096  # bytes, what programs are told to write at once
_STEP: Final = 1024 * MiB  # bytes that are zeroed or discarded at once
_ANYBODY: Final = stat.S_IRWXG | stat.S_IRWXO
_WRITING: Final = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH


class Failed(Exception):  # an answer, not a mistake
    """A request fails.

    Attributes:
        code: the errno.
    """

    def __init__(self, code: int) -> None:
        super().__init__(os.strerror(code))
        self.code = code


class ExportedFile:
    """A node as a file; used by several threads.

    Args:
        node: the image, which stays its owner's to close.
        writable: programs may write.
        growable: and beyond its end, which then grows.
        allow_other: not only our own user may use it.
    """

    def __init__(self, node: BlockNode, *, writable: bool, growable: bool, allow_other: bool) -> None:
        self._node = node
        self._writable = writable and not node.read_only
        self._growable = growable
        self._allow_other = allow_other
        self._mode = stat.S_IFREG | stat.S_IRUSR | (stat.S_IWUSR if self._writable else 0)
        self._uid, self._gid = os.getuid(), os.getgid()
        self._growing = threading.Lock()

    def answer(self, opcode: int, inode: int, body: memoryview) -> bytes | memoryview:
        """Do what a request says; gives the answer's body.

        Raises:
            Failed: the errno that the program gets.
        """
        handler = _HANDLERS.get(opcode)
        if handler is None:
            raise Failed(errno.ENOSYS)
        if inode != protocol.ROOT and opcode != Opcode.INIT:
            raise Failed(errno.ENOENT)
        try:
            return handler(self, body)
        except InvalidImage:  # a body that is too short
            raise Failed(errno.EIO) from None
        except OSError as error:
            raise Failed(error.errno or errno.EIO) from None
        except MemoryError:
            raise Failed(errno.ENOMEM) from None

    def _init(self, body: memoryview) -> bytes:
        return protocol.greet(Init.unpack(body))

    def _lookup(self, body: memoryview) -> bytes:
        raise Failed(errno.ENOENT)

    def _nothing(self, body: memoryview) -> bytes:
        return b""

    def _get_attributes(self, body: memoryview) -> bytes:
        now = int(time.time())
        length = rounded_length(self._node)
        return AttributesReply(
            valid=1,
            valid_nsec=0,
            dummy=0,
            inode=protocol.ROOT,
            size=length,
            blocks=-(-(_allocated(self._node) or length) // SECTOR),
            atime=now,
            mtime=now,
            ctime=now,
            atime_nsec=0,
            mtime_nsec=0,
            ctime_nsec=0,
            mode=self._mode,
            nlink=1,
            uid=self._uid,
            gid=self._gid,
            rdev=0,
            blksize=_BLOCK,
            flags=0,
        ).pack()

    def _set_attributes(self, body: memoryview) -> bytes:
        """Resize, and change the mode and the owner as far as that gives nobody more than the export does."""
        wanted = SetAttributes.unpack(body)
        valid = wanted.valid & ~(Set.HANDLE | Set.LOCK_OWNER | Set.KILL_SUID_GID)
        owner = Set.UID | Set.GID
        if valid & ~(Set.SIZE | Set.MODE | (owner if self._allow_other else 0)):
            raise Failed(errno.ENOTSUP)
        if valid & Set.MODE and not self._allow_other and wanted.mode & _ANYBODY:
            raise Failed(errno.EPERM)
        if valid & Set.MODE and not self._writable and wanted.mode & _WRITING:
            raise Failed(errno.EROFS)
        if valid & Set.SIZE:
            self._check_writable()
            with self._growing:
                self._resize(wanted.size)
        if valid & Set.MODE:
            self._mode = stat.S_IFREG | stat.S_IMODE(wanted.mode)
        if valid & Set.UID:
            self._uid = wanted.uid
        if valid & Set.GID:
            self._gid = wanted.gid
        return self._get_attributes(body)

    def _open(self, body: memoryview) -> bytes:
        return OpenReply(handle=0, flags=0, padding=0).pack()

    def _read(self, body: memoryview) -> bytes | memoryview:
        wanted = Transfer.unpack(body)
        if wanted.size > protocol.MAX_TRANSFER:
            raise Failed(errno.EINVAL)
        count = max(0, min(wanted.size, rounded_length(self._node) - wanted.offset))
        if not count:
            return b""
        buffer = memoryview(bytearray(count))
        self._node.pread(wanted.offset, buffer)
        return buffer

    def _write(self, body: memoryview) -> bytes:
        wanted = Transfer.unpack(body)
        data = body[Transfer.SIZE :][: wanted.size]
        self._check_writable()
        if wanted.offset + len(data) > rounded_length(self._node):
            data = self._grow_for(wanted.offset, data)
        if data:
            self._node.pwrite(wanted.offset, data)
        return WriteReply(size=len(data), padding=0).pack()

    def _grow_for(self, offset: int, data: memoryview) -> memoryview:
        """Make room for a write beyond the end; what of it fits where the file does not grow."""
        with self._growing:
            length = rounded_length(self._node)
            if offset + len(data) <= length:
                return data
            if not self._growable:
                return data[: max(0, length - offset)]
            self._resize(offset + len(data))
        return data

    def _fallocate(self, body: memoryview) -> bytes:
        wanted = Fallocate.unpack(body)
        self._check_writable()
        offset, length, mode = wanted.offset, wanted.length, wanted.mode
        if offset + length > INT64_MAX:
            raise Failed(errno.EFBIG)
        with self._growing:
            end = rounded_length(self._node)
            if not mode:
                if offset < end:  # space can be reserved behind the end only
                    raise Failed(errno.EOPNOTSUPP)
                self._resize(offset)
                self._resize(offset + length, Preallocation.FALLOC)
                return b""
            if mode == _PUNCH_HOLE | _KEEP_SIZE:
                self._in_steps(offset, min(length, end - offset), self._punch)
            elif mode & ~_KEEP_SIZE == _ZERO_RANGE:
                if not mode & _KEEP_SIZE and offset + length > end:
                    self._resize(offset + length)
                    end = offset + length
                self._in_steps(offset, min(length, end - offset), self._node.write_zeroes)
            else:
                raise Failed(errno.EINVAL if mode & _PUNCH_HOLE else errno.EOPNOTSUPP)
        return b""

    def _punch(self, offset: int, length: int) -> None:
        """Give a range's space back; it must read as zeroes then, which a discard alone does not promise."""
        self._node.write_zeroes(offset, length, unmap=True)

    def _in_steps(self, offset: int, length: int, step: Callable[[int, int], None]) -> None:
        end = offset + length
        while offset < end:
            step(offset, min(_STEP, end - offset))
            offset += _STEP

    def _fsync(self, body: memoryview) -> bytes:
        self._node.flush()
        return b""

    def _seek(self, body: memoryview) -> bytes:
        wanted = Seek.unpack(body)
        if wanted.whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            raise Failed(errno.EINVAL)
        offset, length = wanted.offset, rounded_length(self._node)
        if offset > length or (offset == length and wanted.whence == os.SEEK_DATA):
            raise Failed(errno.ENXIO)
        with held(self._node):
            for start, is_data in self._runs(offset, length - offset):
                if is_data == (wanted.whence == os.SEEK_DATA):
                    return protocol.offset(start)
        if wanted.whence == os.SEEK_DATA:
            raise Failed(errno.ENXIO)
        return protocol.offset(length)

    def _runs(self, offset: int, length: int) -> Iterator[tuple[int, bool]]:
        """Where data and holes begin, and which it is; what a file lacks of its last sector is a hole."""
        for extent in block_status(self._node, offset, length):
            inside = length_in_file(extent) if extent.status & Status.DATA else 0
            if inside:
                yield extent.offset, True
            if inside < extent.length:
                yield extent.offset + inside, False

    def _statfs(self, body: memoryview) -> bytes:
        return StatfsReply(
            blocks=-(-rounded_length(self._node) // _BLOCK),
            bfree=0,
            bavail=0,
            files=1,
            ffree=0,
            bsize=_BLOCK,
            namelen=255,
            frsize=_BLOCK,
            padding=0,
            spare0=0,
            spare1=0,
            spare2=0,
        ).pack()

    def _check_writable(self) -> None:
        if not self._writable:
            raise Failed(errno.EACCES)

    def _resize(self, size: int, preallocation: Preallocation = Preallocation.OFF) -> None:
        if size > INT64_MAX:
            raise Failed(errno.EFBIG)
        with bypass_closed(self._node) if size < rounded_length(self._node) else contextlib.nullcontext():
            self._resize_node(size, preallocation)

    def _resize_node(self, size: int, preallocation: Preallocation) -> None:
        try:
            self._node.resize(size, preallocation)
        except BlockError as error:
            # QEMU's formats have sizes in whole sectors, and so have ours: a file may have any.
            whole = -(-size // SECTOR) * SECTOR
            if error.errno != errno.EINVAL or whole == size:
                raise
            self._node.resize(whole, preallocation)


def _allocated(node: BlockNode) -> int:
    """Bytes on the host of an image's own files; 0 where that is not known."""
    found = getattr(node.driver, "allocated_length", None)
    if isinstance(found, int):
        return found
    return sum(_allocated(child) for edge, child in node.driver.children.items() if edge != "backing")


_HANDLERS: Final[Mapping[int, Callable[[ExportedFile, memoryview], bytes | memoryview]]] = {
    Opcode.INIT: ExportedFile._init,
    Opcode.LOOKUP: ExportedFile._lookup,
    Opcode.GETATTR: ExportedFile._get_attributes,
    Opcode.SETATTR: ExportedFile._set_attributes,
    Opcode.OPEN: ExportedFile._open,
    Opcode.READ: ExportedFile._read,
    Opcode.WRITE: ExportedFile._write,
    Opcode.STATFS: ExportedFile._statfs,
    Opcode.RELEASE: ExportedFile._nothing,
    Opcode.FSYNC: ExportedFile._fsync,
    Opcode.FLUSH: ExportedFile._fsync,
    Opcode.FALLOCATE: ExportedFile._fallocate,
    Opcode.LSEEK: ExportedFile._seek,
}

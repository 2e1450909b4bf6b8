"""The exported file without a mount: requests as bytes, and the errno of each that fails."""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.node import BlockNode
from hostel.errors import BlockError, RemoteProtocolError
from hostel.export.fuse.file import ExportedFile, Failed
from hostel.export.fuse.mount import check_mountpoint
from hostel.img import create
from hostel.wire.fuse.protocol import (
    MAX_TRANSFER,
    ROOT,
    AttributesReply,
    Fallocate,
    Init,
    InitReply,
    Opcode,
    Seek,
    Set,
    SetAttributes,
    Transfer,
)

SIZE = 1 << 20
KEEP, PUNCH, ZERO = 1, 2, 16


@pytest.fixture
def node(tmp_path: Path) -> Iterator[BlockNode]:
    path = str(tmp_path / "disk.qcow2")
    create.create(create.plan(path, "qcow2", SIZE))
    with graph.open(path, "qcow2", read_only=False) as opened:
        opened.pwrite(65536, b"data" * 16384)
        yield opened


def file(node: BlockNode, *, writable: bool = True, growable: bool = False, allow_other: bool = True) -> ExportedFile:
    return ExportedFile(node, writable=writable, growable=growable, allow_other=allow_other)


def ask(exported: ExportedFile, opcode: int, body: bytes = b"", inode: int = ROOT) -> bytes:
    return bytes(exported.answer(opcode, inode, memoryview(body)))


def fails(exported: ExportedFile, opcode: int, body: bytes = b"", inode: int = ROOT) -> int:
    with pytest.raises(Failed) as caught:
        ask(exported, opcode, body, inode)
    return caught.value.code


def transfer(offset: int, size: int, data: bytes = b"") -> bytes:
    head = Transfer(handle=0, offset=offset, size=size, flags=0, lock_owner=0, open_flags=0, padding=0)
    return head.pack() + data


def fallocate(offset: int, length: int, mode: int) -> bytes:
    return Fallocate(handle=0, offset=offset, length=length, mode=mode, padding=0).pack()


def seek(offset: int, whence: int) -> bytes:
    return Seek(handle=0, offset=offset, whence=whence, padding=0).pack()


def change(valid: int, **values: int) -> bytes:
    return SetAttributes(**{**dict.fromkeys(SetAttributes.FIELDS, 0), "valid": valid, **values}).pack()


def attributes(exported: ExportedFile) -> AttributesReply:
    return AttributesReply.unpack(ask(exported, Opcode.GETATTR, bytes(16)))


def test_structures_have_the_kernels_sizes() -> None:
    sizes = (Init.SIZE, InitReply.SIZE, AttributesReply.SIZE, SetAttributes.SIZE, Transfer.SIZE, Fallocate.SIZE)
    assert sizes == (16, 64, 104, 88, 40, 32)


def test_versions_are_agreed_on(node: BlockNode) -> None:
    greeting = Init(major=7, minor=44, max_readahead=131072, flags=0xFFFFFFFF).pack() + bytes(48)
    found = InitReply.unpack(ask(file(node), Opcode.INIT, greeting))
    assert (found.major, found.minor, found.max_write, found.max_pages) == (7, 31, MAX_TRANSFER, 256)
    with pytest.raises(RemoteProtocolError, match=r"the kernel speaks FUSE 7\.20"):
        ask(file(node), Opcode.INIT, Init(major=7, minor=20, max_readahead=0, flags=0).pack())


def test_reads_end_where_the_file_does(node: BlockNode) -> None:
    exported = file(node)
    assert ask(exported, Opcode.READ, transfer(65536, 8)) == b"datadata"
    assert ask(exported, Opcode.READ, transfer(SIZE - 2, 100)) == bytes(2)
    assert ask(exported, Opcode.READ, transfer(SIZE, 100)) == b""
    assert ask(exported, Opcode.READ, transfer(2**64 - 1, 100)) == b""
    assert fails(exported, Opcode.READ, transfer(0, MAX_TRANSFER + 1)) == errno.EINVAL


@pytest.mark.parametrize(("growable", "taken", "size"), [(False, 2, SIZE), (True, 4, SIZE + 512)])
def test_writes_behind_the_end_grow_it_or_are_short(node: BlockNode, growable: bool, taken: int, size: int) -> None:
    exported = file(node, growable=growable)
    assert struct.unpack("<II", ask(exported, Opcode.WRITE, transfer(SIZE - 2, 4, b"tail")))[0] == taken
    assert attributes(exported).size == size
    assert node.read(SIZE - 2, 2) == b"ta"


def test_nobody_writes_what_is_read_only(node: BlockNode) -> None:
    exported = file(node, writable=False)
    assert fails(exported, Opcode.WRITE, transfer(0, 1, b"x")) == errno.EACCES
    assert fails(exported, Opcode.FALLOCATE, fallocate(0, 1, PUNCH | KEEP)) == errno.EACCES
    assert fails(exported, Opcode.SETATTR, change(Set.SIZE, size=0)) == errno.EACCES
    assert fails(exported, Opcode.SETATTR, change(Set.MODE, mode=0o600)) == errno.EROFS
    assert stat.S_IMODE(attributes(exported).mode) == 0o400


def test_attributes_change_as_far_as_they_may(node: BlockNode) -> None:
    exported = file(node)
    ask(exported, Opcode.SETATTR, change(Set.MODE | Set.UID | Set.SIZE | Set.HANDLE, mode=0o640, uid=5, size=65536))
    found = attributes(exported)
    assert (found.mode, found.uid, found.size) == (stat.S_IFREG | 0o640, 5, 65536)
    alone = file(node, allow_other=False)
    assert fails(alone, Opcode.SETATTR, change(Set.MODE, mode=0o640)) == errno.EPERM
    assert fails(alone, Opcode.SETATTR, change(Set.UID, uid=5)) == errno.ENOTSUP
    assert fails(exported, Opcode.SETATTR, change(1 << 5)) == errno.ENOTSUP
    assert fails(exported, Opcode.SETATTR, change(Set.SIZE, size=2**63)) == errno.EFBIG


def test_ranges_are_zeroed_punched_and_reserved(node: BlockNode) -> None:
    exported = file(node, growable=True)
    ask(exported, Opcode.FALLOCATE, fallocate(65536, 4, ZERO))
    ask(exported, Opcode.FALLOCATE, fallocate(65544, 4, PUNCH | KEEP))
    assert node.read(65536, 16) == bytes(4) + b"data" + bytes(4) + b"data"
    ask(exported, Opcode.FALLOCATE, fallocate(SIZE, 65536, ZERO | KEEP))
    assert node.length == SIZE
    ask(exported, Opcode.FALLOCATE, fallocate(SIZE, 65536, 0))
    assert node.length == SIZE + 65536
    assert fails(exported, Opcode.FALLOCATE, fallocate(0, 1, 0)) == errno.EOPNOTSUPP
    assert fails(exported, Opcode.FALLOCATE, fallocate(0, 1, PUNCH)) == errno.EINVAL
    assert fails(exported, Opcode.FALLOCATE, fallocate(0, 1, 8)) == errno.EOPNOTSUPP
    assert fails(exported, Opcode.FALLOCATE, fallocate(2**63, 2**63, ZERO)) == errno.EFBIG


def test_data_and_holes_are_found(node: BlockNode) -> None:
    exported = file(node)
    found = [struct.unpack("<Q", ask(exported, Opcode.LSEEK, seek(at, os.SEEK_DATA)))[0] for at in (0, 65537)]
    assert found == [65536, 65537]
    found = [struct.unpack("<Q", ask(exported, Opcode.LSEEK, seek(at, os.SEEK_HOLE)))[0] for at in (0, 65536, SIZE)]
    assert found == [0, 131072, SIZE]
    assert fails(exported, Opcode.LSEEK, seek(131072, os.SEEK_DATA)) == errno.ENXIO
    assert fails(exported, Opcode.LSEEK, seek(SIZE + 1, os.SEEK_HOLE)) == errno.ENXIO
    assert fails(exported, Opcode.LSEEK, seek(0, os.SEEK_SET)) == errno.EINVAL


def test_what_is_unknown_or_malformed_has_an_errno(node: BlockNode) -> None:
    exported = file(node)
    assert fails(exported, 9999) == errno.ENOSYS
    assert fails(exported, Opcode.LOOKUP, b"name\0") == errno.ENOENT
    assert fails(exported, Opcode.GETATTR, inode=7) == errno.ENOENT
    assert fails(exported, Opcode.READ, b"short") == errno.EIO


def test_an_error_of_the_image_is_the_programs_errno(node: BlockNode, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(offset: int, data: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(node, "pwrite", full)
    assert fails(file(node), Opcode.WRITE, transfer(0, 1, b"x")) == errno.ENOSPC


def test_only_a_regular_file_is_mounted_over(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check_mountpoint(str(tmp_path / "file"))
    for path, message in (
        (tmp_path, "is not a regular file"),
        (tmp_path / "nosuch", "Failed to stat .*: No such file"),
    ):
        with pytest.raises(BlockError, match=message):
            check_mountpoint(str(path))
    with pytest.raises(BlockError, match="Failed to stat"):
        check_mountpoint("nul\0")

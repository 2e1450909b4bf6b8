"""Disk images of macOS, made for tests."""

from __future__ import annotations

import base64
import bz2
import lzma
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

SECTOR = 512
ZERO, RAW, IGNORED, ADC, ZLIB, BZIP2, LZFSE, LZMA = 0, 1, 2, *range(0x80000004, 0x80000009)
COMMENT, END = 0x7FFFFFFE, 0xFFFFFFFF


class Part(NamedTuple):
    """A chunk: its kind, from which sector of the disk, how many of them, and its bytes as they are in the file."""

    kind: int
    sector: int
    sectors: int
    data: bytes = b""


def part(kind: int, sector: int, content: bytes) -> Part:
    """A chunk that holds ``content``."""
    packers: dict[int, Callable[[bytes], bytes]] = {
        RAW: bytes,
        ADC: adc,
        ZLIB: zlib.compress,
        BZIP2: bz2.compress,
        LZMA: lzma.compress,
        ZERO: lambda data: b"",
        IGNORED: lambda data: b"",
    }
    return Part(kind, sector, len(content) // SECTOR, packers[kind](content))


def adc(content: bytes) -> bytes:
    """Compress with ADC: a run of one byte becomes a copy of the byte before it."""
    packed, at = bytearray(), 0
    while at < len(content):
        run = 1
        while at and run < 67 and content[at - 1 : at] * run == content[at : at + run] and at + run <= len(content):
            run += 1
        run -= 1
        if run >= 4:
            packed += bytes([0x40 | run - 4, 0, 0])
        elif run == 3:
            packed += bytes([0, 0])
        else:
            run = 1
            packed += bytes([0x80, content[at]])
        at += run
    return bytes(packed)


def table(parts: Sequence[Part], offsets: Sequence[int], *, first: int = 0, data_offset: int = 0) -> bytes:
    """A table whose chunks lie at offsets of the file; ``first`` is the sector that the others count from."""
    head = struct.pack(">4sIQQQ", b"mish", 1, first, sum(each.sectors for each in parts), data_offset)
    head = head.ljust(200, b"\0") + struct.pack(">I", len(parts) + 1)
    entries = [
        struct.pack(">IIQQQQ", each.kind, 0, each.sector - first, each.sectors, offset, len(each.data))
        for each, offset in zip(parts, offsets, strict=True)
    ]
    return head + b"".join(entries) + struct.pack(">IIQQQQ", END, 0, 0, 0, 0, 0)


def plist(tables: Sequence[bytes]) -> bytes:
    """A property list with tables."""
    data = "".join(
        f"<dict><key>Data</key>\n<data>\n{base64.encodebytes(each).decode()}</data></dict>" for each in tables
    )
    return f"<plist><dict><key>blkx</key><array>{data}</array></dict></plist>".encode()


def resource_fork(tables: Sequence[bytes]) -> bytes:
    """A resource fork with tables, and a map that nobody reads."""
    data = b"".join(struct.pack(">I", len(each)) + each for each in tables)
    return struct.pack(">IIII", 256, 256 + len(data), len(data), 30).ljust(256, b"\0") + data + bytes(30)


def trailer(size: int, *, resource: tuple[int, int] = (0, 0), xml: tuple[int, int] = (0, 0), parts: int = 1) -> bytes:
    """The trailer of a disk of ``size`` bytes."""
    data = bytearray(b"koly".ljust(512, b"\0"))
    struct.pack_into(">QQ", data, 40, *resource)
    struct.pack_into(">II", data, 56, 1, parts)
    struct.pack_into(">QQ", data, 216, *xml)
    struct.pack_into(">Q", data, 492, size // SECTOR)
    return bytes(data)


def dmg(parts: Sequence[Part], size: int, *, fork: bool = False, tables: int = 1) -> bytes:
    """An image of chunks, described by several tables, in a property list or a resource fork."""
    data, offsets = b"", []
    for each in parts:
        offsets.append(len(data))
        data += each.data
    each_has = -(-len(parts) // tables) or 1
    made = [
        table(
            parts[at : at + each_has],
            offsets[at : at + each_has],
            first=min(each.sector for each in parts[at : at + each_has]),
        )
        for at in range(0, len(parts), each_has)
    ]
    packed = resource_fork(made) if fork else plist([b"something else", *made])
    where = (len(data), len(packed))
    return data + packed + (trailer(size, resource=where) if fork else trailer(size, xml=where))

"""Images of formats that are only read: Bochs' growing redologs and compressed loop devices, made for tests."""

from __future__ import annotations

import struct
import zlib

from hostel.block.formats.bochs import MAGIC
from hostel.block.formats.cloop import SCRIPT


def bochs(content: dict[int, bytes], size: int, *, extent: int = 4096, version: int = 0x00020000) -> bytes:
    """A Bochs image of ``size`` bytes: ``content`` has written sectors by their number."""
    entries = -(-size // extent)
    used = sorted({number * 512 // extent for number in content})
    catalog = [used.index(index) if index in used else 0xFFFFFFFF for index in range(entries)]
    fields = struct.pack("<IIIII", version, 512, entries, 512, extent)
    where = struct.pack("<IQ", 0, size) if version == 0x00020000 else struct.pack("<Q", size)
    image = MAGIC.ljust(32, b"\0") + b"Redolog".ljust(16, b"\0") + b"Growing".ljust(16, b"\0") + fields + where
    image = image.ljust(512, b"\0") + struct.pack(f"<{entries}I", *catalog)
    for index in used:
        bitmap, data = bytearray(512), bytearray(extent)
        for number, sector in content.items():
            if number * 512 // extent == index:
                at = number - index * extent // 512
                bitmap[at // 8] |= 1 << at % 8
                data[at * 512 : at * 512 + 512] = sector
        image += bytes(bitmap) + bytes(data)
    return image


def cloop(content: bytes, *, block_size: int = 4096) -> bytes:
    """A compressed loop device with ``content``, which is whole blocks."""
    blocks = [zlib.compress(content[at : at + block_size]) for at in range(0, len(content), block_size)]
    start = 136 + (len(blocks) + 1) * 8
    offsets = [start]
    for block in blocks:
        offsets.append(offsets[-1] + len(block))
    head = SCRIPT.ljust(128, b"\0") + struct.pack(">II", block_size, len(blocks))
    return head + struct.pack(f">{len(offsets)}Q", *offsets) + b"".join(blocks)


def cow(
    content: dict[int, bytes], size: int, *, kind: str = "qemu", backing: bytes = b"", sector: int = 512, cut: int = 0
) -> bytes:
    """An overlay of user-mode Linux or QEMU: ``content`` has its own sectors by their number.

    ``kind`` is ``qemu``, ``qemu 32``, or one of user-mode Linux: ``1``, ``1 big``, ``1 padded``, ``2``, ``2 padded``,
    ``3``, ``3 padded``. ``cut`` takes so many bytes from the end.
    """
    order = "<" if kind in ("1", "1 padded") else ">"
    magic = b"MOOO" if order == "<" else b"OOOM"
    pad = "4x" if "padded" in kind else ""
    bits = -(-size // sector)
    if kind.startswith("qemu"):
        header = struct.pack(f">4sI1024si{'' if '32' in kind else '4x'}QI", magic, 2, backing, 0, size, sector)
        header += b"" if "32" in kind else bytes(4)
        start, length, align = len(header), -(-bits // 8), 512
    elif kind[0] == "3":
        header = struct.pack(f">4sII{pad}QIII4096s", magic, 3, 0, size, sector, 4096, 0, backing)
        start, length, align = 8192, -(-bits // 8), 4096
    else:
        name = 256 if kind[0] == "1" else 4096
        header = struct.pack(f"{order}4sI{name}sI{pad}QI", magic, int(kind[0]), backing, 0, size, sector)
        header += bytes(4) if pad else b""
        start, length, align = len(header), (size + sector - 1) // (8 * sector), sector
    bitmap = bytearray(-(-(start + length) // align) * align - start)
    disk = bytearray(size)
    for number, data in content.items():
        bitmap[number // 8] |= 1 << number % 8
        disk[number * sector : number * sector + sector] = data
    image = header.ljust(start, b"\0") + bytes(bitmap) + bytes(disk)
    return image[: len(image) - cut]

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

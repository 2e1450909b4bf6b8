"""VHDX images in memory: fresh ones, and ones of which a part says something else."""

from __future__ import annotations

from hostel.block.driver import OpenMode
from hostel.block.formats.vhdx import layout
from hostel.block.formats.vhdx.driver import VhdxDriver
from hostel.block.formats.vhdx.layout import Header, MetadataEntry, sealed
from hostel.block.node import BlockNode
from hostel.block.options import Value
from hostel.block.powers import Repair
from support import qcow2
from support.bounded import MIB
from support.memory import MemoryDriver, memory_node

BLOCK = MIB
SMALL: dict[str, Value] = {"block_size": BLOCK}
LOG, TABLE, METADATA = MIB, 2 * MIB, 3 * MIB  # where things lie in an image that was just made
FIRST = 8 * MIB  # the first block


def fresh(size: int = 10 * MIB, **options: Value) -> bytes:
    """A new image, with blocks of 1 MiB unless its options say otherwise."""
    driver = MemoryDriver()
    VhdxDriver.create(memory_node(driver), size, {**SMALL, **options})
    return bytes(driver.data)


def attach(
    driver: MemoryDriver, *, read_only: bool = False, check: bool = False, backing: bytes | None = None
) -> BlockNode:
    """Open an image; ``backing`` is what its parent would read."""
    mode = OpenMode(read_only=read_only, check=check)
    node = BlockNode(VhdxDriver.open(memory_node(driver, read_only=read_only), mode), "memory", read_only=read_only)
    if backing is not None:
        node.driver.children["backing"] = qcow2.disk(backing)
    return node


def patched(data: bytes, offset: int, part: bytes) -> bytes:
    """The bytes with others in their place."""
    return data[:offset] + part + data[offset + len(part) :]


def with_header(data: bytes, index: int, *, seal: bool = True, **fields: int | bytes) -> bytes:
    """An image of which one header has other fields; without ``seal`` its checksum is what they say."""
    offset = layout.HEADER_OFFSETS[index]
    packed = Header.unpack(data, offset).replace(**fields).pack().ljust(4096, b"\0")
    return patched(data, offset, sealed(packed) if seal else packed)


def with_headers(data: bytes, **fields: int | bytes) -> bytes:
    """An image of which both headers have other fields."""
    return with_header(with_header(data, 0, seal=True, **fields), 1, seal=True, **fields)


def item(data: bytes, index: int) -> MetadataEntry:
    """An entry of the metadata table."""
    return MetadataEntry.unpack(data, METADATA + 32 + 32 * index)


def with_item(data: bytes, index: int, value: bytes, **fields: int | bytes) -> bytes:
    """An image in which an item of the metadata has another value, or another entry."""
    entry = item(data, index)
    data = patched(data, METADATA + 32 + 32 * index, entry.replace(**fields).pack())
    return patched(data, METADATA + entry.offset, value)


def number(value: int, length: int = 8) -> bytes:
    """A number as the image has it."""
    return value.to_bytes(length, "little")


def mapped(data: bytes, *changes: tuple[int, int]) -> bytes:
    """An image with other entries in its block allocation table, by their indexes."""
    for index, value in changes:
        data = patched(data, TABLE + 8 * index, number(value))
    return data


def entries(data: bytes | bytearray, count: int = 10) -> list[int]:
    """The first entries of the block allocation table."""
    return [int.from_bytes(data[at : at + 8], "little") for at in range(TABLE, TABLE + 8 * count, 8)]


def header(data: bytes | bytearray) -> Header:
    """The header that counts."""
    found = [Header.unpack(bytes(data), offset) for offset in layout.HEADER_OFFSETS]
    return max(found, key=lambda each: each.sequence_number)


def check(data: bytes) -> tuple[int, list[str]]:
    """How many corruptions a check finds, and what it says of them."""
    lines: list[str] = []
    with attach(MemoryDriver(data), read_only=True, check=True) as node:
        assert isinstance(node.driver, VhdxDriver)
        result = node.driver.check(Repair.NOTHING, lines.append)
    return result.corruptions, lines

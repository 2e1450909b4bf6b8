"""VHDX images that are refused, each for its reason; what is passed over, and what is made good by a copy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hostel.block import creating, graph
from hostel.block.extent import Status
from hostel.block.formats.vhdx import layout
from hostel.block.formats.vhdx.driver import VhdxDriver
from hostel.block.formats.vhdx.layout import MetadataEntry, RegionEntry, RegionTable, sealed
from hostel.errors import BlockError, CorruptImage, InvalidImage
from support.bounded import MIB, bounded
from support.memory import MemoryDriver
from support.vhdx import BLOCK, FIRST, METADATA, TABLE, attach, fresh, mapped, number, patched, with_headers, with_item


def with_regions(data: bytes, change: Callable[[list[RegionEntry]], list[RegionEntry]], copies: int = 2) -> bytes:
    start = layout.REGION_OFFSETS[0]
    table = RegionTable.unpack(data, start)
    entries = [RegionEntry.unpack(data, start + 16 + 32 * index) for index in range(table.entry_count)]
    entries = change(entries)
    packed = table.replace(entry_count=len(entries)).pack() + b"".join(each.pack() for each in entries)
    for offset in layout.REGION_OFFSETS[:copies]:
        data = patched(data, offset, sealed(packed.ljust(layout.TABLE_LENGTH, b"\0")))
    return data


def unknown(flags: int) -> Callable[[list[RegionEntry]], list[RegionEntry]]:
    return lambda found: [*found, RegionEntry(guid=b"?" * 16, file_offset=6 * MIB, length=MIB, flags=flags)]


def moved(index: int, **fields: int) -> Callable[[list[RegionEntry]], list[RegionEntry]]:
    return lambda found: [each.replace(**fields) if at == index else each for at, each in enumerate(found)]


def overfull(data: bytes) -> bytes:
    """An image whose region table has one entry more than it may."""
    for offset in layout.REGION_OFFSETS:
        table = RegionTable.unpack(data, offset).replace(entry_count=2048)
        rest = data[offset + RegionTable.SIZE : offset + layout.TABLE_LENGTH]
        data = patched(data, offset, sealed(table.pack() + rest))
    return data


# Made when they are wanted: all of them are 320 MB.
REFUSED: list[tuple[Callable[[], bytes], str]] = [
    (lambda: b"vhdxfile", "No valid VHDX header found"),
    (lambda: with_headers(fresh(), version=2), "No valid VHDX header found"),
    (lambda: with_headers(fresh(), log_version=1), "The log is of version 1, which is unknown"),
    (
        lambda: with_headers(fresh(), log_offset=512),
        "The log is said to have 1048576 bytes at offset 512, which is no place",
    ),
    (
        lambda: with_headers(fresh(), log_length=4096),
        "The log is said to have 4096 bytes at offset 1048576, which is no place",
    ),
    (
        lambda: with_headers(fresh(), log_offset=TABLE),
        "VHDX region 2097152-3145728 overlaps with region 2097152-3145728",
    ),
    (lambda: patched(patched(fresh(), 192 << 10, b"x"), 256 << 10, b"x"), "No valid VHDX region table found"),
    (lambda: overfull(fresh()), "The VHDX region table has 2048 entries, and may have 2047"),
    (
        lambda: with_regions(fresh(), lambda found: found[:1]),
        "The VHDX region table lacks the block allocation table or",
    ),
    (
        lambda: with_regions(fresh(), lambda found: found[1:]),
        "The VHDX region table lacks the block allocation table or",
    ),
    (lambda: with_regions(fresh(), moved(0, file_offset=0)), "VHDX region 0-1048576 overlaps with region 0-1048576"),
    (
        lambda: with_regions(fresh(), moved(1, file_offset=TABLE)),
        "VHDX region 2097152-3145728 overlaps with region 2097152",
    ),
    (
        lambda: with_regions(fresh(), unknown(1)),
        "The VHDX region 3f3f3f3f-3f3f-3f3f-3f3f-3f3f3f3f3f3f is required, and unknown",
    ),
    (lambda: with_regions(fresh(), moved(1, file_offset=1 << 50)), "The VHDX metadata region is cut off"),
    (lambda: with_regions(fresh(), moved(0, file_offset=1 << 50)), "The VHDX block allocation table is cut off"),
    (
        lambda: with_regions(fresh(), moved(0, length=72)),
        "The VHDX block allocation table has room for 9 entries, and the disk",
    ),
    (lambda: patched(fresh(), METADATA, b"x"), "The VHDX metadata table is malformed"),
    (lambda: patched(fresh(), METADATA + 10, b"\0\x08"), "The VHDX metadata table is malformed"),
    (
        lambda: patched(fresh(), METADATA + 10, b"\4\0"),
        "The VHDX metadata lacks the item cda348c7-445d-4471-9cc9-e9885251c556",
    ),
    (
        lambda: with_item(fresh(), 1, b"", item_id=b"?" * 16),
        "The VHDX metadata item 3f3f3f3f-3f3f-3f3f-3f3f-3f3f3f3f3f3f is",
    ),
    (
        lambda: with_item(fresh(), 1, b"", item_id=layout.FILE_PARAMETERS),
        "The VHDX metadata item caa16737-fa36-4d43-b3b6-33f0",
    ),
    (
        lambda: with_item(fresh(), 1, b"", offset=0),
        "The VHDX metadata item 2fa54224-cd1b-4876-b211-5dbed83bf4b8 lies outside",
    ),
    (
        lambda: with_item(fresh(), 1, b"", offset=MIB - 7),
        "The VHDX metadata item 2fa54224-cd1b-4876-b211-5dbed83bf4b8 lies",
    ),
    # CVE-2014-0148
    (lambda: with_item(fresh(), 0, number(0)), "The VHDX block size 0 is no power of two from 1 MiB to 256 MiB"),
    (lambda: with_item(fresh(), 0, number(3 * MIB)), "The VHDX block size 3145728 is no power of two"),
    (lambda: with_item(fresh(), 0, number(1 << 31)), "The VHDX block size 2147483648 is no power of two"),
    (lambda: with_item(fresh(), 3, number(0, 4)), "The VHDX logical sector size 0 is neither 512 nor 4096"),
    (
        lambda: with_item(fresh(), 3, number(1 << 30, 4)),
        "The VHDX logical sector size 1073741824 is neither 512 nor 4096",
    ),
    (
        lambda: with_item(fresh(), 1, number(1000)),
        "The VHDX disk size 1000 is over 64 TiB, or no whole number of sectors",
    ),
    # QEMU's issues 4033, 4390, 4470 and 4487: a count of blocks that wraps around at 32 bits
    (
        lambda: with_item(fresh(), 1, number(((1 << 32) + 25) * MIB)),
        "The VHDX disk size 4503599653584896 is over 64 TiB",
    ),
    (lambda: with_item(fresh(), 1, number(2**64 - 512)), "The VHDX disk size 18446744073709551104 is over 64 TiB"),
    (
        lambda: with_item(fresh(), 1, number(1 << 45)),
        "The VHDX block allocation table has room for 131072 entries, and the disk",
    ),
    (lambda: with_item(fresh(), 0, number(BLOCK | 2 << 32)), "The VHDX image has a parent, and does not say which"),
    (lambda: mapped(fresh(), (3, 6)), "VHDX region 0-1048576 overlaps with region 0-1048576."),
    (lambda: mapped(fresh(), (3, TABLE | 6)), "VHDX region 2097152-3145728 overlaps with region 2097152-3145728."),
    (
        lambda: mapped(fresh(), (3, 1 << 40 | 6)),
        "VHDX BAT entry 3 start offset 1099511627776 points after end of file (8388608).",
    ),
    (
        lambda: mapped(fresh() + bytes(4096), (3, FIRST | 6)),
        "VHDX BAT entry 3 end offset 9437183 points after end of file (839",
    ),
    (lambda: mapped(fresh(), (3, 1 << 63 | 6)), "VHDX BAT entry 3 offset overflow."),
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_an_image_is_refused_for_its_reason(make: Callable[[], bytes], message: str) -> None:
    data = make()
    driver = MemoryDriver(data)
    with pytest.raises(BlockError) as caught:
        attach(driver)
    assert str(caught.value).startswith(message)
    assert driver.data == data


def test_what_is_no_vhdx_is_refused() -> None:
    with pytest.raises(InvalidImage, match="Image is not in VHDX format"):
        attach(MemoryDriver(bytes(4096)))


def test_what_is_unknown_and_not_required_is_passed_over() -> None:
    data = with_regions(fresh(), unknown(0))
    entry = MetadataEntry(item_id=b"?" * 16, offset=1, length=2, flags=0, reserved=0)
    data = patched(patched(data, METADATA + 10, b"\6\0"), METADATA + 32 + 5 * 32, entry.pack())
    with attach(MemoryDriver(data)) as node:
        node.pwrite(0, b"x")


def test_a_damaged_region_table_is_made_up_for_by_its_copy() -> None:
    with attach(MemoryDriver(patched(fresh(), 192 << 10, b"x"))) as node:
        assert node.length == 10 * MIB


def test_an_entry_that_says_nothing_is_an_error_where_it_is_read() -> None:
    for state in (4, 7):
        with attach(MemoryDriver(mapped(fresh(), (3, FIRST | state)) + bytes(MIB)), read_only=True) as node:
            assert node.read(0, 512) == bytes(512)
            with pytest.raises(CorruptImage, match="entry of block 3 is 0x"):
                node.read(3 * BLOCK, 512)


def test_the_largest_disk_is_made_and_used_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "disk"

    def use() -> list[int]:
        with creating.create(str(path)) as file:
            VhdxDriver.create(file, layout.MAX_SIZE, {"block_size": MIB, "block_state_zero": False})
        with graph.open(str(path), "vhdx", read_only=False) as node:
            for offset in (0, layout.MAX_SIZE // 2, layout.MAX_SIZE - 512):
                node.pwrite(offset, b"x" * 512)
        with graph.open(str(path), "vhdx") as node:
            assert node.read(layout.MAX_SIZE - 512, 512) == b"x" * 512
            return [each.offset for each in node.extents() if not each.status & Status.ZERO]

    assert bounded(use, memory=96 * MIB, seconds=120) == [0, layout.MAX_SIZE // 2, layout.MAX_SIZE - 4096]

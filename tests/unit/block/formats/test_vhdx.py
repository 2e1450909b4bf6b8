"""vhdx: headers, regions, metadata, the table, the log and what it makes good, parents; what is refused, and why."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from hostel.block import graph, registry
from hostel.block.driver import OpenMode
from hostel.block.extent import Status
from hostel.block.formats.vhdx import layout
from hostel.block.formats.vhdx.create import plan
from hostel.block.formats.vhdx.driver import VhdxDriver
from hostel.block.formats.vhdx.layout import (
    Header,
    LogDescriptor,
    LogEntry,
    MetadataEntry,
    MetadataTable,
    RegionEntry,
    RegionTable,
    guid,
    guid_text,
    sealed,
)
from hostel.block.node import BlockNode
from hostel.block.options import Value
from hostel.block.powers import Repair
from hostel.block.trust import Trust
from hostel.codec.checksum import crc32c
from hostel.errors import BlockError, CorruptImage, InvalidImage, ReadOnly, UntrustedReference
from support import qcow2
from support.bounded import MIB, bounded
from support.memory import Kind, LoggedDriver, MemoryDriver, memory_node

BLOCK = MIB
SMALL: dict[str, Value] = {"block_size": BLOCK}
LOG, TABLE, METADATA = MIB, 2 * MIB, 3 * MIB  # where things lie in an image that was just made
FIRST = 8 * MIB  # the first block


def fresh(size: int = 10 * MIB, **options: Value) -> bytes:
    driver = MemoryDriver()
    VhdxDriver.create(memory_node(driver), size, {**SMALL, **options})
    return bytes(driver.data)


def attach(
    driver: MemoryDriver, *, read_only: bool = False, check: bool = False, backing: bytes | None = None
) -> BlockNode:
    mode = OpenMode(read_only=read_only, check=check)
    node = BlockNode(VhdxDriver.open(memory_node(driver, read_only=read_only), mode), "memory", read_only=read_only)
    if backing is not None:
        node.driver.children["backing"] = qcow2.disk(backing)
    return node


def patched(data: bytes, offset: int, part: bytes) -> bytes:
    return data[:offset] + part + data[offset + len(part) :]


def with_header(data: bytes, index: int, *, seal: bool = True, **fields: int | bytes) -> bytes:
    offset = layout.HEADER_OFFSETS[index]
    packed = Header.unpack(data, offset).replace(**fields).pack().ljust(4096, b"\0")
    return patched(data, offset, sealed(packed) if seal else packed)


def with_headers(data: bytes, **fields: int | bytes) -> bytes:
    return with_header(with_header(data, 0, **fields), 1, **fields)


def with_regions(data: bytes, change: Callable[[list[RegionEntry]], list[RegionEntry]], copies: int = 2) -> bytes:
    start = layout.REGION_OFFSETS[0]
    table = RegionTable.unpack(data, start)
    entries = [RegionEntry.unpack(data, start + 16 + 32 * index) for index in range(table.entry_count)]
    entries = change(entries)
    packed = table.replace(entry_count=len(entries)).pack() + b"".join(each.pack() for each in entries)
    for offset in layout.REGION_OFFSETS[:copies]:
        data = patched(data, offset, sealed(packed.ljust(layout.TABLE_LENGTH, b"\0")))
    return data


def item(data: bytes, index: int) -> MetadataEntry:
    return MetadataEntry.unpack(data, METADATA + 32 + 32 * index)


def with_item(data: bytes, index: int, value: bytes, **fields: int | bytes) -> bytes:
    """An image in which an item of the metadata has another value, or another entry."""
    entry = item(data, index)
    data = patched(data, METADATA + 32 + 32 * index, entry.replace(**fields).pack())
    return patched(data, METADATA + entry.offset, value)


def number(value: int, length: int = 8) -> bytes:
    return value.to_bytes(length, "little")


def mapped(data: bytes, *changes: tuple[int, int]) -> bytes:
    for index, value in changes:
        data = patched(data, TABLE + 8 * index, number(value))
    return data


def entries(data: bytes | bytearray, count: int = 10) -> list[int]:
    return [int.from_bytes(data[at : at + 8], "little") for at in range(TABLE, TABLE + 8 * count, 8)]


def header(data: bytes | bytearray) -> Header:
    """The header that counts."""
    found = [Header.unpack(bytes(data), offset) for offset in layout.HEADER_OFFSETS]
    return max(found, key=lambda each: each.sequence_number)


def check(data: bytes) -> tuple[int, list[str]]:
    lines: list[str] = []
    with attach(MemoryDriver(data), read_only=True, check=True) as node:
        result = node.driver.check(Repair.NOTHING, lines.append)
    return result.corruptions, lines


def test_records_have_their_sizes() -> None:
    assert [each.SIZE for each in (Header, RegionTable, RegionEntry, MetadataTable, MetadataEntry)] == [
        80,
        16,
        32,
        32,
        32,
    ]
    assert (LogEntry.SIZE, LogDescriptor.SIZE) == (64, 32)


def test_checksums_are_castagnolis() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720
    assert crc32c(b"\xff" * 32) == 0x62A8AB43


def test_a_guid_is_written_as_it_is_read() -> None:
    text = "2dc27766-f623-4200-9d64-115e9bfd4a08"
    assert guid_text(guid(text)) == text
    assert guid(text)[:8] == bytes.fromhex("6677c22d23f60042")


# ---- headers


def test_the_header_with_the_higher_number_counts() -> None:
    data = fresh()
    low = header(data).sequence_number
    for index, counts in ((0, low + 5), (1, low + 5)):
        other = with_header(data, index, sequence_number=counts, data_write_guid=bytes([index + 1]) * 16)
        with attach(MemoryDriver(other), read_only=True) as node:
            assert node.driver.unique_id == guid_text(bytes([index + 1]) * 16)


def test_a_damaged_header_is_made_up_for_by_the_other() -> None:
    data = fresh()
    for index in (0, 1):
        damaged = with_header(data, index, seal=False, checksum=1)
        with attach(MemoryDriver(damaged), read_only=True) as node:
            assert node.length == 10 * MIB
    damaged = with_header(damaged, 0, seal=False, checksum=1)
    with pytest.raises(InvalidImage, match="No valid VHDX header found"):
        attach(MemoryDriver(damaged))


def test_two_headers_with_one_number_must_be_equal() -> None:
    data = with_headers(fresh(), sequence_number=7, file_write_guid=bytes(16), data_write_guid=bytes(16))
    with attach(MemoryDriver(data)) as node:  # as Disk2vhd makes them
        node.pwrite(0, b"x")
    with attach(MemoryDriver(data), read_only=True) as node:
        assert node.length == 10 * MIB
    with pytest.raises(InvalidImage, match="No valid VHDX header found"):
        attach(MemoryDriver(with_header(data, 1, data_write_guid=b"y" * 16)))


def test_the_first_write_says_that_the_disk_is_another_one_and_the_second_does_not() -> None:
    driver = MemoryDriver(fresh())
    before = header(driver.data)
    node = attach(driver)
    node.read(0, 512)
    assert header(driver.data) == before
    node.pwrite(0, b"x")
    after = header(driver.data)
    assert (after.file_write_guid, after.data_write_guid) != (before.file_write_guid, before.data_write_guid)
    assert after.sequence_number == before.sequence_number + 2
    node.pwrite(0, b"y")
    assert header(driver.data) == after
    node.close()
    found = [Header.unpack(bytes(driver.data), offset) for offset in layout.HEADER_OFFSETS]
    assert found[0].log_guid == found[1].log_guid == layout.NO_GUID
    assert found[0].data_write_guid == found[1].data_write_guid


def test_an_image_without_numbers_for_headers_is_read_and_not_written() -> None:
    driver = MemoryDriver(with_header(fresh(), 0, sequence_number=2**64 - 1))
    before = bytes(driver.data)
    with attach(driver) as node:
        assert node.read(0, 512) == bytes(512)
        with pytest.raises(InvalidImage, match="is no honest one"):
            node.pwrite(0, b"x")
    assert driver.data == before


# ---- what is refused


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
        with graph.create(str(path)) as file:
            VhdxDriver.create(file, layout.MAX_SIZE, {"block_size": MIB, "block_state_zero": False})
        with graph.open(str(path), "vhdx", read_only=False) as node:
            for offset in (0, layout.MAX_SIZE // 2, layout.MAX_SIZE - 512):
                node.pwrite(offset, b"x" * 512)
        with graph.open(str(path), "vhdx") as node:
            assert node.read(layout.MAX_SIZE - 512, 512) == b"x" * 512
            return [each.offset for each in node.extents() if not each.status & Status.ZERO]

    assert bounded(use, memory=96 * MIB, seconds=120) == [0, layout.MAX_SIZE // 2, layout.MAX_SIZE - 4096]


# ---- creation


@pytest.mark.parametrize(
    ("size", "block_size"),
    [(1 << 30, 8 * MIB), ((1 << 30) + 512, 16 * MIB), (101 << 30, 32 * MIB), (33 << 40, 64 * MIB)],
)
def test_blocks_are_as_large_as_qemus(size: int, block_size: int) -> None:
    assert plan(size, {}).block_size == block_size


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block_size": 3 * MIB}, "Block size must be a power of two"),
        ({"log_size": 0}, "Log size must be a multiple of 1 MB"),
        ({"log_size": 5 << 30}, "Log size must be smaller than 4 GB"),
        ({"subformat": "x"}, "Parameter 'subformat' does not accept value 'x'"),
        ({"preallocation": "x"}, "invalid parameter value: x"),
        ({"preallocation": "metadata"}, "Unsupported preallocation mode: metadata"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Value], message: str) -> None:
    with pytest.raises(BlockError, match=message):
        VhdxDriver.check_creation(MIB, options)


def test_64_tib_are_the_limit() -> None:
    VhdxDriver.check_creation(64 << 40, {})
    with pytest.raises(BlockError, match="max of 64TB"):
        VhdxDriver.check_creation((64 << 40) + 512, {})


def test_sectors_may_have_4096_bytes() -> None:
    driver = MemoryDriver(fresh(logical_sector_size=4096))
    with attach(driver) as node:
        node.pwrite(5 * MIB - 100, b"x" * 200)
    with attach(driver, read_only=True) as node:
        assert node.read(5 * MIB - 101, 202) == b"\0" + b"x" * 200 + b"\0"


def test_a_fixed_image_has_its_blocks() -> None:
    data = fresh(subformat="fixed", block_state_zero=True)
    assert entries(data) == [FIRST + block * MIB | 6 for block in range(10)]
    assert check(data) == (0, [])


# ---- blocks


def test_blocks_are_added_at_the_end() -> None:
    driver = MemoryDriver(fresh())
    assert entries(driver.data) == [2] * 10
    with attach(driver) as node:
        node.pwrite(5 * BLOCK + 7, b"a" * BLOCK)
        node.pwrite(0, b"b")
        assert node.read(5 * BLOCK, 10) == bytes(7) + b"aaa"
    assert [entries(driver.data)[block] for block in (5, 6, 0)] == [FIRST + at * MIB | 6 for at in range(3)]
    assert len(driver.data) == FIRST + 3 * MIB
    assert check(bytes(driver.data)) == (0, [])


def test_the_table_has_room_between_chunks() -> None:
    size = (4096 + 3) * MIB
    driver = MemoryDriver(fresh(size))
    with attach(driver) as node:
        node.pwrite(4095 * MIB, b"a" * (2 * MIB))
    found = entries(driver.data, 4100)
    assert (found[4095], found[4096], found[4097]) == (FIRST | 6, 0, FIRST + MIB | 6)
    with attach(driver, read_only=True) as node:
        assert [(each.offset, each.length) for each in node.extents() if each.status & Status.DATA] == [
            (4095 * MIB, 2 * MIB)
        ]


def test_all_states_that_mean_nothing_read_as_zeroes() -> None:
    data = mapped(fresh(), *enumerate((0, 1, 2, 3, 5)))
    with attach(MemoryDriver(data), read_only=True) as node:
        assert not any(node.read(0, 5 * BLOCK))


def test_zeroes_take_no_blocks() -> None:
    driver = MemoryDriver(fresh())
    with attach(driver) as node:
        node.pwrite(0, b"x" * BLOCK)
        node.write_zeroes(0, 10 * BLOCK, unmap=True)
        assert not any(node.read(0, 10 * BLOCK))
    assert entries(driver.data) == [FIRST | 6, *[2] * 9]


def test_a_check_finds_blocks_over_others() -> None:
    data = mapped(fresh() + bytes(2 * MIB), (0, FIRST | 6), (1, FIRST | 6), (2, TABLE | 6), (3, 1 << 40 | 6))
    assert check(data) == (
        3,
        [
            "VHDX region 2097152-3145728 overlaps with region 2097152-3145728.",
            "VHDX BAT entry 3 start offset 1099511627776 points after end of file (10485760). Image has probably "
            "been truncated.",
            "VHDX BAT entries 0 and 1 overlap, at 8388608 and 8388608",
        ],
    )


# ---- the log


def cut(count: int, change: Callable[[BlockNode], None]) -> bytes:
    """An image after a change of which ``count`` writes have reached the disk."""
    driver = LoggedDriver(fresh())
    initial = bytes(driver.data)
    with attach(driver) as node:
        change(node)
        node.flush()
        log = list(driver.log)
    disk = MemoryDriver(initial)
    for entry in [each for each in log if each.kind is not Kind.FLUSH][:count]:
        entry.apply(disk)
    return bytes(disk.data)


def write(node: BlockNode) -> None:
    node.pwrite(3 * BLOCK, b"data" * 128)


def test_a_change_of_the_table_is_logged_then_counts_then_is_done() -> None:
    driver = LoggedDriver(fresh())
    node = attach(driver)
    write(node)
    driver.log.clear()
    node.flush()
    one, two = layout.HEADER_OFFSETS
    assert [(each.kind, each.offset) for each in driver.log] == [
        (Kind.WRITE, LOG),
        (Kind.FLUSH, 0),
        (Kind.WRITE, one),
        (Kind.FLUSH, 0),
        (Kind.WRITE, TABLE),
        (Kind.FLUSH, 0),
        (Kind.WRITE, two),
        (Kind.FLUSH, 0),
    ]
    node.close()


def test_a_log_that_counts_is_done_when_the_image_is_opened_for_writing() -> None:
    # Both headers, the file's new length, data, the log, a header: now it counts.
    before, after = cut(5, write), cut(6, write)
    with attach(MemoryDriver(before), read_only=True) as node:
        assert node.read(3 * BLOCK, 4) == bytes(4)
    with pytest.raises(ReadOnly, match="opened read-only, but contains a log that needs to be replayed") as caught:
        attach(MemoryDriver(after), read_only=True)
    assert caught.value.hint == "To replay the log, run:\nqemu-img check -r all 'memory'"
    driver = MemoryDriver(after)
    with attach(driver) as node:
        assert node.read(3 * BLOCK, 4) == b"data"
    with attach(driver, read_only=True) as node:
        assert node.read(3 * BLOCK, 4) == b"data"
    assert header(driver.data).log_guid == layout.NO_GUID


def test_a_repair_says_that_the_log_was_done() -> None:
    with attach(MemoryDriver(cut(6, write)), check=True) as node:
        assert node.driver.check(Repair.ALL, print).corruptions_fixed == 1
        assert node.driver.check(Repair.NOTHING, print).corruptions_fixed == 0


@pytest.mark.parametrize("place", [LOG, LOG + 64, LOG + 100, LOG + 4096, LOG + 5000, LOG + 8188])
def test_a_log_that_is_damaged_anywhere_is_not_done(place: int) -> None:
    data = cut(6, write)
    damaged = patched(data, place, bytes([data[place] ^ 1]))
    with attach(MemoryDriver(damaged), read_only=True) as node:
        assert node.read(3 * BLOCK, 4) == bytes(4)


def entry(
    descriptors: list[LogDescriptor], data: bytes = b"", *, number: int = 1, file: int = FIRST, **fields: int
) -> bytes:
    heads = -(-(len(descriptors) + 2) // 128) * 4096
    values: dict[str, int | bytes] = {
        "signature": b"loge",
        "checksum": 0,
        "entry_length": heads + len(data),
        "tail": 0,
        "sequence_number": number,
        "descriptor_count": len(descriptors),
        "reserved": 0,
        "log_guid": b"g" * 16,
        "flushed_file_offset": file,
        "last_file_offset": file,
        **fields,
    }
    head = LogEntry(**values).pack() + b"".join(each.pack() for each in descriptors)
    return sealed(head.ljust(heads, b"\0") + data)


def zeroing(offset: int, length: int, number: int = 1) -> LogDescriptor:
    return LogDescriptor(
        signature=b"zero",
        trailing=bytes(4),
        leading=length.to_bytes(8, "little"),
        file_offset=offset,
        sequence_number=number,
    )


def writing(offset: int, data: bytes, number: int = 1) -> tuple[LogDescriptor, bytes]:
    descriptor = LogDescriptor(
        signature=b"desc", trailing=data[-4:], leading=data[:8], file_offset=offset, sequence_number=number
    )
    return descriptor, b"data" + bytes(4) + data[8:-4] + number.to_bytes(4, "little")


def logged(*parts: tuple[int, bytes], data: bytes | None = None) -> bytes:
    """An image with these bytes in its log, by their offsets there."""
    image = with_headers(data or fresh(), log_guid=b"g" * 16)
    for offset, part in parts:
        image = patched(image, LOG + offset, part)
    return image


def test_several_entries_are_done_in_order_also_where_the_log_goes_round() -> None:
    sector = bytes(range(256)) * 16
    first, one = writing(TABLE + 4096, b"1" * 4096, 7)
    second, two = writing(TABLE + 4096, sector, 8)
    third = zeroing(TABLE + 8192, 4096, 9)
    image = logged(
        (MIB - 8192, entry([first], one, number=7)),
        (0, entry([second], two, number=8)),
        (8192, entry([third], number=9)),
        (20480, entry([zeroing(TABLE + 4096, 4096, 5)], number=5)),  # older, and not before them
        data=patched(fresh(), TABLE + 8192, b"9" * 4096),
    )
    driver = MemoryDriver(image)
    attach(driver).close()
    assert driver.data[TABLE + 4096 : TABLE + 12288] == sector + bytes(4096)


def test_a_log_makes_the_file_as_long_as_it_was() -> None:
    image = logged((0, entry([zeroing(TABLE + 4096, 4096)], last_file_offset=FIRST + 5 * MIB)))
    driver = MemoryDriver(image)
    attach(driver).close()
    assert len(driver.data) == FIRST + 5 * MIB


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (entry([zeroing(0, 4096)]), "The log writes 4096 bytes at offset 0"),
        (entry([zeroing(64 << 10, 4096)]), "The log writes 4096 bytes at offset 65536"),
        (entry([zeroing(LOG + 4096, 4096)]), "The log writes 4096 bytes at offset 1052672"),
        (entry([zeroing(TABLE, 1 << 62)]), "The log writes 4611686018427387904 bytes at offset 2097152"),
        (entry([zeroing(1 << 60, 4096)]), "The log writes 4096 bytes at offset 1152921504606846976"),
        (entry([], last_file_offset=1 << 60), "The log makes a file of 1152921504606846976 bytes"),
        (entry([], file=FIRST + 512), "The file has 8388608 bytes, and 8389120 when its log was written"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_log_that_reaches_where_it_must_not_is_refused_and_nothing_of_it_done(part: bytes, message: str) -> None:
    driver = MemoryDriver(logged((0, part)))
    before = bytes(driver.data)
    with pytest.raises(BlockError) as caught:
        attach(driver)
    assert str(caught.value).startswith(message)
    assert driver.data == before


@pytest.mark.parametrize(
    "fields",
    [
        {"descriptor_count": 0xFFFFFFFF},  # QEMU's issue 3860
        {"descriptor_count": 2},
        {"entry_length": 0},
        {"entry_length": 4097},
        {"entry_length": 2 * MIB},
        {"sequence_number": 0},
    ],
    ids=str,
)
def test_an_entry_that_is_none_is_passed_over(fields: dict[str, int]) -> None:
    with attach(MemoryDriver(logged((0, entry([zeroing(TABLE, 4096)], **fields)))), read_only=True) as node:
        assert node.length == 10 * MIB


def test_a_log_of_gigabytes_is_not_looked_through(tmp_path: Path) -> None:
    image = with_headers(fresh(), log_guid=b"g" * 16, log_length=0xFFF00000, log_offset=1 << 40)
    with pytest.raises(BlockError, match="are looked through at most"):
        attach(MemoryDriver(image), read_only=True)


def test_a_log_full_of_heads_takes_no_time(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    head = entry([zeroing(TABLE, 4096)], entry_length=MIB)
    path.write_bytes(logged(*((offset, head) for offset in range(0, MIB, 4096))))

    def look() -> int:
        with graph.open(str(path), "vhdx") as node:
            return node.length

    assert bounded(look, seconds=20) == 10 * MIB


def test_more_changes_than_fit_into_the_log_are_made_in_turns() -> None:
    size = 4 << 40
    driver = LoggedDriver(fresh(size))
    rng = random.Random(5)
    offsets = sorted(rng.sample(range(0, size, 512 * MIB), 300))
    with attach(driver) as node:
        for at, offset in enumerate(offsets):
            node.pwrite(offset, at.to_bytes(4, "little"))
        driver.log.clear()
        node.flush()
        assert sum(each.offset == LOG for each in driver.log) == 2
    with attach(driver, read_only=True) as node:
        for at, offset in enumerate(offsets):
            assert node.read(offset, 4) == at.to_bytes(4, "little")


# ---- differencing images


def locator(**values: str) -> bytes:
    """A parent locator."""
    head, tail = layout.VHDX_PARENT + bytes(2) + len(values).to_bytes(2, "little"), b""
    start = len(head) + 12 * len(values)
    for key, value in values.items():
        raw, text = key.encode("utf-16-le"), value.encode("utf-16-le")
        place = start + len(tail)
        head += number(place, 4) + number(place + len(raw), 4) + number(len(raw), 2) + number(len(text), 2)
        tail += raw + text
    return head + tail


def differencing(parent: bytes, **names: str) -> bytes:
    """A difference from ``parent``: block 3 whole, of block 5 two sectors; block 7 is zeroes."""
    driver = MemoryDriver(fresh(block_state_zero=False))
    with attach(driver) as node:
        node.pwrite(3 * BLOCK, b"3" * BLOCK)
        node.pwrite(5 * BLOCK, b"5" * BLOCK)
    data = bytes(driver.data)
    bits = bytearray(MIB)
    for sector in (1, 9, 10):
        bit = 5 * BLOCK // 512 + sector
        bits[bit // 8] |= 1 << bit % 8
    data = mapped(data, (5, entries(data)[5] & ~7 | 7), (7, 2), (4096, len(data) | 6)) + bytes(bits)
    linkage = guid_text(header(parent).data_write_guid)
    where = locator(parent_linkage=f"{{{linkage}}}", **names)
    record = MetadataEntry(item_id=layout.PARENT_LOCATOR, offset=128 << 10, length=len(where), flags=4, reserved=0)
    data = patched(patched(data, METADATA + 10, b"\6\0"), METADATA + 32 + 5 * 32, record.pack())
    data = patched(data, METADATA + (128 << 10), where)
    return with_item(data, 0, number(BLOCK | 2 << 32))


def test_a_difference_shows_its_parent_where_its_bitmap_says_so() -> None:
    content = random.Random(3).randbytes(10 * MIB)
    expected = bytearray(content)
    expected[3 * BLOCK : 4 * BLOCK] = b"3" * BLOCK
    expected[7 * BLOCK : 8 * BLOCK] = bytes(BLOCK)
    for sector in (1, 9, 10):
        start = 5 * BLOCK + sector * 512
        expected[start : start + 512] = b"5" * 512
    with attach(MemoryDriver(differencing(fresh())), read_only=True, backing=content) as node:
        assert node.read(0, node.length) == expected
        assert node.read(5 * BLOCK + 1000, 5000) == expected[5 * BLOCK + 1000 : 5 * BLOCK + 6000]
        own = [(each.offset, each.length) for each in node.extents() if each.status & Status.DATA]
    assert own == [(3 * BLOCK, BLOCK), (5 * BLOCK + 512, 512), (5 * BLOCK + 9 * 512, 1024)]
    assert check(differencing(fresh())) == (0, [])


def test_a_difference_is_not_written() -> None:
    with pytest.raises(ReadOnly, match="can only be read"):
        attach(MemoryDriver(differencing(fresh())))


@pytest.mark.parametrize(
    "names",
    [{"relative_path": ".\\base.vhdx"}, {"absolute_win32_path": "C:\\disks\\base.vhdx"}, {"volume_path": "x"}, {}],
    ids=str,
)
def test_the_parent_is_found_by_its_names_or_its_identity(tmp_path: Path, names: dict[str, str]) -> None:
    parent = MemoryDriver(fresh())
    with attach(parent) as node:
        node.pwrite(0, b"parent")
    (tmp_path / "base.vhdx").write_bytes(parent.data)
    (tmp_path / "other.vhdx").write_bytes(fresh())
    (tmp_path / "top.avhdx").write_bytes(differencing(bytes(parent.data), **names))
    with graph.open(str(tmp_path / "top.avhdx"), "vhdx") as node:
        assert node.read(0, 6) == b"parent"
        assert node.read(3 * BLOCK, 1) == b"3"


def test_a_parent_that_was_written_since_is_refused(tmp_path: Path) -> None:
    parent = MemoryDriver(fresh())
    (tmp_path / "top.vhdx").write_bytes(differencing(bytes(parent.data), relative_path="base.vhdx"))
    with attach(parent) as node:
        node.pwrite(0, b"changed")
    (tmp_path / "base.vhdx").write_bytes(parent.data)
    with pytest.raises(CorruptImage, match="or has been changed since"):
        graph.open(str(tmp_path / "top.vhdx"), "vhdx")


def test_an_untrusted_difference_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "top.vhdx").write_bytes(differencing(fresh(), relative_path="..\\..\\etc\\passwd"))
    with pytest.raises(UntrustedReference):
        graph.open(str(tmp_path / "top.vhdx"), "vhdx", trust=Trust.UNTRUSTED)


@pytest.mark.parametrize("length", range(0, 60, 7))
def test_a_parent_locator_that_is_cut_off_is_refused(length: int) -> None:
    data = differencing(fresh(), relative_path="base.vhdx")
    record = MetadataEntry.unpack(data, METADATA + 32 + 5 * 32)
    data = patched(data, METADATA + 32 + 5 * 32, record.replace(length=length).pack())
    with attach(MemoryDriver(data), read_only=True) as node, pytest.raises(BlockError, match="parent"):
        node.driver.references()


def test_it_is_probed_by_its_signature() -> None:
    assert VhdxDriver.probe(fresh()[:512], "") == 100
    assert VhdxDriver.probe(bytes(512), "") == 0
    assert registry.format_driver("vhdx") is VhdxDriver


def test_it_is_opened_anew_in_its_place_with_what_was_held_back() -> None:
    driver = MemoryDriver(fresh())
    with attach(driver) as node:
        node.pwrite(BLOCK, b"written")
        first = node.driver
        again = first.reopened(read_only=True)
        assert again.children == first.children
        node.driver = again
        assert node.read(BLOCK, 7) == b"written"

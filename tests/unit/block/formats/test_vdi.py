"""vdi: what a header may say, where blocks go, what a crash leaves, and checks."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from hostel.block import graph, registry
from hostel.block.driver import OpenMode
from hostel.block.extent import Status
from hostel.block.formats.vdi import DIFFERENCING, DISCARDED, MAX_SIZE, NEVER_WRITTEN, Header, VdiDriver
from hostel.block.node import BlockNode
from hostel.block.powers import Repair
from hostel.block.trust import Trust
from hostel.errors import (
    BlockError,
    CorruptImage,
    InvalidImage,
    NoSpace,
    ReadOnly,
    UnsupportedFeature,
    UntrustedReference,
)
from support.bounded import MIB, bounded
from support.memory import FaultyDriver, Kind, LoggedDriver, MemoryDriver, memory_node
from support.reopening import check_reopened

BLOCK = 4096
SMALL = {"cluster_size": BLOCK}
SECTOR = 512


def fresh(size: int = 64 * BLOCK, **options: int | bool | str) -> bytes:
    driver = MemoryDriver()
    VdiDriver.create(memory_node(driver), size, {**SMALL, **options})
    return bytes(driver.data)


def attach(driver: MemoryDriver, *, read_only: bool = False, no_io: bool = False) -> BlockNode:
    mode = OpenMode(read_only=read_only, no_io=no_io)
    return BlockNode(VdiDriver.open(memory_node(driver, read_only=read_only), mode), "memory", read_only=read_only)


def poked(data: bytes, **fields: int | bytes) -> bytes:
    return Header.unpack(data).replace(**fields).pack() + data[SECTOR:]


def entries(data: bytes | bytearray) -> list[int]:
    header = Header.unpack(data)
    table = memoryview(data)[header.offset_bmap :][: 4 * header.blocks_in_image]
    return list(table.cast("I"))


def mapped(data: bytes, *changes: tuple[int, int]) -> bytes:
    changed = bytearray(data)
    start = Header.unpack(data).offset_bmap
    for index, value in changes:
        changed[start + 4 * index : start + 4 * index + 4] = value.to_bytes(4, "little")
    return bytes(changed)


def check(data: bytes) -> tuple[int, int, list[str]]:
    lines: list[str] = []
    with attach(MemoryDriver(data), read_only=True) as node:
        assert isinstance(node.driver, VdiDriver)
        result = node.driver.check(Repair.NOTHING, lines.append)
    return result.corruptions, result.leaks, lines


def test_the_header_has_a_sector() -> None:
    assert Header.SIZE == SECTOR


# The words are QEMU's, but for the last ones, which it reads wrongly.
REFUSED = [
    ({"signature": 0}, "Image not in VDI format (bad signature 00000000)"),
    ({"version": 0x00010000}, "unsupported VDI image (version 1.0)"),
    ({"offset_bmap": 513}, "unsupported VDI image (unaligned block map offset 0x201)"),
    ({"offset_data": 1025}, "unsupported VDI image (unaligned data offset 0x401)"),
    ({"sector_size": 4096}, "unsupported VDI image (sector size 4096 is not 512)"),
    ({"block_size": 0}, "unsupported VDI image (block size 0 is not 1048576)"),
    ({"block_size": 4097}, "unsupported VDI image (block size 4097 is not 1048576)"),
    ({"block_size": 1 << 31}, "unsupported VDI image (block size 2147483648 is not 1048576)"),
    ({"blocks_in_image": 63}, "unsupported VDI image (disk size 262144, image bitmap has room for 258048)"),
    ({"uuid_link": b"x" * 16}, "unsupported VDI image (non-NULL link UUID)"),
    ({"blocks_in_image": 0x1FFFFF81}, "unsupported VDI image (too many blocks 536870785, max is 536870784)"),
    (
        {"disk_size": MAX_SIZE + 512},
        f"Unsupported VDI image size (size is 0x{MAX_SIZE + 512:x}, max supported is 0x{MAX_SIZE:x})",
    ),
    ({"block_extra": 512}, "unsupported VDI image (512 extra bytes before each block)"),
    ({"offset_bmap": 0}, "unsupported VDI image (the block map lies over the header)"),
    ({"offset_data": 0}, "unsupported VDI image (the blocks lie over the header)"),
    ({"offset_data": 1024, "blocks_in_image": 4096}, "The block map does not end before the blocks begin"),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED, ids=lambda value: str(value)[:60])
def test_a_header_is_refused_for_its_reason(fields: dict[str, int | bytes], message: str) -> None:
    driver = MemoryDriver(poked(fresh(), **fields))
    with pytest.raises(BlockError) as caught:
        attach(driver)
    assert str(caught.value) == message


def test_a_truncated_map_is_refused_but_for_info() -> None:
    data = poked(fresh(), disk_size=MAX_SIZE, blocks_in_image=0x1FFFFF80, block_size=MIB, offset_data=1 << 31)
    driver = MemoryDriver(data)
    with attach(driver, read_only=True, no_io=True) as node:
        assert node.length == MAX_SIZE
    with pytest.raises(InvalidImage, match="truncated"):
        attach(driver, read_only=True)


def test_the_largest_image_is_created_and_read_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    with path.open("wb") as stream:
        stream.write(
            poked(fresh(), disk_size=MAX_SIZE, blocks_in_image=0x1FFFFF80, block_size=MIB, offset_data=1 << 31)
        )
        stream.truncate(SECTOR + 4 * 0x1FFFFF80 + MIB)  # of zeroes: all entries are those of the first block

    def look() -> int:
        with graph.open(str(path), "vdi") as node:
            node.read(MAX_SIZE - 512, 512)
            return sum(1 for extent, _ in zip(node.extents(), range(1000), strict=False))

    assert bounded(look, memory=64 * MIB, seconds=20)


def test_a_size_that_is_odd_is_rounded_up_and_left_as_it_is() -> None:
    driver = MemoryDriver(poked(fresh(), disk_size=10 * BLOCK - 100))
    with attach(driver) as node:
        assert node.length == 10 * BLOCK
        node.pwrite(0, b"x")
    assert Header.unpack(driver.data).disk_size == 10 * BLOCK - 100


def test_blocks_lie_in_the_order_in_which_they_are_written() -> None:
    driver = MemoryDriver(fresh())
    with attach(driver) as node:
        node.pwrite(5 * BLOCK, b"a" * BLOCK)
        node.pwrite(BLOCK + 7, b"b" * (2 * BLOCK))
        places = [(extent.offset // BLOCK, extent.host_offset) for extent in node.extents() if extent.host_offset]
    found = entries(driver.data)
    assert [found[block] for block in (5, 1, 2, 3)] == [0, 1, 2, 3]
    assert found.count(NEVER_WRITTEN) == 60
    header = Header.unpack(driver.data)
    assert header.blocks_allocated == 4
    assert places == [(1, header.offset_data + BLOCK), (5, header.offset_data)]
    assert len(driver.data) == header.offset_data + 4 * BLOCK
    assert check(bytes(driver.data)) == (0, 0, [])


def test_a_discarded_block_reads_as_zeroes() -> None:
    driver = MemoryDriver(mapped(fresh(), (3, DISCARDED)))
    with attach(driver, read_only=True) as node:
        assert node.read(3 * BLOCK, BLOCK) == bytes(BLOCK)
        assert [extent.status for extent in node.extents()] == [Status.ZERO | Status.ALLOCATED]


def test_writing_zeroes_takes_no_blocks() -> None:
    driver = MemoryDriver(fresh())
    with attach(driver) as node:
        node.pwrite(0, b"x" * BLOCK)
        node.write_zeroes(0, 64 * BLOCK, unmap=True)
        assert node.read(0, 64 * BLOCK) == bytes(64 * BLOCK)
    assert Header.unpack(driver.data).blocks_allocated == 1


def test_new_blocks_are_zeroes_where_the_file_is_not() -> None:
    driver = MemoryDriver(fresh() + b"old" * 10_000)
    with attach(driver) as node:
        node.pwrite(BLOCK + 100, b"new")
        assert node.read(BLOCK, BLOCK) == (bytes(100) + b"new").ljust(BLOCK, b"\0")


def test_a_file_that_cannot_grow_is_full_and_the_image_as_it_was() -> None:
    class Fixed(MemoryDriver):
        supports = MemoryDriver.supports & ~MemoryDriver.supports.GROWS

    driver = Fixed(fresh() + bytes(3 * BLOCK))
    with attach(driver) as node:
        node.pwrite(0, b"x" * (3 * BLOCK))
        with pytest.raises(NoSpace):
            node.pwrite(9 * BLOCK, b"y")
        assert node.read(9 * BLOCK, BLOCK) == bytes(BLOCK)
    assert check(bytes(driver.data)) == (0, 0, [])


# ---- order


def test_data_and_count_are_safe_before_the_map() -> None:
    driver = LoggedDriver(fresh())
    node = attach(driver)
    node.pwrite(0, b"x" * BLOCK)
    driver.log.clear()
    node.flush()
    kinds = [(entry.kind, entry.offset) for entry in driver.log]
    assert kinds == [
        (Kind.WRITE, 0),
        (Kind.FLUSH, 0),
        (Kind.WRITE, SECTOR),
        (Kind.FLUSH, 0),
    ]
    driver.log.clear()
    node.close()
    assert not driver.log


def test_blocks_that_a_crash_has_lost_are_used_again() -> None:
    driver = MemoryDriver(fresh())
    with attach(driver) as node:
        node.pwrite(0, b"".join(bytes([value]) * BLOCK for value in range(1, 6)))
    data = mapped(bytes(driver.data), (1, NEVER_WRITTEN), (4, NEVER_WRITTEN))
    assert check(data) == (0, 2, ["ERROR: allocated blocks mismatch, is 3, should be 5"])
    driver = MemoryDriver(data)
    with attach(driver) as node:
        node.pwrite(10 * BLOCK, b"x")
        node.pwrite(20 * BLOCK, b"y" * (2 * BLOCK))
        assert node.read(10 * BLOCK, BLOCK) == b"x".ljust(BLOCK, b"\0")
        assert node.read(2 * BLOCK, 2 * BLOCK) == bytes([3]) * BLOCK + bytes([4]) * BLOCK
    assert [entries(driver.data)[block] for block in (10, 20, 21)] == [1, 4, 5]
    assert check(bytes(driver.data)) == (0, 0, [])


def test_a_count_that_is_behind_the_map_gives_no_block_twice() -> None:
    driver = MemoryDriver(fresh())
    with attach(driver) as node:
        node.pwrite(0, b"a" * (3 * BLOCK))
    data = poked(bytes(driver.data), blocks_allocated=1)
    assert check(data) == (1, 0, ["ERROR: allocated blocks mismatch, is 3, should be 1"])
    driver = MemoryDriver(data)
    with attach(driver) as node:
        node.pwrite(8 * BLOCK, b"b" * BLOCK)
        assert node.read(0, 3 * BLOCK) == b"a" * (3 * BLOCK)
    assert check(bytes(driver.data)) == (0, 0, [])


def test_a_header_that_could_not_be_written_is_written_with_the_next_flush() -> None:
    driver = FaultyDriver(fresh())
    node = attach(driver)
    node.pwrite(0, b"x")
    driver.arm(0, 5)
    with pytest.raises(OSError, match="injected"):
        node.flush()
    driver.arm()
    node.close()
    assert check(bytes(driver.data)) == (0, 0, [])


# ---- checks


def test_a_check_has_qemus_words() -> None:
    driver = MemoryDriver(fresh())
    with attach(driver) as node:
        node.pwrite(0, b"x" * (2 * BLOCK))
    corruptions, leaks, lines = check(mapped(bytes(driver.data), (7, 1), (9, 64)))
    assert (corruptions, leaks) == (3, 0)
    assert lines == [
        "ERROR: block index 1 also used by 1",
        "ERROR: block index 9 too large, is 64",
        "ERROR: allocated blocks mismatch, is 3, should be 2",
    ]


def test_a_check_that_is_to_repair_is_refused() -> None:
    with attach(MemoryDriver(fresh())) as node:
        assert isinstance(node.driver, VdiDriver)
        with pytest.raises(UnsupportedFeature, match="does not support checks"):
            node.driver.check(Repair.ALL, print)


def test_an_entry_beyond_every_image_stops_the_writer() -> None:
    with attach(MemoryDriver(mapped(fresh(), (0, 0xFFFFFFF0)))) as node, pytest.raises(CorruptImage, match="may have"):
        node.pwrite(9 * BLOCK, b"x")


# ---- tables of more than one page


def test_many_blocks_read_back_as_they_were_written() -> None:
    rng = random.Random(7)
    driver = MemoryDriver(fresh(70_000 * BLOCK))
    content = {}
    with attach(driver) as node:
        for _ in range(300):
            block = rng.randrange(70_000)
            content[block] = rng.randbytes(16)
            node.pwrite(block * BLOCK + 5, content[block])
    with attach(driver, read_only=True) as node:
        for block, data in content.items():
            assert node.read(block * BLOCK + 5, 16) == data
        found = [extent for extent in node.extents() if extent.host_offset is not None]
        assert {at for each in found for at in range(each.offset // BLOCK, each.end // BLOCK)} == set(content)
    assert check(bytes(driver.data)) == (0, 0, [])


def test_it_is_probed_by_its_signature() -> None:
    assert VdiDriver.probe(fresh()[:SECTOR], "") == 100
    assert VdiDriver.probe(fresh()[: SECTOR - 1], "") == 0
    assert registry.format_driver("vdi") is VdiDriver


# ---- differencing images


def differencing(parent: bytes) -> bytes:
    """A difference from ``parent``: block 3 is its own, block 4 is zeroes."""
    driver = MemoryDriver(fresh())
    with attach(driver) as node:
        node.pwrite(3 * BLOCK, b"3" * BLOCK)
    data = mapped(bytes(driver.data), (4, DISCARDED))
    return poked(data, image_type=DIFFERENCING, uuid_parent=Header.unpack(parent).uuid_image, uuid_link=b"x" * 16)


def test_a_difference_shows_its_parent_where_it_has_nothing(tmp_path: Path) -> None:
    parent = MemoryDriver(fresh())
    with attach(parent) as node:
        node.pwrite(0, b"p" * (64 * BLOCK))
    (tmp_path / "machine.vdi").write_bytes(parent.data)
    (tmp_path / "other.vdi").write_bytes(fresh())
    (tmp_path / "Snapshots").mkdir()
    for top in (tmp_path / "top.vdi", tmp_path / "Snapshots" / "top.vdi"):
        top.write_bytes(differencing(bytes(parent.data)))
        with graph.open(str(top), "vdi") as node:
            expected = bytearray(b"p" * (64 * BLOCK))
            expected[3 * BLOCK : 4 * BLOCK], expected[4 * BLOCK : 5 * BLOCK] = b"3" * BLOCK, bytes(BLOCK)
            assert node.read(0, node.length) == expected
            own = [(each.offset, each.length) for each in node.extents() if each.status & Status.ALLOCATED]
            assert own == [(3 * BLOCK, BLOCK), (4 * BLOCK, BLOCK)]


def test_a_difference_whose_parent_is_nowhere_is_refused_and_said_to_be_read_only(tmp_path: Path) -> None:
    parent, top = fresh(), tmp_path / "top.vdi"
    top.write_bytes(differencing(parent))
    with pytest.raises(BlockError, match=r"is not there, and no vdi image in"):
        graph.open(str(top), "vdi")
    with pytest.raises(ReadOnly, match="can only be read"):
        graph.open(str(top), "vdi", read_only=False)
    with pytest.raises(UntrustedReference):
        graph.open(str(top), "vdi", trust=Trust.UNTRUSTED)
    with pytest.raises(UnsupportedFeature, match="a difference from nothing"):
        attach(MemoryDriver(poked(differencing(parent), uuid_parent=bytes(16))), read_only=True)


def test_it_is_opened_anew_in_its_place_with_what_was_held_back() -> None:
    with attach(MemoryDriver(fresh())) as node:
        check_reopened(node, BLOCK)

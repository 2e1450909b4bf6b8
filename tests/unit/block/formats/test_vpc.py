"""vpc: footers and their copies, sizes and geometry, tables, bitmaps, what is written when, differencing images."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from hostel.block import graph, registry
from hostel.block.driver import OpenMode
from hostel.block.extent import Status
from hostel.block.formats.vpc import layout
from hostel.block.formats.vpc.driver import VpcDriver
from hostel.block.formats.vpc.layout import DiskType, DynamicHeader, Footer, Locator, geometry_for, geometry_of, sealed
from hostel.block.node import BlockNode
from hostel.block.options import Value
from hostel.block.trust import Trust
from hostel.errors import BlockError, CorruptImage, InvalidImage, ReadOnly, UntrustedReference
from support import qcow2
from support.bounded import MIB, bounded
from support.memory import Kind, LoggedDriver, MemoryDriver, memory_node
from support.reopening import check_reopened

BLOCK = 4096
SECTOR = 512
SMALL: dict[str, Value] = {"block_size": BLOCK, "force_size": True}
TABLE = 1536


def fresh(size: int = 64 * BLOCK, **options: Value) -> bytes:
    driver = MemoryDriver()
    VpcDriver.create(memory_node(driver), size, {**SMALL, **options})
    return bytes(driver.data)


def attach(
    driver: MemoryDriver,
    *,
    read_only: bool = False,
    no_io: bool = False,
    options: dict[str, Value] | None = None,
    backing: bytes | None = None,
) -> BlockNode:
    mode = OpenMode(read_only=read_only, no_io=no_io, options=options or {})
    node = BlockNode(VpcDriver.open(memory_node(driver, read_only=read_only), mode), "memory", read_only=read_only)
    if backing is not None:
        node.driver.children["backing"] = qcow2.disk(backing)
    return node


def with_footer(data: bytes, **fields: int | bytes) -> bytes:
    """An image with a table whose footer and copy say something else."""
    footer = sealed(Footer.unpack(data).replace(**fields))
    return footer + data[SECTOR:-SECTOR] + footer


def with_header(data: bytes, *, seal: bool = True, **fields: int | bytes) -> bytes:
    header = DynamicHeader.unpack(data, SECTOR).replace(**fields)
    return data[:SECTOR] + (sealed(header) if seal else header.pack()) + data[TABLE:]


def entries(data: bytes | bytearray, count: int = 64) -> list[int]:
    return [int.from_bytes(data[at : at + 4], "big") for at in range(TABLE, TABLE + 4 * count, 4)]


def mapped(data: bytes, *changes: tuple[int, int]) -> bytes:
    changed = bytearray(data)
    for index, value in changes:
        changed[TABLE + 4 * index : TABLE + 4 * index + 4] = value.to_bytes(4, "big")
    return bytes(changed)


def test_records_have_their_sizes() -> None:
    assert (Footer.SIZE, DynamicHeader.SIZE, Locator.SIZE) == (512, 1024, 24)


# ---- sizes


@pytest.mark.parametrize(
    ("sectors", "geometry"),
    [
        (0, (0, 4, 17)),
        (68, (1, 4, 17)),
        (65535 * 16 * 63 - 1, (65534, 16, 63)),
        (65535 * 16 * 63, (16191, 16, 255)),
        (1 << 40, (65535, 16, 255)),
        (20480, (301, 4, 17)),
    ],
)
def test_geometry_is_the_specifications(sectors: int, geometry: tuple[int, int, int]) -> None:
    assert geometry_of(sectors) == geometry


def test_a_geometry_has_at_least_the_size_that_was_asked_for() -> None:
    rng = random.Random(1)
    for _ in range(2000):
        sectors = rng.randrange(1 << rng.randrange(1, 33))
        found = geometry_for(sectors)
        assert found.size >= min(sectors, layout.MAX_GEOMETRY.size)


@pytest.mark.parametrize("creator", [b"win ", b"qem2", b"d2v ", b"CTXS", b"tap\0", b"vpc ", b"qemu", b"vs  ", b"vbox"])
@pytest.mark.parametrize("calculation", ["", "chs", "current_size"])
def test_the_creator_says_what_the_size_is(creator: bytes, calculation: str) -> None:
    data = with_footer(fresh(), creator_app=creator, cylinders=5, heads=4, sectors=17)
    options: dict[str, Value] = {"force_size_calc": calculation} if calculation else {}
    by_size = creator in (b"win ", b"qem2", b"d2v ", b"CTXS", b"tap\0")
    by_size = calculation == "current_size" or (by_size and calculation != "chs")
    with attach(MemoryDriver(data), options=options) as node:
        assert node.length == (64 * BLOCK if by_size else 5 * 4 * 17 * SECTOR)


def test_the_largest_geometry_says_nothing_of_the_size() -> None:
    data = with_footer(fresh(), creator_app=b"vpc ", cylinders=65535, heads=16, sectors=255)
    with attach(MemoryDriver(data), options={"force_size_calc": "chs"}) as node:
        assert node.length == 64 * BLOCK


def test_an_unknown_calculation_is_refused() -> None:
    with pytest.raises(BlockError, match="Invalid size calculation mode: 'x'"):
        attach(MemoryDriver(fresh()), options={"force_size_calc": "x"})


@pytest.mark.parametrize("size", [2040 << 30, (2040 << 30) + 512])
def test_2040_gib_are_the_limit(size: int) -> None:
    options: dict[str, Value] = {"force_size": size % 1024 == 0}
    if size == 2040 << 30:
        VpcDriver.check_creation(size, options)
    else:
        with pytest.raises(BlockError, match="max size is 2040 GiB"):
            VpcDriver.check_creation(size, options)


# ---- footers


def test_a_damaged_copy_is_made_up_for_by_the_footer() -> None:
    data = bytearray(fresh())
    data[100] ^= 1
    with attach(MemoryDriver(data)) as node:
        assert node.length == 64 * BLOCK
    data[-100] ^= 1
    with pytest.raises(InvalidImage, match="Incorrect header checksum"):
        attach(MemoryDriver(data))


def test_a_fixed_disk_whose_guest_wrote_a_footer_is_no_other_image() -> None:
    driver = MemoryDriver(fresh(subformat="fixed"))
    with attach(driver) as node:
        node.pwrite(0, driver.data[-SECTOR:])
        node.pwrite(SECTOR, b"mine")
    with attach(driver) as node:
        assert node.length == 64 * BLOCK
        assert node.read(SECTOR, 4) == b"mine"


@pytest.mark.parametrize("kind", [DiskType.DYNAMIC, DiskType.DIFFERENCING, 5])
@pytest.mark.parametrize("is_sound", [True, False])
def test_a_fixed_disk_whose_guest_wrote_another_kinds_footer_is_no_other_image(kind: int, is_sound: bool) -> None:
    """It would name a parent, and the guest would read what that holds."""
    driver = MemoryDriver(fresh(subformat="fixed"))
    forged = sealed(Footer.unpack(driver.data[-SECTOR:]).replace(disk_type=kind, data_offset=SECTOR))
    with attach(driver) as node:
        node.pwrite(0, forged if is_sound else forged[:-1] + b"x")
        node.pwrite(SECTOR, fresh()[SECTOR:TABLE])
        node.pwrite(TABLE, b"\xff" * SECTOR)
    with attach(driver) as node:
        assert node.driver.references() == ()
        assert node.read(TABLE, SECTOR) == b"\xff" * SECTOR


@pytest.mark.parametrize("kind", [DiskType.DYNAMIC, DiskType.DIFFERENCING])
def test_the_copy_counts_where_the_footer_at_the_end_is_not_that_of_a_fixed_disk(kind: DiskType) -> None:
    data = fresh()
    footer = sealed(Footer.unpack(data).replace(disk_type=kind))
    for image in (data[:-SECTOR] + footer, data[:-SECTOR] + bytes(SECTOR), data[:-SECTOR]):
        with attach(MemoryDriver(image)) as node:
            assert node.length == 64 * BLOCK
    damaged = bytearray(sealed(Footer.unpack(data).replace(disk_type=DiskType.FIXED)))
    damaged[100] ^= 1
    with attach(MemoryDriver(data[:-SECTOR] + damaged)) as node:
        assert node.read(0, BLOCK) == bytes(BLOCK)


def test_what_a_fixed_disk_has_left_on_a_device_does_not_count_for_a_new_image() -> None:
    driver = MemoryDriver(fresh(subformat="fixed"))
    VpcDriver.create(memory_node(driver), 8 * BLOCK, SMALL)
    with attach(driver) as node:
        assert node.length == 8 * BLOCK


def with_blocks(count: int) -> bytes:
    driver = MemoryDriver(fresh())
    with attach(driver) as node:
        for index in range(count):
            node.pwrite(index * BLOCK, b"data")
    return bytes(driver.data)


def test_no_block_lies_over_the_footer_that_stands_for_a_damaged_copy() -> None:
    """The guest would say what kind of image it is."""
    data = bytearray(with_blocks(3))
    start = entries(data)[2] + 1
    assert start * SECTOR + SECTOR + BLOCK == len(data)
    broken = mapped(bytes(data), (2, start))
    data[100] ^= 1
    with attach(MemoryDriver(data)) as node:
        assert node.read(2 * BLOCK, 4) == b"data"
        node.pwrite(3 * BLOCK, b"data")
    with attach(MemoryDriver(broken)) as node:  # the copy counts, and the footer goes behind the last block again
        node.pwrite(3 * BLOCK, b"data")
    damaged = broken[:100] + bytes([broken[100] ^ 1]) + broken[101:]
    with pytest.raises(CorruptImage, match=f"The block at byte {start * SECTOR} lies over the image's footer"):
        attach(MemoryDriver(damaged))


def test_a_header_behind_the_blocks_is_not_written_over() -> None:
    data = with_blocks(2)
    header, footer = data[SECTOR:TABLE], data[-SECTOR:]
    place = len(data) - SECTOR
    moved = with_footer(data[:-SECTOR] + header + footer, data_offset=place)
    driver = MemoryDriver(moved)
    with attach(driver) as node:
        node.pwrite(2 * BLOCK, b"more")
    assert driver.data[place : place + len(header)] == header
    with attach(driver) as node:
        assert [node.read(each * BLOCK, 4) for each in range(3)] == [b"data", b"data", b"more"]
    over = mapped(moved[:-SECTOR] + bytes(BLOCK) + moved[-SECTOR:], (5, place // SECTOR + 1))
    with pytest.raises(CorruptImage, match="lies over the image's header"):
        attach(MemoryDriver(over))


REFUSED = [
    (b"", "File too small for a VHD header"),
    (bytes(1024), "invalid VPC image"),
    (fresh(subformat="fixed")[:-1], "invalid VPC image"),
    (with_footer(fresh(), disk_type=5), "unsupported VHD image (disk type 5)"),
    (with_footer(fresh(), data_offset=1 << 40), "Invalid header magic"),
    (with_footer(fresh(), data_offset=layout.NOWHERE), "Error reading dynamic VHD header"),
    (with_footer(fresh(), data_offset=1024), "Invalid header magic"),
    (with_header(fresh(), block_size=0), "Invalid block size 0"),
    (with_header(fresh(), block_size=128), "Invalid block size 128"),
    (with_header(fresh(), block_size=0x12345678), "Invalid block size 305419896"),
    (with_header(fresh(), max_table_entries=63), "Page table too small"),
    (with_header(fresh(), max_table_entries=1 << 30), "Max Table Entries too large (1073741824)"),
    (with_header(fresh(), max_table_entries=0xFFFFFFFF), "Max Table Entries too large (-1)"),
    (with_header(fresh(), table_offset=1 << 63), "Error reading pagetable"),
    (
        with_header(fresh(), table_offset=1 << 62),
        "block-vpc: free_data_block_offset points after the end of file. The image has been truncated.",
    ),
    (
        with_header(fresh(), max_table_entries=4096),
        "block-vpc: free_data_block_offset points after the end of file. The image has been truncated.",
    ),
    (
        mapped(fresh(), (0, 1 << 31)),
        "block-vpc: free_data_block_offset points after the end of file. The image has been truncated.",
    ),
    (
        with_footer(fresh(), current_size=(2040 << 30) + 512),
        "The disk has 4278190081 sectors, and a VHD may have 4278190080",
    ),
    (mapped(fresh(), (0, 0)) + bytes(BLOCK), "The block at byte 0 lies over the image's copy of the footer"),
    (mapped(fresh(), (7, 2)) + bytes(BLOCK), "The block at byte 1024 lies over the image's header"),
    (
        with_header(fresh(), seal=False, reserved=1),
        "Incorrect checksum of the dynamic VHD header; the image can be read",
    ),
]


@pytest.mark.parametrize(("data", "message"), REFUSED, ids=lambda value: str(value)[:40] if type(value) is str else "")
def test_an_image_is_refused_for_its_reason(data: bytes, message: str) -> None:
    driver = MemoryDriver(data)
    with pytest.raises(BlockError) as caught:
        attach(driver)
    assert str(caught.value) == message
    assert driver.data == data


def test_a_header_whose_checksum_is_wrong_can_be_read() -> None:
    with attach(MemoryDriver(with_header(fresh(), seal=False, reserved=1)), read_only=True) as node:
        assert node.read(0, BLOCK) == bytes(BLOCK)


def test_a_truncated_fixed_disk_is_refused_but_for_info() -> None:
    data = fresh(subformat="fixed")
    cut = data[: 10 * BLOCK] + data[-SECTOR:]
    with pytest.raises(InvalidImage, match="truncated"):
        attach(MemoryDriver(cut))
    with attach(MemoryDriver(cut), read_only=True, no_io=True) as node:
        assert node.length == 64 * BLOCK


def test_a_table_of_gigabytes_is_looked_through_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    data = with_header(fresh(), max_table_entries=0x7FFFFFFF // 4, block_size=SECTOR)
    data = with_footer(data, current_size=(1 << 20) * SECTOR)
    with path.open("wb") as stream:
        stream.write(data)
        stream.truncate(TABLE + 4 * (0x7FFFFFFF // 4) + (1 << 20))

    def look() -> str:
        with pytest.raises(CorruptImage) as caught:
            graph.open(str(path), "vpc")
        return str(caught.value)

    assert "lies over" in bounded(look, memory=64 * MIB, seconds=60)


# ---- blocks


def test_blocks_lie_behind_their_bitmaps_and_before_the_footer() -> None:
    driver = MemoryDriver(fresh())
    end = TABLE + SECTOR
    with attach(driver) as node:
        node.pwrite(5 * BLOCK, b"a" * BLOCK)
        node.pwrite(BLOCK + 7, b"b" * 100)
        assert node.read(BLOCK, 200) == (bytes(7) + b"b" * 100).ljust(200, b"\0")
    found = entries(driver.data)
    whole = BLOCK + SECTOR
    assert (found[5], found[1]) == (end // SECTOR, (end + whole) // SECTOR)
    assert found.count(layout.UNUSED) == 62
    assert driver.data[end : end + SECTOR] == b"\xff" * SECTOR
    assert len(driver.data) == end + 2 * whole + SECTOR
    assert driver.data[-SECTOR:] == driver.data[:SECTOR]


def test_a_bitmap_that_leaves_sectors_out_is_filled_when_they_are_written() -> None:
    driver = MemoryDriver(fresh())
    with attach(driver) as node:
        node.pwrite(0, b"a" * BLOCK)
    place = entries(driver.data)[0] * SECTOR
    driver.data[place : place + SECTOR] = bytes([0x80]).ljust(SECTOR, b"\0")
    with attach(driver) as node:
        assert node.read(0, BLOCK) == b"a" * BLOCK  # as QEMU, which does not look at it
        node.pwrite(SECTOR, b"b")
    assert driver.data[place : place + SECTOR] == b"\xff" * SECTOR


def test_writing_zeroes_takes_no_blocks() -> None:
    driver = MemoryDriver(fresh())
    with attach(driver) as node:
        node.pwrite(0, b"x" * BLOCK)
        node.write_zeroes(0, 64 * BLOCK, unmap=True)
        assert node.read(0, 64 * BLOCK) == bytes(64 * BLOCK)
        assert [each.status for each in node.extents()][-1] == Status.ZERO | Status.ALLOCATED
    assert entries(driver.data).count(layout.UNUSED) == 63


def test_data_and_footer_are_safe_before_the_table() -> None:
    driver = LoggedDriver(fresh())
    node = attach(driver)
    node.pwrite(0, b"x" * BLOCK)
    driver.log.clear()
    node.flush()
    end = TABLE + SECTOR + SECTOR + BLOCK
    assert [(each.kind, each.offset) for each in driver.log] == [
        (Kind.WRITE, end),
        (Kind.FLUSH, 0),
        (Kind.WRITE, TABLE),
        (Kind.FLUSH, 0),
    ]
    node.close()


def test_what_a_crash_has_left_behind_the_last_block_is_no_data() -> None:
    data = fresh()[:-SECTOR] + b"old" * 5000
    driver = MemoryDriver(data)
    with attach(driver) as node:
        node.pwrite(BLOCK + 9, b"x")
        assert node.read(BLOCK, BLOCK) == (bytes(9) + b"x").ljust(BLOCK, b"\0")
    assert driver.data[-SECTOR:] == driver.data[:SECTOR]


# ---- differencing images


def differencing(parent: bytes, name: str = "..\\base.vhd", locator: bytes = b"W2ru") -> bytes:
    """A difference from ``parent``: block 3 whole, of block 5 two sectors."""
    driver = MemoryDriver(fresh())
    with attach(driver) as node:
        node.pwrite(3 * BLOCK, b"3" * BLOCK)
        node.pwrite(5 * BLOCK, b"5" * BLOCK)
    data = bytes(driver.data)
    text = name.encode("utf-16-le")
    place = entries(data)[5] * SECTOR
    data = data[:place] + bytes([0b01000010]).ljust(SECTOR, b"\0") + data[place + SECTOR :]
    where = len(data) - SECTOR
    data = data[:-SECTOR] + text.ljust(SECTOR, b"\0") + data[-SECTOR:]
    records = Locator(platform=locator, data_space=1, data_length=len(text), reserved=0, data_offset=where).pack()
    data = with_footer(data, disk_type=DiskType.DIFFERENCING)
    unique_id = Footer.unpack(parent).unique_id
    return with_header(data, parent_unique_id=unique_id, locators=records, parent_name="base".encode("utf-16-be"))


def test_a_difference_shows_its_parent_where_its_bitmaps_say_so() -> None:
    content = random.Random(3).randbytes(64 * BLOCK)
    expected = bytearray(content)
    expected[3 * BLOCK : 4 * BLOCK] = b"3" * BLOCK
    for sector in (1, 6):
        start = 5 * BLOCK + sector * SECTOR
        expected[start : start + SECTOR] = b"5" * SECTOR
    with attach(MemoryDriver(differencing(fresh())), read_only=True, backing=content) as node:
        assert node.read(0, node.length) == expected
        assert node.read(5 * BLOCK + 1000, 3000) == expected[5 * BLOCK + 1000 : 5 * BLOCK + 4000]
        own = [(each.offset, each.length) for each in node.extents() if each.status & Status.ALLOCATED]
    assert own == [(3 * BLOCK, BLOCK), (5 * BLOCK + SECTOR, SECTOR), (5 * BLOCK + 6 * SECTOR, SECTOR)]


def test_a_difference_is_not_written() -> None:
    with pytest.raises(ReadOnly, match="can only be read"):
        attach(MemoryDriver(differencing(fresh())))


@pytest.mark.parametrize("name", [".\\base.vhd", "base.vhd", "C:\\disks\\base.vhd", "..\\elsewhere\\lost.vhd"])
def test_the_parent_is_found_by_its_name_or_its_identity(tmp_path: Path, name: str) -> None:
    parent = MemoryDriver(fresh())
    with attach(parent) as node:
        node.pwrite(0, b"parent")
    (tmp_path / "base.vhd").write_bytes(parent.data)
    (tmp_path / "other.vhd").write_bytes(fresh())
    (tmp_path / "top.vhd").write_bytes(differencing(bytes(parent.data), name))
    with graph.open(str(tmp_path / "top.vhd"), "vpc") as node:
        assert node.read(0, 6) == b"parent"
        assert node.read(3 * BLOCK, 1) == b"3"


def test_a_parent_that_is_another_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "base.vhd").write_bytes(fresh())
    (tmp_path / "top.vhd").write_bytes(differencing(fresh(), "base.vhd"))
    with pytest.raises(CorruptImage, match="is not the image that"):
        graph.open(str(tmp_path / "top.vhd"), "vpc")


def test_a_parent_that_is_nowhere_is_named(tmp_path: Path) -> None:
    (tmp_path / "top.vhd").write_bytes(differencing(fresh(), "gone.vhd"))
    with pytest.raises(BlockError, match=r"'gone\.vhd' is not there, and no vpc image in"):
        graph.open(str(tmp_path / "top.vhd"), "vpc")
    with graph.open(str(tmp_path / "top.vhd"), "vpc", no_backing=True, no_io=True) as node:
        assert node.length == 64 * BLOCK


def test_an_untrusted_difference_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "top.vhd").write_bytes(differencing(fresh(), "\\..\\..\\etc\\passwd"))
    with pytest.raises(UntrustedReference):
        graph.open(str(tmp_path / "top.vhd"), "vpc", trust=Trust.UNTRUSTED)


def test_it_is_probed_by_its_copy() -> None:
    assert VpcDriver.probe(fresh()[:SECTOR], "") == 100
    assert VpcDriver.probe(fresh(subformat="fixed")[:SECTOR], "") == 0
    assert registry.format_driver("vpc") is VpcDriver


def test_it_is_opened_anew_in_its_place_with_what_was_held_back() -> None:
    with attach(MemoryDriver(fresh())) as node:
        check_reopened(node, BLOCK)

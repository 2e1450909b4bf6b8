"""What ``inspect`` says of tables that lead to the image's own metadata, or to one place twice; ``check`` agrees."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.formats.parallels.layout import Header as ParallelsHeader
from hostel.block.formats.qcow2.layout import COMPRESSED, COPIED, OFFSET_MASK, Header
from hostel.block.formats.qed.layout import Feature
from hostel.block.formats.qed.layout import Header as QedHeader
from hostel.block.formats.vdi import Header as VdiHeader
from hostel.block.powers import Checkable, Repair
from hostel.img.inspect import inspect
from hostel.img.inspect_qcow2 import look_at_tables
from hostel.img.inspection import Level, Look
from support import images, qcow2, qcow2_hostile
from support.bounded import bounded
from support.format_subjects import SUBJECTS
from support.memory import MemoryDriver

MIB = 1 << 20


def overlaps(path: Path, level: Level = Level.UNSAFE, code: str = "overlap") -> list[str]:
    return [each.message for each in inspect(str(path)).findings if (each.level, each.code) == (level, code)]


def is_found_by_check(path: Path, format: str) -> bool:
    with graph.open(str(path), format, no_backing=True, check=True) as node:
        assert isinstance(node.driver, Checkable)
        return bool(node.driver.check(Repair.NOTHING, lambda line: None).corruptions)


# ---- qcow2


def written(path: Path, data: bytes, *words: tuple[int, int]) -> Path:
    """Write an image, with words of 8 bytes changed."""
    changed = bytearray(data)
    for offset, value in words:
        changed[offset : offset + 8] = value.to_bytes(8, "big")
    path.write_bytes(changed)
    return path


def word(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 8], "big")


@pytest.mark.parametrize("kind", ["bitmaps", "old", "narrow", "subclusters"])
def test_a_sound_image_has_no_entry_on_metadata(tmp_path: Path, kind: str) -> None:
    assert overlaps(written(tmp_path / "image", qcow2_hostile.sound(kind))) == []


@pytest.mark.parametrize("is_snapshot", [False, True])
def test_l2_entries_on_metadata_are_unsafe(tmp_path: Path, is_snapshot: bool) -> None:
    data = qcow2_hostile.sound("bitmaps")
    header = qcow2.header(data)
    found = {place.name: place.offset for place in reversed(qcow2_hostile.places(data))}
    l1 = word(data, found["snapshot L1 offset"]) if is_snapshot else header.l1_table_offset
    l2 = word(data, l1) & OFFSET_MASK
    block = word(data, header.refcount_table_offset)
    cluster = qcow2_hostile.CLUSTER
    for what, place in {
        "L1 table": header.l1_table_offset,
        "refcount table": header.refcount_table_offset,
        f"refcount block at byte {block}": block,
        "snapshot table": header.snapshots_offset,
        "L1 table of snapshot 'one'": word(data, found["snapshot L1 offset"]),
        "bitmap directory": found["bitmap directory"],
        "table of a bitmap": found["bitmap table entry"],
        f"L2 table at byte {l2}": l2,
    }.items():
        path = written(tmp_path / "image", data, (l2 + 8 * 30, place // cluster * cluster | COPIED))
        assert overlaps(path) == [f"Entry 30 of the L2 table at byte {l2} points to the {what}, at byte {place}"]
        assert is_found_by_check(path, "qcow2")


def test_a_table_full_of_data_in_a_row_is_held_against_metadata_too(tmp_path: Path) -> None:
    path = tmp_path / "image"
    images.make(path, 8 * MIB, options="cluster_size=4k,preallocation=metadata")
    data = path.read_bytes()
    assert overlaps(path) == []
    l2 = word(data, qcow2.header(data).l1_table_offset) & OFFSET_MASK
    table = qcow2.header(data).refcount_table_offset
    row = [(l2 + 8 * index, table + 4096 * index | COPIED) for index in range(512)]
    assert overlaps(written(path, data, *row)) == [
        f"Entry 0 of the L2 table at byte {l2} points to the refcount table, at byte {table}"
    ]


@pytest.mark.parametrize("kind", ["plain", "subclusters"])
def test_compressed_clusters_on_metadata_are_unsafe(tmp_path: Path, kind: str) -> None:
    data = qcow2_hostile.sound(kind)
    header = qcow2.header(data)
    l2 = word(data, header.l1_table_offset) & OFFSET_MASK
    step = 16 if kind == "subclusters" else 8
    second = [word(data, each.offset) for each in qcow2_hostile.places(data) if each.name == "snapshot L1 offset"][1]
    sectors = 1 << 62 - (header.cluster_bits - 8)  # one sector more
    for what, entry, place in (
        ("header", COMPRESSED | 100, 0),
        ("refcount table", COMPRESSED | header.refcount_table_offset + 5, header.refcount_table_offset),
        ("L1 table of snapshot 'two'", COMPRESSED | sectors | second - 5, second),
    ):
        path = written(tmp_path / "image", data, (l2 + step * 10, entry))
        assert overlaps(path) == [f"Entry 10 of the L2 table at byte {l2} points to the {what}, at byte {place}"]


def test_refcount_blocks_on_other_tables_are_unsafe(tmp_path: Path) -> None:
    data = qcow2_hostile.sound("plain")
    header = qcow2.header(data)
    table, block = header.refcount_table_offset, word(data, header.refcount_table_offset)
    l2 = word(data, header.l1_table_offset) & OFFSET_MASK
    for value, said in (
        (block, f"The refcount table names the refcount block at byte {block} more than once"),
        (header.l1_table_offset, f"The refcount block at byte {header.l1_table_offset} lies on the L1 table"),
        (l2, f"The L2 table at byte {l2} lies on a refcount block"),
    ):
        assert overlaps(written(tmp_path / "image", data, (table + 8, value))) == [said]


def test_more_metadata_than_is_held_against_is_a_warning_and_takes_little(tmp_path: Path) -> None:
    """An L1 table of 131,072 tables in clusters of 512 bytes: what is left out is told."""
    path = tmp_path / "image"
    count = 1 << 17
    head = Header.unpack(qcow2.create(MIB, {"cluster_size": 512})[: Header.SIZE])
    tables = 4 * MIB
    head = head.replace(size=count * 64 * 512, l1_size=count, l1_table_offset=2 * MIB)
    with path.open("wb") as file:
        file.write(qcow2.create(MIB, {"cluster_size": 512}))
        file.seek(0)
        file.write(head.pack())
        file.seek(2 * MIB)
        file.write(struct.pack(f">{count}Q", *(tables + 512 * index | COPIED for index in range(count))))
        file.truncate(tables + 512 * count)
    found = bounded(lambda: inspect(str(path)), memory=128 * MIB, seconds=30)
    assert "large-table" in [each.code for each in found.findings if each.level is Level.WARNING]


def test_a_refcount_table_full_of_blocks_takes_little(tmp_path: Path) -> None:
    """The largest that QEMU opens, of 8 MiB in clusters of 512 bytes, names a million blocks."""
    path = tmp_path / "image"
    count = 1 << 20
    data = qcow2.create(MIB, {"cluster_size": 512})
    head = Header.unpack(data[: Header.SIZE]).replace(
        refcount_table_offset=MIB, refcount_table_clusters=count * 8 // 512
    )
    blocks = 16 * MIB
    with path.open("wb") as file:
        file.write(head.pack() + data[Header.SIZE :])
        file.seek(MIB)
        file.write(struct.pack(f">{count}Q", *(blocks + 512 * index for index in range(count))))
        file.truncate(blocks + 512 * count)
    found = bounded(lambda: inspect(str(path)), memory=128 * MIB, seconds=30)
    assert "large-table" in [each.code for each in found.findings if each.level is Level.WARNING]


def test_an_image_that_grows_while_it_is_looked_at_is_not_cut_off(tmp_path: Path) -> None:
    """Its L1 table is read after its length, and may lead to what has been added meanwhile."""
    path = tmp_path / "image"
    images.make(path, 64 * MIB, options="cluster_size=4k")
    with graph.open(str(path), "raw", force_share=True) as file:
        look = Look(file)
        images.write(path, "qcow2", dict.fromkeys(range(0, 64 * MIB, MIB), b"data"))
        look_at_tables(look)
    assert look.findings == []


# ---- the others


def qed(path: Path) -> tuple[QedHeader, list[int]]:
    """An image with three L2 tables of two clusters; its header, and where they lie."""
    driver = MemoryDriver(SUBJECTS["qed"].create(16 * MIB, {"cluster_size": 4096, "table_size": 2}))
    with SUBJECTS["qed"].attach(driver) as node:
        for offset in (0, 5 * MIB, 9 * MIB):
            node.pwrite(offset, b"data")
    path.write_bytes(driver.data)
    header = QedHeader.unpack(bytes(driver.data))
    l1 = struct.unpack_from(f"<{header.l1_entries}Q", driver.data, header.l1_table_offset)
    return header, [table for table in l1 if table]


def poke(path: Path, offset: int, format: str, *values: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(struct.pack(format, *values))


def test_l2_tables_of_qed_on_each_other_or_on_the_l1_table_are_unsafe(tmp_path: Path) -> None:
    path = tmp_path / "image"
    header, (first, second, _) = qed(path)
    assert overlaps(path) == []
    l1 = header.l1_table_offset
    for value, said in (
        (first, f"The L2 table at byte {first} and the L2 table at byte {first} lie on each other, at byte {first}"),
        (second + 4096, f"The L2 table at byte {second + 4096} and the L2 table at byte {second} lie on each other"),
        (l1, f"The L2 table at byte {l1} and the L1 table lie on each other, at byte {l1}"),
        (l1 + 4096, f"The L2 table at byte {l1 + 4096} and the L1 table lie on each other"),
    ):
        qed(path)
        poke(path, l1 + 8 * 3, "<Q", value)
        assert [each.startswith(said) for each in overlaps(path)] == [True], said
        assert is_found_by_check(path, "qed")
    for value in (1 << 50, 4097):
        poke(path, l1 + 8 * 3, "<Q", value)
        assert overlaps(path, code="truncated")
    qed(path)
    poke(path, first + 8 * 7, "<Q", second)
    assert overlaps(path) == [
        f"Entry 7 of the L2 table at byte {first} points to the L2 table at byte {second}, at byte {second}"
    ]


def test_an_l2_table_of_a_marked_qed_image_beyond_its_end_is_a_warning(tmp_path: Path) -> None:
    """Without a sync between them, a crash leaves the L1 entry and not the table; a repair drops it."""
    path = tmp_path / "image"
    header, (first, second, _) = qed(path)
    poke(path, QedHeader.OFFSET["features"], "<Q", Feature.NEED_CHECK)
    poke(path, header.l1_table_offset + 8 * 2, "<QQ", path.stat().st_size + 8192, path.stat().st_size + 65536)
    found = inspect(str(path))
    assert [each.code for each in found.findings] == ["dirty", "truncated", "truncated"]
    assert found.verdict is Level.WARNING
    poke(path, first + 8 * 7, "<Q", second)
    assert [each.code for each in inspect(str(path)).findings if each.level is Level.UNSAFE] == ["overlap"]
    poke(path, first + 8 * 7, "<Q", 0)
    with graph.open(str(path), "qed", read_only=False) as node:
        assert node.read(5 * MIB, 4) == b"data"
    assert inspect(str(path)).findings == ()


def test_a_table_of_qed_that_ends_with_the_file_may_lack_the_end_of_a_sector(tmp_path: Path) -> None:
    """A file has whole sectors, as QEMU sees it."""
    path = tmp_path / "image"
    header, _ = qed(path)
    end = path.stat().st_size
    poke(path, header.l1_table_offset + 8 * 3, "<Q", end)
    with path.open("ab") as file:
        file.write(struct.pack("<1024Q", *[1] * 1024)[:-5])
    assert [each.level for each in inspect(str(path)).findings] == []


def parallels(path: Path, kind: str = "parallels") -> ParallelsHeader:
    driver = MemoryDriver(SUBJECTS[kind].create(MIB, {"cluster_size": 4096}))
    with SUBJECTS[kind].attach(driver) as node:
        for offset in (0, 40960, 81920):
            node.pwrite(offset, b"data")
    path.write_bytes(driver.data)
    return ParallelsHeader.unpack(bytes(driver.data))


@pytest.mark.parametrize("kind", ["parallels", "parallels in sectors"])
def test_entries_of_parallels_to_one_place_or_to_the_table_are_unsafe(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "image"
    header = parallels(path, kind)
    assert overlaps(path) == []
    (first,) = struct.unpack_from("<I", path.read_bytes(), header.SIZE)
    wrong = [(first, "points to another one's place: ")]
    if kind == "parallels in sectors":
        wrong += [(1, "points to the header or the table: "), (first + 3, "points to a place across another one's: ")]
    for value, said in wrong:
        parallels(path, kind)
        poke(path, header.SIZE + 4 * 30, "<I", value)
        (found,) = overlaps(path)
        assert found.endswith(said + hex(value))
        assert is_found_by_check(path, "parallels")


def test_blocks_of_vdi_that_are_named_twice_and_a_map_on_its_header_are_unsafe(tmp_path: Path) -> None:
    path = tmp_path / "image"
    images.make(path, 8 * MIB, format="vdi")
    images.write(path, "vdi", {0: b"data", 5 * MIB: b"data"})
    assert overlaps(path) == []
    header = VdiHeader.unpack(path.read_bytes()[: VdiHeader.SIZE])
    poke(path, header.offset_bmap + 4 * 3, "<I", 1)
    assert overlaps(path) == ["Entry 5 of the block map points to another one's place: 0x1"]
    assert is_found_by_check(path, "vdi")
    for fields in ({"offset_bmap": 0}, {"offset_data": header.offset_bmap}):
        poke(path, 0, f"{VdiHeader.SIZE}s", header.replace(**fields).pack())  # type: ignore[arg-type]
        assert inspect(str(path)).verdict is Level.UNSAFE


@pytest.mark.parametrize("format", ["parallels", "vdi"])
def test_a_large_block_table_takes_little(tmp_path: Path, format: str) -> None:
    path = tmp_path / "image"
    images.make(path, 4096, format=format)
    data = path.read_bytes()
    count = 1 << 20
    if format == "vdi":
        vdi = VdiHeader.unpack(data[: VdiHeader.SIZE])
        head = vdi.replace(disk_size=count * MIB, blocks_in_image=count, offset_data=vdi.offset_bmap + 4 * count).pack()
        start, first = vdi.offset_bmap, 0
    else:
        sectors = ParallelsHeader.unpack(data).replace(bat_entries=count, nb_sectors=count * 2048)
        head, start, first = sectors.pack(), sectors.SIZE, 100
    with path.open("wb") as file:
        file.write(head)
        file.seek(start)
        file.write(struct.pack(f"<{count}I", *range(first, first + count - 1), first))
        file.truncate(1 << 41)
    found = bounded(lambda: inspect(str(path)), memory=96 * MIB, seconds=30)
    assert "overlap" in [each.code for each in found.findings]

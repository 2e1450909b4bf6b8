"""parallels: what a header may say, both signatures, the mark of an image in use, repairs, bitmaps, preallocation."""

from __future__ import annotations

import hashlib
import struct
import uuid
from collections.abc import Mapping
from pathlib import Path

import pytest

from hostel.block import creating, graph, notice
from hostel.block.driver import OpenMode
from hostel.block.formats.parallels.driver import ParallelsDriver
from hostel.block.formats.parallels.layout import CLOSED, IN_USE, MAGIC, MAGIC_EXTENDED, Header
from hostel.block.node import BlockNode
from hostel.block.options import Value
from hostel.block.powers import Repair
from hostel.errors import BlockError, CorruptImage, InvalidImage, NoSpace, UnsupportedFeature
from support.bounded import MIB, bounded
from support.format_subjects import SUBJECTS
from support.memory import Kind, LoggedDriver, MemoryDriver, memory_node

PARALLELS = SUBJECTS["parallels"]
CLUSTER = 4096
ENTRY = Header.SIZE  # where the table starts


def fresh(size: int = 100 * CLUSTER, **options: Value) -> bytes:
    return PARALLELS.create(size, {"cluster_size": CLUSTER, **options})


def header(data: bytes | bytearray) -> Header:
    return Header.unpack(bytes(data))


def poked(data: bytes, **fields: int | bytes) -> bytes:
    return header(data).replace(**fields).pack() + data[Header.SIZE :]


def entry(data: bytes | bytearray, index: int, value: int) -> bytes:
    place = ENTRY + 4 * index
    return bytes(data[:place]) + struct.pack("<I", value) + bytes(data[place + 4 :])


def filled() -> bytes:
    """Three data clusters, 0, 1 and 3, one behind the other from cluster 1 of the file on."""
    driver = MemoryDriver(fresh())
    with PARALLELS.attach(driver) as node:
        node.pwrite(0, bytes([1]) * CLUSTER + bytes([2]) * CLUSTER)
        node.pwrite(3 * CLUSTER, bytes([3]) * CLUSTER)
    return bytes(driver.data)


def read(data: bytes | bytearray) -> bytes:
    with PARALLELS.attach(MemoryDriver(data), read_only=True) as node:
        return bytes(node.read(0, node.length))


def attach(driver: MemoryDriver, **options: Value) -> BlockNode:
    opened = ParallelsDriver.open(memory_node(driver), OpenMode(read_only=False, options=options))
    return BlockNode(opened, "memory", read_only=False)


REFUSED = [
    ({"magic": bytes(16)}, "Image not in Parallels format"),
    *[({"version": value}, "Image not in Parallels format") for value in (0, 1, 3, 0xFFFFFFFF)],
    ({"tracks": 0}, "Zero sectors per track"),  # CVE-2014-0142
    *[({"tracks": value}, "Too big cluster") for value in (4186128, 0x7FFFFFFF, 0xFFFFFFFF)],
    *[({"bat_entries": value}, "Catalog too large") for value in (0x20000000, 0xFFFFFFFF)],  # CVE-2014-0143
    ({"bat_entries": 0x1FFFFFFF}, "catalog lies beyond the end of the file"),
    *[({"nb_sectors": value}, "Image is too big") for value in (1 << 55, 2**64 - 1)],
]


@pytest.mark.parametrize(("fields", "reason"), REFUSED)
def test_a_header_that_cannot_be_is_refused_by_name(fields: dict[str, int], reason: str) -> None:
    with pytest.raises(InvalidImage, match=reason):
        PARALLELS.attach(MemoryDriver(poked(fresh(), **fields)))


@pytest.mark.parametrize("length", [0, 16, 63, 64, 463])
def test_a_truncated_image_is_refused(length: int) -> None:
    with pytest.raises(InvalidImage):
        PARALLELS.attach(MemoryDriver(fresh()[:length]))


@pytest.mark.parametrize(
    ("size", "cluster_size", "reason"),
    [
        (MIB, 1 << 31, "Cluster size is too large"),
        (1 << 41, 512, "Image size is too large for this cluster size"),
        (1 << 45, 512, "Image size is too large for this cluster size"),
        (MIB, 0, "Image size is too large for this cluster size"),
    ],
)
def test_what_cannot_be_created_is_refused_before_a_file_is_touched(size: int, cluster_size: int, reason: str) -> None:
    with pytest.raises(BlockError, match=reason):
        ParallelsDriver.check_creation(size, {"cluster_size": cluster_size})


def test_sizes_are_rounded_up_to_sectors() -> None:
    made = header(fresh(1000, cluster_size=1000))
    assert (made.nb_sectors, made.tracks, made.bat_entries) == (2, 2, 1)


@pytest.mark.parametrize("magic", [MAGIC, MAGIC_EXTENDED])
def test_entries_count_sectors_or_clusters(magic: bytes) -> None:
    data = entry(poked(fresh(), magic=magic), 5, 8 if magic == MAGIC else 1) + b"here".ljust(CLUSTER)
    assert read(data)[5 * CLUSTER : 5 * CLUSTER + 4] == b"here"
    driver = MemoryDriver(data)
    with PARALLELS.attach(driver) as node:
        node.pwrite(0, b"first")
    (place,) = struct.unpack_from("<I", driver.data, ENTRY)
    assert place == (16 if magic == MAGIC else 2)


def test_sectors_may_lie_anywhere_where_entries_count_them() -> None:
    data = entry(poked(fresh(), magic=MAGIC, data_off=3), 5, 3) + bytes(CLUSTER)
    driver = MemoryDriver(data)
    with PARALLELS.attach(driver) as node:
        node.pwrite(0, b"x" * CLUSTER)
        (extent,) = node.extents(0, CLUSTER)
        assert (extent.host_offset or 0) % CLUSTER == 3 * 512


def test_an_old_image_of_63_sectors_a_cluster(tmp_path: Path) -> None:
    size = 10 * 63 * 512
    old = header(fresh(size)).replace(magic=MAGIC, tracks=63, bat_entries=10, data_off=0)
    driver = MemoryDriver(old.pack().ljust(512, b"\0"))
    with PARALLELS.attach(driver) as node:
        node.pwrite(40000, b"across" * 10000)
    assert read(driver.data)[40000:100000] == b"across" * 10000
    assert PARALLELS.check(driver.data)[0].leaks == 0


def test_what_lies_beyond_the_table_reads_as_zeroes_and_is_not_written() -> None:
    data = poked(filled(), bat_entries=2)
    with PARALLELS.attach(MemoryDriver(data)) as node:
        assert node.read(2 * CLUSTER, 10 * CLUSTER) == bytes(10 * CLUSTER)
        with pytest.raises(InvalidImage, match="larger than its catalog"):
            node.pwrite(2 * CLUSTER, b"x")


@pytest.mark.parametrize("place", [0x10000, 0xFFFFFFFF])
def test_an_entry_that_points_nowhere_is_an_error_and_not_data(place: int) -> None:
    data = entry(filled(), 1, place)
    with PARALLELS.attach(MemoryDriver(data)) as node:
        assert node.read(0, CLUSTER) == bytes([1]) * CLUSTER
        for use in (
            lambda: node.read(CLUSTER, 1),
            lambda: node.pwrite(CLUSTER, b"x"),
            lambda: node.pwrite(2 * CLUSTER, b"x"),
        ):
            with pytest.raises(CorruptImage, match="is outside image"):
                use()


def test_nothing_is_written_over_header_and_table() -> None:
    data = entry(poked(filled(), magic=MAGIC), 1, 1)
    data = poked(data, bat_entries=2000, data_off=16).ljust(9 * CLUSTER, b"\0")
    with PARALLELS.attach(MemoryDriver(data)) as node, pytest.raises(CorruptImage, match="is outside image"):
        node.pwrite(CLUSTER, b"x")


def test_the_table_ends_what_an_entry_can_name() -> None:
    with PARALLELS.attach(MemoryDriver(poked(fresh(), magic=MAGIC))) as node:
        driver = node.driver
        assert isinstance(driver, ParallelsDriver)
        driver._end = (2**32 - 4) * 512
        with pytest.raises(NoSpace, match="no room"):
            node.pwrite(0, b"x")


def test_a_table_of_a_gibibyte_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "disk.hds"

    def use() -> list[int]:
        with creating.create(str(path)) as file:
            ParallelsDriver.create(file, (1 << 28) * 512, {"cluster_size": 512})
        with graph.open(str(path), "parallels", read_only=False) as node:
            node.pwrite(1 << 36, b"far")
        with graph.open(str(path), "parallels", check=True) as node:
            assert isinstance(node.driver, ParallelsDriver)
            assert node.driver.check(Repair.NOTHING, print).corruptions == 0
            return [extent.offset for extent in node.extents() if extent.host_offset is not None]

    assert bounded(use, file_size=1 << 40) == [1 << 36]


# ---- the mark


def test_the_first_write_marks_the_image_and_closing_takes_the_mark_off() -> None:
    driver = LoggedDriver(fresh())
    node = PARALLELS.attach(driver)
    assert driver.log == []
    node.pwrite(0, b"x" * CLUSTER)
    assert header(driver.data).inuse == IN_USE
    assert [each.kind for each in driver.log[:2]] == [Kind.WRITE, Kind.FLUSH]
    node.flush()
    assert header(driver.data).inuse == IN_USE
    node.close()
    assert header(driver.data).inuse == 0


def test_a_marked_image_is_read_but_not_written_until_it_is_repaired() -> None:
    data = poked(filled(), inuse=IN_USE)
    assert read(data) == read(filled())
    with pytest.raises(BlockError, match="Image was not closed correctly; cannot be opened read/write"):
        PARALLELS.attach(MemoryDriver(data))
    result, lines, _ = PARALLELS.check(data)
    assert (result.corruptions, lines) == (1, ["ERROR image was not closed correctly"])
    result, lines, after = PARALLELS.check(data, Repair.ALL)
    assert (result.corruptions, result.corruptions_fixed) == (0, 1)
    assert lines == ["Repairing image was not closed correctly"]
    assert after == filled()


def test_data_is_synced_before_the_entries() -> None:
    driver = LoggedDriver(fresh())
    node = PARALLELS.attach(driver)
    node.pwrite(0, b"x" * CLUSTER)
    node.flush()
    steps = [(each.kind, each.offset) for each in driver.log[2:]]
    assert steps == [(Kind.WRITE, CLUSTER), (Kind.FLUSH, 0), (Kind.WRITE, ENTRY), (Kind.FLUSH, 0)]
    node.close()


# ---- check and repair


def test_a_sound_image_has_its_clusters_counted() -> None:
    result, lines, _ = PARALLELS.check(filled())
    assert lines == []
    assert (result.allocated_clusters, result.total_clusters, result.fragmented_clusters) == (3, 100, 0)
    assert (result.corruptions, result.leaks, result.image_end_offset) == (0, 0, 4 * CLUSTER)


def test_clusters_outside_the_file_are_dropped_where_errors_may_be_repaired() -> None:
    data = entry(filled(), 1, 1000)
    for repair in (Repair.NOTHING, Repair.LEAKS):
        result, lines, after = PARALLELS.check(data, repair)
        assert (result.corruptions, lines, after) == (1, ["ERROR cluster 1 is outside image"], data)
    result, _, after = PARALLELS.check(data, Repair.ALL)
    assert (result.corruptions, result.corruptions_fixed) == (0, 1)
    assert after == entry(filled(), 1, 0)


def test_a_cluster_with_two_references_becomes_two() -> None:
    data = entry(filled(), 7, 1)
    assert PARALLELS.check(data)[0].corruptions == 1
    result, lines, after = PARALLELS.check(data, Repair.ALL)
    assert (result.corruptions, result.corruptions_fixed) == (0, 1)
    assert lines == ["Repairing duplicate offset in BAT entry 7"]
    assert read(after) == read(data)
    assert PARALLELS.check(after)[0].corruptions == 0
    driver = MemoryDriver(after)
    with PARALLELS.attach(driver) as node:
        node.pwrite(0, b"mine alone")
    assert read(driver.data)[7 * CLUSTER : 8 * CLUSTER] == bytes([1]) * CLUSTER


def test_clusters_that_lie_over_each_other_are_told_apart() -> None:
    data = poked(filled(), magic=MAGIC)
    data = entry(entry(entry(data, 0, 8), 1, 10), 3, 24)
    assert PARALLELS.check(data)[0].corruptions == 1
    content = read(data)
    _, _, after = PARALLELS.check(data, Repair.ALL)
    assert PARALLELS.check(after)[0].corruptions == 0
    assert read(after) == content


def test_clusters_side_by_side_are_sound_wherever_the_first_lies() -> None:
    data = poked(filled(), magic=MAGIC, data_off=1)
    data = entry(entry(entry(data, 0, 8), 1, 16), 3, 24)
    result, lines, _ = PARALLELS.check(data)
    assert (result.corruptions, lines) == (0, [])
    shifted = entry(entry(data, 1, 17), 3, 25) + bytes(CLUSTER)
    result, lines, _ = PARALLELS.check(shifted)
    assert (result.corruptions, result.leaks) == (0, 1)
    across = entry(shifted, 9, 20)
    assert PARALLELS.check(across)[0].corruptions == 1
    content = read(across)
    _, _, after = PARALLELS.check(across, Repair.ALL)
    assert PARALLELS.check(after)[0].corruptions == 0
    assert read(after) == content


def test_what_follows_the_last_cluster_is_cut_off() -> None:
    data = filled() + bytes(2 * CLUSTER + 512)
    result, lines, after = PARALLELS.check(data)
    assert (result.leaks, lines, after) == (3, ["ERROR space leaked at the end of the image 8704"], data)
    result, lines, after = PARALLELS.check(data, Repair.LEAKS)
    assert (result.leaks, result.leaks_fixed, after) == (0, 3, filled())


def test_a_table_of_many_clusters_is_not_taken_for_leaked() -> None:
    data = fresh(8000 * 512, cluster_size=512)
    assert header(data).data_off > 1
    result, _, after = PARALLELS.check(data, Repair.ALL)
    assert (result.leaks, result.leaks_fixed, after) == (0, 0, data)


# ---- bitmaps

NAME = "12345678-1234-5678-1234-567812345678"


def with_bitmap(
    *,
    granularity: int = 8,
    flags: int = 0,
    magic: int = 0x20385FAE252CB34A,
    size: int | None = None,
    entries: list[int] | None = None,
    length: int | None = None,
    l1_size: int = 1,
    inuse: int = CLOSED,
    checksum: bytes | None = None,
) -> bytes:
    """An image whose extension has a bitmap: cluster 4 is the extension, cluster 5 the bits."""
    data = filled()
    table = struct.pack(f"<{len(entries or [40])}Q", *(entries or [40]))
    sectors = header(data).nb_sectors if size is None else size
    feature = struct.pack("<Q16sII", sectors, uuid.UUID(NAME).bytes, granularity, l1_size) + table
    feature_header = struct.pack("<QQII", magic, flags, len(feature) if length is None else length, 0)
    body = (feature_header + feature + bytes(-len(feature) % 8)).ljust(CLUSTER - 24, b"\0")
    digest = hashlib.md5(body, usedforsecurity=False).digest()
    extension = struct.pack("<Q", 0xAB234CEF23DCEA87) + (checksum or digest) + body
    bits = bytes([0b101, 0xFF]).ljust(CLUSTER, b"\0")
    return poked(data, ext_off=32, inuse=inuse) + extension + bits


def test_bitmaps_are_read() -> None:
    with PARALLELS.attach(MemoryDriver(with_bitmap()), read_only=True) as node:
        assert isinstance(node.driver, ParallelsDriver)
        (found,) = node.driver.bitmaps()
        assert (found.name, found.granularity, found.flags) == (NAME, CLUSTER, ())
        bits = node.driver.bitmap(NAME)
        dirty = [offset // CLUSTER for offset, length, is_dirty in bits.ranges(0, 100 * CLUSTER) if is_dirty]
        assert (dirty, bits.count) == ([0, 2, 8], 10)
        with pytest.raises(BlockError, match="not found"):
            node.driver.bitmap("nosuch")
        for change in (node.driver.bitmap_remove, node.driver.bitmap_clear):
            with pytest.raises(UnsupportedFeature, match="can be read, and not changed"):
                change(NAME)
            with pytest.raises(BlockError, match="'nosuch' not found"):
                change("nosuch")
        with pytest.raises(UnsupportedFeature, match="Can't store persistent bitmaps to memory"):
            node.driver.bitmap_add("new")


@pytest.mark.parametrize(("entry", "count"), [(0, 0), (1, 100)])
def test_clusters_of_bits_may_be_all_zeroes_or_all_ones(entry: int, count: int) -> None:
    with PARALLELS.attach(MemoryDriver(with_bitmap(entries=[entry])), read_only=True) as node:
        assert isinstance(node.driver, ParallelsDriver)
        assert node.driver.bitmap(NAME).count == count


def test_bitmaps_of_an_image_that_was_written_without_them_are_inconsistent() -> None:
    with PARALLELS.attach(MemoryDriver(with_bitmap(inuse=0)), read_only=True) as node:
        assert isinstance(node.driver, ParallelsDriver)
        assert [each.flags for each in node.driver.bitmaps()] == [("in-use",)]
        with pytest.raises(BlockError, match="is inconsistent"):
            node.driver.bitmap(NAME)


EXTENSIONS: list[tuple[Mapping[str, int | bytes | list[int]], str]] = [
    ({"checksum": bytes(16)}, "Wrong checksum in Format Extension header"),
    ({"flags": 1}, "Flags for extension feature are unsupported"),
    ({"magic": 5}, "Unknown feature: 0x5"),
    ({"length": CLUSTER}, "Feature data_size exceedes Format Extension cluster"),
    ({"length": 8}, "Too small Bitmap Feature area"),
    ({"size": 7}, r"Bitmap size \(in sectors\) 7 differs from disk size in sectors 800"),
    ({"l1_size": 0xFFFFFFFF}, "l1 table exceeds extension data_size"),
    ({"l1_size": 0}, "Bitmap table size 0 does not correspond"),
    *[({"granularity": value}, "is not a power of two") for value in (0, 3, 0xFFFFFFFF)],
]


@pytest.mark.parametrize(("fields", "reason"), EXTENSIONS)
def test_an_extension_that_cannot_be_is_refused_by_name(fields: dict[str, int], reason: str) -> None:
    with pytest.raises((InvalidImage, UnsupportedFeature), match=reason):
        PARALLELS.attach(MemoryDriver(with_bitmap(**fields)), read_only=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("place", [1, 1 << 20, 2**64 - 1])
def test_an_extension_outside_the_file_is_refused(place: int) -> None:
    data = poked(fresh(8000 * 512, cluster_size=512), ext_off=place)
    with pytest.raises(InvalidImage, match="lies outside the file"):
        PARALLELS.attach(MemoryDriver(data), read_only=True)


def test_bits_outside_the_file_are_refused() -> None:
    with PARALLELS.attach(MemoryDriver(with_bitmap(entries=[1 << 40])), read_only=True) as node:
        assert isinstance(node.driver, ParallelsDriver)
        with pytest.raises(InvalidImage, match="lies outside the file"):
            node.driver.bitmap(NAME)


def test_the_first_write_drops_bitmaps_that_would_not_record_it_and_keeps_off_their_place() -> None:
    driver = MemoryDriver(with_bitmap())
    told: list[str] = []
    with notice.listening(told.append):
        node = PARALLELS.attach(driver)
    assert told == ["warning: Format Extension ignored in RW mode"]
    assert header(driver.data).ext_off
    node.pwrite(50 * CLUSTER, b"x")
    assert not header(driver.data).ext_off
    assert driver.data[4 * CLUSTER : 6 * CLUSTER] == with_bitmap()[4 * CLUSTER :]
    node.close()
    assert read(driver.data)[:CLUSTER] == bytes([1]) * CLUSTER
    assert PARALLELS.check(driver.data)[0].leaks == 0


def test_an_extension_that_must_be_known_forbids_writing() -> None:
    with pytest.raises(UnsupportedFeature, match="Flags for extension feature"):
        PARALLELS.attach(MemoryDriver(with_bitmap(flags=1)))


def test_a_check_knows_what_the_extension_uses() -> None:
    for repair in (Repair.NOTHING, Repair.ALL):
        result, lines, after = PARALLELS.check(with_bitmap(), repair)
        assert (result.leaks, result.corruptions, result.check_errors, lines) == (0, 0, 0, [])
        assert after == with_bitmap()


def test_a_broken_extension_is_dropped_by_a_repair() -> None:
    data = with_bitmap(checksum=bytes(16))
    assert PARALLELS.check(data)[0].corruptions == 1
    result, lines, after = PARALLELS.check(data, Repair.ALL)
    assert (result.corruptions, result.leaks) == (0, 0)
    assert lines[0].startswith("Repairing format extension is dropped: Wrong checksum")
    assert not header(after).ext_off
    assert after[Header.SIZE :] == filled()[Header.SIZE :]


# ---- preallocation


@pytest.mark.parametrize("mode", ["falloc", "truncate"])
def test_preallocated_space_is_cut_off_when_the_image_is_closed(mode: str) -> None:
    driver = MemoryDriver(fresh())
    options: dict[str, Value] = {"prealloc-size": MIB, "prealloc-mode": mode}
    with attach(driver, **options) as node:
        node.pwrite(100, b"x")
        assert len(driver.data) > MIB
        node.pwrite(10 * CLUSTER + 5, b"y")
        assert node.read(10 * CLUSTER, 10) == b"\0\0\0\0\0y\0\0\0\0"
    assert len(driver.data) == 3 * CLUSTER
    assert PARALLELS.check(driver.data)[0].leaks == 0


def test_a_preallocation_mode_that_there_is_not_is_refused() -> None:
    with pytest.raises(BlockError, match="invalid parameter value: full"):
        attach(MemoryDriver(fresh()), **{"prealloc-mode": "full"})


def test_it_cannot_be_resized() -> None:
    with PARALLELS.attach(MemoryDriver(fresh())) as node, pytest.raises(UnsupportedFeature, match="resize"):
        node.resize(2 * MIB)

"""qed: what a header may say, the mark of an image in use, checks and repairs, growing over a longer backing file."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from hostel.block import creating, graph
from hostel.block.formats.qed.driver import QedDriver
from hostel.block.formats.qed.layout import Header
from hostel.block.powers import Preallocation, Repair
from hostel.errors import BlockError, CorruptImage, InvalidImage, NoSpace, UnsupportedFeature
from support import qcow2
from support.bounded import MIB, bounded
from support.format_subjects import SUBJECTS
from support.memory import Kind, LoggedDriver, MemoryDriver

QED = SUBJECTS["qed"]
CLUSTER = 4096
SMALL = {"cluster_size": CLUSTER, "table_size": 1}


def fresh(size: int = MIB, **options: int | str) -> bytes:
    return QED.create(size, {**SMALL, **options})


def header(data: bytes | bytearray) -> Header:
    return Header.unpack(bytes(data))


def poked(data: bytes, **fields: int) -> bytes:
    return header(data).replace(**fields).pack() + data[Header.SIZE :]


def word(data: bytes | bytearray, offset: int, value: int) -> bytes:
    return bytes(data[:offset]) + struct.pack("<Q", value) + bytes(data[offset + 8 :])


def filled() -> bytes:
    """Three data clusters, 0 to 2, and a zero cluster, 5; the L1 table is cluster 1 and the L2 table the last."""
    driver = MemoryDriver(fresh())
    with QED.attach(driver) as node:
        node.pwrite(0, b"".join(bytes([value]) * CLUSTER for value in (1, 2, 3)))
        node.write_zeroes(5 * CLUSTER, CLUSTER)
    return bytes(driver.data)


def table_of(data: bytes) -> int:
    (place,) = struct.unpack_from("<Q", data, CLUSTER)
    return int(place)


def read(data: bytes | bytearray, backing: bytes | None = None) -> bytes:
    with QED.attach(MemoryDriver(data), read_only=True, backing=backing) as node:
        return bytes(node.read(0, node.length))


REFUSED = [
    ({"magic": 0}, "Image not in QED format"),
    ({"features": 8}, "Unsupported QED features: 8"),
    ({"features": 1 << 63}, "Unsupported QED features: 8000000000000000"),
    *[({"cluster_size": value}, "QED cluster size is invalid") for value in (0, 2048, 4097, 1 << 27, 0xFFFFFFFF)],
    *[({"table_size": value}, "QED table size is invalid") for value in (0, 3, 32, 0xFFFFFFFF)],
    *[({"image_size": value}, "QED image size is invalid") for value in (1, 1 << 40, 2**64 - 512)],
    *[({"header_size": value}, "QED table offset is invalid") for value in (2, 0xFFFFFFFF)],
    *[
        ({"l1_table_offset": value}, "QED table offset is invalid")
        for value in (0, 1, 4097, 1 << 40, 1 << 63, 2**64 - 4096)
    ],
    ({"features": 1, "backing_filename_size": 4097}, "QED backing filename offset is invalid"),
    ({"features": 1, "backing_filename_offset": 0xFFFFFFFF}, "QED backing filename offset is invalid"),
    ({"features": 1, "backing_filename_size": 1024}, "Failed to read backing filename"),
]


@pytest.mark.parametrize(("fields", "reason"), REFUSED)
def test_a_header_that_cannot_be_is_refused_by_name(fields: dict[str, int], reason: str) -> None:
    with pytest.raises((InvalidImage, UnsupportedFeature), match=reason):
        QED.attach(MemoryDriver(poked(fresh(), **fields)))


def test_an_empty_name_is_no_backing_file() -> None:
    with QED.attach(MemoryDriver(poked(fresh(), features=1, backing_filename_offset=64))) as node:
        assert not node.driver.references()


@pytest.mark.parametrize("length", [0, 3, 63, 64, CLUSTER, 2 * CLUSTER - 512])
def test_a_truncated_image_is_refused(length: int) -> None:
    with pytest.raises(InvalidImage):
        QED.attach(MemoryDriver(fresh()[:length]))


@pytest.mark.parametrize("table_size", [1, 2, 16])
def test_tables_of_one_cluster_can_be_opened_too(table_size: int) -> None:
    driver = MemoryDriver(fresh(table_size=table_size))
    with QED.attach(driver) as node:
        node.pwrite(MIB - 3, b"end")
    assert read(bytes(driver.data))[-3:] == b"end"


@pytest.mark.parametrize(
    ("options", "size", "reason"),
    [
        ({"cluster_size": 2048}, MIB, r"QED cluster size must be within range \[4096, 67108864\] and power of 2"),
        ({"table_size": 3}, MIB, r"QED table size must be within range \[1, 16\] and power of 2"),
        (SMALL, (1 << 30) + 1, "QED image size must be a non-zero multiple of cluster size and less than 1073741824"),
        ({"backing_file": "x" * 1024}, MIB, "Backing file name too long"),
    ],
)
def test_what_cannot_be_created_is_refused_before_a_file_is_touched(
    options: dict[str, int], size: int, reason: str
) -> None:
    with pytest.raises(BlockError, match=reason):
        QedDriver.check_creation(size, options)


def test_sizes_are_rounded_up_to_sectors() -> None:
    assert header(fresh(1000)).image_size == 1024


# ---- the mark


def test_the_first_new_cluster_marks_the_image_and_closing_takes_the_mark_off() -> None:
    driver = MemoryDriver(filled())
    node = QED.attach(driver)
    node.pwrite(0, b"in place")
    assert not node.driver.info().dirty
    node.pwrite(10 * CLUSTER, b"new")
    assert node.driver.info().dirty
    assert header(driver.data).features == 2
    node.flush()
    assert header(driver.data).features == 2
    node.close()
    assert header(driver.data).features == 0


def test_zero_clusters_mark_the_image_too() -> None:
    with QED.attach(MemoryDriver(fresh())) as node:
        node.write_zeroes(0, CLUSTER)
        assert node.driver.info().dirty


def test_an_image_over_a_backing_file_is_not_marked() -> None:
    driver = MemoryDriver(fresh(backing_file="base"))
    with QED.attach(driver, backing=b"x" * MIB) as node:
        node.pwrite(10, b"new")
        assert not node.driver.info().dirty


def test_a_marked_image_is_repaired_when_it_is_opened_for_writing() -> None:
    data = word(filled(), table_of(filled()) + 8, 0x123)
    driver = MemoryDriver(poked(data, features=2))
    with QED.attach(driver, read_only=True) as node:
        assert node.driver.info().dirty
    assert driver.data == poked(data, features=2)
    QED.attach(driver).close()
    assert header(driver.data).features == 0
    assert read(bytes(driver.data))[: 2 * CLUSTER] == bytes([1]) * CLUSTER + bytes(CLUSTER)


def test_a_marked_image_that_cannot_be_repaired_is_not_written() -> None:
    data = filled()
    overlapping = word(data, CLUSTER + 8, table_of(data))  # one table in two places
    driver = MemoryDriver(poked(overlapping, features=2))
    with pytest.raises(BlockError, match="Image corrupted"):
        QED.attach(driver)
    assert header(driver.data).features == 2


def test_unknown_autoclear_bits_are_cleared_by_the_first_write_only() -> None:
    driver = MemoryDriver(poked(filled(), autoclear_features=1 << 40))
    node = QED.attach(driver)
    assert header(driver.data).autoclear_features
    node.pwrite(0, b"x")
    assert not header(driver.data).autoclear_features
    node.close()


# ---- clusters


def test_a_cluster_that_ends_the_file_is_a_whole_one() -> None:
    driver = MemoryDriver(fresh())
    with QED.attach(driver) as node:
        node.pwrite(100, b"x")
    assert len(driver.data) % CLUSTER == 0


def test_what_lies_after_the_last_whole_cluster_is_not_taken_for_zeroes() -> None:
    driver = MemoryDriver(fresh() + b"stale" * 300)
    with QED.attach(driver) as node:
        node.pwrite(CLUSTER + 100, b"x")
        node.pwrite(3 * CLUSTER, b"y")
    expected = bytearray(MIB)
    expected[CLUSTER + 100 : CLUSTER + 101], expected[3 * CLUSTER : 3 * CLUSTER + 1] = b"x", b"y"
    assert read(bytes(driver.data)) == expected


@pytest.mark.parametrize("entry", [2, 0x123, 1 << 40, 1 << 63, 2**64 - CLUSTER])
def test_an_entry_that_points_nowhere_is_an_error_and_not_data(entry: int) -> None:
    data = word(filled(), table_of(filled()) + 8, entry)
    with QED.attach(MemoryDriver(data)) as node:
        assert node.read(0, CLUSTER) == bytes([1]) * CLUSTER
        with pytest.raises(CorruptImage, match="is invalid"):
            node.read(CLUSTER, 1)
        with pytest.raises(CorruptImage, match="is invalid"):
            node.pwrite(CLUSTER, b"x")
    data = word(filled(), CLUSTER, entry)
    with QED.attach(MemoryDriver(data)) as node, pytest.raises(CorruptImage, match="L2 table offset"):
        node.pwrite(0, b"x")


def test_what_leads_to_the_l1_table_is_neither_read_nor_written() -> None:
    """The guest's bytes would be taken for the places of tables."""
    l1 = header(filled()).l1_table_offset
    for data in (word(filled(), table_of(filled()) + 8, l1), word(filled(), l1, l1)):
        driver = MemoryDriver(data)
        with QED.attach(driver) as node:
            for call in (lambda: node.read(CLUSTER, 1), lambda: node.pwrite(CLUSTER, b"x" * CLUSTER)):
                with pytest.raises(CorruptImage, match="is invalid"):
                    call()
        assert driver.data[l1 : l1 + header(data).table_bytes] == data[l1 : l1 + header(data).table_bytes]


def test_zeroes_in_a_part_of_a_large_cluster_hide_all_that_is_below() -> None:
    backing = b"below" * (6 * MIB // 5)
    data = QED.create(6 * MIB, {"cluster_size": 4 * MIB, "table_size": 1, "backing_file": "base"})
    driver = MemoryDriver(data)
    expected = bytearray(backing.ljust(6 * MIB, b"\0"))
    with QED.attach(driver, backing=backing) as node:
        for offset, length in ((512, 3 * MIB), (5 * MIB - 512, MIB)):
            node.write_zeroes(offset, length)
            expected[offset : offset + length] = bytes(length)
            assert node.read(0, node.length) == expected
    assert read(driver.data, backing) == expected


def test_data_is_synced_before_the_entries_and_these_before_the_l1_table() -> None:
    driver = LoggedDriver(fresh())
    node = QED.attach(driver)
    node.pwrite(0, b"x" * CLUSTER)
    node.flush()
    steps = [(each.kind, each.offset // CLUSTER) for each in driver.log if each.kind in (Kind.WRITE, Kind.FLUSH)]
    data, table = 2, 3
    assert steps == [
        (Kind.WRITE, 0),
        (Kind.WRITE, data),
        (Kind.WRITE, 1),  # room for the L1 entry and the table, which still say nothing
        (Kind.WRITE, table),
        (Kind.FLUSH, 0),
        (Kind.WRITE, table),
        (Kind.FLUSH, 0),
        (Kind.WRITE, 1),
        (Kind.FLUSH, 0),
    ]
    node.close()


def test_more_tables_than_are_kept_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "disk.qed"
    rng = random.Random("tables")
    expected: dict[int, bytes] = {}

    def fill() -> dict[int, bytes]:
        size = 200 << 30
        with creating.create(str(path)) as file:
            QedDriver.create(file, size, {"cluster_size": 1 << 16, "table_size": 16})
        with graph.open(str(path), "qed", read_only=False) as node:
            for _ in range(1500):
                offset = rng.randrange(size // 512) * 512
                expected[offset] = rng.randbytes(512)
                node.pwrite(offset, expected[offset])
            for offset, data in expected.items():
                assert node.read(offset, 512) == data
        with graph.open(str(path), "qed") as node:
            return {offset: bytes(node.read(offset, 512)) for offset in expected}

    assert len(bounded(fill, memory=256 * MIB, file_size=1 << 40)) > 1400


def test_tables_of_a_gibibyte_take_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "disk.qed"

    def use() -> tuple[int, int]:
        with creating.create(str(path)) as file:
            QedDriver.create(file, 1 << 50, {"cluster_size": 64 * MIB, "table_size": 16})
        with graph.open(str(path), "qed", read_only=False) as node:
            node.pwrite(1 << 49, b"far")
        with graph.open(str(path), "qed", check=True) as node:
            assert isinstance(node.driver, QedDriver)
            result = node.driver.check(Repair.NOTHING, print)
            assert node.read(1 << 49, 3) == b"far"
        return result.leaks, result.corruptions

    assert bounded(use, file_size=1 << 40) == (0, 0)


# ---- check and repair


def test_a_sound_image_has_its_clusters_counted() -> None:
    result, lines, _ = QED.check(filled())
    assert lines == []
    assert (result.allocated_clusters, result.total_clusters, result.fragmented_clusters) == (3, 256, 0)
    assert (result.corruptions, result.leaks, result.check_errors) == (0, 0, 0)


def test_clusters_at_the_end_that_nothing_refers_to_are_cut_off() -> None:
    data = filled()
    result, _, after = QED.check(data + bytes(3 * CLUSTER))
    assert (result.leaks, result.leaks_fixed) == (3, 0)
    assert after == data + bytes(3 * CLUSTER)
    result, _, after = QED.check(data + bytes(3 * CLUSTER), Repair.LEAKS)
    assert (result.leaks, result.leaks_fixed) == (0, 3)
    assert after == data


def test_clusters_between_others_stay_lost() -> None:
    data = word(filled(), table_of(filled()) + 8, 0)
    for repair in (Repair.NOTHING, Repair.ALL):
        result, _, _ = QED.check(data, repair)
        assert (result.leaks, result.leaks_fixed, result.corruptions) == (1, 0, 0)


@pytest.mark.parametrize("entry", [0x123, 1 << 40, 2**64 - CLUSTER, CLUSTER // 2])
def test_references_to_nowhere_are_dropped_where_errors_may_be_repaired(entry: int) -> None:
    data = word(filled(), table_of(filled()) + 8, entry)
    for repair in (Repair.NOTHING, Repair.LEAKS):
        result, lines, after = QED.check(data, repair)
        assert (result.corruptions, result.corruptions_fixed) == (1, 0)
        assert f"ERROR cluster offset {entry:#x} is invalid" in lines
        assert after == data
    result, _, after = QED.check(data, Repair.ALL)
    assert (result.corruptions, result.corruptions_fixed) == (0, 1)
    assert QED.check(after)[0].corruptions == 0
    assert read(after)[: 3 * CLUSTER] == bytes([1]) * CLUSTER + bytes(CLUSTER) + bytes([3]) * CLUSTER


def test_tables_nowhere_are_dropped() -> None:
    data = word(filled(), CLUSTER + 8, 1 << 40)
    assert QED.check(data)[0].corruptions == 1
    result, _, after = QED.check(data, Repair.ALL)
    assert (result.corruptions, result.corruptions_fixed) == (0, 1)
    assert after == filled()


@pytest.mark.parametrize("clusters", [-1, 0, 1])
def test_tables_on_the_l1_table_are_dropped(clusters: int) -> None:
    """No driver reads one, and the error says that a repair helps."""
    data = fresh(cluster_size=CLUSTER, table_size=2)
    l1 = header(data).l1_table_offset + 2 * CLUSTER
    data = data[:CLUSTER] + bytes(2 * CLUSTER) + data[CLUSTER:] + bytes(2 * CLUSTER)
    data = word(poked(data, l1_table_offset=l1), l1, l1 + clusters * CLUSTER)
    with QED.attach(MemoryDriver(data)) as node, pytest.raises(CorruptImage, match="L2 table offset"):
        node.read(0, 1)
    assert QED.check(data)[0].corruptions == 1
    result, lines, after = QED.check(data, Repair.ALL)
    assert (result.corruptions, result.corruptions_fixed) == (0, 1)
    assert lines[0] == f"ERROR L2 table offset {l1 + clusters * CLUSTER:#x} is invalid"
    assert QED.check(after)[0].corruptions == 0
    driver = MemoryDriver(after)
    with QED.attach(driver) as node:
        node.pwrite(0, b"data")
    assert read(driver.data)[:4] == b"data"


def test_a_cluster_with_two_references_becomes_two() -> None:
    data = filled()
    table = table_of(data)
    (first,) = struct.unpack_from("<Q", data, table)
    broken = word(word(data, table + 16, first), table + 80, first)
    assert QED.check(broken)[0].corruptions == 2
    result, _, after = QED.check(broken, Repair.ALL)
    assert (result.corruptions, result.corruptions_fixed) == (0, 2)
    assert QED.check(after)[0].corruptions == 0
    content = read(after)
    assert content == read(broken)
    driver = MemoryDriver(after)
    with QED.attach(driver) as node:
        node.pwrite(0, b"mine alone")
    assert read(bytes(driver.data))[10:] == content[10:]


def test_data_in_the_place_of_a_table_moves_away() -> None:
    data = filled()
    table = table_of(data)
    broken = word(data, table + 8, table)
    result, _, after = QED.check(broken, Repair.ALL)
    assert (result.corruptions, result.corruptions_fixed) == (0, 1)
    driver = MemoryDriver(after)
    with QED.attach(driver) as node:
        node.pwrite(CLUSTER, bytes(CLUSTER))
    assert read(bytes(driver.data))[: 3 * CLUSTER] == bytes([1]) * CLUSTER + bytes(CLUSTER) + bytes([3]) * CLUSTER


def test_two_references_to_one_table_are_reported_and_left() -> None:
    data = filled()
    broken = word(data, CLUSTER + 8, table_of(data))
    for repair in (Repair.NOTHING, Repair.ALL):
        result, lines, after = QED.check(broken, repair)
        assert (result.corruptions, result.corruptions_fixed) == (1, 0)
        assert "overlaps another table" in lines[0]
        assert after == broken


# ---- size and backing file


@pytest.mark.parametrize("old", [5 * CLUSTER, 5 * CLUSTER + 512])
def test_what_is_new_reads_as_zeroes_over_a_longer_backing_file(old: int) -> None:
    backing = b"shines through!!" * (20 * CLUSTER // 16)
    driver = MemoryDriver(fresh(old, backing_file="base"))
    with QED.attach(driver, backing=backing) as node:
        node.resize(30 * CLUSTER)
        expected = backing[:old] + bytes(30 * CLUSTER - old)
        assert node.read(0, node.length) == expected
    assert read(bytes(driver.data), backing) == expected


def test_what_lay_beyond_the_end_in_the_last_cluster_is_not_shown() -> None:
    driver = MemoryDriver(fresh(2048))
    with QED.attach(driver) as node:
        node.pwrite(0, b"x" * 2048)
        (host,) = [each.host_offset for each in node.extents()]
        assert host is not None
        driver.data[host : host + CLUSTER] = b"y" * CLUSTER
        node.resize(CLUSTER)
        assert node.read(0, CLUSTER) == b"y" * 2048 + bytes(2048)


@pytest.mark.parametrize(
    ("size", "mode", "reason"),
    [
        (MIB // 2, Preallocation.OFF, "Shrinking images is currently not supported"),
        (2 * MIB, Preallocation.FULL, "Unsupported preallocation mode 'full'"),
        (2 * MIB + 1, Preallocation.OFF, "Invalid image size specified"),
        (1 << 40, Preallocation.OFF, "Invalid image size specified"),
    ],
)
def test_sizes_that_cannot_be_are_refused(size: int, mode: Preallocation, reason: str) -> None:
    driver = MemoryDriver(fresh())
    with QED.attach(driver) as node, pytest.raises(BlockError, match=reason):
        node.resize(size, mode)
    assert driver.data == fresh()


def references(driver: MemoryDriver) -> list[tuple[str, str | None]]:
    with QED.attach(driver, read_only=True) as node:
        return [(each.filename, each.format) for each in node.driver.references()]


def test_another_backing_file_is_recorded_beside_the_old_name() -> None:
    driver = LoggedDriver(fresh(backing_file="base", backing_fmt="raw"))
    assert references(driver) == [("base", "raw")]
    node = QED.attach(driver)
    assert isinstance(node.driver, QedDriver)
    node.driver.change_backing("another", "qcow2")
    node.close()
    assert references(driver) == [("another", None)]
    for place in [each for each in driver.log if each.kind is Kind.WRITE and each.offset]:
        assert place.offset >= Header.SIZE + len("base")
    driver = LoggedDriver(bytes(driver.data))
    node = QED.attach(driver)
    assert isinstance(node.driver, QedDriver)
    node.driver.change_backing(None, None)
    node.close()
    assert references(driver) == []


def test_a_backing_name_that_does_not_fit_is_refused() -> None:
    with QED.attach(MemoryDriver(fresh())) as node:
        assert isinstance(node.driver, QedDriver)
        with pytest.raises(InvalidImage, match="Backing file name too long"):
            node.driver.change_backing("x" * 1024, None)
    with QED.attach(MemoryDriver(poked(fresh(), compat_features=1))) as node:
        assert isinstance(node.driver, QedDriver)
        with pytest.raises(UnsupportedFeature, match="features that are not known"):
            node.driver.change_backing("x", None)
        node.driver.change_backing(None, None)


def test_the_file_cannot_grow_for_ever() -> None:
    with QED.attach(MemoryDriver(fresh())) as node:
        assert isinstance(node.driver, QedDriver)
        node.driver.end = 2**63 - CLUSTER
        with pytest.raises(NoSpace):
            node.pwrite(0, b"x" * 2 * CLUSTER)


def test_an_untrusted_overlay_opens_nothing(tmp_path: Path) -> None:
    from hostel.block.trust import Trust
    from hostel.errors import UntrustedReference

    path = tmp_path / "disk.qed"
    path.write_bytes(fresh(backing_file="/etc/passwd"))
    with pytest.raises(UntrustedReference, match="backing"):
        graph.open(str(path), "qed", trust=Trust.UNTRUSTED)


def test_images_over_others_read_through(tmp_path: Path) -> None:
    base, path = tmp_path / "base.qcow2", tmp_path / "disk.qed"
    qcow2.create_file(base, MIB)
    with graph.open(str(base), "qcow2", read_only=False) as node:
        node.pwrite(0, b"below")
    path.write_bytes(fresh(backing_file="base.qcow2"))
    with graph.open(str(path)) as node:
        assert node.format == "qed"
        assert node.read(0, 5) == b"below"

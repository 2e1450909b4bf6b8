"""qcow, version 1: what a header may say, clusters with and without a backing file, compression, AES, emptying."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.block import creating, graph, objects
from hostel.block.driver import OpenMode
from hostel.block.formats.qcow import Header, QcowDriver
from hostel.block.node import BlockNode
from hostel.block.options import Value
from hostel.block.trust import Trust
from hostel.errors import BlockError, CorruptImage, InvalidImage, UnknownFormat, UnsupportedFeature, UntrustedReference
from support.bounded import MIB, bounded
from support.format_subjects import SUBJECTS
from support.memory import FaultyDriver, Kind, LoggedDriver, MemoryDriver, memory_node

QCOW = SUBJECTS["qcow"]
CLUSTER = 4096
TABLE = 8 << 9  # bytes of an L2 table without a backing file


def fresh(size: int = MIB, **options: int | str) -> bytes:
    return QCOW.create(size, options)


def header(data: bytes | bytearray) -> Header:
    return Header.unpack(bytes(data))


def poked(data: bytes, **fields: int) -> bytes:
    return header(data).replace(**fields).pack() + data[Header.SIZE :]


def word(data: bytes | bytearray, offset: int, value: int) -> bytes:
    return bytes(data[:offset]) + struct.pack(">Q", value) + bytes(data[offset + 8 :])


def filled() -> bytes:
    """Two data clusters and a compressed one."""
    driver = MemoryDriver(fresh())
    with QCOW.attach(driver) as node:
        node.pwrite(0, bytes([1]) * CLUSTER + bytes([2]) * CLUSTER)
        assert isinstance(node.driver, QcowDriver)
        payload = node.driver.compressor()(b"compress" * 512)
        assert payload is not None
        node.driver.pwrite_compressed(2 * CLUSTER, payload)
    return bytes(driver.data)


def table_of(data: bytes) -> int:
    (place,) = struct.unpack_from(">Q", data, Header.SIZE)
    return int(place)


def read(data: bytes | bytearray, backing: bytes | None = None) -> bytes:
    with QCOW.attach(MemoryDriver(data), read_only=True, backing=backing) as node:
        return bytes(node.read(0, node.length))


REFUSED = [
    ({"magic": 0}, "Image not in qcow format"),
    ({"version": 2}, r"qcow \(v1\) does not support qcow version 2"),
    ({"version": 0xFFFFFFFF}, "does not support qcow version 4294967295"),
    *[({"size": value}, "Image size is too small") for value in (0, 1)],
    *[({"cluster_bits": value}, "Cluster size must be between 512 and 64k") for value in (0, 8, 17, 31, 64, 255)],
    *[({"l2_bits": value}, "L2 table size must be between 512 and 64k") for value in (0, 5, 14, 32, 64, 255)],
    *[({"size": value}, "Image too large") for value in (1 << 62, 1 << 63, 2**64 - 512, 2**64 - 1)],
    ({"crypt_method": 2}, "invalid encryption method in qcow header"),
    ({"size": 1 << 40}, "L1 table lies beyond the end of the file"),
    *[({"l1_table_offset": value}, "L1 table offset is invalid") for value in (0, 40, 52, 2**64 - 1)],
    *[({"l1_table_offset": value}, "L1 table lies beyond the end") for value in (1 << 40, 1 << 63, 2**64 - 8)],
    ({"backing_file_offset": 48, "backing_file_size": 1024}, "Backing file name too long"),
    ({"backing_file_offset": 48, "backing_file_size": 2**32 - 1}, "Backing file name too long"),
    ({"backing_file_offset": 1 << 63, "backing_file_size": 4}, "name lies beyond the end of the file"),
]


@pytest.mark.parametrize(("fields", "reason"), REFUSED)
def test_a_header_that_cannot_be_is_refused_by_name(fields: dict[str, int], reason: str) -> None:
    # CVE-2014-0222: the size of an L2 table; CVE-2014-0223: the image's size
    with pytest.raises((InvalidImage, UnsupportedFeature), match=reason):
        QCOW.attach(MemoryDriver(poked(fresh(), **fields)))


@pytest.mark.parametrize("length", [0, 4, 47, 48, 55])
def test_a_truncated_image_is_refused(length: int) -> None:
    with pytest.raises(InvalidImage):
        QCOW.attach(MemoryDriver(fresh()[:length]))


def test_version_2_images_are_no_qcow() -> None:
    assert QcowDriver.probe(b"QFI\xfb\0\0\0\2" + bytes(504), "") == 0
    assert QcowDriver.probe(fresh(), "") == 100


@pytest.mark.parametrize(
    ("options", "size", "kind", "reason"),
    [
        ({}, 0, BlockError, "Image size is too small, cannot be zero length"),
        ({}, 1 << 62, BlockError, "Image too large"),
        ({"backing_file": "x" * 1024}, MIB, InvalidImage, "Backing file name too long"),
        ({"backing_file": "x", "backing_fmt": "nosuch"}, MIB, UnknownFormat, "unrecognized backing format 'nosuch'"),
        ({"encryption": True}, MIB, BlockError, "Parameter 'encrypt.key-secret' is required for cipher"),
        ({"encrypt.format": "luks"}, MIB, BlockError, "Unsupported encryption format"),
        ({"encrypt.format": "x"}, MIB, BlockError, "Parameter 'format' does not accept value 'x'"),
        ({"encrypt.key-secret": "s"}, MIB, BlockError, "Parameter 'encrypt.format' is missing"),
        ({"encrypt.format": "aes", "encryption": True}, MIB, BlockError, "can't be used at the same time"),
    ],
)
def test_what_cannot_be_created_is_refused_before_a_file_is_touched(
    options: dict[str, str], size: int, kind: type[BlockError], reason: str
) -> None:
    with pytest.raises(kind, match=reason):
        QcowDriver.check_creation(size, options)


def test_clusters_are_small_over_a_backing_file() -> None:
    assert (header(fresh()).cluster_bits, header(fresh()).l2_bits) == (12, 9)
    over = header(fresh(backing_file="base", backing_fmt="raw"))
    assert (over.cluster_bits, over.l2_bits, over.l1_table_offset) == (9, 12, 56)


def test_a_size_that_is_no_whole_number_of_sectors_is_cut_as_qemu_does() -> None:
    assert len(read(poked(fresh(), size=MIB - 1))) == MIB - 512
    assert header(fresh(1000)).size == 1024


# ---- clusters


@pytest.mark.parametrize("entry", [1, 0x123, 48, 512 + 8, 1 << 40, (1 << 63) - 512])
def test_an_entry_that_points_nowhere_is_an_error_and_not_data(entry: int) -> None:
    data = word(filled(), table_of(filled()) + 8, entry)
    with QCOW.attach(MemoryDriver(data)) as node:
        assert node.read(0, CLUSTER) == bytes([1]) * CLUSTER
        for use in (lambda: node.read(CLUSTER, 1), lambda: node.pwrite(CLUSTER, b"x")):
            with pytest.raises(CorruptImage, match="is invalid"):
                use()
    data = word(filled(), Header.SIZE, entry)
    with QCOW.attach(MemoryDriver(data)) as node, pytest.raises(CorruptImage, match="L2 table offset"):
        node.pwrite(0, b"x")


def test_nothing_is_written_over_header_and_l1_table() -> None:
    data = bytearray(poked(fresh(), l1_table_offset=512).ljust(1024, b"\0"))
    with QCOW.attach(MemoryDriver(data)) as node:
        node.pwrite(0, b"x")
        data = node.driver.file.driver.data  # type: ignore[attr-defined]
        node.flush()
    (table,) = struct.unpack_from(">Q", data, 512)
    broken = word(data, table, 512)
    with QCOW.attach(MemoryDriver(broken)) as node, pytest.raises(CorruptImage):
        node.pwrite(0, b"x")


def test_nothing_is_written_over_the_backing_files_name() -> None:
    """It may lie anywhere; one that is empty is none, until a guest's bytes are there."""
    data = filled()
    table = table_of(data)
    (first,) = struct.unpack_from(">Q", data, table)
    for offset, length in ((first, 64), (first + 4000, 64), (first - 10, 64)):
        driver = MemoryDriver(poked(data, backing_file_offset=offset, backing_file_size=length))
        with QCOW.attach(driver) as node:
            for use in (lambda: node.read(0, 1), lambda: node.pwrite(0, b"/etc/passwd\0")):
                with pytest.raises(CorruptImage, match="is invalid"):
                    use()
        assert b"passwd" not in driver.data
    in_table = poked(data, backing_file_offset=table + 2048, backing_file_size=64)
    with QCOW.attach(MemoryDriver(in_table)) as node, pytest.raises(CorruptImage, match="L2 table offset"):
        node.pwrite(0, b"x")
    apart = poked(data, backing_file_offset=first - 64, backing_file_size=64)
    with QCOW.attach(MemoryDriver(apart)) as node:
        assert node.read(0, 1) == b"\1"


def test_an_emptied_overlay_keeps_a_name_that_lies_behind_its_tables() -> None:
    data = fresh() + b"base"
    driver = MemoryDriver(poked(data, backing_file_offset=len(data) - 4, backing_file_size=4))
    with QCOW.attach(driver, backing=b"below") as node:
        assert isinstance(node.driver, QcowDriver)
        node.driver.make_empty()
        node.pwrite(0, b"above")
    with QCOW.attach(driver, read_only=True, backing=b"below") as node:
        assert [each.filename for each in node.driver.references()] == ["base"]
        assert node.read(0, 5) == b"above"


def test_data_is_synced_before_the_entries_and_these_before_the_l1_table() -> None:
    driver = LoggedDriver(fresh())
    node = QCOW.attach(driver)
    node.pwrite(0, b"x" * CLUSTER)
    node.flush()
    kinds = [each.kind for each in driver.log if each.kind in (Kind.WRITE, Kind.FLUSH)]
    room = [Kind.WRITE, Kind.WRITE]  # for the L1 entry and the new table: they still say nothing
    assert kinds == [Kind.WRITE, *room, Kind.FLUSH, Kind.WRITE, Kind.FLUSH, Kind.WRITE, Kind.FLUSH]
    assert driver.log[-2].offset == Header.SIZE
    node.close()


def test_an_l1_table_of_gibibytes_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow"

    def use() -> list[int]:
        with creating.create(str(path)) as file:
            QcowDriver.create(file, 500 << 40, {})
        with graph.open(str(path), "qcow", read_only=False) as node:
            for offset in (0, 123 << 40, (500 << 40) - 3):
                node.pwrite(offset, b"far")
        with graph.open(str(path), "qcow") as node:
            return [extent.offset for extent in node.extents() if extent.host_offset is not None]

    assert bounded(use, file_size=1 << 40) == [0, 123 << 40, (500 << 40) - CLUSTER]


# ---- compression


def test_compressed_clusters_lie_one_right_behind_the_other() -> None:
    driver = MemoryDriver(fresh())
    with QCOW.attach(driver) as node:
        assert isinstance(node.driver, QcowDriver)
        compress = node.driver.compressor()
        ends = []
        for index in range(4):
            payload = compress(bytes([index]) * CLUSTER)
            assert payload is not None
            node.driver.pwrite_compressed(index * CLUSTER, payload)
            ends.append((len(driver.data), len(payload)))
        assert all(ends[index + 1][0] - ends[index][0] == ends[index + 1][1] for index in range(1, 3))
    assert read(driver.data) == b"".join(bytes([index]) * CLUSTER for index in range(4)) + bytes(MIB - 4 * CLUSTER)


def test_a_part_of_a_compressed_cluster_is_overwritten_in_a_cluster_of_its_own() -> None:
    driver = MemoryDriver(filled())
    with QCOW.attach(driver) as node:
        node.pwrite(2 * CLUSTER + 8, b"COMPRESS")
        node.write_zeroes(2 * CLUSTER + 100, 28)
    expected = bytearray(b"compress" * 512)
    expected[8:16], expected[100:128] = b"COMPRESS", bytes(28)
    assert read(driver.data)[2 * CLUSTER : 3 * CLUSTER] == expected


def test_compressed_clusters_have_no_place_that_could_be_read_directly() -> None:
    with QCOW.attach(MemoryDriver(filled()), read_only=True) as node:
        places = [(each.offset, each.host_offset is None) for each in node.extents(0, 3 * CLUSTER)]
    assert places == [(0, False), (2 * CLUSTER, True)]


def test_what_does_not_get_smaller_is_not_compressed() -> None:
    import random

    with QCOW.attach(MemoryDriver(fresh())) as node:
        assert isinstance(node.driver, QcowDriver)
        assert node.driver.compressor()(random.Random(1).randbytes(CLUSTER)) is None
        for offset, payload in ((100, b"x"), (0, b""), (0, bytes(CLUSTER))):
            with pytest.raises(BlockError, match="one whole cluster"):
                node.driver.pwrite_compressed(offset, payload)


@pytest.mark.parametrize("payload", [b"", b"\xff" * 200, zlib.compress(bytes(100))[2:-4]])
def test_a_broken_stream_is_an_error(payload: bytes) -> None:
    data = filled() + payload
    entry = 1 << 63 | len(payload) << 51 | len(data) - len(payload)
    broken = word(data, table_of(data) + 16, entry)
    with QCOW.attach(MemoryDriver(broken)) as node:
        with pytest.raises(CorruptImage):
            node.read(2 * CLUSTER, CLUSTER)
        with pytest.raises(CorruptImage):
            node.pwrite(2 * CLUSTER, b"x")
        node.pwrite(2 * CLUSTER, bytes(CLUSTER))
        assert node.read(2 * CLUSTER, CLUSTER) == bytes(CLUSTER)


def test_a_compressed_bomb_takes_no_more_memory_than_a_cluster() -> None:
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -12)
    payload = squeezer.compress(bytes(4 * MIB)) + squeezer.flush()
    payload = payload[: CLUSTER - 1]
    data = filled() + payload
    entry = 1 << 63 | len(payload) << 51 | len(data) - len(payload)
    assert read(word(data, table_of(data) + 16, entry))[2 * CLUSTER : 3 * CLUSTER] == bytes(CLUSTER)


# ---- encryption


@pytest.fixture
def key() -> Iterator[dict[str, Value]]:
    """Options that name a secret."""
    objects.add("key", objects.Secret(b"passphrase"))
    try:
        yield {"encrypt.key-secret": "key"}
    finally:
        objects.clear()


def encrypted(key: dict[str, Value]) -> bytes:
    driver = MemoryDriver()
    QcowDriver.create(memory_node(driver), MIB, key | {"encrypt.format": "aes"})
    return bytes(driver.data)


def unlock(driver: MemoryDriver, options: dict[str, Value], **mode: bool) -> BlockNode:
    opened = OpenMode(read_only=False, options=options)._replace(**mode)  # type: ignore[arg-type]
    return BlockNode(QcowDriver.open(memory_node(driver), opened), "memory", read_only=False)


def test_encrypted_data_is_read_back_and_does_not_lie_in_the_clear(key: dict[str, Value]) -> None:
    driver = MemoryDriver(encrypted(key))
    expected = bytearray(MIB)
    with unlock(driver, key) as node:
        for offset, data in ((0, b"plain text " * 900), (5000, b"unaligned"), (MIB - 7, b"the end")):
            node.pwrite(offset, data)
            expected[offset : offset + len(data)] = data
        node.write_zeroes(100, 1000)
        expected[100:1100] = bytes(1000)
        assert node.read(0, MIB) == expected
        assert all(each.host_offset is None for each in node.extents())
    assert b"plain" not in driver.data
    assert b"the end" not in driver.data
    with unlock(driver, key) as node:
        assert node.read(0, MIB) == expected
        assert node.read(3, 5000) == expected[3:5003]
        assert node.driver.info().encrypted


def test_encrypted_images_are_opened_with_their_passphrase_only(key: dict[str, Value]) -> None:
    driver = MemoryDriver(encrypted(key))
    with pytest.raises(BlockError, match="key-secret' is required for cipher"):
        unlock(driver, {})
    with pytest.raises(BlockError, match="Header reported 'aes' encryption format but options specify 'luks'"):
        unlock(driver, key | {"encrypt.format": "luks"})
    with pytest.raises(BlockError, match="No encryption in image header, but options specified format 'aes'"):
        unlock(MemoryDriver(fresh()), key | {"encrypt.format": "aes"})
    with unlock(driver, {}, no_io=True) as node:
        assert node.driver.info().encrypted


def test_nothing_compressed_is_written_into_an_encrypted_image(key: dict[str, Value]) -> None:
    with unlock(MemoryDriver(encrypted(key)), key) as node:
        assert isinstance(node.driver, QcowDriver)
        with pytest.raises(UnsupportedFeature, match="would not be encrypted"):
            node.driver.pwrite_compressed(0, b"x")


# ---- emptying


def test_an_emptied_overlay_shows_its_backing_file_and_has_its_first_length() -> None:
    data = fresh(backing_file="base")
    driver = MemoryDriver(data)
    backing = b"below" * 1000
    with QCOW.attach(driver, backing=backing) as node:
        node.pwrite(0, b"above")
        assert isinstance(node.driver, QcowDriver)
        node.driver.make_empty()
        assert node.read(0, 10) == b"belowbelow"
        node.pwrite(600, b"again")
    content = read(driver.data, backing)
    assert (content[:10], content[600:605]) == (b"belowbelow", b"again")


def test_after_a_failure_to_empty_it_nothing_is_written() -> None:
    driver = FaultyDriver(fresh(backing_file="base"))
    with QCOW.attach(driver, backing=b"below") as node:
        node.pwrite(0, b"above")
        node.flush()
        assert isinstance(node.driver, QcowDriver)
        driver.arm()
        node.driver.flush()
        first = len(driver.calls) + 1
        driver.arm(first, 5)
        with pytest.raises(OSError, match="injected"):
            node.driver.make_empty()
        with pytest.raises(CorruptImage, match="is not written any more"):
            node.pwrite(0, b"more")


# ---- names


def test_a_backing_files_format_is_not_recorded() -> None:
    with QCOW.attach(MemoryDriver(fresh(backing_file="base", backing_fmt="raw")), read_only=True) as node:
        assert [(each.filename, each.format) for each in node.driver.references()] == [("base", None)]


def test_an_untrusted_overlay_opens_nothing(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow"
    path.write_bytes(fresh(backing_file="/etc/passwd"))
    with pytest.raises(UntrustedReference, match="backing"):
        graph.open(str(path), "qcow", trust=Trust.UNTRUSTED)


def test_it_can_be_neither_resized_nor_checked() -> None:
    with BlockNode(
        QcowDriver.open(memory_node(MemoryDriver(fresh())), OpenMode(read_only=False)), "", read_only=False
    ) as node:
        with pytest.raises(UnsupportedFeature, match="does not support resize"):
            node.resize(2 * MIB)
        assert not hasattr(node.driver, "check")

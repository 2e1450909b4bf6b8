"""What ``inspect`` says of qcow, vmdk, vhdx and vpc images whose tables lead to metadata, or to one place twice."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from hostel.block.formats.qcow import COMPRESSED
from hostel.block.formats.qcow import Header as QcowHeader
from hostel.block.formats.vhdx.layout import BlockState
from hostel.block.formats.vmdk.layout import SparseHeader
from hostel.block.formats.vpc.layout import DiskType, DynamicHeader, Footer
from hostel.block.formats.vpc.layout import sealed as sealed_vpc
from hostel.img.inspect import inspect
from hostel.img.inspection import Level
from support import images, vmdk
from support.bounded import bounded
from support.format_subjects import SUBJECTS
from support.memory import MemoryDriver
from support.vhdx import FIRST, LOG, fresh, mapped

MIB = 1 << 20


def found(path: Path, code: str = "overlap") -> list[str]:
    return [each.message for each in inspect(str(path)).findings if each.code == code and each.level is Level.UNSAFE]


def poked(path: Path, data: bytes, offset: int, form: str, *values: int) -> Path:
    changed = bytearray(data)
    struct.pack_into(form, changed, offset, *values)
    path.write_bytes(changed)
    return path


# ---- qcow


def qcow(path: Path) -> tuple[bytes, QcowHeader, list[int]]:
    """An image with three L2 tables, and compressed clusters in the first; its header, and where the tables lie."""
    driver = MemoryDriver(SUBJECTS["qcow"].create(8 * MIB, {}))
    with SUBJECTS["qcow"].attach(driver) as node:
        for offset in (0, 2 * MIB, 5 * MIB):
            node.pwrite(offset, b"data" * 4096)
        pack = node.driver.compressor()  # type: ignore[attr-defined]
        for offset in (MIB, MIB + 4096):
            node.driver.pwrite_compressed(offset, pack(bytes(4096)))  # type: ignore[attr-defined]
    data = bytes(driver.data)
    path.write_bytes(data)
    header = QcowHeader.unpack(data)
    l1 = struct.unpack_from(f">{header.l1_entries}Q", data, header.l1_table_offset)
    return data, header, [table for table in l1 if table]


def test_entries_of_qcow_on_metadata_or_on_another_cluster_are_unsafe(tmp_path: Path) -> None:
    path = tmp_path / "image"
    data, header, (first, second, _) = qcow(path)
    assert inspect(str(path)).findings == ()
    (cluster,) = struct.unpack_from(">Q", data, first)
    (payload,) = struct.unpack_from(">Q", data, first + 8 * (MIB // 4096))
    size = payload & ((4095 << 51) | COMPRESSED)
    l1 = header.l1_table_offset
    for value, place in (
        (second, f"the L2 table at byte {second}"),
        (cluster, "another one's place"),
        (cluster + 1024, "a place across another one's"),
        (cluster - 3584, "a place across another one's"),
        (COMPRESSED | 4095 << 51 | second - 100, f"the L2 table at byte {second}"),
        (size | 20, "the header"),
        (size | l1 + 8, "the L1 table"),
    ):
        poked(path, data, first + 8 * 300, ">Q", value)
        assert found(path) == [f"Entry 300 of the L2 table at byte {first} points to {place}: {value:#x}"]


def test_l2_tables_of_qcow_that_are_named_twice_or_lie_nowhere_are_unsafe(tmp_path: Path) -> None:
    path = tmp_path / "image"
    data, header, (first, second, _) = qcow(path)
    for value, said in (
        (first, f"The L2 table at byte {first} and the L2 table at byte {first} lie on each other, at byte {first}"),
        (second + 512, f"The L2 table at byte {second + 512} and the L2 table at byte {second} lie on each other, at"),
    ):
        (message,) = found(poked(path, data, header.l1_table_offset + 8 * 3, ">Q", value))
        assert message.startswith(said)
    for value in (len(data), 1 << 60, 513):
        assert found(poked(path, data, header.l1_table_offset + 8 * 3, ">Q", value), "truncated")


def test_a_backing_files_name_that_a_guest_of_qcow_can_write_is_unsafe(tmp_path: Path) -> None:
    path = tmp_path / "image"
    data, _, (first, second, _) = qcow(path)
    (cluster,) = struct.unpack_from(">Q", data, first)
    data = data[:cluster] + bytes(4096) + data[cluster + 4096 :]
    for offset, said in (
        (cluster, f"Entry 0 of the L2 table at byte {first} points to the backing file's name: {cluster:#x}"),
        (cluster + 4000, f"Entry 0 of the L2 table at byte {first} points to the backing file's name: {cluster:#x}"),
        (second + 2048, f"The backing file's name and the L2 table at byte {second} lie on each other, at byte"),
        (40, "The backing file's name and the header lie on each other, at byte 40"),
    ):
        poked(path, data, 8, ">QI", offset, 64)
        (message,) = found(path)
        assert message.startswith(said)
    end = len(data)
    poked(path, data + bytes(64), 8, ">QI", end, 64)
    assert found(path, "malformed") == [f"The name of a backing file, which the header says is at byte {end}, is empty"]


# ---- vmdk


def sparse(options: dict[str, str | bool | int]) -> bytes:
    driver = MemoryDriver(vmdk.create(80 * MIB, options))
    with vmdk.attach(driver) as node:
        for offset in (0, 3 * vmdk.GRAIN, 40 * MIB):
            node.pwrite(offset, random.Random(offset).randbytes(vmdk.GRAIN))
    return bytes(driver.data)


def cowd() -> bytes:
    """An extent that has its descriptor inside, as no known program makes it, and every program reads it."""
    data = vmdk.cowd(3 * 4096 * 8, {0: b"a", 1: b"b", 5000: b"c"})
    text = vmdk.descriptor("vmfsSparse", 'RW 64 VMFSSPARSE "image"').encode()
    return data[:512] + text.ljust(3 * 512, b"\0") + data[4 * 512 :]


def tables(data: bytes, directory: int, count: int) -> list[int]:
    return [entry * 512 for entry in struct.unpack_from(f"<{count}I", data, directory)]


@pytest.mark.parametrize("options", [{}, {"zeroed_grain": True}, {"subformat": "streamOptimized"}])
def test_grains_of_vmdk_on_metadata_or_on_another_one_are_unsafe(
    tmp_path: Path, options: dict[str, str | bool | int]
) -> None:
    path = tmp_path / "disk.vmdk"
    data = sparse(options)
    path.write_bytes(data)
    assert inspect(str(path)).findings == ()
    rgd, gd = vmdk.directories(data)
    first, second, _ = tables(data, gd, 3)
    copy = tables(data, rgd, 3)[1]
    (grain,) = struct.unpack_from("<I", data, first)
    wrong = [
        (second // 512, f"the grain table at byte {second}"),
        (copy // 512, f"the grain table at byte {copy}"),
        (gd // 512, "the grain directory"),
        (rgd // 512, "the redundant grain directory"),
        (2, "the descriptor"),
        (grain, "another one's place"),
    ]
    if "subformat" not in options:
        wrong += [
            (grain + 5, "a place across another one's"),
            (grain - 3, "the metadata"),
        ]
    if not options:
        wrong.append((1, "the descriptor"))
    for value, place in wrong:
        poked(path, data, first + 4 * 200, "<I", value)
        assert found(path) == [f"Entry 200 of the grain table at byte {first} points to {place}: {value:#x}"]


@pytest.mark.parametrize("place", [(0, 0), (60, 1)])
def test_grains_of_vmdk_on_the_descriptor_that_is_read_are_unsafe(tmp_path: Path, place: tuple[int, int]) -> None:
    """Whatever the header says of its place; behind its end there may be grains."""
    path = tmp_path / "disk.vmdk"
    data = sparse({"subformat": "streamOptimized"})
    assert data.index(b"\0", 512) < 1024
    data = vmdk.patched(vmdk.patched(data, SparseHeader.OFFSET["descriptor_offset"], "2Q", *place), 64, "Q", 0)
    first = tables(data, vmdk.directories(data)[1], 3)[0]
    for sector, is_wrong in ((1, True), (2, False)):
        poked(path, data, first + 4 * 200, "<I", sector)
        said = [f"Entry 200 of the grain table at byte {first} points to the descriptor: {sector:#x}"]
        assert found(path) == (said if is_wrong else [])


def test_grain_tables_of_vmdk_on_each_other_or_beyond_the_end_are_unsafe(tmp_path: Path) -> None:
    path = tmp_path / "disk.vmdk"
    data = sparse({})
    rgd, gd = vmdk.directories(data)
    second = tables(data, gd, 3)[1]
    for place, value in ((gd, second), (rgd, second), (gd, gd), (gd, rgd), (gd, 512), (gd, 0x800)):
        (message,) = found(poked(path, data, place, "<I", value // 512))
        assert "lie on each other, at byte" in message
    assert found(poked(path, data, gd, "<I", len(data) // 512), "truncated")


def test_grains_of_cowd_on_metadata_or_on_another_one_are_unsafe(tmp_path: Path) -> None:
    path = tmp_path / "image"
    data = cowd()
    path.write_bytes(data)
    assert found(path) == []
    first, second, *_ = tables(data, 4 * 512, 3)
    (grain,) = struct.unpack_from("<I", data, first)
    for value, place in (
        (grain, "another one's place"),
        (second // 512, f"the grain table at byte {second}"),
        (4, "the grain directory"),
    ):
        poked(path, data, first + 4 * 9, "<I", value)
        assert found(path) == [f"Entry 9 of the grain table at byte {first} points to {place}: {value:#x}"]


# ---- vhdx


def test_blocks_of_vhdx_on_each_other_are_unsafe(tmp_path: Path) -> None:
    path = tmp_path / "image"
    data = fresh(10 * MIB, block_size=2 * MIB) + bytes(6 * MIB)
    present = BlockState.FULLY_PRESENT
    path.write_bytes(mapped(data, (0, FIRST + 4 * MIB | present), (1, FIRST | present), (2, FIRST + 2 * MIB | present)))
    assert inspect(str(path)).findings == ()
    for place, said in (
        (FIRST, "another one's place"),
        (FIRST - MIB, "a place across another one's"),
        (FIRST + MIB, "a place across another one's"),
    ):
        path.write_bytes(mapped(data, (1, FIRST | present), (3, place | present)))
        assert found(path) == [f"Entry 3 of the block table points to {said}: {place | present:#x}"]
    path.write_bytes(mapped(data, (1, LOG | present)))
    assert [each.code for each in inspect(str(path)).findings] == ["malformed"]


def test_sector_bitmaps_of_vhdx_on_blocks_or_on_each_other_are_unsafe(tmp_path: Path) -> None:
    """Of a disk of 17 blocks of 256 MiB: each 16 are followed by an entry of a bitmap, which has 1 MiB."""
    path = tmp_path / "image"
    size = 256 * MIB
    data = fresh(17 * size, block_size=size) + bytes(MIB)
    present, partial = BlockState.FULLY_PRESENT, BlockState.PARTIALLY_PRESENT
    far = FIRST + size
    for bitmap, is_wrong in ((far, False), (FIRST, True), (far - MIB, True)):
        image = mapped(data, (3, FIRST | partial), (16, bitmap | present), (17, far + MIB | present))
        with path.open("wb") as file:
            file.write(image)
            file.truncate(far + MIB + size)
        said = [f"Entry 16 of the block table points to another one's place: {bitmap | present:#x}"]
        assert found(path) == (said if is_wrong else [])


# ---- vpc


def vpc(path: Path, size: int = 8 * MIB) -> bytes:
    images.make(path, size, format="vpc", options="force_size=on")
    images.write(path, "vpc", dict.fromkeys(range(0, size, 3 * MIB), b"data"))
    return path.read_bytes()


@pytest.mark.parametrize("kind", [DiskType.DYNAMIC, DiskType.DIFFERENCING])
def test_blocks_of_vpc_on_each_other_are_unsafe(tmp_path: Path, kind: DiskType) -> None:
    path = tmp_path / "image"
    data = vpc(path)
    footer = sealed_vpc(Footer.unpack(data).replace(disk_type=kind))
    data = footer + data[512:-512] + footer
    path.write_bytes(data)
    assert found(path) == []
    table = DynamicHeader.unpack(data, 512).table_offset
    (block,) = struct.unpack_from(">I", data, table)
    for value, said in (
        (block, "another one's place"),
        (block + 1, "a place across another one's"),
        (block + 4000, "a place across another one's"),
    ):
        (message,) = found(poked(path, data, table + 4 * 3, ">I", value))
        assert message.endswith(f" points to {said}: {value:#x}") or message.startswith("Entry 1 of")
    path.write_bytes(data[:table] + b"\0\0\0\0" + data[table + 4 :])
    assert found(path, "malformed")


@pytest.mark.parametrize("kind", [DiskType.FIXED, DiskType.DIFFERENCING])
def test_footers_of_vpc_that_do_not_agree_on_the_kind_are_unsafe(tmp_path: Path, kind: DiskType) -> None:
    path = tmp_path / "image"
    data = vpc(path)
    path.write_bytes(data[:-512] + sealed_vpc(Footer.unpack(data).replace(disk_type=kind)))
    (message,) = found(path, "ambiguous")
    assert message == f"The footer at the start says disk type 3, and the one at the end {int(kind)}"


# ---- bounds


def scattered(places: list[int]) -> list[int]:
    """The places, so many as a power of two, in an order in which none follows the one before it."""
    return [places[index * 12345 % len(places)] for index in range(len(places))]


def large_qcow(path: Path) -> None:
    """An L1 table of a MiB, whose tables lead to places in no order."""
    header = QcowHeader.unpack(SUBJECTS["qcow"].create(MIB, {}))
    count, l2 = 1 << 17, 8 << 9
    header = header.replace(size=count * 512 * 4096, l1_table_offset=4096)
    start = 4 * MIB
    with path.open("wb") as file:
        file.write(header.pack())
        file.seek(4096)
        file.write(struct.pack(f">{count}Q", *range(start, start + count * l2, l2)))
        file.seek(start)
        places = [(1 << 30) + 4096 * index for index in range(1 << 18)]
        places = scattered(places)
        entries = struct.pack(f">{len(places)}Q", *places)
        for _ in range(10):
            file.write(entries)
        file.truncate(1 << 40)


def large_vmdk(path: Path) -> None:
    """Half a million grain tables, of which the first megabytes are full."""
    count = 1 << 19
    header = SparseHeader.unpack(vmdk.create(MIB, {}))
    text = vmdk.create(MIB, {})[512 : 512 + 20 * 512]
    start = 8 * MIB
    header = header.replace(capacity=count * 512 * 128, gd_offset=4096, rgd_offset=8192, flags=1, grain_offset=1 << 21)
    with path.open("wb") as file:
        file.write(header.pack().ljust(512, b"\0") + text)
        file.seek(4096 * 512)
        file.write(struct.pack(f"<{count}I", *range(start // 512, start // 512 + 4 * count, 4)))
        file.seek(start)
        places = [(1 << 21) + 128 * index for index in range(1 << 19)]
        entries = struct.pack(f"<{len(places)}I", *scattered(places))
        for _ in range(8):
            file.write(entries)
        file.truncate(1 << 40)


def large_vpc(path: Path) -> None:
    """A table of 4 MiB, whose blocks lie in no order."""
    count = 1 << 20
    footer = sealed_vpc(Footer.unpack(vpc(path)).replace(current_size=MIB))
    header = DynamicHeader.unpack(path.read_bytes(), 512).replace(max_table_entries=count, block_size=512)
    places = scattered([(1 << 20) + 2 * index for index in range(count)])
    with path.open("wb") as file:
        file.write(footer + sealed_vpc(header))
        file.seek(header.table_offset)
        file.write(struct.pack(f">{count}I", *places[:-1], places[5]))
        file.truncate((1 << 33) + (1 << 30))


@pytest.mark.parametrize(("more", "places"), [(0, 0), (1, 16 * MIB + 1)])
def test_a_file_of_as_many_places_as_are_looked_at_is_looked_at_whole(tmp_path: Path, more: int, places: int) -> None:
    path = tmp_path / "disk.vmdk"
    path.write_bytes(sparse({}))
    with path.open("r+b") as file:
        file.truncate((1 << 40) + more)
    said = [each.message for each in inspect(str(path)).findings if each.code == "large-table"]
    assert said == ([f"Of {places} places in the file only {16 * MIB} were looked at"] if more else [])


@pytest.mark.parametrize("make", [large_qcow, large_vmdk, large_vpc])
def test_tables_that_take_long_are_looked_at_within_bounds(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "image"
    make(path)
    result = bounded(lambda: inspect(str(path)), memory=128 * MIB, seconds=60)
    codes = {each.code for each in result.findings}
    assert codes & {"overlap", "large-table"}
    assert "malformed" not in codes


def test_blocks_that_follow_one_another_are_looked_at_as_one(tmp_path: Path) -> None:
    """So that a sound image of a terabyte takes no longer than reading its tables: a row is held against the others."""
    path = tmp_path / "image"
    images.make(path, 64 * MIB, format="qcow")
    images.write(path, "qcow", {0: bytes(range(256)) * (8 * MIB // 256)})
    assert found(path) == []
    data = path.read_bytes()
    header = QcowHeader.unpack(data)
    tables = struct.unpack_from(f">{header.l1_entries}Q", data, header.l1_table_offset)
    (start,) = struct.unpack_from(">Q", data, tables[0])
    row = [start + 4096 * index for index in range(1, 513)]
    (message,) = found(poked(path, data, tables[1], ">512Q", *row))
    assert message == f"Entry 0 of the L2 table at byte {tables[1]} points to another one's place: {row[0]:#x}"

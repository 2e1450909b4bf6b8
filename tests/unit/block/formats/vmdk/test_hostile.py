"""VMware disks that lie, end early or lead astray, and the largest there are."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from hostel.block.formats.vmdk.layout import SparseHeader
from hostel.block.powers import Repair
from hostel.errors import BlockError, CorruptImage, UnsupportedFeature
from support import vmdk
from support.bounded import MIB, bounded
from support.memory import MemoryDriver
from support.vmdk import GRAIN, SECTOR, attach, directories, make, opened, patched


@pytest.mark.parametrize(
    ("offset", "form", "value", "message"),
    [
        (12, "Q", 2**62, "L1 size too big"),
        (20, "Q", 2**64 - 1, "Invalid granularity, image may be corrupt"),
        (20, "Q", 0, "L1 entry size is invalid"),
        (44, "I", 2**32 - 1, "L2 table size too big"),
        (44, "I", 0, "L1 entry size is invalid"),
        (48, "Q", 2**40, "Could not read l1 backup table"),
        (48, "Q", 2**64 - 1, "Could not read l1 backup table"),
        (56, "Q", 2**40, "Could not read l1 table"),
        (56, "Q", 2**63, "Could not read l1 table"),
        (64, "Q", 2**20, "File truncated, expecting at least 536870912 bytes"),
    ],
)
def test_a_header_that_lies_is_refused(offset: int, form: str, value: int, message: str) -> None:
    with pytest.raises(BlockError, match=message):
        attach(MemoryDriver(patched(vmdk.create(64 << 20), offset, form, value)), read_only=True)


def test_a_directory_of_millions_is_walked_in_bounded_memory_and_time(tmp_path: Path) -> None:
    # The largest that is read: a pebibyte, and a hole where the directories are.
    path = tmp_path / "d.vmdk"
    data = patched(vmdk.create(MIB), 12, "Q", 1 << 41)
    path.write_bytes(patched(data, 48, "4Q", 0, 1 << 20, 0, 128))
    with path.open("r+b") as file:
        file.truncate((1 << 29) + (128 << 20))

    def walk() -> tuple[int, int, int]:
        with opened(path) as node:
            result = node.driver.check(Repair.NOTHING, lambda line: None)  # type: ignore[attr-defined]
            return node.length, len(list(node.extents())), result.corruptions

    assert bounded(walk, memory=64 * MIB, seconds=60) == (1 << 50, 1, 0)


def test_grain_tables_that_lie_on_each_other_are_not_read_for_each_entry(tmp_path: Path) -> None:
    path = tmp_path / "d.vmdk"
    data = patched(vmdk.create(MIB), 12, "Q", 1 << 41)
    path.write_bytes(patched(data, 48, "4Q", 0, 1 << 20, 1 << 19, 128))
    with path.open("r+b") as file:
        file.seek(1 << 29)
        file.write(struct.pack("<I", 4096) * (1 << 20))
        file.truncate((1 << 29) + (128 << 20))

    def write() -> str:
        with opened(path, read_only=False) as node, pytest.raises(CorruptImage) as caught:
            node.pwrite(0, b"n")
        return str(caught.value)

    assert "lie on each other" in bounded(write, memory=64 * MIB, seconds=60)


def test_zeroing_terabytes_holds_back_few_tables(tmp_path: Path) -> None:
    path = tmp_path / "d.vmdk"
    make(path, 1 << 40, "zeroed_grain=on")

    def zero() -> int:
        with opened(path, read_only=False) as node:
            node.write_zeroes(0, 1 << 38)
            return node.length

    assert bounded(zero, memory=64 * MIB, seconds=120) == 1 << 40
    with opened(path) as node:
        assert [(each.length, bool(each.status)) for each in node.extents(0, 1 << 39)] == [
            (1 << 38, True),
            (1 << 38, False),
        ]


def test_a_file_that_was_cut_off_is_no_empty_disk() -> None:
    driver = MemoryDriver(vmdk.create(MIB))
    with attach(driver) as node:
        node.pwrite(0, b"a" * (3 * GRAIN))
    del driver.data[-GRAIN:]
    with attach(driver, read_only=True) as node:
        assert node.read(0, 2 * GRAIN) == b"a" * (2 * GRAIN)
        with pytest.raises(CorruptImage, match="lies beyond the file's end"):
            node.read(0, 3 * GRAIN)
        lines: list[str] = []
        assert node.driver.check(Repair.NOTHING, lines.append).corruptions == 1  # type: ignore[attr-defined]
        assert lines == ["ERROR: cluster offset for sector 256 points after EOF"]


@pytest.mark.parametrize("sector", [0, 1, 15, 21, 2**32 - 1])
@pytest.mark.parametrize("which", [0, 1])
def test_a_directory_that_leads_anywhere_makes_no_write_go_there(which: int, sector: int) -> None:
    data = vmdk.create(MIB)
    driver = MemoryDriver(patched(data, directories(data)[which], "I", sector))
    before = bytes(driver.data)
    with attach(driver) as node:
        with pytest.raises(BlockError, match=r"grain table|lies beyond the file|lies in the metadata"):
            node.pwrite(0, b"x" * GRAIN)
        node.flush()
    assert [at for at in range(len(before)) if driver.data[at : at + 1] != before[at : at + 1] and at >= 1024] == []
    assert driver.data[:SECTOR] == before[:SECTOR]


@pytest.mark.parametrize("which", [0, 1])
def test_a_table_among_the_grains_is_not_written(which: int) -> None:
    """The redundant one was written over the guest's data, and the other is what the guest has written."""
    driver = MemoryDriver(vmdk.create(MIB))
    with attach(driver) as node:
        node.pwrite(0, b"a" * (3 * GRAIN))
    rgd, gd = directories(driver.data)
    first = struct.unpack_from("<I", driver.data, struct.unpack_from("<I", driver.data, gd)[0] * SECTOR)[0]
    data = patched(bytes(driver.data), (rgd, gd)[which], "I", first + 20)
    if which:
        data = patched(data, (first + 20) * SECTOR, "128I", *[0] * 128)
    driver = MemoryDriver(data)
    with attach(driver) as node:
        with pytest.raises(CorruptImage, match=r"The grain table 0 of .* cannot be at offset"):
            node.pwrite(5 * GRAIN, b"x" * GRAIN)
        assert node.driver.check(Repair.NOTHING, lambda line: None).corruptions  # type: ignore[attr-defined]
    assert driver.data[first * SECTOR :] == data[first * SECTOR :]


def test_a_stream_may_have_its_tables_behind_its_grains() -> None:
    """As programs make it that write the header last, without a footer."""
    driver = MemoryDriver(vmdk.create(MIB, {"subformat": "streamOptimized"}))
    with attach(driver) as node:
        node.pwrite(0, b"a" * GRAIN)
    data = bytes(driver.data)
    places = [struct.unpack_from("<I", data, each)[0] * SECTOR for each in directories(data)]
    for directory, place in zip(directories(data), places, strict=True):
        moved = len(data) // SECTOR
        data = patched(data, directory, "I", moved) + data[place : place + 4 * SECTOR]
    driver = MemoryDriver(data)
    with attach(driver) as node:
        node.pwrite(GRAIN, b"b" * GRAIN)
        assert node.read(0, 2 * GRAIN) == b"a" * GRAIN + b"b" * GRAIN
        assert not node.driver.check(Repair.NOTHING, print).corruptions  # type: ignore[attr-defined]


def assert_first_grain_is_kept_off(data: bytes) -> None:
    """The first grain of a disk lies in the metadata: it is not written, and a check tells of it alone."""
    with attach(MemoryDriver(data)) as node:
        with pytest.raises(CorruptImage, match="lies in the metadata"):
            node.pwrite(0, b"x")
        lines: list[str] = []
        node.driver.check(Repair.NOTHING, lines.append)  # type: ignore[attr-defined]
        assert lines == ["ERROR: cluster offset for sector 0 points into the metadata"]


def test_a_grain_in_the_metadata_is_not_written() -> None:
    data = vmdk.create(MIB)
    first = struct.unpack_from("<I", data, directories(data)[1])[0] * SECTOR
    assert_first_grain_is_kept_off(patched(data, first, "I", 1))


def hiding(data: bytes, *, place: tuple[int, int] = (0, 0), length: int = 0) -> bytes:
    """A disk whose header says wrongly where the descriptor is, in sectors, and nothing of where grains begin.

    The text is filled up to ``length`` bytes.
    """
    text = data[SECTOR : data.index(b"\0", SECTOR)]
    data = data[:SECTOR] + text.ljust(max(length, len(text)), b"\n") + data[SECTOR + max(length, len(text)) :]
    return patched(patched(data, SparseHeader.OFFSET["descriptor_offset"], "2Q", *place), 64, "Q", 0)


@pytest.mark.parametrize("place", [(0, 0), (40, 2)])
@pytest.mark.parametrize(("length", "last"), [(0, 1), (511, 1), (512, 2), (10239, 20), (10240, 20)])
def test_a_grain_in_the_descriptor_is_not_written_wherever_the_header_says_that_it_is(
    length: int, last: int, place: tuple[int, int]
) -> None:
    """It is read from the second sector, up to its NUL: a guest that writes there names files."""
    data = hiding(vmdk.create(MIB), place=place, length=length)
    first = struct.unpack_from("<I", data, directories(data)[1])[0] * SECTOR
    for sector in (1, last):
        assert_first_grain_is_kept_off(patched(data, first, "I", sector))
    with attach(MemoryDriver(patched(data, first, "I", last + 1))) as node:
        node.pwrite(0, b"x")


@pytest.mark.parametrize("which", [0, 1])
def test_a_table_in_the_descriptor_is_not_written_wherever_the_header_says_that_it_is(which: int) -> None:
    data = hiding(vmdk.create(16 * MIB), length=1000)
    driver = MemoryDriver(patched(data, directories(data)[which], "I", 2))
    with attach(driver) as node, pytest.raises(CorruptImage, match="lies over other metadata"):
        node.pwrite(200 * GRAIN, b"x")  # its entry is behind the text
    assert driver.data[1024 : 512 + 10240] == data[1024 : 512 + 10240]


def test_a_grain_that_is_used_twice_is_found() -> None:
    driver = MemoryDriver(vmdk.create(MIB))
    with attach(driver) as node:
        node.pwrite(0, b"a" * GRAIN)
    first = struct.unpack_from("<I", driver.data, directories(driver.data)[1])[0] * SECTOR
    driver.data[first + 4 : first + 8] = driver.data[first : first + 4]
    with attach(driver, read_only=True) as node:
        lines: list[str] = []
        assert node.driver.check(Repair.NOTHING, lines.append).corruptions == 1  # type: ignore[attr-defined]
        assert lines == ["ERROR: cluster offset for sector 128 is that of another sector too"]


@pytest.mark.parametrize("shift", [-127, -1, 1, 127])
def test_a_grain_that_has_some_bytes_of_another_is_found(shift: int) -> None:
    driver = MemoryDriver(vmdk.create(MIB))
    with attach(driver) as node:
        node.pwrite(3 * GRAIN, b"b" * GRAIN)
        node.pwrite(0, b"a" * GRAIN)
    first = struct.unpack_from("<I", driver.data, directories(driver.data)[1])[0] * SECTOR
    (place,) = struct.unpack_from("<I", driver.data, first)
    driver.data += bytes(GRAIN)
    driver = MemoryDriver(patched(patched(bytes(driver.data), first + 12, "I", 0), first + 20, "I", place + shift))
    with attach(driver, read_only=True) as node:
        lines: list[str] = []
        assert node.driver.check(Repair.NOTHING, lines.append).corruptions == 1  # type: ignore[attr-defined]
        assert lines == ["ERROR: cluster offset for sector 640 is that of another sector too"]


@pytest.mark.parametrize("subformat", ["monolithicSparse", "streamOptimized"])
def test_grains_that_lie_far_from_each_other_are_checked_in_little_memory(tmp_path: Path, subformat: str) -> None:
    """A file of holes, each entry of which leads 2 MiB behind the one before; it took 16 KiB for each of them."""
    path = tmp_path / "d.vmdk"
    make(path, 4 << 30, f"subformat={subformat}")
    tables, step = 128, 4096
    with path.open("r+b") as file:
        _, directory = directories(file.read(SECTOR))
        file.seek(directory)
        places = struct.unpack(f"<{tables}I", file.read(4 * tables))
        for index, place in enumerate(places):
            file.seek(place * SECTOR)
            file.write(struct.pack("<512I", *(step * (index * 512 + at + 1) for at in range(512))))
        file.seek(places[-1] * SECTOR + 4 * 511)
        file.write(struct.pack("<I", step))
        file.truncate(step * SECTOR * (tables * 512 + 2))

    def check() -> list[str]:
        lines: list[str] = []
        with opened(path) as node:
            node.driver.check(Repair.NOTHING, lines.append)  # type: ignore[attr-defined]
        return lines

    said = f"ERROR: cluster offset for sector {(tables * 512 - 1) * 128} is that of another sector too"
    assert bounded(check, memory=96 * MIB) == [said]


def test_nothing_is_repaired() -> None:
    with attach(MemoryDriver(vmdk.create(MIB))) as node, pytest.raises(UnsupportedFeature):
        node.driver.check(Repair.ALL, lambda line: None)  # type: ignore[attr-defined]


def test_a_file_is_full_at_two_tib() -> None:
    class Far(MemoryDriver):
        """A file whose end is far away."""

        far = (2 << 40) - 3 * GRAIN

        @property
        def length(self) -> int:
            return self.far

        def pwrite(self, offset: int, data: memoryview) -> None:
            if offset < MIB:
                super().pwrite(offset, data)
            else:
                self.far = max(self.far, offset + len(data))

    driver = Far(vmdk.create(MIB))
    with attach(driver) as node:
        node.pwrite(0, b"a" * (3 * GRAIN))
        with pytest.raises(BlockError, match="ends at 2 TiB") as caught:
            node.pwrite(5 * GRAIN, b"a")
        assert caught.value.errno == 28

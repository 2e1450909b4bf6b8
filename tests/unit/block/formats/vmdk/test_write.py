"""Writing VMware disks: grains, both grain directories, zeroed grains, and the order on the disk."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.extent import Status
from hostel.block.powers import Repair
from support import images, vmdk
from support.bounded import MIB
from support.memory import Kind, LoggedDriver, MemoryDriver
from support.vmdk import GRAIN, SECTOR, SUBFORMATS, attach, descriptor, directories, make, opened, write_files


def tables(data: bytes | bytearray, directory: int) -> list[bytes | bytearray]:
    """All grain tables of a directory, of a disk of less than 32 MiB a table."""
    capacity = struct.unpack_from("<Q", data, 12)[0]
    count = -(-capacity // (512 * 128))
    places = struct.unpack_from(f"<{count}I", data, directory)
    return [data[place * SECTOR : place * SECTOR + 2048] for place in places]


@pytest.mark.parametrize("options", ["", "zeroed_grain=on", *(f"subformat={each}" for each in SUBFORMATS[1:4])])
def test_what_is_written_is_read(tmp_path: Path, options: str) -> None:
    rng = random.Random(options)
    size = 40 * GRAIN + 7 * SECTOR
    path, disk = tmp_path / "d.vmdk", bytearray(size)
    make(path, size, options)
    for _ in range(4):
        pieces = images.scatter(rng, size, 12)
        images.write(path, "vmdk", pieces)
        images.apply(disk, pieces)
        assert images.content(path, "vmdk") == disk
    with graph.open(str(path), "vmdk", check=True) as node:
        lines: list[str] = []
        assert not node.driver.check(Repair.NOTHING, lines.append).corruptions, lines  # type: ignore[attr-defined]


@pytest.mark.parametrize("zeroed", [False, True])
def test_both_grain_directories_lead_to_the_same_grains(zeroed: bool) -> None:
    rng = random.Random("both")
    driver = MemoryDriver(vmdk.create(70 << 20, {"zeroed_grain": zeroed}))
    with attach(driver) as node:
        for _ in range(30):
            offset = rng.randrange(node.length - 200_000)
            node.pwrite(offset, rng.randbytes(rng.randrange(1, 200_000)))
            node.write_zeroes(rng.randrange(node.length - 200_000), 150_000)
    redundant, first = directories(driver.data)
    assert tables(driver.data, redundant) == tables(driver.data, first)
    assert any(any(table) for table in tables(driver.data, first))


def test_a_redundant_table_that_was_left_behind_is_made_equal_by_the_next_write() -> None:
    driver = MemoryDriver(vmdk.create(MIB))
    with attach(driver) as node:
        node.pwrite(0, b"a" * GRAIN)
    redundant, first = directories(driver.data)
    place = struct.unpack_from("<I", driver.data, redundant)[0] * SECTOR
    driver.data[place : place + 2048] = bytes(2048)
    with attach(driver) as node:
        node.pwrite(5 * GRAIN, b"b")
        assert node.read(0, 1) == b"a"
    assert tables(driver.data, redundant) == tables(driver.data, first)


def test_a_zeroed_grain_takes_no_space_and_hides_what_was_there() -> None:
    driver = MemoryDriver(vmdk.create(MIB, {"zeroed_grain": True}))
    with attach(driver) as node:
        node.pwrite(0, b"a" * 3 * GRAIN)
        length = len(driver.data)
        node.write_zeroes(100, 3 * GRAIN - 100)
        assert len(driver.data) == length
        assert node.read(0, 3 * GRAIN) == b"a" * 100 + bytes(3 * GRAIN - 100)
        node.write_zeroes(GRAIN + 7, 1000)
        assert len(driver.data) == length
        kinds = [(each.offset, each.status) for each in node.extents(GRAIN, 2 * GRAIN)]
        assert kinds == [(GRAIN, Status.ZERO | Status.ALLOCATED)]
        node.pwrite(GRAIN + 5, b"b")
        assert node.read(GRAIN, 10) == b"\0\0\0\0\0b\0\0\0\0"
    with attach(driver, read_only=True) as node:
        assert node.read(0, 3 * GRAIN) == b"a" * 100 + bytes(GRAIN - 95) + b"b" + bytes(2 * GRAIN - 6)


@pytest.mark.parametrize("zeroed", [False, True])
def test_zeroes_where_nothing_is_take_no_space(zeroed: bool) -> None:
    driver = MemoryDriver(vmdk.create(64 << 20, {"zeroed_grain": zeroed}))
    with attach(driver) as node:
        node.pwrite(5 * GRAIN, b"a" * GRAIN)
        length = len(driver.data)
        node.write_zeroes(100, 60 << 20)
        assert len(driver.data) == length
        assert not any(node.read(0, node.length))


def test_data_is_safe_before_a_table_points_to_it_and_the_copy_before_the_table_that_is_read() -> None:
    driver = LoggedDriver(vmdk.create(MIB))
    redundant, first = directories(driver.data)
    copy, table = (struct.unpack_from("<I", driver.data, place)[0] * SECTOR for place in (redundant, first))
    with attach(driver) as node:
        node.pwrite(GRAIN, b"d" * GRAIN)
        node.flush()
        log = [(entry.kind, entry.offset) for entry in driver.log]
    cid = driver.log[0]
    assert (cid.kind, cid.length) == (Kind.WRITE, 8)
    data = next(at for at, entry in enumerate(driver.log) if entry.length == GRAIN)
    last = {entry: at for at, entry in enumerate(log)}  # before the data there were zeroes, to have room
    places = [data, last[Kind.WRITE, copy], last[Kind.WRITE, table]]
    assert places == sorted(places)
    syncs = [at for at, entry in enumerate(driver.log) if entry.kind is Kind.FLUSH]
    assert 0 < syncs[0] < data < syncs[1] < places[1]
    assert syncs[-1] == len(log) - 1


def test_a_disk_that_is_only_read_is_not_changed(tmp_path: Path) -> None:
    for subformat in SUBFORMATS:
        make(tmp_path / f"{subformat}.vmdk", MIB, f"subformat={subformat}")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for path in [each for each in before if each.stem in SUBFORMATS]:
        for read_only in (True, False):
            with opened(path, read_only=read_only) as node:
                node.read(0, node.length)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("digits", ["1", "abc", "1234567", "FFFFFFFE"])
def test_the_first_write_changes_the_content_id_in_place(tmp_path: Path, digits: str) -> None:
    write_files(tmp_path, {"d": descriptor("vmfs", 'RW 8 VMFS "x"', cid=digits), "x": bytes(4096)})
    before = (tmp_path / "d").read_bytes()
    with opened(tmp_path / "d", read_only=False) as node:
        node.pwrite(0, b"a")
        changed = (tmp_path / "d").read_bytes()
        node.pwrite(1, b"a")
    after = (tmp_path / "d").read_bytes()
    assert after == changed != before
    place = before.index(b"\nCID=") + 5
    assert len(after) == len(before)
    assert before[:place] == after[:place]
    assert before[place + len(digits) :] == after[place + len(digits) :]
    assert int(after[place : place + len(digits)], 16) != int(digits, 16)

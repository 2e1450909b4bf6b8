"""Persistent dirty bitmaps."""

from __future__ import annotations

import errno
import re

import pytest

from hostel.block import notice
from hostel.block.formats.qcow2.bitmap_directory import Entry, Extension, entry_length
from hostel.block.powers import Repair
from hostel.errors import BlockError, CorruptImage
from support import qcow2
from support.memory import MemoryDriver


def test_an_image_of_no_bytes_gets_no_bitmap_since_none_could_read_it() -> None:
    driver = MemoryDriver(qcow2.create(0))
    with qcow2.attach(driver) as node, pytest.raises(BlockError, match="no bytes"):
        qcow2.driver_of(node).bitmap_add("b")
    driver = MemoryDriver(qcow2.create(1 << 20))
    with qcow2.attach(driver) as node:
        qcow2.driver_of(node).bitmap_add("b")
        with pytest.raises(BlockError, match="to 0 bytes"):
            node.resize(0)
        node.resize(512)
    with qcow2.attach(driver, read_only=True) as node:
        assert qcow2.driver_of(node).bitmap("b").size == 512


def broken(place: str, data: bytes) -> MemoryDriver:
    """An image with data and a bitmap ``b``, of which a field of the extension or of its entry is something else."""
    driver = MemoryDriver(qcow2.create(1 << 20))
    with qcow2.attach(driver) as node:
        node.pwrite(0, b"guest")
        qcow2.driver_of(node).bitmap_add("b")
    extension = driver.data.index(bytes.fromhex("2385287500000018")) + 8
    if place in Extension.OFFSET:
        at = extension + Extension.OFFSET[place]
    elif place == "length":
        at = extension - 4
    else:
        directory = Extension.unpack(driver.data, extension).directory_offset
        at = directory + (Entry.SIZE if place == "name" else Entry.OFFSET[place])
    driver.data[at : at + len(data)] = data
    return driver


BROKEN = [
    ("length", (20).to_bytes(4, "big"), "bitmaps_ext: Invalid extension length"),
    ("reserved", b"\1", "bitmaps_ext: Reserved field is not zero"),
    ("count", bytes(4), "found bitmaps extension with zero bitmaps"),
    ("count", b"\xff" * 4, "exceeding the QEMU supported maximum of 65535"),
    ("count", (2).to_bytes(4, "big"), "Less bitmaps found"),
    ("directory_size", bytes(8), "Requested bitmap directory size is zero"),
    ("directory_size", (64).to_bytes(8, "big"), "More bitmaps found"),
    ("directory_size", (8).to_bytes(8, "big"), "Broken bitmap directory"),
    ("directory_size", (1 << 40).to_bytes(8, "big"), "exceeds the maximum supported size"),
    ("directory_offset", (512).to_bytes(8, "big"), "invalid bitmap directory offset"),
    ("directory_offset", (1 << 62).to_bytes(8, "big"), "beyond the end of the file"),
    ("granularity_bits", b"\x3f", "Bitmap 'b' doesn't satisfy the constraints"),
    ("table_size", b"\xff" * 4, "Bitmap 'b' doesn't satisfy the constraints"),
    ("name_length", bytes(2), "Bitmap '' doesn't satisfy the constraints"),
    ("name_length", b"\xff\xff", "Broken bitmap directory"),
    ("extra_data_size", b"\xff" * 4, "Broken bitmap directory"),
    ("extra_data_size", (1).to_bytes(4, "big"), "Bitmap extra data is not supported"),
]


@pytest.mark.parametrize(("place", "data", "message"), BROKEN, ids=[f"{each[0]}-{each[2][:20]}" for each in BROKEN])
def test_an_image_whose_bitmaps_cannot_be_read_is_not_opened_and_repair_gives_only_them_up(
    place: str, data: bytes, message: str
) -> None:
    driver = broken(place, data)
    before = bytes(driver.data)
    for read_only in (True, False):
        with pytest.raises(CorruptImage, match=re.escape(message)):
            qcow2.attach(driver, read_only=read_only)
    with pytest.raises(CorruptImage, match="cannot be checked") as caught:
        qcow2.check(driver.data)
    assert "check -r all" in str(caught.value.hint)
    with pytest.raises(CorruptImage, match="cannot be checked"):
        qcow2.check(driver.data, Repair.LEAKS)
    assert driver.data == before
    result, lines, repaired = qcow2.check(driver.data, Repair.ALL)
    assert lines[0].startswith("Giving all bitmaps up: ")
    assert (result.corruptions, result.corruptions_fixed, result.leaks) == (0, 1, 0)
    assert qcow2.check(repaired)[1] == []
    with qcow2.attach(MemoryDriver(repaired)) as node:
        assert node.read(0, 5) == b"guest"
        assert qcow2.driver_of(node).bitmaps() == []


def test_two_bitmaps_of_one_name_are_refused() -> None:
    driver = MemoryDriver(qcow2.create(1 << 20))
    with qcow2.attach(driver) as node:
        qcow2.driver_of(node).bitmap_add("b")
        qcow2.driver_of(node).bitmap_add("c")
    extension = Extension.unpack(driver.data, driver.data.index(bytes.fromhex("2385287500000018")) + 8)
    second = extension.directory_offset + entry_length(1) + Entry.SIZE
    assert driver.data[second : second + 1] == b"c"
    driver.data[second : second + 1] = b"b"
    with pytest.raises(CorruptImage, match="Bitmap already exists: b"):
        qcow2.attach(driver)


def test_a_bitmap_with_a_bad_table_entry_is_found_by_check_and_given_up() -> None:
    driver = broken("granularity_bits", b"\x10")
    entry = Entry.unpack(
        driver.data, Extension.unpack(driver.data, driver.data.index(b"\x23\x85\x28\x75") + 8).directory_offset
    )
    driver.data[entry.table_offset : entry.table_offset + 8] = (0x123).to_bytes(8, "big")
    with pytest.raises(CorruptImage, match="bad entry 0x123"):
        qcow2.check(driver.data)
    _, lines, repaired = qcow2.check(driver.data, Repair.ALL)
    assert "bad entry 0x123" in lines[0]
    assert qcow2.check(repaired)[1] == []


@pytest.mark.parametrize("version", [2, 3])
def test_bitmaps_that_somebody_wrote_past_are_told_of_and_go_with_the_next_write(version: int) -> None:
    driver = broken("count", (1).to_bytes(4, "big"))
    driver.data[88:96] = bytes(8)  # autoclear_features
    if version == 2:
        # The extensions of a version 2 header begin at byte 72.
        driver.data[4:8] = (2).to_bytes(4, "big")
        at = driver.data.index(bytes.fromhex("2385287500000018"))
        driver.data[72:112] = driver.data[at : at + 32] + bytes(8)
    told: list[str] = []
    with notice.listening(told.append), qcow2.attach(driver) as node:
        node.pwrite(0, b"x")
    assert [line.split()[0] for line in told] == ["warning:", "Some"]
    assert ("v2 image" in told[0]) == (version == 2)
    with notice.listening(told.append):
        qcow2.attach(driver).close()
    assert len(told) == 2


def test_a_check_tells_of_bitmaps_that_somebody_wrote_past_until_they_are_repaired() -> None:
    driver = broken("count", (1).to_bytes(4, "big"))
    driver.data[88:96] = bytes(8)  # autoclear_features
    told: list[str] = []
    with notice.listening(told.append):
        result, _, _ = qcow2.check(driver.data)
        repaired, _, data = qcow2.check(driver.data, Repair.LEAKS)
    assert [line.split()[0] for line in told] == ["warning:", "Some"] * 2
    assert (result.leaks, repaired.leaks_fixed) == (2, 2)
    with notice.listening(told.append):
        assert qcow2.check(data)[0].leaks == 0
    assert len(told) == 4


def test_a_disk_does_not_outgrow_its_bitmap_which_nobody_could_read_then() -> None:
    most = 2 << 40  # bytes that a bitmap of 512 MiB tells of, a sector a bit
    driver = MemoryDriver(qcow2.create(1 << 20))
    with qcow2.attach(driver) as node:
        qcow2.driver_of(node).bitmap_add("fine", 512)
        with pytest.raises(BlockError, match="Too much space will be occupied by the bitmap 'fine'") as caught:
            node.resize(most + 512)
        assert caught.value.errno == errno.EFBIG
        node.pwrite(0, b"x")
    with qcow2.attach(driver) as node:
        assert node.length == 1 << 20
        assert qcow2.driver_of(node).bitmap("fine").is_dirty(0)
        qcow2.driver_of(node).bitmap_remove("fine")
        qcow2.driver_of(node).bitmap_add("coarse", 1 << 20)
        node.resize(most + 512)
    with qcow2.attach(driver, read_only=True) as node:
        assert qcow2.driver_of(node).bitmap("coarse").size == most + 512

"""The format cow: overlays in all the layouts that there were, and images that are refused."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.driver import FormatInfo
from hostel.block.extent import Status
from hostel.block.formats import cow as format_module
from hostel.block.probe import detect
from hostel.block.trust import Trust
from hostel.errors import CorruptImage, InvalidImage, ReadOnly, UnsupportedFeature, UntrustedReference
from support.old_images import cow

RANDOM = random.Random("cow")
KINDS = ["qemu", "qemu 32", "1", "1 big", "1 padded", "2", "2 padded", "3", "3 padded"]
SECTORS = 400
BASE = RANDOM.randbytes(SECTORS * 512)
OWN = {number: RANDOM.randbytes(512) for number in (0, 1, 7, 8, 9, 15, 63, 200, *range(300, 350), SECTORS - 1)}


def written(base: bytes) -> bytes:
    disk = bytearray(base)
    for number, data in OWN.items():
        disk[number * 512 : number * 512 + 512] = data
    return bytes(disk)


def write(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


@pytest.mark.parametrize("kind", KINDS)
def test_own_sectors_and_those_of_the_backing_file_are_read(tmp_path: Path, kind: str) -> None:
    write(tmp_path / "base", BASE)
    with graph.open(write(tmp_path / "a", cow(OWN, len(BASE), kind=kind, backing=b"base"))) as node:
        assert (node.format, node.length) == ("cow", len(BASE))
        assert node.driver.info() == FormatInfo(dirty=None)
        disk = written(BASE)
        assert node.read(0, len(disk)) == disk
        for _ in range(50):
            start = RANDOM.randrange(len(disk))
            length = RANDOM.randrange(1, len(disk) - start + 1)
            assert node.read(start, length) == disk[start : start + length]


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_without_a_backing_file_all_else_is_zeroes(tmp_path: Path, kind: str) -> None:
    with graph.open(write(tmp_path / "a", cow(OWN, len(BASE), kind=kind))) as node:
        assert node.backing is None
        assert node.read(0, len(BASE)) == written(bytes(len(BASE)))


def test_bitmaps_of_several_pages_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(format_module, "_PAGE", 3)
    with graph.open(write(tmp_path / "a", cow(OWN, len(BASE)))) as node:
        assert node.read(0, len(BASE)) == written(bytes(len(BASE)))


def test_bits_may_stand_for_larger_sectors(tmp_path: Path) -> None:
    own = {number: RANDOM.randbytes(4096) for number in (1, 5)}
    with graph.open(write(tmp_path / "a", cow(own, 16 * 4096, kind="3", sector=4096))) as node:
        assert node.read(4096, 8192) == own[1] + bytes(4096)
        assert node.read(5 * 4096 + 10, 20) == own[5][10:30]


def test_a_disk_whose_bitmap_ends_within_a_byte_is_read(tmp_path: Path) -> None:
    for kind in ("qemu", "3"):
        with graph.open(write(tmp_path / "a", cow({10: b"x" * 512}, 11 * 512 + 100, kind=kind))) as node:
            assert node.length == 11 * 512
            assert node.read(10 * 512, 512) == b"x" * 512


def test_own_sectors_have_their_place_in_the_file(tmp_path: Path) -> None:
    with graph.open(write(tmp_path / "a", cow(OWN, len(BASE)))) as node:
        found = list(node.extents())
        assert sum(each.length for each in found) == len(BASE)
        own = [each for each in found if each.status & Status.ALLOCATED]
        assert [(each.offset // 512, each.length // 512) for each in own][-2:] == [(300, 50), (SECTORS - 1, 1)]
        assert own[-1].host_offset == 1536 + (SECTORS - 1) * 512
        assert all(each.host_offset is None for each in found if not each.status)


def test_the_backing_file_of_user_mode_linux_is_raw_whatever_it_holds(tmp_path: Path) -> None:
    write(tmp_path / "base", b"QFI\xfb\0\0\0\3".ljust(len(BASE), b"\0"))
    with graph.open(write(tmp_path / "a", cow({}, len(BASE), kind="2", backing=b"base"))) as node:
        assert node.backing is not None
        assert (node.backing.format, node.backing.probed) == ("raw", False)
        assert node.read(0, 4) == b"QFI\xfb"


def test_an_untrusted_image_makes_us_open_no_backing_file(tmp_path: Path) -> None:
    with pytest.raises(UntrustedReference, match="/etc/shadow"):
        graph.open(write(tmp_path / "a", cow({}, 4096, backing=b"/etc/shadow")), "cow", trust=Trust.UNTRUSTED)


def test_it_cannot_be_opened_for_writing(tmp_path: Path) -> None:
    with pytest.raises(ReadOnly, match=r"^Image is read-only$"):
        graph.open(write(tmp_path / "a", cow(OWN, len(BASE))), "cow", read_only=False)


def test_it_is_told_by_magic_and_version() -> None:
    assert all(detect(cow({}, 4096, kind=kind)[:512], "a") == "cow" for kind in KINDS)
    assert detect(b"OOOM\0\0\0\4".ljust(512, b"\0"), "a") == "raw"
    assert detect(b"MOOO\2\0\0\0".ljust(512, b"\0"), "a") == "raw"


def poked(kind: str, offset: int, layout: str, *values: int) -> bytes:
    image = bytearray(cow({}, 64 * 512, kind=kind))
    struct.pack_into(layout, image, offset, *values)
    return bytes(image)


HOSTILE = {
    "nothing": (b"", "Image not in COW format"),
    "no sectors": (poked("3", 20, ">I", 0), "The size of a sector makes no sense"),
    "sectors of gigabytes": (poked("3", 20, ">I", 1 << 30), "The size of a sector makes no sense"),
    "sectors of odd length": (poked("1", 276, "<I", 1000), "The size of a sector makes no sense"),
    "a name without an end": (cow({}, 4096, kind="3", backing=b"x" * 4096), "the backing file's name has no end"),
    "a disk of exabytes": (poked("qemu", 1040, ">Q", 1 << 63), "A disk of 9223372036854775808 bytes is too large"),
    "a disk of terabytes": (poked("qemu", 1040, ">Q", 1 << 50), "The bitmap lies beyond the end of the file"),
    "no alignment": (poked("3", 24, ">I", 0), "An alignment of 0 bytes makes no sense"),
    "an alignment of gigabytes": (poked("3", 24, ">I", 0xFFFFFFFF), "An alignment of 4294967295 bytes makes no sense"),
    "a bitmap cut off": (cow({}, 64 * 512, cut=64 * 512 + 480), "The bitmap lies beyond the end of the file"),
    "a bitmap in the disk": (cow({}, (232 * 8 + 3) * 512, kind="1"), "The bitmap's last byte is the disk's first"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_image_is_refused(tmp_path: Path, case: str) -> None:
    data, message = HOSTILE[case]
    with pytest.raises(InvalidImage, match=message):
        graph.open(write(tmp_path / "a", data), "cow")


def test_versions_and_formats_that_nobody_knows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFeature, match="COW version 4 is not supported"):
        graph.open(write(tmp_path / "a", poked("3", 4, ">I", 4)), "cow")
    with pytest.raises(UnsupportedFeature, match="Sectors are not marked by a bitmap"):
        graph.open(write(tmp_path / "a", poked("3", 28, ">I", 1)), "cow")


def test_a_sector_beyond_the_end_of_the_file_cannot_be_read(tmp_path: Path) -> None:
    with graph.open(write(tmp_path / "a", cow(OWN, len(BASE), cut=600)), "cow") as node:
        assert node.read(349 * 512, 512) == OWN[349]
        with pytest.raises(CorruptImage, match="lies beyond the end of the file"):
            node.read((SECTORS - 1) * 512, 512)

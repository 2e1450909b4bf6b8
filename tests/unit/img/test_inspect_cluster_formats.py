"""What ``inspect`` says of qed, qcow and parallels images: sound, marked and hostile ones, and what lies in them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from hostel.block.formats.parallels.layout import Header as ParallelsHeader
from hostel.block.formats.qcow import Header as QcowHeader
from hostel.block.formats.qed.layout import Header as QedHeader
from hostel.codec.record import Record
from hostel.img.inspect import inspect
from hostel.img.inspection import Inspection, Level
from support.bounded import MIB, bounded
from support.format_hostile import mutations
from support.format_subjects import SUBJECTS
from support.memory import MemoryDriver

FORMATS = ("parallels", "qcow", "qed")
HEADERS: dict[str, type[Record]] = {"parallels": ParallelsHeader, "qcow": QcowHeader, "qed": QedHeader}
# Cases of the corpus of CVEs, and fields that overflow: what is poked, and a word of the reason.
HOSTILE = [
    ("parallels", {"tracks": 0}, "Zero sectors per track"),  # CVE-2014-0142
    ("parallels", {"tracks": 0xFFFFFFFF}, "Too big cluster"),
    ("parallels", {"bat_entries": 0xFFFFFFFF}, "Catalog too large"),  # CVE-2014-0143
    ("parallels", {"nb_sectors": 2**64 - 1}, "too big"),
    ("qcow", {"l2_bits": 255}, "L2 table size"),  # CVE-2014-0222
    ("qcow", {"cluster_bits": 64}, "Cluster size"),
    ("qcow", {"size": 2**64 - 512}, "too large"),  # CVE-2014-0223
    ("qcow", {"l1_table_offset": 1 << 63}, "L1 table"),
    ("qcow", {"crypt_method": 9}, "encryption"),
    ("qed", {"cluster_size": 0}, "cluster size"),
    ("qed", {"table_size": 0xFFFFFFFF}, "table size"),
    ("qed", {"image_size": 2**64 - 512}, "image size"),
    ("qed", {"l1_table_offset": 2**64 - 4096}, "table offset"),
    ("qed", {"features": 1 << 60}, "features"),
]


def look(folder: Path, data: bytes, expected: str | None = None) -> Inspection:
    image = folder / "image"
    image.write_bytes(data)
    found = inspect(str(image), expected=expected)
    assert image.read_bytes() == data, "looking changed the image"
    return found


def codes(found: Inspection, level: Level) -> list[str]:
    return [each.code for each in found.findings if each.level is level]


def poked(format: str, data: bytes, fields: dict[str, int]) -> bytes:
    header = HEADERS[format]
    return header.unpack(data).replace(**fields).pack() + data[header.SIZE :]


@pytest.mark.parametrize("format", FORMATS)
def test_a_sound_image_is_safe_and_its_disk_is_looked_at(tmp_path: Path, format: str) -> None:
    driver = MemoryDriver(SUBJECTS[format].create(MIB, {}))
    with SUBJECTS[format].attach(driver) as node:
        node.pwrite(32769, b"CD001")
    found = look(tmp_path, bytes(driver.data), format)
    assert (found.format, found.formats, found.virtual_size) == (format, (format,), MIB)
    assert found.findings == ()
    assert found.content is not None
    assert found.content.filesystem == "iso9660"


@pytest.mark.parametrize("format", FORMATS)
def test_an_image_inside_the_disk_is_unsafe(tmp_path: Path, format: str) -> None:
    driver = MemoryDriver(SUBJECTS[format].create(MIB, {}))
    with SUBJECTS[format].attach(driver) as node:
        node.pwrite(0, SUBJECTS["qed"].create(MIB, {})[:4096])
    assert codes(look(tmp_path, bytes(driver.data)), Level.UNSAFE) == ["nested-format"]


@pytest.mark.parametrize(("format", "fields", "reason"), HOSTILE)
def test_a_header_that_lies_is_unsafe_and_said_why(
    tmp_path: Path, format: str, fields: dict[str, int], reason: str
) -> None:
    data = poked(format, SUBJECTS[format].create(MIB, {}), fields)
    found = bounded(lambda: look(tmp_path, data, format), memory=64 * MIB, seconds=10)
    unsafe = [each for each in found.findings if each.level is Level.UNSAFE]
    assert [each.code for each in unsafe] in (["malformed"], ["unsupported-feature"])
    assert reason in unsafe[0].message


def test_a_marked_qed_image_is_a_warning(tmp_path: Path) -> None:
    data = poked("qed", SUBJECTS["qed"].create(MIB, {}), {"features": 2})
    assert codes(look(tmp_path, data), Level.WARNING) == ["dirty"]


def test_an_encrypted_qcow_image_is_told(tmp_path: Path) -> None:
    data = poked("qcow", SUBJECTS["qcow"].create(MIB, {}), {"crypt_method": 1})
    assert look(tmp_path, data).encrypted


@pytest.mark.parametrize("format", FORMATS)
def test_random_damage_is_looked_at_in_bounded_memory(tmp_path: Path, format: str) -> None:
    def survive() -> int:
        for history, data in mutations(format, random.Random(f"inspect {format}"), 60):
            try:
                look(tmp_path, data)
            except BaseException as error:
                error.add_note(history)
                raise
        return 60

    assert bounded(survive, seconds=60) == 60

"""VMDK descriptors: what is written, probed, and refused for what its lines say."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostel.block.formats.vmdk import descriptor as descriptors
from hostel.block.formats.vmdk.driver import VmdkDriver
from hostel.errors import InvalidImage, UnsupportedFeature
from support.bounded import MIB
from support.vmdk import descriptor, opened, refusal, write_files


def test_a_descriptor_that_is_written_is_read_back() -> None:
    line = descriptors.ExtentLine(MIB, "FLAT", "a b-flat.vmdk", 0)
    text = descriptors.compose(
        MIB, "monolithicFlat", [line], cid=0xABC, parent_cid=7, parent="the/parent.vmdk", adapter="lsilogic"
    )
    found = descriptors.parse(text)
    assert (found.cid, found.parent_cid, found.parent) == (0xABC, 7, "the/parent.vmdk")
    assert descriptors.parse_create_type(text) == "monolithicFlat"
    assert descriptors.parse_extents(text) == [line]
    assert descriptors.is_descriptor(text)
    assert b'ddb.geometry.heads = "255"' in text


@pytest.mark.parametrize("value", ['a"b', "a\nb", "a\0b"])
def test_a_name_that_no_descriptor_can_hold_is_refused(value: str) -> None:
    with pytest.raises(InvalidImage, match="cannot hold"):
        descriptors.compose(MIB, "monolithicFlat", [], cid=1, parent=value)


def test_so_many_extents_of_one_file_that_their_locks_take_minutes_are_refused() -> None:
    """The descriptor of 1 MiB has room for 40,000."""
    line = 'RW 8 FLAT "one" 0'
    assert len(descriptors.parse_extents(descriptor("twoGbMaxExtentFlat", *[line] * 1024).encode())) == 1024
    with pytest.raises(UnsupportedFeature, match="1025 extents lie in 'one', and may be 1024 of one file"):
        descriptors.parse_extents(descriptor("twoGbMaxExtentFlat", *[line] * 1025).encode())
    several = [f'RW 8 FLAT "{index}" 0' for index in range(5000)]
    assert len(descriptors.parse_extents(descriptor("twoGbMaxExtentFlat", *several).encode())) == 5000


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        (b"version=1\n", True),
        (b"# c\n   \n#\r\nversion=3\r\n", True),
        (b" \r\nversion=2\n", True),
        (b"\nversion=1\n", False),
        (b"version=4\n", False),
        (b"version=1", False),
        (b"# a comment without an end", False),
        (b"  version=1\n", False),
        (b"", False),
    ],
)
def test_probing_takes_what_qemu_takes_for_a_descriptor(text: bytes, is_one: bool) -> None:
    assert descriptors.is_descriptor(text) is is_one
    assert bool(VmdkDriver.probe(text, "x")) is is_one


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('RW 12582912 VMFS "dummy.vmdk" 1', 'Invalid extent line: RW 12582912 VMFS "dummy.vmdk" 1'),
        ('RW 10 FLAT "x"', 'Invalid extent line: RW 10 FLAT "x"'),
        ('RW 10 FLAT "x" -1', 'Invalid extent line: RW 10 FLAT "x" -1'),
        ('RW 10 SPARSE "x" 0', 'Invalid extent line: RW 10 SPARSE "x" 0'),
        ('RW 0 FLAT "x" 0', 'Invalid extent line: RW 0 FLAT "x" 0'),
        ('RW -5 FLAT "x" 0', 'Invalid extent line: RW -5 FLAT "x" 0'),
        ('RW 10 VMFS "x"1', 'Invalid extent line: RW 10 VMFS "x"1'),
        ('RW 10 VMFS "x"y', 'Invalid extent line: RW 10 VMFS "x"y'),
        ('RW 10 "x"', 'Invalid extent line: RW 10 "x"'),
        ("RW 10", "Invalid extent line: RW 10"),
        ('RW 10 FLAT "" 0', 'Invalid extent line: RW 10 FLAT "" 0'),
        (f'RW 10 SPARSE "{"x" * 512}"', f'Invalid extent line: RW 10 SPARSE "{"x" * 512}"'),
        ('RW 99999999999999999999 FLAT "x" 0', 'Invalid extent line: RW 99999999999999999999 FLAT "x" 0'),
        ('RW 18014398509481984 FLAT "x" 0', 'Invalid extent line: RW 18014398509481984 FLAT "x" 0'),
        ('RW 10 VMFSRDM "x"', "Unsupported extent type 'VMFSRDM'"),
        ("RW 10 ZERO", "Unsupported extent type 'ZERO'"),
        ('RDONLY 10 FLAT "x" 0', "Unsupported extent access 'RDONLY'"),
        ('NOACCESS 10 FLAT "x" 0', "Unsupported extent access 'NOACCESS'"),
        ("", "The VMDK descriptor names no extent"),
    ],
)
def test_an_extent_line_that_cannot_be_followed_is_refused(tmp_path: Path, line: str, message: str) -> None:
    write_files(tmp_path, {"d": descriptor("vmfs", line), "x": bytes(MIB)})
    assert refusal(tmp_path / "d") == message


def test_a_line_that_is_broken_in_two_counts_as_it_does_for_qemu(tmp_path: Path) -> None:
    write_files(tmp_path, {"d": descriptor("vmfs", 'RW\n 8\n VMFS "x"'), "x": b"a" * 4096})
    with opened(tmp_path / "d") as node:
        assert node.read(0, node.length) == b"a" * 4096


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version=1\n", "invalid VMDK image descriptor"),
        (descriptor("custom", 'RW 8 VMFS "x"'), "Unsupported image type 'custom'"),
        (descriptor("vmfs", 'RW 8 VMFS "x"').replace("\nCID=", "\nxCID="), "Invalid argument"),
        (descriptor("vmfs", 'RW 8 VMFS "x"').replace("parentCID=", "parent="), "Invalid argument"),
        (descriptor("vmfs", 'RW 8 VMFS "x"', hint="x").replace('Hint="x"', "Hint=x"), "Invalid argument"),
        ("ver", "File is too small, not a valid image"),
    ],
)
def test_a_descriptor_that_lacks_something_is_refused(tmp_path: Path, text: str, message: str) -> None:
    write_files(tmp_path, {"d": text, "x": bytes(4096)})
    assert refusal(tmp_path / "d").removeprefix(f"Could not open '{tmp_path / 'd'}': ") == message
